from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics import word_errors
from auricle.metrics.normalisers import tokens
from auricle.metrics.word_errors import TranscriptPair, edit_distance, error_rates


def brute_force(reference: str, hypothesis: str) -> int:
    """The definition, by recursion."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        kept = distance(i - 1, j - 1) + (reference[i - 1] != hypothesis[j - 1])
        return min(kept, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(hypothesis))


TEXT = st.text("abc", max_size=9)


@given(TEXT, TEXT, TEXT)
def test_edit_distance(one: str, two: str, three: str) -> None:
    assert edit_distance(one, two) == brute_force(one, two) == edit_distance(two, one)
    assert (edit_distance(one, two) == 0) == (one == two)
    assert edit_distance(one, three) <= edit_distance(one, two) + edit_distance(two, three)


def test_transcripts_are_compared_word_by_word() -> None:
    assert word_errors.wer_inv(["A b c"], ["a  B c"]) == 1.0
    assert word_errors.wer_inv(["a b c d", "e"], ["a b c d", ""]) == pytest.approx(0.8)
    assert word_errors.wer_inv(["stop."], ["stop"]) == 0.0  # punctuation is part of a word
    with pytest.raises(DataError, match="no words"):
        word_errors.wer_inv([" "], ["a"])
    with pytest.raises(DataError, match="one for each"):
        word_errors.wer_inv(["a"], [])


def test_empty_hypotheses_are_deletions_and_empty_references_insertions() -> None:
    rows = [
        TranscriptPair("satu dua", "", "id"),
        TranscriptPair("", "tiga", "id"),
        TranscriptPair("satu dua", "satu dua", "id"),
    ]
    strict, compat = (error_rates(rows, scoring_rule=rule, rounds=20) for rule in ("strict", "compat"))
    assert strict.total.value == 3 / 4 and strict.total.n == 3 and (strict.empty, strict.left_out) == (1, 0)
    assert compat.total.value == 0 and compat.total.n == 1 and (compat.empty, compat.left_out) == (1, 2)
    assert [row.errors for row in strict.rows] == [2, 1, 0]
    with pytest.raises(DataError, match="of 2 rows none has words"):
        error_rates(rows[:2], scoring_rule="compat")


def test_each_language_has_its_rate_and_unit() -> None:
    rows = [
        TranscriptPair("你好", "你号", "zh"),
        TranscriptPair("satu dua", "satu dua", "id"),
        TranscriptPair("สวัสดี", "สวัสดิ", "th"),
    ]
    rates = error_rates(rows, rounds=20)
    assert {name: score.value for name, score in rates.languages.items()} == {"id": 0, "zh": 1 / 2, "th": 1 / 6}
    assert rates.units == {"zh": "character", "id": "word", "th": "character"}
    assert rates.total.value == pytest.approx(2 / 10)
    # Marks are taken for spaces by the released rule, which so counts pieces of syllables.
    assert tokens("สวัสดี", "th", scoring_rule="compat") == ["สว", "สด"]
