from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from auricle.metrics.normalisers import split_words
from auricle.metrics.word_errors import edit_distance


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


def test_words_are_told_from_their_dress() -> None:
    assert split_words("  Mark, is GOING... to-see\n 'elephants'! ") == [
        "mark",
        "is",
        "going",
        "to",
        "see",
        "'elephants'",
    ]
    assert split_words("it's three o'clock.") == ["it's", "three", "o'clock"]
    assert split_words("...") == [] and split_words("") == []
