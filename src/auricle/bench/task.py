"""The tasks of the encoder benchmarks, as data: labels, splits, metric, training of heads and source.

The declarations are the JSON files in ``declared/``, one for each suite. A task knows neither encoders nor folders of
audio; `auricle.bench.examples` finds its clips.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Strict

from auricle.data.untrusted_json import StrictFields, parse_json, shorten, validate
from auricle.errors import ConfigError, DataError, hint_names
from auricle.metrics.events import Event, Value

Suite = Literal["xares", "hear", "challenge", "private", "auricle"]
Domain = Literal["speech", "sound", "music", "private"]
Kind = Literal["clip", "frame", "asr", "retrieval", "regression"]
Metric = Literal[
    "accuracy", "mAP", "segmentf1_macro", "segmentf1_micro", "recallatk_r1", "WER_inv", "MSE", "onset_f", "AUCROC"
]
Loss = Literal["cross_entropy", "bce", "mse", "contrastive", "language_model"]

T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Strict(False)]  # a list of JSON

SUITES: tuple[str, ...] = get_args(Suite)
CAPTIONED = ("retrieval", "asr")  # kinds of tasks whose labels are sentences
LOWER_IS_BETTER = ("MSE",)  # of the metrics
_LOSS_OF = {
    "clip": ("cross_entropy", "bce"),
    "frame": ("bce",),
    "asr": ("language_model",),
    "retrieval": ("contrastive",),
    "regression": ("mse",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRule(StrictFields):
    """Which field of a clip's metadata is its label, and how it is read."""

    field: str  # for frame tasks the list of events, for retrieval the captions
    value: Literal["name", "index", "number", "text"] = "name"  # a class by name or number, a target, a sentence
    first: int = 0  # number of class 0 where the value is an index: 21 for piano keys
    # value in the metadata -> name of the class
    mapping: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    otherwise: str | None = None  # class of every value outside `mapping`
    separator: str | None = None  # between the names of a clip with several classes
    event: str | None = None  # field of an event that names its class
    onset: str | None = None  # field with its start, `event_unit`
    offset: str | None = None  # field with its end, `event_unit`
    event_unit: Literal["s", "ms"] = "s"

    def __post_init__(self) -> None:
        parts = [part is not None for part in (self.event, self.onset, self.offset)]
        if any(parts) != all(parts):
            raise ConfigError(f"labels of events need event, onset and offset; got {parts} for {self.field!r}")

    def values(self, metadata: Mapping[str, Any]) -> tuple[Value, ...]:
        """The labels of a clip in the order of its metadata: class names, class numbers, targets or sentences.

        Raises:
            DataError: the field is missing, or is not a value of this rule.
        """
        return self._values(metadata, self.field)

    def events(self, metadata: Mapping[str, Any]) -> tuple[Event, ...]:
        """The events of a clip in the order of its metadata, one for each class that is named; none: silence.

        Raises:
            DataError: there is no list of events, or one that cannot be read.
        """
        if self.event is None or self.onset is None or self.offset is None:
            raise DataError(f"labels in {self.field!r} are no events; read them with values()")
        listed = metadata.get(self.field)
        if not isinstance(listed, list) or not all(isinstance(event, dict) for event in listed):
            raise DataError(f"found facts {sorted(metadata)[:12]}, expected a list of events in {self.field!r}")
        found = []
        for event in listed:
            bounds = [_seconds(event, name, self.event_unit) for name in (self.onset, self.offset)]
            if not 0 <= bounds[0] <= bounds[1] < float("inf"):
                raise DataError(f"an event from {bounds[0]} s to {bounds[1]} s; expected 0 <= onset <= offset")
            found += [Event(bounds[0], bounds[1], label) for label in self._values(event, self.event)]
        return tuple(found)

    def _values(self, metadata: Mapping[str, Any], wanted: str) -> tuple[Value, ...]:
        value = metadata.get(wanted)
        if value is None:
            raise DataError(f"found facts {sorted(metadata)[:12]}, expected the label in {wanted!r}")
        if isinstance(value, str) and self.separator is not None:
            value = [part for part in value.split(self.separator) if part]
        return tuple(self._read(part, wanted) for part in (value if isinstance(value, list) else [value]))

    def _read(self, part: Any, wanted: str) -> Value:
        if self.value in ("index", "number"):
            try:
                return int(part) - self.first if self.value == "index" else float(part)
            except (TypeError, ValueError):
                raise DataError(f"{wanted} is {part!r}, expected a number") from None
        if isinstance(part, dict) or part is None:
            raise DataError(f"{wanted} is {part!r}, expected a name")
        name = str(part)
        if self.mapping and name not in self.mapping and self.otherwise is None:
            raise DataError(f"{wanted} is {name!r}, expected one of {sorted(self.mapping)}")
        return self.mapping.get(name, self.otherwise or name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source(StrictFields):
    """Where the audio is published."""

    zenodo: str | None = None  # record of the audio tars
    url: str | None = None  # of the data set itself
    licence: str = "see source record"


@dataclass(frozen=True, kw_only=True, slots=True)
class HearFacts(StrictFields):
    """The rules that HEAR 2021 adds to a task."""

    embedding: Literal["scene", "timestamp"]  # which of the two functions of its API is used
    mode: Literal["multiclass", "multilabel"]
    split_mode: Literal["train-valid-test", "folds"]
    clips: int
    duration_s: float | None = None  # clips are cropped or zero-padded to this; None: lengths vary
    tolerance_ms: float | None = None  # of an onset
    median_filter_ms: float | None = None  # over the frames' probabilities
    min_duration_ms: Listed[float] = ()  # of an event; the best of these on the validation set
    beside: Listed[str] = ()  # metrics that are reported but do not count
    check_every: int = 3  # epochs between validations
    select_by: Literal["score", "loss"] = "score"  # on validation, of grid points and epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class Task(StrictFields):
    """One task. Times in seconds; the numbers are those of the suite it comes from."""

    name: str  # unique over all suites, letters, digits and _
    title: str  # as the suite's tables print it
    suite: Suite
    domain: Domain
    kind: Kind
    label: LabelRule
    metric: Metric
    source: Source
    classes: Listed[str] | int | None = None  # names in order; how many, where derived; None: not known before
    folds: Listed[str] = ()  # each is tested once; instead of:
    train: str | None = None
    valid: str | None = None  # may be the test split: see `selects_on_test`
    test: str | None = None
    # split or fold -> pattern of its audio tars
    tars: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    layout: str | None = None  # of `auricle.data.upstream` that the task can also be read from
    split_field: str = "split"  # field of the metadata with the split or fold of a clip outside audio tars
    # metadata that a clip of the layout must have
    only: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    crop_s: float | None = None  # clips are cut into crops of this length
    segment_s: float | None = None  # window in which events are counted
    frames_s: float | None = None  # length of the grid of events; None: to the end of the last event
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    loss: Loss = "cross_entropy"
    pos_weight: float | None = None  # of positive targets in the binary cross entropy
    knn: bool = True
    weight: float = 1.0  # in the suite's average
    enabled: bool = True  # False: declared, but not run by the published suite
    compat: Listed[str] = ()  # faults of the published rule, for readers
    hear: HearFacts | None = None

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise ConfigError(f"task {self.name!r}: {fault}")

    def _fault(self) -> str | None:
        named = (self.train, self.valid, self.test)
        if bool(self.folds) == any(named) or (not self.folds and not all(named)):
            return f"found folds {self.folds} and splits {named}, expected folds, or all of train, valid and test"
        if self.folds and len(set(self.folds)) < max(2, len(self.folds)):
            return f"folds {self.folds} must be two or more different names"
        if unknown := set(self.tars) - set(self.splits):
            return f"tar patterns for {sorted(unknown)}, which are no splits of it"
        for name, kind in {"suite": Suite, "domain": Domain, "kind": Kind, "metric": Metric, "loss": Loss}.items():
            if getattr(self, name) not in get_args(kind):
                return f"{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kind))}"
        if self.loss not in _LOSS_OF[self.kind]:
            return f"loss {self.loss!r} fits no {self.kind} task; expected {' or '.join(_LOSS_OF[self.kind])}"
        if (self.kind == "frame") != (self.label.event is not None):
            return "events belong to frame tasks, and to them only"
        if isinstance(self.classes, tuple) and len(set(self.classes)) != len(self.classes):
            return "class names repeat"
        for name in ("crop_s", "segment_s", "epochs", "batch_size", "learning_rate", "pos_weight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                return f"{name} must be above 0, got {value}"
        return None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the folds, or of the different splits in the order train, valid, test."""
        return self.folds or tuple(dict.fromkeys(name for name in (self.train, self.valid, self.test) if name))

    @property
    def num_classes(self) -> int | None:
        """How many outputs a head needs; None where only the data can tell."""
        return len(self.classes) if isinstance(self.classes, tuple) else self.classes

    @property
    def has_known_classes(self) -> bool:
        """Whether the names of the classes, in order, are known without the data."""
        return isinstance(self.classes, tuple) or (self.label.value == "index" and self.classes is not None)

    @property
    def is_multilabel(self) -> bool:
        """Whether a clip may have several classes at once."""
        return self.loss == "bce"

    @property
    def needs_frames(self) -> bool:
        """Whether heads read frames; of other tasks the mean over the frames is enough."""
        return self.kind in ("frame", "asr")

    @property
    def is_private(self) -> bool:
        """Whether the audio was never published, so that the user must bring it."""
        return self.suite == "private"

    @property
    def selects_on_test(self) -> bool:
        """Whether the published rule picks its best epoch on the very clips it is tested on."""
        if self.folds:
            return self.suite not in ("hear", "auricle")
        return self.valid == self.test

    def split_of(self, role: str) -> str:
        """The task's own name of a split or fold, also for the plain words train, valid and test.

        Raises:
            DataError: no split of this task.
        """
        plain = {"train": self.train, "valid": self.valid, "validation": self.valid, "dev": self.valid}
        found = role if role in self.splits else {**plain, "test": self.test}.get(role)
        if found is None:
            raise DataError(f"task {self.name!r} has no split {role!r}; expected one of {', '.join(self.splits)}")
        return found


def load_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is none; near matches are listed.
    """
    known = _declared()
    if name not in known:
        raise ConfigError(f"no task {name!r}.{hint_names(name, known)}")
    return known[name]


def tasks(suite: str | None = None) -> list[Task]:
    """All tasks, or those of one suite, in the order of their declaration.

    Raises:
        ConfigError: no such suite.
    """
    if suite is not None and suite not in SUITES:
        raise ConfigError(f"no suite {suite!r}; expected one of {', '.join(SUITES)}")
    return [task for task in _declared().values() if suite in (None, task.suite)]


def read_tasks(text: str, origin: str) -> list[Task]:
    """Tasks from the text of a declaration: an object with ``suite``, ``defaults`` and ``tasks``.

    A task's fields win over the defaults.

    Raises:
        ConfigError: no JSON of that shape, a missing or unknown field, or a task that contradicts itself; `origin` is
            named.
    """
    try:
        stored = parse_json(text)
        rows = [{"suite": stored["suite"], **stored.get("defaults", {}), **row} for row in stored["tasks"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{origin}: no usable declaration of tasks ({error}); expected suite and tasks") from None
    fix = "correct the declaration"
    return [validate(Task, row, f"{origin}: {shorten(row.get('name'))}", error=ConfigError, fix=fix) for row in rows]


@cache
def _declared() -> dict[str, Task]:
    folder = files("auricle.bench") / "declared"
    found: dict[str, Task] = {}
    for suite in SUITES:
        for task in read_tasks((folder / f"{suite}.json").read_text(encoding="utf-8"), f"declared/{suite}.json"):
            if task.name in found:
                raise ConfigError(f"declared/{suite}.json: {task.name!r} is declared twice")
            found[task.name] = task
    return found


def _seconds(event: Mapping[str, Any], name: str, unit: str) -> float:
    try:
        return float(event[name]) / (1000.0 if unit == "ms" else 1.0)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"an event has {name} {event.get(name)!r}, expected a time in {unit}") from None
