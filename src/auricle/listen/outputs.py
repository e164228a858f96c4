"""What a listener gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auricle.encode.receipt import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """What was said of one stretch of a sound."""

    start_s: float
    stop_s: float
    text: str
    mean_logprob: float | None = None  # nats per token of the text; None where a rule gave it
    no_speech_logprob: float | None = None  # nats of the answer "no speech", where it was asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A caption of a whole sound; for long ones the distinct captions of its segments, in order.

    A dense description has one segment for each stretch that was captioned alike.
    """

    caption: str
    segments: tuple[Segment, ...]
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer about a sound; for long ones what `auricle.listen.aggregate` makes of its segments' answers."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
    value: Any = None  # the parsed text, where it was bound to a JSON schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Odds:
    """How likely a model holds one of the answers it was offered."""

    text: str
    probability: float  # among the options, by the log-probability of the whole answer
    mean_probability: float  # among the options, by the log-probability per token, which favours no short answer
    logprob: float  # nats of the whole answer, its end included; of long sounds the mean over the time
    mean_logprob: float  # nats per token


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An answer chosen among options."""

    answer: str
    odds: tuple[Odds, ...]  # of every option, in the order given
    segments: tuple[Segment, ...]
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """The words spoken in a sound; empty where there are none."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
