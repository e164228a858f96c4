"""The clips of a task: from its published audio tars, its authors' layout or a manifest to examples for each split.

Also data sets of the user with captions, and the choice of splits for tasks where nothing is trained.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from auricle.bench.task import LabelRule, Source, Task
from auricle.data.label_tars import LabelledClip, TarAudio, stream_label_tars
from auricle.data.manifest import Entry, read_manifest
from auricle.data.upstream import read_layout
from auricle.errors import DataError

MANIFESTS = ("manifest.jsonl", "manifest.csv", "manifest.tsv")
CAPTION_FIELDS = ("captions", "caption")  # of the manifest of a captioned data set
_SHOWN = 5  # problems spelled out in an error


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled clip of a task."""

    id: str  # unique in the task: the split comes first
    split: str  # one of `Task.splits`
    audio: Path | TarAudio
    label: Mapping[str, Any] = field(hash=False)  # metadata, read by `Task.label`

    def source(self) -> Path | bytes:
        """What `auricle.audio.decode.decode` takes; the bytes of a tar member are read now."""
        return self.audio if isinstance(self.audio, Path) else self.audio.read()


class Refused(NamedTuple):
    """A clip that is not an example, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a task; every split has some."""

    task: Task
    by_split: Mapping[str, list[Example]]  # in the order of `Task.splits`
    refused: tuple[Refused, ...]  # damaged or unlabelled
    unused: Mapping[str, int]  # why readable clips of the folder are no part of the task -> how many

    def __len__(self) -> int:
        return sum(map(len, self.by_split.values()))

    def __iter__(self) -> Iterator[Example]:
        return (example for examples in self.by_split.values() for example in examples)

    def check(self) -> None:
        """Raise DataError where clips were refused, for a score without them is another task's."""
        if self.refused:
            more = " …" if len(self.refused) > _SHOWN else ""
            raise DataError(
                f"task {self.task.name!r}: {len(self.refused)} clips were refused: {_listed(self.refused)}{more}"
            )


def load_examples(task: Task, folder: str | Path) -> Examples:
    """Find the examples of a task in a folder; labels are read and checked, audio is not opened.

    The first of these that is there is taken: a manifest (the path itself, or ``manifest.jsonl``, ``.csv`` or ``.tsv``
    in the folder; columns ``id``, ``audio``, ``split`` or ``fold``, and the label under its own name or as ``labels``);
    the task's audio tars; its authors' layout.

    Raises:
        DataError: none of them is there, one cannot be read, or a split has no examples.
    """
    folder = Path(folder)
    names = (folder / name for name in MANIFESTS)
    manifest = folder if folder.is_file() else next((path for path in names if path.is_file()), None)
    collector = _Collector(task)
    if manifest is not None:
        collector.add_entries(read_manifest(manifest), only={})
    elif any(path for pattern in task.tars.values() for path in folder.glob(pattern)):
        for split, pattern in task.tars.items():
            collector.add_tars(split, folder, pattern)
    elif task.layout is not None and folder.is_dir():
        collector.add_entries(read_layout(task.layout, folder), only=task.only)
    else:
        ways = [*(f"the tars {pattern}" for pattern in task.tars.values()), *MANIFESTS[:1]]
        raise DataError(f"{folder} holds no data of task {task.name!r}; expected {' or '.join(ways)}")
    return collector.finish(folder)


class _Collector:
    """Examples as they are found."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.by_split: dict[str, list[Example]] = {split: [] for split in task.splits}
        self.refused: list[Refused] = []
        self.unused: Counter[str] = Counter()

    def add_tars(self, split: str, folder: Path, pattern: str) -> None:
        for found in stream_label_tars(folder, pattern):
            if isinstance(found, LabelledClip):
                name = f"{split}/{found.audio.tar.stem}/{found.key}"
                self._add(Example(name, split, found.audio, self._metadata(found.label)))
            else:
                self.refused.append(Refused(f"{found.tar.name}/{found.member}", found.reason))

    def add_entries(self, entries: Iterable[Entry], *, only: Mapping[str, str]) -> None:
        name = self.task.label.field
        for entry in entries:
            facts = entry.meta
            if differing := [fact for fact, value in only.items() if str(facts.get(fact)) != value]:
                self.unused[f"{differing[0]} is {facts.get(differing[0])}"] += 1
                continue
            fields = (self.task.split_field, "split", "fold")
            role = next((str(facts[each]) for each in fields if each in facts), None)
            if role is None:
                self.refused.append(Refused(entry.id, f"has no {self.task.split_field!r}, 'split' or 'fold'"))
                continue
            try:
                split = self.task.split_of(role)
            except DataError:
                self.unused[f"{self.task.split_field} is {role}"] += 1
                continue
            label = {name: facts["labels"], **facts} if "labels" in facts and name not in facts else facts
            self._add(Example(f"{split}/{entry.id}", split, entry.audio, label))

    def finish(self, folder: Path) -> Examples:
        if empty := [split for split, examples in self.by_split.items() if not examples]:
            raise DataError(
                f"{folder}: no examples of {', '.join(empty)} for task {self.task.name!r}; "
                f"refused: {_listed(self.refused) or 'none'}; not of the task: {dict(self.unused) or 'none'}"
            )
        return Examples(self.task, self.by_split, tuple(self.refused), dict(self.unused))

    def _add(self, example: Example) -> None:
        try:
            _check_label(self.task, example.label)
        except DataError as error:
            self.refused.append(Refused(example.id, str(error)))
            return
        if isinstance(example.audio, Path) and not example.audio.is_file():
            self.refused.append(Refused(example.id, f"no audio at {example.audio}"))
            return
        self.by_split[example.split].append(example)

    def _metadata(self, label: Any) -> Mapping[str, Any]:
        """From a tar's JSON: an object as it is; a bare list or value, or captions, under the task's field."""
        name = self.task.label.field
        if not isinstance(label, dict):
            return {name: label}
        if self.task.kind == "retrieval" and name not in label:
            return {name: [value for value in label.values() if isinstance(value, str)]}
        return label


def _check_label(task: Task, metadata: Mapping[str, Any]) -> None:
    found = _labels(task, metadata)
    if not found and task.kind != "frame" and not task.is_multilabel:
        raise DataError(f"{task.label.field} is empty")
    if task.kind == "clip" and not task.is_multilabel and len(found) != 1:
        raise DataError(f"{task.label.field} has {len(found)} values, expected one")
    if isinstance(task.classes, tuple):
        unknown = [name for name in found if name not in task.classes]
    elif task.label.value == "index" and task.classes is not None:
        unknown = [name for name in found if isinstance(name, int) and not 0 <= name < task.classes]
    else:
        unknown = []
    if unknown:
        raise DataError(f"{task.label.field} is {unknown[0]!r}, which is none of the {task.num_classes} classes")


def class_names(examples: Examples) -> tuple[str, ...]:
    """Names of the classes in the order of the head's outputs.

    Declared names as they are; numbered classes by their numbers; else what the training split holds (with folds: all
    of them), sorted. The last is no part of the declaration, so it belongs into the result.

    Raises:
        DataError: the task has no classes, or the data has another number than the task declares.
    """
    task = examples.task
    if task.kind not in ("clip", "frame"):
        raise DataError(f"task {task.name!r} is {task.kind}; it has no classes")
    if isinstance(task.classes, tuple):
        return task.classes
    if task.label.value == "index" and task.classes is not None:
        return tuple(str(number) for number in range(task.classes))
    chosen = list(examples) if task.folds else examples.by_split[str(task.train)]
    found = sorted({str(name) for example in chosen for name in _labels(task, example.label)})
    if task.classes is not None and len(found) != task.classes:
        raise DataError(
            f"task {task.name!r} has {task.classes} classes, but the training examples have {len(found)}: "
            f"{', '.join(found[:8])} …; is the data complete?"
        )
    return tuple(found)


def absent_classes(examples: Examples) -> tuple[str, ...]:
    """Declared classes that no example has: a score of the others is that of an easier task."""
    task = examples.task
    if task.kind not in ("clip", "frame") or not task.has_known_classes:
        return ()
    found = {str(name) for example in examples for name in _labels(task, example.label)}
    return tuple(name for name in class_names(examples) if name not in found)


def class_numbers(task: Task, classes: Sequence[str], example: Example) -> list[int]:
    """Numbers of the example's classes in `classes`; -1 for one that no training example has, so none can hit it."""
    places = {name: number for number, name in enumerate(classes)}
    return [places.get(str(name), -1) for name in _labels(task, example.label)]


def _labels(task: Task, metadata: Mapping[str, Any]) -> list[Any]:
    if task.kind == "frame":
        return [event.label for event in task.label.events(metadata)]
    return list(task.label.values(metadata))


def select_examples(task: Task, folder: str | Path, splits: Sequence[str]) -> Examples:
    """Examples of the chosen splits or folds (none: all folds, or the test split); the others need not be there.

    Raises:
        DataError: no such split, no data of it, or clips that were refused.
    """
    chosen = tuple(dict.fromkeys(task.split_of(name) for name in splits)) or task.folds or (task.split_of("test"),)
    tars = {split: pattern for split, pattern in task.tars.items() if split in chosen}
    if len(chosen) > 1:
        narrowed = replace(task, folds=chosen, train=None, valid=None, test=None, tars=tars)
    else:
        narrowed = replace(task, folds=(), train=chosen[0], valid=chosen[0], test=chosen[0], tars=tars)
    examples = load_examples(narrowed, folder)
    examples.check()
    return examples


def captioned_task(name: str) -> Task:
    """The task of a data set of the user: a manifest (``.jsonl``, ``.csv``, ``.tsv``) with audio and captions.

    Each entry has ``caption``, a text, or ``captions``, a text or a list of them. All entries are test clips; a column
    ``split`` or ``fold`` serves to choose among them. Several entries may have the same audio.
    """
    return Task(
        name=name,
        title=name,
        suite="private",
        domain="private",
        kind="retrieval",
        label=LabelRule(field=CAPTION_FIELDS[0], value="text"),
        metric="recallatk_r1",
        loss="contrastive",
        source=Source(),
        train="test",
        valid="test",
        test="test",
    )


def read_captioned(task: Task, manifest: str | Path, splits: Sequence[str]) -> Examples:
    """Examples of a manifest as `captioned_task` describes it.

    Args:
        task: with captions; where the manifest has the field of its labels, that is taken.
        manifest: of the clips.
        splits: of its column ``split`` or ``fold``; none: all.

    Raises:
        DataError: it cannot be read, nothing is left of it, or clips were refused.
    """
    by_split: dict[str, list[Example]] = {}
    refused = []
    for entry in read_manifest(manifest):
        split = str(entry.meta.get("split", entry.meta.get("fold", task.test or "test")))
        if splits and split not in splits:
            continue
        found = next((entry.meta[f] for f in (task.label.field, *CAPTION_FIELDS) if f in entry.meta), None)
        captions = [found] if isinstance(found, str) else found
        if not (isinstance(captions, list) and captions and all(isinstance(c, str) and c.strip() for c in captions)):
            refused.append(Refused(entry.id, f"its captions are {found!r:.60}, expected a text or a list of them"))
        elif not entry.audio.is_file():
            refused.append(Refused(entry.id, f"no audio at {entry.audio}"))
        else:
            label = {**entry.meta, task.label.field: captions}
            by_split.setdefault(split, []).append(Example(f"{split}/{entry.id}", split, entry.audio, label))
    if not by_split and not refused:
        raise DataError(f"{manifest} has no entries{f' of {list(splits)}' if splits else ''}; check the manifest")
    examples = Examples(task, by_split, tuple(refused), {})
    examples.check()
    return examples


def _listed(refused: Sequence[Refused]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in refused[:_SHOWN])
