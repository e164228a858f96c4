"""Segments as subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from auricle.errors import ConfigError
from auricle.listen.outputs import Segment

SubtitleFormat = Literal["srt", "vtt"]
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # what WebVTT would read as markup


def subtitles(segments: Iterable[Segment], kind: SubtitleFormat) -> str:
    """Write segments as subtitles; those without text, or without a length, are left out.

    Args:
        segments: in order, as a transcript or a dense description has them.
        kind: ``srt`` or ``vtt``.

    Raises:
        ConfigError: another format.

    Source: W3C "WebVTT"; SubRip as players read it: numbered cues, a comma before the milliseconds.
    """
    if kind not in ("srt", "vtt"):
        raise ConfigError(f"the format is {kind!r}; expected srt or vtt")
    cues: list[str] = []
    for segment in segments:
        text = " ".join(segment.text.split())  # an empty line would end the cue
        if not text or segment.stop_s - segment.start_s < 0.001:
            continue
        if kind == "vtt":
            text = "".join(_ESCAPED.get(c, c) for c in text)
        number = f"{len(cues) + 1}\n" if kind == "srt" else ""
        times = f"{_clock(segment.start_s, kind)} --> {_clock(segment.stop_s, kind)}"
        cues.append(f"{number}{times}\n{text.replace('-->', '->')}\n")
    return "\n".join((["WEBVTT\n"] if kind == "vtt" else []) + cues)


def _clock(seconds: float, kind: str) -> str:
    """``hh:mm:ss,mmm``; WebVTT has a dot."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{',' if kind == 'srt' else '.'}{thousandths:03d}"
