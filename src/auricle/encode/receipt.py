"""Which parts of a source the model processed: the receipt of every result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

from auricle.audio.facts import Facts
from auricle.audio.resample import SAMPLE_RATE
from auricle.models.dasheng import SAMPLES_PER_TOKEN, num_tokens
from auricle.models.midashenglm import MIN_CLIP_SAMPLES, padded_length

SILENT_NOTE = "digital silence: nothing exceeds -90 dB of full scale"


class TokenGrid(Protocol):
    """How a model makes audio tokens of a waveform, see `write_receipt`."""

    @property
    def subsample_factor(self) -> int:
        """25 Hz frames per audio token."""

    @property
    def min_samples(self) -> int:
        """Length to which shorter windows are padded."""

    @property
    def whole_tokens(self) -> bool:
        """Whether windows are padded to whole audio tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of the source, s from its start."""

    start_s: float
    stop_s: float
    reason: str = ""  # why, where it was not read


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """Which seconds of one source were read, padded, skipped or truncated."""

    file: str
    duration_s: float | None  # of the source, as its header states or as decoded; None: unknown
    sample_rate: int  # Hz, of the source
    channels: int  # of the source; they were averaged, unless the notes say otherwise
    read: tuple[Span, ...]  # the windows given to the model, in order, without their overlaps
    overlaps: tuple[Span, ...] = ()  # in two neighbouring windows, so processed twice
    dropped: tuple[Span, ...] = ()  # less than one token, at the end of a window
    skipped: tuple[Span, ...] = ()  # not read, with reasons
    padded_s: float = 0.0  # zeros appended to reach one audio token; of Whisper, 30 s
    truncated: bool = False  # the source ends before its header says
    damaged: int = 0  # places that could not be decoded and are missing
    audio_tokens: int = 0  # tokens given to the decoder, 0.2 s each; from an encoder 0.04 s each
    notes: tuple[str, ...] = ()  # what else was found in the source, or done to it
    warnings: tuple[str, ...] = ()  # those of the notes on what a source should not have, or that was left out

    @property
    def complete(self) -> bool:
        """Whether the whole source was read; dropped ends of under one token do not count."""
        return not self.truncated and not self.skipped and not self.damaged

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as a JSON-able dict, with ``complete``; empty reasons are left out."""
        fields = asdict(self)
        for name in ("read", "overlaps", "dropped", "skipped"):
            fields[name] = [{key: value for key, value in span.items() if value != ""} for span in fields[name]]
        listed = {"notes": list(self.notes), "warnings": list(self.warnings)}
        return {**fields, **listed, "complete": self.complete}


def write_receipt(
    facts: Facts,
    num_samples: int,
    windows: Sequence[tuple[int, int]],
    *,
    given: Sequence[tuple[int, int]] | None = None,
    subsample_factor: int = 5,
    min_samples: int = MIN_CLIP_SAMPLES,
    whole_tokens: bool = False,
) -> Receipt:
    """State which parts of a source were given to a model in windows.

    Args:
        facts: of the source, after it was read.
        num_samples: of its 16 kHz waveform.
        windows: (start, stop) in samples at 16 kHz, ascending, without overlap; gaps between them are stated as
            skipped.
        given: (start, stop) in samples of the audio given to the model for each window, which may reach into its
            neighbours; None: the windows.
        subsample_factor: 25 Hz frames per audio token.
        min_samples: shorter windows were padded with zeros to this length.
        whole_tokens: whether windows were padded with zeros to whole audio tokens.
    """
    origin = facts.start_s
    given = windows if given is None else given
    read, dropped, tokens, padding = [], [], 0, 0
    for (start, stop), (first, end) in zip(windows, given, strict=True):
        length = max(end - first, min_samples)
        if whole_tokens:
            length = padded_length(length, subsample_factor, whole_tokens=True)
        count = num_tokens(length) // subsample_factor
        covered = min(stop, first + count * subsample_factor * SAMPLES_PER_TOKEN)
        read.append(_span(origin, start, covered))
        if covered < stop:
            dropped.append(_span(origin, covered, stop, "shorter than one token"))
        tokens += count
        padding += length - (end - first)
    shared = [(after[0], before[1]) for before, after in pairwise(given) if after[0] < before[1]]
    return Receipt(
        file=facts.name,
        duration_s=_seconds(facts.duration_s),
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        read=tuple(read),
        overlaps=tuple(_span(origin, *span) for span in shared),
        dropped=tuple(dropped),
        skipped=tuple(_skipped(facts, num_samples, windows)),
        padded_s=round(padding / SAMPLE_RATE, 4),
        truncated=facts.truncated,
        damaged=facts.damaged,
        audio_tokens=tokens,
        notes=tuple(_notes(facts)),
        warnings=tuple(_warnings(facts)),
    )


def _skipped(facts: Facts, num_samples: int, windows: Sequence[tuple[int, int]]) -> list[Span]:
    edges = [0, *(edge for window in windows for edge in window), num_samples]
    gaps = [
        _span(facts.start_s, stop, start, "not given to the model")
        for stop, start in zip(edges[::2], edges[1::2], strict=True)
        if start > stop
    ]
    missing = (facts.duration_s or 0.0) - facts.stop_s
    if facts.truncated and missing > 1 / SAMPLE_RATE:
        reason = "the source ends before its header says it should"
        gaps.append(Span(start_s=round(facts.stop_s, 4), stop_s=round(facts.stop_s + missing, 4), reason=reason))
    return gaps


def _notes(facts: Facts) -> list[str]:
    notes = []
    if facts.clipped:
        notes.append(f"{facts.clipped:.2%} of the samples are at full scale")
    if facts.silent:
        notes.append(SILENT_NOTE)
    return [*notes, *_warnings(facts)]


def _warnings(facts: Facts) -> list[str]:
    replaced = [f"{facts.non_finite} samples that were not finite were replaced by 0"] if facts.non_finite else []
    return [*replaced, *facts.notes]


def _span(origin_s: float, start: int, stop: int, reason: str = "") -> Span:
    return Span(
        start_s=round(origin_s + start / SAMPLE_RATE, 4),
        stop_s=round(origin_s + stop / SAMPLE_RATE, 4),
        reason=reason,
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
