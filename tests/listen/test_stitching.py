import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.listen.stitching import join_words, seam, stitch


def joined(texts: list[str], overlaps: list[bool]) -> str:
    return join_words(stitch(texts, overlaps))


@pytest.mark.parametrize(
    ("left", "right", "whole"),
    [
        ("we went down to the", "down to the river", "we went down to the river"),
        ("we went down to the riv", "own to the river today", "we went down to the river today"),
        ("One, two, three.", "Three four", "One, two, three. four"),
        ("one two", "three four", "one two three four"),
        ("no no", "no no no", "no no no"),
        ("", "late words", "late words"),
        ("early words", "", "early words"),
        ("今天天气很好", "很好我们走吧", "今天天气很好我们走吧"),
    ],
)
def test_words_of_the_overlap_are_written_once(left: str, right: str, whole: str) -> None:
    assert joined([left, right], [False, True]) == whole


def test_without_an_overlap_nothing_is_taken_for_a_repeat() -> None:
    assert stitch(["no no", "no no no"], [False, False]) == ["no no", "no no no"]


@given(
    words=st.lists(st.integers(0, 10_000).map(str), min_size=8, max_size=120, unique=True),
    length=st.integers(6, 15),
    shared=st.integers(1, 3),
)
@settings(max_examples=60)
def test_windows_over_words_give_them_back(words: list[str], length: int, shared: int) -> None:
    texts = [" ".join(words[at : at + length]) for at in range(0, len(words), length - shared)]
    assert joined(texts, [False] + [True] * (len(texts) - 1)) == " ".join(words)


def test_broken_words_at_the_cuts_do_no_harm() -> None:
    words = [f"word{number}" for number in range(200)]
    rng = random.Random(0)
    texts, at = [], 0
    while at < len(words):
        piece = words[at : at + 20]
        if at:
            piece[0] = piece[0][2:]  # its start was cut off
        if at + 20 < len(words):
            piece[-1] = piece[-1][: rng.randint(1, 4)]
        texts.append(" ".join(piece))
        at += 16
    assert joined(texts, [False] + [True] * (len(texts) - 1)) == " ".join(words)


@given(left=st.lists(st.sampled_from("abc"), max_size=60), right=st.lists(st.sampled_from("abc"), max_size=60))
def test_a_seam_lies_in_both(left: list[str], right: list[str]) -> None:
    keep, skip = seam(left, right)
    assert 0 <= keep <= len(left) and 0 <= skip <= len(right)
    assert (keep, skip) == (len(left), 0) or left[keep - 1] == right[skip - 1]
