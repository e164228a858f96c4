"""The score of a model on a task: how it is computed, what it is, and its file."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetPydanticSchema, PlainValidator
from pydantic_core import core_schema

from auricle import __version__
from auricle.data.untrusted_json import StrictFields, check_plain, parse_object, read_text, shorten, validate
from auricle.errors import ConfigError, DataError, check_number
from auricle.evaluate import mecat
from auricle.metrics.fense import PENALTY_RULE
from auricle.metrics.intervals import MAX_ROUNDS, ROUNDS, Score, fault_of_range, no_score, plain_score
from auricle.metrics.normalisers import Unit
from auricle.metrics.paired import Measured, Part
from auricle.metrics.scoring_rule import ScoringRule

if TYPE_CHECKING:
    from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

TaskKind: TypeAlias = Literal["asr", "tagging", "gender", "multitag", "qa", "caption", "mecat"]
Missing: TypeAlias = Literal["error", "worst"]

FORMAT = "auricle-score/1"
MAX_BYTES = 1 << 30  # of one file; those of 100,000 questions of MECAT take about 200 MB
MAX_NUMBER = 1e15  # larger ones measure nothing
MECAT_METRICS = ("date", "fense", "bleu")
_FIX = "score the answers again, or leave the file out"


def _check_number(value: Any) -> float:
    # A bool is an int to Python. Other than with pydantic's own types, a whole number stays one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise ValueError(f"a number of at most {MAX_NUMBER:g}")
    return value


# Fields of untrusted files. Texts and names may be empty, as labels can be, and hold halves of a surrogate pair, as odd
# names of files do.
Text: TypeAlias = Annotated[str, AfterValidator(check_plain())]
Plain: TypeAlias = Annotated[Mapping[str, Any], AfterValidator(check_plain())]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Amount: TypeAlias = Annotated[float, PlainValidator(_check_number)]  # whole or not
Number: TypeAlias = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]


@dataclass(frozen=True, slots=True)
class ScoreFields(StrictFields):
    """A score in a file; a number that does not exist is null."""

    value: Number | None
    low: Number | None
    high: Number | None
    n: Count

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low or 0.0) > (self.high or 0.0):
            raise ValueError("low before high, or neither")

    def score(self) -> Score:
        """With nan for null."""
        value, low, high = (math.nan if each is None else each for each in (self.value, self.low, self.high))
        return Score(value, low, high, self.n)


def _score_schema(source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    return core_schema.no_info_after_validator_function(ScoreFields.score, handler.generate_schema(ScoreFields))


FileScore: TypeAlias = Annotated[Score, GetPydanticSchema(_score_schema)]


@dataclass(frozen=True, slots=True)
class Rule(StrictFields):
    """How a kind of task is scored; the version grows whenever a change of code could change a score."""

    id: Text
    version: Count
    metric: Text  # the headline of the task


# By kind of task and scoring rule. The module of each metric describes them.
RULES: Mapping[tuple[TaskKind, ScoringRule], Rule] = {
    ("asr", "compat"): Rule("wer-dasheng-lm", 1, "error_rate"),
    ("asr", "strict"): Rule("wer-by-language", 2, "error_rate"),
    ("tagging", "compat"): Rule("tag-substring", 1, "accuracy"),
    ("tagging", "strict"): Rule("tag-whole-words", 2, "accuracy"),
    ("gender", "compat"): Rule("gender-substring", 1, "accuracy"),
    ("gender", "strict"): Rule("gender-whole-words", 2, "accuracy"),
    ("multitag", "compat"): Rule("map-of-split-labels", 1, "mAP"),
    ("multitag", "strict"): Rule("map-of-known-labels", 2, "mAP"),
    ("qa", "compat"): Rule("qa-token-sets", 1, "accuracy"),
    ("qa", "strict"): Rule("qa-letter-or-text", 2, "accuracy"),
    ("caption", "compat"): Rule("sbert-mean", 1, "sbert"),
    ("caption", "strict"): Rule("fense", 2, "fense"),
    ("mecat", "compat"): Rule("date-released", 1, "date"),
    ("mecat", "strict"): Rule("date-of-others", 1, "date"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringConfig:
    """How predictions are scored; a task ignores what does not apply to it."""

    scoring_rule: ScoringRule = "strict"
    missing: Missing = "error"  # items without a prediction: refuse to score, or count them as wrong
    group_by: str = "audio"  # field of the rows; rows that agree in it are resampled together
    unit: Unit | None = None  # of strict error rates; None: by language
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of labels, for strict tagging
    metrics: Sequence[str] = MECAT_METRICS  # of MECAT
    rounds: int = ROUNDS  # of the bootstrap
    seed: int = 0  # of the bootstrap
    # Networks behind the scores of captions, called when they are needed; without a detector there is no FENSE.
    encoder: "Callable[[], SentenceEncoder] | None" = None
    detector: "Callable[[], ErrorDetector | None]" = lambda: None

    def __post_init__(self) -> None:
        check_number("rounds", self.rounds, least=1, most=MAX_ROUNDS, whole=True)
        check_number("seed", self.seed, least=0, most=2**63, whole=True)
        if unknown := sorted(set(self.metrics) - set(MECAT_METRICS)):
            raise ConfigError(f"metrics are {', '.join(unknown)}, expected some of {', '.join(MECAT_METRICS)}")

    def load_encoder(self) -> "SentenceEncoder":
        """The sentence encoder.

        Raises:
            ConfigError: there is none.
        """
        if self.encoder is None:
            raise ConfigError("captions are scored by a sentence encoder; give one")
        return self.encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored(StrictFields):
    """The scores of one model on one task by one scoring rule; rates are fractions, never rounded."""

    kind: Annotated[TaskKind, Field(alias="task")]
    scoring_rule: Annotated[ScoringRule, Field(alias="protocol")]
    rule: Rule
    scores: Mapping[Text, FileScore]  # by metric
    parts: Mapping[Text, Mapping[Text, FileScore]] = field(default_factory=dict)  # as languages; by name, then metric
    counts: Mapping[Text, Amount] = field(default_factory=dict)  # of rows, …
    items: Mapping[Text, Mapping[Text, Number]] = field(default_factory=dict)  # by metric, then item: for paired tests
    groups: Mapping[Text, Count] = field(default_factory=dict)  # items of one number are resampled together
    settings: Plain = field(default_factory=dict)  # encoder, normalisers, seed, …
    data: Plain = field(default_factory=dict)  # data sets, models, hashes of files
    version: Text = __version__

    @property
    def headline(self) -> Score | None:
        """The score of the rule's metric; None where it is not known, as FENSE without a detector."""
        return self.scores.get(self.rule.metric)

    def content(self, *, items: bool = True) -> dict[str, Any]:
        """As JSON holds it; a number that does not exist is null."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "task": self.kind,
            "protocol": self.scoring_rule,
            "rule": asdict(self.rule),
            "scores": {name: plain_score(score) for name, score in self.scores.items()},
            "parts": {
                name: {metric: plain_score(score) for metric, score in own.items()} for name, own in self.parts.items()
            },
            "counts": dict(self.counts),
            "settings": dict(self.settings),
            "data": dict(self.data),
            "version": self.version,
        }
        if items:
            found["items"] = {name: dict(own) for name, own in self.items.items()}
        if items and self.groups:
            found["groups"] = dict(self.groups)
        return found

    def to_json(self) -> str:
        """Text of a file."""
        return json.dumps(self.content(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


_WITH_DEFAULT = ("items", "groups")  # fields that a file may lack


def read_scored(path: str | Path) -> Scored:
    """The scores in a file, as `Scored.to_json` wrote them.

    Raises:
        DataError: unreadable, larger than `MAX_BYTES`, or no scores; the field is named.
    """
    return parse_scored(read_text(path, max_bytes=MAX_BYTES), str(path))


def parse_scored(text: str, origin: str = "scores") -> Scored:
    """Scores from the text of their file.

    Raises:
        DataError: no JSON, another format, or a field that is absent, unknown or impossible; ``origin`` is named.
    """
    content = parse_object(text, origin, allow_nan=False)
    if (found := content.pop("format", None)) != FORMAT:
        raise DataError(f"{origin}: found format {shorten(found)}, expected {FORMAT!r}; {_FIX}")
    names = {"kind": "task", "scoring_rule": "protocol"}
    needed = [names.get(each.name, each.name) for each in fields(Scored) if each.name not in _WITH_DEFAULT]
    if absent := [name for name in needed if name not in content]:
        raise DataError(f"{origin}: has no {', '.join(absent)}; {_FIX}")
    scored = validate(Scored, content, origin, fix=_FIX)
    for scores in (scored.scores, *scored.parts.values()):
        for metric, score in scores.items():
            _check_range(metric, score[:3], origin)
    for metric, values in scored.items.items():
        _check_range(metric.rpartition(".")[2], values.values(), origin)  # MECAT has GROUP.METRIC
    return scored


def _check_range(metric: str, values: Iterable[float], origin: str) -> None:
    if fault := fault_of_range(metric, values):
        raise DataError(f"{origin}: {fault}; {_FIX}")


def network_settings(encoder: "SentenceEncoder", detector: "ErrorDetector | None") -> dict[str, Any]:
    """What settings state about the networks behind the scores of captions, in the order of earlier versions."""
    if detector is None:
        return {"encoder": encoder.identity, "error_detector": None}
    identity = dict(detector.identity)
    max_tokens = identity.pop("max_tokens")
    return {"encoder": encoder.identity, "error_detector": {**identity, **PENALTY_RULE, "max_tokens": max_tokens}}


def references_digest(references: Mapping[str, Any]) -> str:
    """SHA-256 over items and their references, by name; the same for every order and every model."""
    pairs = [[name, references[name]] for name in sorted(references)]
    return sha256(json.dumps(pairs, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def group_numbers(items: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """Groups of items as `Scored` holds them; nothing where each item is a group of its own."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    if len(numbers) == len(set(items)):
        return {}
    return {item: numbers[name] for item, name in zip(items, groups, strict=True)}


# --- the headline


def measure(scored: Scored) -> Measured:
    """The headline of a result, or the nearest score where that is not known, with what each item contributes to it."""
    if scored.kind == "mecat":
        return _measure_mecat(scored)
    names = [scored.rule.metric, "sbert"] if scored.kind == "caption" else [scored.rule.metric]
    metric = next((name for name in names if name in scored.scores), names[0])
    score = scored.scores.get(metric, no_score())
    if metric == "error_rate":
        errors, tokens = scored.items["errors"], scored.items["tokens"]
        parts = {"": Part(1.0, {name: (errors[name], tokens[name]) for name in errors})}
        return Measured(metric, score, metric, parts)
    paired = "f1" if metric == "mAP" else metric
    parts = {"": Part(1.0, {name: (value, 1.0) for name, value in scored.items.get(paired, {}).items()})}
    return Measured(metric, score, paired, parts)


def _measure_mecat(scored: Scored) -> Measured:
    """By the weights of the whole where all groups are there, else by the plain mean of those that are."""
    metric = scored.rule.metric
    groups = [name for name, own in scored.parts.items() if metric in own]
    is_caption = scored.settings.get("kind") == "caption"
    known = mecat.GROUPS if is_caption else mecat.CATEGORIES
    combine = mecat.caption_score if is_caption else mecat.question_score
    zeros = {group.name: 0.0 for group in known}
    whole = set(groups) == set(zeros)
    weights = {name: (combine(zeros | {name: 1.0}) or 0.0) if whole else 1 / len(groups) for name in groups}
    parts = {
        name: Part(weights[name], {item: (value, 1.0) for item, value in scored.items[f"{name}.{metric}"].items()})
        for name in groups
    }
    value = sum(weight * scored.parts[name][metric].value for name, weight in weights.items())
    items = sum(len(part.items) for part in parts.values())
    score = scored.scores.get(metric) or (Score(value, math.nan, math.nan, items) if groups else no_score())
    return Measured(metric if whole else f"mean of {metric}", score, metric, parts)
