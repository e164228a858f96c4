"""Results of an audio language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auricle.encode.receipt import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The answer about one span of a source."""

    start_s: float
    stop_s: float
    text: str
    mean_logprob: float | None = None  # nats per token of the text; None where a rule set it
    no_speech_logprob: float | None = None  # nats of the answer "no speech", where it was scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A caption of a whole source; for long ones the distinct captions of its segments, in order.

    In a dense description neighbours with the same caption are one segment.
    """

    caption: str
    segments: tuple[Segment, ...]
    receipt: Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer about a source; for long ones its segments' answers, aggregated as `Aggregation` says."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
    value: Any = None  # the parsed text, where it was constrained to a JSON schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Odds:
    """How likely one of the options is under the model."""

    text: str
    probability: float  # among the options, by the log-probability of the whole answer
    mean_probability: float  # among the options, by the log-probability per token, which favours no short answer
    logprob: float  # nats of the whole answer, its end included; of long sources the mean over the time
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
    """The words spoken in a source; empty where there are none."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
