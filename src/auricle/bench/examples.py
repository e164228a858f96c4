"""The sounds of a task: from its published audio tars, its authors' layout or a manifest to examples for each split.

Also the rules by which sounds are cut, and the audit that looks for one recording in two splits.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from auricle.audio.decode import decode
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.task import Task
from auricle.data.batches import prefetch
from auricle.data.label_tars import LabelledClip, TarAudio, stream_label_tars
from auricle.data.manifest import Entry, read_manifest
from auricle.data.upstream import read_layout
from auricle.errors import AudioError, AuricleError, ConfigError, DataError

Waveform = npt.NDArray[np.float32]
Protocol: TypeAlias = Literal["compat", "strict"]

MANIFESTS = ("manifest.jsonl", "manifest.csv", "manifest.tsv")
_NAMED = 5  # problems spelled out in an error


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled sound of a task."""

    id: str  # unique in the task: the split comes first
    split: str  # one of `Task.splits`
    audio: Path | TarAudio
    label: Mapping[str, Any] = field(hash=False)  # facts, read by `Task.label`

    def source(self) -> Path | bytes:
        """What `auricle.audio.decode.decode` takes; the bytes of a tar member are read now."""
        return self.audio if isinstance(self.audio, Path) else self.audio.read()


class Refused(NamedTuple):
    """A sound that is no example, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a task; every split has some."""

    task: Task
    by_split: Mapping[str, list[Example]]  # in the order of `Task.splits`
    refused: tuple[Refused, ...]  # damaged or unlabelled
    unused: Mapping[str, int]  # why sound examples of the folder are no part of the task -> how many

    def __len__(self) -> int:
        """Examples of all splits."""
        return sum(map(len, self.by_split.values()))

    def __iter__(self) -> Iterator[Example]:
        """All examples, split after split."""
        return (example for examples in self.by_split.values() for example in examples)

    def check(self) -> None:
        """Raise DataError where sounds were refused, for a score without them is another task's."""
        if self.refused:
            named = "; ".join(f"{name}: {reason}" for name, reason in self.refused[:_NAMED])
            more = " …" if len(self.refused) > _NAMED else ""
            raise DataError(f"task {self.task.name!r}: {len(self.refused)} sounds were refused: {named}{more}")


def load_examples(task: Task, folder: str | Path) -> Examples:
    """Find the examples of a task in a folder; labels are read and checked, audio is not opened.

    The first of these that is there is taken: a manifest (the path itself, or ``manifest.jsonl``, ``.csv`` or ``.tsv``
    in the folder; columns ``id``, ``audio``, ``split`` or ``fold``, and the label under its own name or as ``labels``);
    the task's audio tars; its authors' layout.

    Args:
        task: see `auricle.bench.task.load_task`.
        folder: of the data, or the manifest.

    Raises:
        DataError: none of them is there, one cannot be read, or a split has no examples.
    """
    folder = Path(folder)
    manifest = (
        folder if folder.is_file() else next((folder / name for name in MANIFESTS if (folder / name).is_file()), None)
    )
    if manifest is not None:
        gathered = _Gathered(task)
        gathered.add_entries(read_manifest(manifest), only={})
    elif any(path for pattern in task.tars.values() for path in folder.glob(pattern)):
        gathered = _Gathered(task)
        for split, pattern in task.tars.items():
            gathered.add_tars(split, folder, pattern)
    elif task.layout is not None and folder.is_dir():
        gathered = _Gathered(task)
        gathered.add_entries(read_layout(task.layout, folder), only=task.only)
    else:
        ways = [*(f"the tars {pattern}" for pattern in task.tars.values()), *MANIFESTS[:1]]
        raise DataError(f"{folder} holds no data of task {task.name!r}; expected {' or '.join(ways)}")
    return gathered.finish(folder)


class _Gathered:
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
                self._add(Example(name, split, found.audio, self._facts(found.label)))
            else:
                self.refused.append(Refused(f"{found.tar.name}/{found.member}", found.reason))

    def add_entries(self, entries: Iterator[Entry] | list[Entry], *, only: Mapping[str, str]) -> None:
        field = self.task.label.field
        for entry in entries:
            facts = entry.meta
            if differing := [fact for fact, value in only.items() if str(facts.get(fact)) != value]:
                self.unused[f"{differing[0]} is {facts.get(differing[0])}"] += 1
                continue
            role = next((str(facts[name]) for name in (self.task.split_field, "split", "fold") if name in facts), None)
            if role is None:
                self.refused.append(Refused(entry.id, f"has no {self.task.split_field!r}, 'split' or 'fold'"))
                continue
            try:
                split = self.task.split_of(role)
            except DataError:
                self.unused[f"{self.task.split_field} is {role}"] += 1
                continue
            label = {field: facts["labels"], **facts} if "labels" in facts and field not in facts else facts
            self._add(Example(f"{split}/{entry.id}", split, entry.audio, label))

    def finish(self, folder: Path) -> Examples:
        if empty := [split for split, examples in self.by_split.items() if not examples]:
            refused = "; ".join(f"{name}: {reason}" for name, reason in self.refused[:_NAMED])
            raise DataError(
                f"{folder}: no examples of {', '.join(empty)} for task {self.task.name!r}; "
                f"refused: {refused or 'none'}; not of the task: {dict(self.unused) or 'none'}"
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

    def _facts(self, label: Any) -> Mapping[str, Any]:
        """Facts of a tar's JSON: an object as it is; a bare list or value, or captions, under the task's name."""
        field = self.task.label.field
        if not isinstance(label, dict):
            return {field: label}
        if self.task.kind == "retrieval" and field not in label:
            return {field: [value for value in label.values() if isinstance(value, str)]}
        return label


def _check_label(task: Task, facts: Mapping[str, Any]) -> None:
    found = (
        [event.label for event in task.label.events(facts)] if task.kind == "frame" else list(task.label.values(facts))
    )
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
    found = sorted({str(name) for example in chosen for name in _labels(task, example)})
    if task.classes is not None and len(found) != task.classes:
        raise DataError(
            f"task {task.name!r} has {task.classes} classes, but the training examples have {len(found)}: "
            f"{', '.join(found[:8])} …; is the data complete?"
        )
    return tuple(found)


def class_numbers(task: Task, classes: Sequence[str], example: Example) -> list[int]:
    """Numbers of the example's classes in `classes`; -1 for one that no training example has, so none can hit it."""
    places = {name: number for number, name in enumerate(classes)}
    return [places.get(str(name), -1) for name in _labels(task, example)]


def _labels(task: Task, example: Example) -> list[Any]:
    if task.kind == "frame":
        return [event.label for event in task.label.events(example.label)]
    return list(task.label.values(example.label))


def cut(
    waveform: Waveform, crop_s: float | None, protocol: Protocol, *, sample_rate: int = SAMPLE_RATE
) -> list[Waveform]:
    """Cut a sound into the crops that are embedded and scored.

    ``compat``: full crops from the start, the rest is thrown away; a shorter sound is zero-padded to one crop.
    ``strict``: the rest is a crop too if it is at least half as long as one; a shorter sound stays as it is.

    Args:
        waveform: (num_samples,).
        crop_s: length of a crop; None: the whole sound.
        protocol: which of the two.
        sample_rate: of the waveform, Hz.

    Returns:
        One crop or more; of `crop_s`, except for the last one of ``strict``.

    Source: ``compat`` is the rule of X-ARES 0.1.3, without its loss of crops that share a name.
    """
    if protocol not in ("compat", "strict"):
        raise ConfigError(f"no protocol {protocol!r}; expected 'compat' or 'strict'")
    if crop_s is None:
        return [waveform]
    size = int(crop_s * sample_rate)
    if len(waveform) < size:
        return [trim_or_pad(waveform, size) if protocol == "compat" else waveform]
    whole = len(waveform) // size
    crops = [waveform[start : start + size] for start in range(0, whole * size, size)]
    rest = waveform[whole * size :]
    return [*crops, rest] if protocol == "strict" and 2 * len(rest) >= size else crops


def trim_or_pad(waveform: npt.NDArray[Any], num_samples: int) -> npt.NDArray[Any]:
    """(…, num_samples) of an array: cut at the end, or zeros put there."""
    missing = num_samples - waveform.shape[-1]
    if missing <= 0:
        return waveform[..., :num_samples]
    return np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])


class Pair(NamedTuple):
    """Two sounds of different splits that are nearly the same to an encoder."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What is in more than one split."""

    sounds: int  # compared
    duplicates: tuple[tuple[str, ...], ...]  # ids of equal sounds, from two or more splits
    failed: tuple[Refused, ...]  # could not be decoded, so not compared


def audit(task: Task, folder: str | Path, *, workers: int = 2) -> Audit:
    """Look for sounds that are the same, sample for sample, in different splits of a task.

    Sounds are decoded to 16 kHz mono and compared as 16-bit samples, so the container does not matter.

    Raises:
        DataError: see `load_examples`.
    """

    def digest(example: Example) -> tuple[Example, bytes | AudioError | DataError]:
        try:
            waveform = decode(example.source()).waveform
        except (AudioError, DataError) as error:
            return example, error
        return example, sha256(np.clip(np.rint(waveform * 32_768), -32_768, 32_767).astype("<i2").tobytes()).digest()

    groups: dict[bytes, list[Example]] = defaultdict(list)
    failed = []
    for example, found in prefetch(digest, load_examples(task, folder), depth=2 * workers, workers=workers):
        if isinstance(found, AuricleError):
            failed.append(Refused(example.id, str(found)))
        else:
            groups[found].append(example)
    shared = [group for group in groups.values() if len({example.split for example in group}) > 1]
    duplicates = tuple(tuple(example.id for example in group) for group in shared)
    return Audit(sum(map(len, groups.values())), duplicates, tuple(failed))


def near_duplicates(
    ids: Sequence[str], splits: Sequence[str], embeddings: npt.ArrayLike, *, threshold: float = 0.99
) -> list[Pair]:
    """Pairs of sounds from different splits whose embeddings have a cosine of `threshold` or more, the nearest first.

    Args:
        ids: n names.
        splits: n splits.
        embeddings: (n, D) of one encoder; what counts as near depends on it.
        threshold: cosine, -1 to 1.

    Raises:
        DataError: not n of each, or embeddings that are not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or not len(rows) == len(ids) == len(splits) or not np.isfinite(rows).all():
        raise DataError(
            f"{len(ids)} ids, {len(splits)} splits, embeddings {rows.shape}; expected n, n and (n, D), finite"
        )
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    numbers = np.unique(np.asarray(splits), return_inverse=True)[1]
    pairs = []
    for start in range(0, len(rows), 1024):  # a block of 1024 x n cosines at a time
        cosines = rows[start : start + 1024] @ rows.T
        near = (cosines >= threshold) & (numbers[start : start + 1024, None] != numbers[None])
        for row, column in zip(*np.nonzero(near), strict=True):
            if start + row < column:
                pairs.append(Pair(ids[start + row], ids[column], float(cosines[row, column])))
    return sorted(pairs, key=lambda pair: -pair.cosine)
