import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.listen.outputs import Segment
from auricle.listen.stitching import Stitcher, join_words, seam


def stitched(windows: list[list[Segment]], overlaps: list[bool]) -> list[Segment]:
    stitcher = Stitcher()
    found = [segment for window in map(stitcher.add, windows, overlaps) for segment in window]
    return found + stitcher.end()


def stitch(texts: list[str], overlaps: list[bool]) -> list[str]:
    windows = [[Segment(start_s=float(at), stop_s=at + 1.0, text=text)] for at, text in enumerate(texts)]
    return [segment.text for segment in stitched(windows, overlaps)]


def spoken(text: str, start_s: float) -> Segment:
    """A segment of words of half a second each, without pauses."""
    words = tuple(
        Segment(start_s=start_s + at / 2, stop_s=start_s + at / 2 + 0.5, text=f" {word}")
        for at, word in enumerate(text.split())
    )
    return Segment(start_s=words[0].start_s, stop_s=words[-1].stop_s, text=text, words=words)


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


def test_words_with_times_are_divided_where_both_windows_agree() -> None:
    left = [spoken("we went down", 0.0), spoken("to the river", 1.5)]
    right = [spoken("the river today.", 2.0), spoken("It was cold", 3.5)]
    found = stitched([left, right], [False, True])
    assert [segment.text for segment in found] == ["we went down", "to the river", "today.", "It was cold"]
    assert [(segment.start_s, segment.stop_s) for segment in found][1:3] == [(1.5, 3.0), (3.0, 3.5)]


def test_words_that_disagree_are_divided_by_their_times() -> None:
    found = stitched([[spoken("a b c d", 0.0)], [spoken("x y z", 1.0)]], [False, True])
    assert [segment.text for segment in found] == ["a b c", "y z"]  # c ends, and y starts, in the middle of 1-2 s
    apart = stitched([[spoken("a b", 0.0)], [spoken("x y", 1.0)]], [False, True])
    assert [segment.text for segment in apart] == ["a b", "x y"]


def test_a_segment_without_words_left_is_left_out_only_if_it_had_times() -> None:
    found = stitched([[spoken("one two", 0.0)], [spoken("one two", 0.0), spoken("three", 1.0)]], [False, True])
    assert [segment.text for segment in found] == ["one two", "three"]


@given(
    windows=st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 3), st.floats(0, 1)))),
        max_size=6,
    )
)
def test_times_of_words_never_go_back(windows: list[tuple[bool, list[tuple[str, float, float]]]]) -> None:
    made, at = [], 0.0
    for _, words in windows:
        own = []
        for text, pause, length in words:
            own.append(Segment(start_s=at + pause, stop_s=at + pause + length, text=f" {text}"))
            at += pause
        text = " ".join(word for word, _, _ in words)
        made.append(
            [Segment(start_s=own[0].start_s, stop_s=own[-1].stop_s, text=text, words=tuple(own))] if own else []
        )
        at -= 2.0
    found = stitched(made, [overlaps for overlaps, _ in windows])
    times = [time for segment in found for word in segment.words for time in (word.start_s, word.stop_s)]
    assert times == sorted(times)
    assert all(segment.text.split() == [word.text for word in segment.words] for segment in found)
