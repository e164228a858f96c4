"""Segments as subtitles, read back by rules of their own."""

import re
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.listen.outputs import Segment
from auricle.listen.subtitles import SubtitleFormat, subtitles

CUE = r"(\d\d+):([0-5]\d):([0-5]\d)[.,](\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d)[.,](\d{3})"
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


@st.composite
def rows(draw: st.DrawFn) -> list[Segment]:
    """Segments one after the other, some without text or length."""
    at, found = 0.0, []
    for text in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6)):
        stop = at + draw(st.sampled_from([0.0, 0.25, 9.9999, 3600.5]))
        found.append(Segment(start_s=at, stop_s=stop, text=text))
        at = stop
    return found


def parse(text: str, kind: str) -> list[tuple[float, float, str]]:
    """Start, end and text of the cues: blocks between empty lines."""
    blocks = [block.split("\n") for block in text.removesuffix("\n").split("\n\n") if block]
    if kind == "vtt":
        assert blocks.pop(0) == ["WEBVTT"]
    cues = []
    for number, block in enumerate(blocks, 1):
        if kind == "srt":
            assert block.pop(0) == str(number)
        times, said = block
        matched = re.fullmatch(CUE, times)
        assert matched is not None and ("," in times) == (kind == "srt")
        numbers = [int(part) for part in matched.groups()]
        start, stop = (3600 * h + 60 * m + s + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
        if kind == "vtt":
            assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", said)
            said = re.sub("&amp;|&lt;|&gt;", lambda found: ENTITIES[found[0]], said)
        cues.append((start, stop, said))
    return cues


@pytest.mark.parametrize("kind", ["srt", "vtt"])
@given(segments=rows())
def test_cues_hold_times_and_texts(segments: list[Segment], kind: str) -> None:
    kept = [each for each in segments if each.text.split() and each.stop_s > each.start_s]
    cues = parse(subtitles(segments, cast(SubtitleFormat, kind)), kind)
    assert [cue[2] for cue in cues] == [
        " ".join(each.text.split()) if kind == "vtt" else " ".join(each.text.split()).replace("-->", "->")
        for each in kept
    ]
    times = [(cue[0], cue[1]) for cue in cues]
    assert times == [pytest.approx((each.start_s, each.stop_s), abs=5.1e-4) for each in kept]


def test_another_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected srt or vtt"):
        subtitles([], "ass")  # type: ignore[arg-type]
