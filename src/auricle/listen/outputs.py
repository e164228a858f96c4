"""Results of an audio language model: one family, with a text, its segments, a receipt and a confidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from auricle.encode.receipt import Receipt
from auricle.listen.confidence import ConfidenceRule, doubtful


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The answer about one span of a source."""

    start_s: float
    stop_s: float
    text: str
    mean_logprob: float | None = None  # nats per token of the text; None where a rule set it
    no_speech_logprob: float | None = None  # nats of the answer "no speech", where it was scored
    open_speech: str = ""  # "speech in English", where its words are left out, see `Transcript.open_speech`
    words: tuple[Segment, ...] = ()  # each with its own times, where the model gives them


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a model says about one source; ``str`` gives the text."""

    text: str
    segments: tuple[Segment, ...]
    receipt: Receipt
    rule: ConfidenceRule = field(default=ConfidenceRule(), repr=False)  # of the model, for results of this kind

    def __str__(self) -> str:
        """Give the text alone."""
        return self.text

    @property
    def confidence(self) -> float | None:
        """How likely the text is right, 0 to 1, where the model's card declares how it was calibrated.

        Of other models it is the mean probability of a token: geometric, over the time of the segments. None where
        rules set all.
        """
        parts = [(each.stop_s - each.start_s, each.mean_logprob) for each in self.segments]
        known = [(max(seconds, 1e-9), mean) for seconds, mean in parts if mean is not None]
        whole = sum(seconds for seconds, _ in known)
        return self.rule.of(sum(seconds * mean for seconds, mean in known) / whole) if known else None

    @property
    def is_unsure(self) -> bool:
        """Whether the confidence is below the bound that the model declares."""
        return self.rule.is_unsure(self.confidence)

    @property
    def in_words(self) -> str:
        """The text as people should read it: with the doubt, where there is some, or what stands in its place."""
        return self.text


class Description(Output):
    """A caption of a whole source; for long ones the distinct captions of its segments, in order.

    In a dense description neighbours with the same caption are one segment.
    """

    __slots__ = ()

    @property
    def caption(self) -> str:
        """The text."""
        return self.text

    @property
    def in_words(self) -> str:
        """The caption; of an unsure one "Unclear sound, perhaps a dog barks."."""
        return doubtful(self.text) if self.is_unsure and self.text else self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Output):
    """An answer about a source; for long ones its segments' answers, aggregated as `Aggregation` says."""

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
class Choice(Output):
    """An answer chosen among options."""

    odds: tuple[Odds, ...]  # of every option, in the order given

    @property
    def answer(self) -> str:
        """The text."""
        return self.text

    @property
    def confidence(self) -> float | None:
        """How likely the choice is right, 0 to 1, as of other results; else its probability among all options."""
        return round(self.rule.map(next(each.probability for each in self.odds if each.text == self.text)), 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript(Output):
    """The words spoken in a source; empty where there are none, or none that the model was trained to write down."""

    language: str | None = None  # that most of it was transcribed in, as en or zh; None: the model does not say
    language_probability: float | None = None  # of that language, mean over the time; None: it was not detected
    suggested_model: str | None = None  # one that transcribes what this model was not trained for
    open_speech: bool = False  # the text leaves out speech that the model was not trained to write down
    raw_text: str | None = None  # all that it wrote, that speech included; None: the text is all
    notice: str = ""  # what is said of that speech, in a line

    @property
    def in_words(self) -> str:
        """The text; of speech that the model was not trained to write down what that is, and which model to try."""
        return f"{self.text}  ({self.notice})" if self.text and self.notice else self.text or self.notice


def record_of(key: str, result: Output, **more: Any) -> dict[str, Any]:
    """A result as a JSON-able dict, without its receipt.

    Args:
        key: name of the text: caption, answer or text.
        result: of any verb.
        more: entries behind the text.
    """
    if odds := getattr(result, "odds", ()):
        more["odds"] = [asdict(each) for each in odds]
    for name in ("value", "language", "language_probability", "suggested_model"):
        if (value := getattr(result, name, None)) is not None:
            more[name] = value
    if isinstance(result, Transcript) and result.open_speech:
        more |= {"open_speech": True, "raw_text": result.raw_text, "notice": result.notice}
    segments = [_segment_record(asdict(segment)) for segment in result.segments]
    sure = {"confidence": result.confidence, "is_unsure": result.is_unsure}
    return {key: result.text, **more, **sure, "segments": segments}


def _segment_record(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out the score of "no speech", the kind of speech and the words where there are none."""
    record["words"] = [_segment_record(word) for word in record["words"]]
    kept = ("text", "mean_logprob")
    return {key: value for key, value in record.items() if value not in (None, [], "") or key in kept}
