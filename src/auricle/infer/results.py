"""What a listener gives back."""

from __future__ import annotations

from dataclasses import dataclass

from auricle.infer.receipt import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """What was said of one stretch of a sound."""

    start_s: float
    stop_s: float
    text: str
    mean_logprob: float | None = None  # nats per token of the text; None where a rule gave it


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A caption of a whole sound; for long ones the distinct captions of its segments, in order."""

    caption: str
    segments: tuple[Segment, ...]
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer about a sound; for long ones the distinct answers of its segments, in order."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """The words spoken in a sound; empty where there are none."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
