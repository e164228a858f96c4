import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError, MissingExtra
from auricle.metrics import normalisers
from auricle.metrics.chinese_text import cardinal, read_aloud, read_aloud_compat
from auricle.metrics.intervals import (
    bootstrap_fold_means,
    bootstrap_mean,
    bootstrap_statistics,
    bootstrap_sums,
    proportion_interval,
    ratio,
    wilson_interval,
)
from auricle.metrics.normalisers import tokens
from auricle.metrics.word_errors import TranscriptPair, edit_distance, error_rates

FEW = st.lists(st.sampled_from("abc"), max_size=70)


@given(FEW, FEW)
def test_distance_by_bits_is_the_distance(reference: list[str], hypothesis: list[str]) -> None:
    distance = pytest.importorskip("rapidfuzz.distance.Levenshtein").distance
    assert edit_distance(reference, hypothesis) == distance(reference, hypothesis)


def test_an_empty_answer_is_deletions_and_words_from_nowhere_are_insertions() -> None:
    rows = [
        TranscriptPair("satu dua", "", "id"),
        TranscriptPair("", "tiga", "id"),
        TranscriptPair("satu dua", "satu dua", "id"),
    ]
    strict, compat = (error_rates(rows, rule=rule, rounds=20) for rule in ("strict", "compat"))
    assert strict.total.value == 3 / 4 and strict.total.n == 3 and (strict.empty, strict.left_out) == (1, 0)
    assert compat.total.value == 0 and compat.total.n == 1 and (compat.empty, compat.left_out) == (1, 2)
    assert [row.errors for row in strict.rows] == [2, 1, 0]
    with pytest.raises(DataError, match="of 2 rows none has words"):
        error_rates(rows[:2], rule="compat")


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
    assert tokens("สวัสดี", "th", rule="compat") == ["สว", "สด"]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Selamat <|id|> pagi, [tertawa] (ya)", "id", ["selamat", "pagi"]),
        ("L’été c'est fini", "fr", ["lété", "cest", "fini"]),
        ("東京タワー、３階", "ja", list("東京タワー3階")),
        ("我有２个，1,000元（笑）", "zh", list("我有二个一千元")),
        ("两百〇五", "zh", list("二百零五")),
        ("हिन्दी भाषा", "hi", ["हिन्दी", "भाषा"]),
    ],
)
def test_strict_tokens(text: str, language: str, expected: list[str]) -> None:
    assert tokens(text, language) == expected


def test_strict_tokens_of_english_keep_signs_that_are_read() -> None:
    pytest.importorskip("whisper_normalizer")
    assert tokens("It costs $5.50, that's 50%!", "en") == ["it", "costs", "$5.50", "that", "is", "50%"]


def test_strict_tokens_of_cantonese() -> None:
    pytest.importorskip("zhconv")
    assert tokens("我哋去飲茶！", "yue") == list("我哋去饮茶")


def test_mixed_speech_counts_characters_and_words() -> None:
    assert tokens("我用 Python 写code。", "zh", unit="mixed") == ["我", "用", "python", "写", "code"]
    assert tokens("我用 Python", "zh", unit="character") == list("我用python")


@pytest.mark.parametrize("language", ["", "English", "<|en|>", "e"])
def test_a_language_that_is_none(language: str) -> None:
    with pytest.raises(DataError, match="expected an ISO 639 code"):
        tokens("text", language)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, normaliser, kind, words in (
        ("whisper_normalizer.english", normalisers.english, MissingExtra, r"auricle\[evaluate\]"),
        ("zhconv", normalisers.simplified, ConfigError, "pip install zhconv"),
    ):
        normaliser.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(kind, match=words):
            normaliser()
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("number", "said"),
    [("10", "十"), ("12", "十二"), ("110", "一百一十"), ("1001", "一千零一"), ("20000", "两万"), ("0.50", "零点五零")],
)
def test_quantities(number: str, said: str) -> None:
    assert cardinal(number) == said


def test_a_number_is_read_where_it_stands() -> None:
    assert read_aloud("共1,000,000元，圆周率3.1415926") == "共一百万元，圆周率三点一四一五九二六".replace("，", " ")
    # The first 6 of the text is in 76, which the released rule therefore breaks.
    assert read_aloud("85块976角6座") == "八十五块九百七十六角六座" and "七六角" in read_aloud_compat("85块976角6座")
    assert read_aloud("P2P在2024年3月5日打13812345678") == "P2P在二零二四年三月五日打一三八一二三四五六七八"


@given(st.text(alphabet="0123456789年月日元块%/.-个万ab二 ", max_size=25))
def test_any_text_can_be_read(text: str) -> None:
    for said in (read_aloud(text), read_aloud_compat(text)):
        assert not any(each in said for each in "%/.-") and not any(each.isdecimal() for each in said.replace("2", ""))


def test_intervals_of_sums() -> None:
    rng = random.Random(0)
    values = [rng.random() for _ in range(60)]
    groups = [str(at // 3) for at in range(60)]
    own = bootstrap_mean(values, groups=groups, rounds=300)
    other = bootstrap_fold_means(values, [0] * 60, groups=groups, rounds=300)
    assert own.value == pytest.approx(other.value) and own.n == 60
    assert own.low < own.value < own.high
    assert (own.low, own.high) == pytest.approx((other.low, other.high), abs=1e-12)
    alone = bootstrap_mean(values, rounds=300)
    assert alone.high - alone.low != pytest.approx(own.high - own.low, abs=1e-6)
    both = bootstrap_statistics([[1.0, 2.0], [0.0, 2.0]], {"a": ratio, "b": lambda sums: sums[:, 0]}, rounds=50)
    assert both["a"] == bootstrap_sums([[1.0, 2.0], [0.0, 2.0]], ratio, rounds=50) and both["b"].value == 1.0
    assert proportion_interval([True, False, True]) == wilson_interval([True, False, True])
    assert proportion_interval([True, False], groups=["a", "a"], rounds=20)[:3] == (0.5, 0.5, 0.5)
    assert bootstrap_mean([]).n == 0
