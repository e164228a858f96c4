"""The clips of a task as embeddings with labels, and the partitions that heads are trained and tested on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.encode import EmbeddedClips
from auricle.bench.examples import Example, Examples, class_names, class_numbers
from auricle.bench.task import CAPTIONED, Task
from auricle.data.order import Permutation
from auricle.errors import DataError
from auricle.metrics.events import Event, frame_targets
from auricle.metrics.scoring_rule import ScoringRule

VALID_SHARE = 8  # strict: every eighth clip of a class is kept from training to pick the epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedTask:
    """A task's embedded clips and their labels. n clips, N pieces of them, C classes."""

    task: Task
    ids: Sequence[str]  # n
    splits: Sequence[str]  # n
    labels: Tensor  # (n,) int64, -1 for a class without training examples; (n, C) of 0 and 1; or (n, K) numbers
    classes: Sequence[str]
    features: Tensor  # (N, D); of frame tasks all frames, one piece after the other
    owners: Tensor  # (N,) int64: the clip of each piece
    lengths: Tensor | None = None  # (N,) frames of each piece; None: pooled
    targets: Sequence[Tensor] = ()  # of frame tasks: (T, C) of each clip
    events: Sequence[Sequence[Event]] = ()  # of frame tasks: of each clip, labelled as `classes`
    texts: Sequence[Sequence[str]] = ()  # of ASR and retrieval: the sentences of each clip
    hop_ms: float = 0.0

    @property
    def num_outputs(self) -> int:
        """Of a head."""
        return self.labels.shape[1] if self.labels.ndim == 2 else len(self.classes)

    def frames(self) -> Sequence[Tensor]:
        """Frames (T, D) of each piece.

        Raises:
            DataError: the embeddings are pooled.
        """
        if self.lengths is None:
            raise DataError(f"task {self.task.name!r}: found pooled embeddings, expected the frames of its clips")
        return self.features.split(self.lengths.tolist())

    def clips_of(self, split: str) -> Tensor:
        """Numbers of the clips of a split, int64."""
        return torch.tensor([number for number, own in enumerate(self.splits) if own == split], dtype=torch.int64)


class Partition(NamedTuple):
    """Numbers of the clips that one head is trained on, that pick its epoch, and that it is tested on."""

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor


def label_embeddings(examples: Examples, embedded: EmbeddedClips, hop_ms: float) -> EmbeddedTask:
    """Embeddings of the examples, in their order, with labels as the task's head needs them."""
    task, listed = examples.task, list(examples)
    classes = class_names(examples) if task.kind in ("clip", "frame") else ()
    features, owners = embedded.pooled()
    lengths = None
    if task.needs_frames:
        features, lengths = embedded.all_frames()
        if task.kind == "frame" and task.hear is None:
            features = features.float()
    events = [_events(task, example) for example in listed] if task.kind == "frame" else []
    return EmbeddedTask(
        task=task,
        ids=[example.id for example in listed],
        splits=[example.split for example in listed],
        labels=_labels(task, classes, listed),
        classes=classes,
        features=features,
        owners=owners,
        lengths=lengths,
        targets=()
        if task.hear
        else [frame_targets(own, list(classes), hop_ms=hop_ms, duration_s=task.frames_s) for own in events],
        events=events,
        texts=[[str(text) for text in task.label.values(example.label)] for example in listed]
        if task.kind in CAPTIONED
        else (),
        hop_ms=hop_ms,
    )


def multi_hot(numbers: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Class numbers of each clip as (n, C) float32 of 0 and 1; -1 is none of the classes."""
    labels = torch.zeros(len(numbers), classes)
    for row, own in enumerate(numbers):
        labels[row, [number for number in own if number >= 0]] = 1.0
    return labels


def partitions(data: EmbeddedTask, scoring_rule: ScoringRule, seed: int) -> list[Partition]:
    """One partition for each fold, or one for train, valid and test.

    Raises:
        DataError: a class or set is too small to keep a validation set from it.
    """
    task = data.task
    of = {name: data.clips_of(name) for name in task.splits}
    if not task.folds:
        train, valid, test = (of[str(name)] for name in (task.train, task.valid, task.test))
        if scoring_rule == "strict" and task.selects_on_test:
            train, valid = _hold_out(data, train, seed)
        return [Partition("test", train, valid, test)]
    found = []
    for name in task.folds:
        train = torch.cat([of[other] for other in task.folds if other != name])
        valid = of[name]
        if scoring_rule == "strict":
            train, valid = _hold_out(data, train, seed)
        found.append(Partition(name, train, valid, of[name]))
    return found


def _hold_out(data: EmbeddedTask, train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split the training clips: every `VALID_SHARE`-th of each class, in a shuffled order, is for validation."""
    labels = data.labels[train]
    groups = labels if labels.ndim == 1 else torch.zeros(len(train), dtype=torch.int64)
    held_out = torch.zeros(len(train), dtype=torch.bool)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        order = torch.from_numpy(Permutation(len(members), seed, int(group) + 1).ids(np.arange(len(members))))
        held_out[members[order[VALID_SHARE - 1 :: VALID_SHARE]]] = True
    if not held_out.any() or held_out.all():
        raise DataError(
            f"{len(train)} training clips in {len(groups.unique())} classes are too few to keep some for validation; "
            f"expected {VALID_SHARE} of a class: give more data, or use the scoring rule 'compat'"
        )
    return train[~held_out], train[held_out]


def _labels(task: Task, classes: Sequence[str], examples: Sequence[Example]) -> Tensor:
    if task.kind == "regression":
        return torch.tensor([[float(value) for value in task.label.values(each.label)] for each in examples])
    if task.kind in CAPTIONED:
        return torch.zeros(len(examples), dtype=torch.int64)
    numbers = [class_numbers(task, classes, each) for each in examples]
    if task.kind == "frame" or task.is_multilabel:
        return multi_hot(numbers, len(classes))
    return torch.tensor([own[0] for own in numbers])


def _events(task: Task, example: Example) -> list[Event]:
    return [event._replace(label=str(event.label)) for event in task.label.events(example.label)]
