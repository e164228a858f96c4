"""What a task of the encoder benchmarks is, as data: its labels, splits, protocol and source.

The declarations are the JSON files in ``declared/``, one for each suite. A task knows nothing of encoders and no folder
of audio; `auricle.bench.examples` finds its sounds.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from auricle.errors import ConfigError, DataError, hint_names
from auricle.metrics.events import Event, Value

Suite = Literal["xares", "hear", "challenge", "private", "auricle"]
Domain = Literal["speech", "sound", "music", "private"]
Kind = Literal["clip", "frame", "asr", "retrieval", "regression"]
Metric = Literal[
    "accuracy", "mAP", "segmentf1_macro", "segmentf1_micro", "recallatk_r1", "WER_inv", "MSE", "onset_f", "AUCROC"
]
Loss = Literal["cross_entropy", "bce", "mse", "contrastive", "language_model"]


SUITES: tuple[str, ...] = get_args(Suite)
_LOSS_OF = {
    "clip": ("cross_entropy", "bce"),
    "frame": ("bce",),
    "asr": ("language_model",),
    "retrieval": ("contrastive",),
    "regression": ("mse",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRule:
    """Where the truth about a sound stands in its facts, and how it is read."""

    field: str  # name of the fact; for frame tasks the list of events, for retrieval the captions
    value: Literal["name", "index", "number", "text"] = "name"  # a class by name or number, a target, a sentence
    first: int = 0  # number of class 0 where the value is an index: 21 for piano keys
    # value as written -> name of the class
    mapping: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    otherwise: str | None = None  # class of every value outside `mapping`
    separator: str | None = None  # between the names of a clip with several classes
    event: str | None = None  # field of an event that names its class
    onset: str | None = None  # field with its begin, `event_unit`
    offset: str | None = None  # field with its end, `event_unit`
    event_unit: Literal["s", "ms"] = "s"

    def __post_init__(self) -> None:
        """Refuse half a rule."""
        parts = [part is not None for part in (self.event, self.onset, self.offset)]
        if any(parts) != all(parts):
            raise ConfigError(f"labels of events need event, onset and offset; got {parts} for {self.field!r}")

    def values(self, facts: Mapping[str, Any]) -> tuple[Value, ...]:
        """The labels of a sound: class names, class numbers, targets or sentences, in the order they are written.

        Raises:
            DataError: the fact is missing, or is no value of this rule.
        """
        return self._values(facts, self.field)

    def events(self, facts: Mapping[str, Any]) -> tuple[Event, ...]:
        """The events of a sound in the order they are written, one for each class that is named; none is silence.

        Raises:
            DataError: there is no list of events, or one that cannot be read.
        """
        if self.event is None or self.onset is None or self.offset is None:
            raise DataError(f"labels in {self.field!r} are no events; ask for their values")
        written = facts.get(self.field)
        if not isinstance(written, list) or not all(isinstance(event, dict) for event in written):
            raise DataError(f"found facts {sorted(facts)[:12]}, expected a list of events in {self.field!r}")
        found = []
        for event in written:
            bounds = [_seconds(event, name, self.event_unit) for name in (self.onset, self.offset)]
            if not 0 <= bounds[0] <= bounds[1] < float("inf"):
                raise DataError(f"an event from {bounds[0]} s to {bounds[1]} s; expected 0 <= onset <= offset")
            found += [Event(bounds[0], bounds[1], label) for label in self._values(event, self.event)]
        return tuple(found)

    def _values(self, facts: Mapping[str, Any], wanted: str) -> tuple[Value, ...]:
        if facts.get(wanted) is None:
            raise DataError(f"found facts {sorted(facts)[:12]}, expected the label in {wanted!r}")
        written = facts[wanted]
        if isinstance(written, str) and self.separator is not None:
            written = [part for part in written.split(self.separator) if part]
        return tuple(self._read(part, wanted) for part in (written if isinstance(written, list) else [written]))

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
class Source:
    """Where the audio is published."""

    zenodo: str | None = None  # record of the audio tars
    url: str | None = None  # of the data set itself
    licence: str = "see source record"


@dataclass(frozen=True, kw_only=True, slots=True)
class HearFacts:
    """What the HEAR 2021 protocol adds to a task."""

    embedding: Literal["scene", "timestamp"]  # which of the two functions of its API is asked
    mode: Literal["multiclass", "multilabel"]
    split_mode: Literal["train-valid-test", "folds"]
    clips: int
    duration_s: float | None = None  # sounds are cut or zero-padded to this; None: lengths vary
    tolerance_ms: float | None = None  # of an onset
    median_filter_ms: float | None = None  # over the frames' probabilities
    min_duration_ms: tuple[float, ...] = ()  # of an event; the best of these on the validation set
    beside: tuple[str, ...] = ()  # metrics reported beside the one that counts
    check_every: int = 3  # epochs between validations
    select_by: Literal["score", "loss"] = "score"  # on validation, of grid points and epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task: data and protocol. Times in seconds; the protocol's numbers are those of the suite it comes from."""

    name: str  # unique over all suites, letters, digits and _
    title: str  # as the suite's tables print it
    suite: Suite
    domain: Domain
    kind: Kind
    label: LabelRule
    metric: Metric
    source: Source
    classes: tuple[str, ...] | int | None = None  # names in order; how many, where derived; None: not known before
    folds: tuple[str, ...] = ()  # each is tested once; instead of:
    train: str | None = None
    valid: str | None = None  # may be the test split: see `selects_on_test`
    test: str | None = None
    # split or fold -> pattern of its audio tars
    tars: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    layout: str | None = None  # of `auricle.data.upstream` that the task can also be read from
    split_field: str = "split"  # fact that holds the split or fold of a sound outside audio tars
    # facts a sound of the layout must have
    only: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    crop_s: float | None = None  # sounds are cut into pieces of this length
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
    compat: tuple[str, ...] = ()  # what the published protocol does that the strict one does not
    hear: HearFacts | None = None

    def __post_init__(self) -> None:
        """Refuse what no runner could follow."""
        fault = self._fault()
        if fault:
            raise ConfigError(f"task {self.name!r}: {fault}")

    def _fault(self) -> str | None:
        named = (self.train, self.valid, self.test)
        if bool(self.folds) == any(named) or (not self.folds and not all(named)):
            return f"found folds {self.folds} and splits {named}, expected folds, or all of train, valid and test"
        if self.folds and len(set(self.folds)) < max(2, len(self.folds)):
            return f"folds {self.folds} must be two or more different names"
        if unknown := set(self.tars) - set(self.splits):
            return f"tar patterns for {sorted(unknown)}, which are no splits of it"
        for name in ("suite", "domain", "kind", "metric", "loss"):
            known = get_args(globals()[name.capitalize()])
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
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
    def is_multilabel(self) -> bool:
        """Whether a clip may have several classes at once."""
        return self.loss == "bce"

    @property
    def is_private(self) -> bool:
        """Whether the audio was never published, so that it must be brought."""
        return self.suite == "private"

    @property
    def selects_on_test(self) -> bool:
        """Whether the published protocol picks its best epoch on the very sounds it is tested on."""
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

    Lists of names become tuples; a task's fields win over the defaults.

    Raises:
        ConfigError: no JSON of that shape, an unknown field, or a task that contradicts itself; `origin` is named.
    """
    try:
        stored = json.loads(text)
        shared = {"suite": stored["suite"], **stored.get("defaults", {})}
        return [_task({**shared, **row}) for row in stored["tasks"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{origin}: no usable declaration of tasks ({error})") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


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


def _task(row: Mapping[str, Any]) -> Task:
    parts = {"label": LabelRule, "source": Source, "hear": HearFacts}
    made = {name: _part(part, row[name]) for name, part in parts.items() if row.get(name) is not None}
    task: Task = _part(Task, {**row, **made})
    return task


def _part(part: Any, values: Mapping[str, Any]) -> Any:
    if unknown := set(values) - {known.name for known in dataclasses.fields(part)}:
        raise ConfigError(f"{values.get('name', part.__name__)}: unknown fields {sorted(unknown)}")
    return part(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _seconds(event: Mapping[str, Any], name: str, unit: str) -> float:
    try:
        return float(event[name]) / (1000.0 if unit == "ms" else 1.0)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"an event has {name} {event.get(name)!r}, expected a time in {unit}") from None
