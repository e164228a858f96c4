"""What is read off the embeddings of a task: the linear head and nearest neighbours of X-ARES, in both protocols.

``compat`` follows X-ARES 0.1.3: k-fold tasks pick the best epoch on the very fold they are tested on, crops are test
items of their own, and kNN scales features instead of clips. ``strict`` picks the epoch on sounds kept from training,
judges whole sounds by the mean over their crops, and compares clips by true cosine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.examples import Protocol
from auricle.bench.heads import Examples, Fold, HeadSettings, train_heads
from auricle.bench.probes import knn_scores
from auricle.bench.results import HeadScore
from auricle.bench.task import Task
from auricle.data.order import Permutation
from auricle.errors import DataError
from auricle.metrics.classification import accuracy, mean_average_precision
from auricle.metrics.events import Event, segment_f1
from auricle.metrics.intervals import Score, bootstrap_fold_means, bootstrap_interval
from auricle.metrics.regression import mean_squared_error

KNN_NEIGHBOURS, KNN_TEMPERATURE = 10, 0.07  # X-ARES `knn.py`
VALID_SHARE = 8  # strict: every eighth sound of a class is kept from training to pick the epoch
BOOTSTRAP_ROUNDS = 300  # of the bootstrap


class Plan(NamedTuple):
    """Numbers of the sounds that one head is trained on, that pick its epoch, and that it is tested on."""

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor


@dataclass(frozen=True, slots=True)
class Table:
    """A task's embedded sounds and their labels. n sounds, N pieces of them, C classes."""

    task: Task
    ids: Sequence[str]  # n
    splits: Sequence[str]  # n
    labels: Tensor  # (n,) int64, -1 for a class without training examples; (n, C) of 0 and 1; or (n, K) numbers
    classes: Sequence[str]
    features: Tensor  # (N, D); of frame tasks all frames, one piece after the other
    owners: Tensor  # (N,) int64: the sound of each piece
    lengths: Tensor | None = None  # (N,) frames of each piece; None: pooled
    targets: Sequence[Tensor] = ()  # of frame tasks: (T, C) of each sound
    events: Sequence[Sequence[Event]] = ()  # of frame tasks: of each sound, labelled as `classes`
    texts: Sequence[Sequence[str]] = ()  # of ASR and retrieval: the sentences of each sound
    hop_ms: float = 0.0

    @property
    def num_outputs(self) -> int:
        """Of a head."""
        return self.labels.shape[1] if self.labels.ndim == 2 else len(self.classes)


class Judged(NamedTuple):
    """A score, and what each test sound contributed to it."""

    score: HeadScore
    items: Mapping[str, float]


def plans(table: Table, protocol: Protocol, seed: int) -> list[Plan]:
    """One plan for each fold, or one for train, valid and test.

    Raises:
        DataError: a class or set is too small to keep a validation set from it.
    """
    task = table.task
    of = {name: torch.tensor([i for i, s in enumerate(table.splits) if s == name]) for name in task.splits}
    if not task.folds:
        train, valid, test = (of[str(name)] for name in (task.train, task.valid, task.test))
        if protocol == "strict" and task.selects_on_test:
            train, valid = _keep_back(table, train, seed)
        return [Plan("test", train, valid, test)]
    found = []
    for name in task.folds:
        train = torch.cat([of[other] for other in task.folds if other != name])
        valid = of[name]
        if protocol == "strict":
            train, valid = _keep_back(table, train, seed)
        found.append(Plan(name, train, valid, of[name]))
    return found


def _keep_back(table: Table, train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split the training sounds: every `VALID_SHARE`-th of each class, in a shuffled order, is for validation."""
    labels = table.labels[train]
    groups = labels if labels.ndim == 1 else torch.zeros(len(train), dtype=torch.int64)
    kept = torch.zeros(len(train), dtype=torch.bool)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        order = torch.from_numpy(Permutation(len(members), seed, int(group) + 1).ids(np.arange(len(members))))
        kept[members[order[VALID_SHARE - 1 :: VALID_SHARE]]] = True
    if not kept.any() or kept.all():
        raise DataError(
            f"{len(train)} training sounds in {len(groups.unique())} classes are too few to keep some for validation; "
            f"expected {VALID_SHARE} of a class: give more data, or use the protocol 'compat'"
        )
    return train[~kept], train[kept]


def judge_linear(
    table: Table, protocol: Protocol, *, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None
) -> Judged:
    """The X-ARES "MLP" (LayerNorm and a linear layer), all folds at once."""
    task = table.task
    chosen = plans(table, protocol, seed)
    settings = HeadSettings(
        epochs=task.epochs,
        batch_size=task.batch_size,
        rates=(task.learning_rate,),
        loss=task.loss,  # type: ignore[arg-type]  # clip, frame and regression tasks have these
        pos_weight=task.pos_weight,
        seed=seed,
    )
    pieces = [_pieces(table, plan) for plan in chosen]
    folds = [Fold(number, train, valid) for number, (train, valid, _) in enumerate(pieces)]
    trained = train_heads(
        _examples(table),
        folds,
        num_outputs=table.num_outputs,
        score=_selection(table),
        settings=settings,
        on_epoch=on_epoch,
    )
    outputs = []
    for number, (_, _, test) in enumerate(pieces):
        rows = _examples(table).rows(test)
        outputs.append(trained.best.outputs(table.features[rows], number)[0])
    facts = {"epochs": task.epochs, "best_epoch": trained.best_epoch[:, 0].tolist(), "rate": task.learning_rate}
    return _score(table, chosen, pieces, outputs, protocol, facts)


def judge_knn(table: Table, protocol: Protocol) -> Judged:
    """k nearest neighbours, k = 10; the score is always accuracy, as in X-ARES."""
    chosen = plans(table, "compat", 0)  # nothing is picked, so nothing is kept from the neighbours
    pieces = [_pieces(table, plan) for plan in chosen]
    outputs = []
    mode: Any = "compat" if protocol == "compat" else "cosine"
    for train, _, test in pieces:
        labels = table.labels[table.owners[train]]
        shares = knn_scores(
            table.features[train],
            labels,
            table.features[test],
            k=KNN_NEIGHBOURS,
            temperature=KNN_TEMPERATURE,
            mode=mode,
            num_classes=len(table.classes),
        )
        outputs.append(shares)
    facts = {"k": KNN_NEIGHBOURS, "temperature": KNN_TEMPERATURE, "mode": mode}
    return _score(table, chosen, pieces, outputs, protocol, facts)


def _examples(table: Table) -> Examples:
    if table.lengths is not None:
        parts = table.features.split(table.lengths.tolist())
        return Examples.of_frames(parts, [table.targets[int(owner)] for owner in table.owners])
    targets = table.labels[table.owners]
    return Examples(table.features, targets.clamp(min=0) if targets.dtype == torch.int64 else targets)


def _selection(table: Table) -> Callable[[Any, Any], float]:
    """What picks the best epoch: the task's own metric, higher is better."""
    task = table.task
    if task.kind == "frame":
        return lambda outputs, targets: _segments(task, table.hop_ms, outputs, targets)
    if task.kind == "regression":
        return lambda outputs, targets: -mean_squared_error(outputs, targets)
    return mean_average_precision if task.is_multilabel else accuracy


def _segments(task: Task, hop_ms: float, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    average: Any = task.metric.rpartition("_")[2]
    return segment_f1(outputs, targets, hop_ms=hop_ms, segment_s=task.segment_s or 1.0, average=average)


def _pieces(table: Table, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the pieces of the sounds of a plan's three sets."""
    train, valid, test = (torch.isin(table.owners, sounds).nonzero()[:, 0] for sounds in plan[1:])
    return train, valid, test


class Tested(NamedTuple):
    """Test items of a fold: outputs (m, C), labels (m, …) and the sound of each."""

    outputs: Tensor
    labels: Tensor
    sounds: Tensor


def _score(
    table: Table,
    chosen: Sequence[Plan],
    pieces: Sequence[tuple[Tensor, Tensor, Tensor]],
    outputs: Sequence[Tensor],
    protocol: Protocol,
    settings: Mapping[str, Any],
) -> Judged:
    if table.task.kind == "frame":
        return _score_frames(table, chosen, pieces, outputs, settings)
    tested = []
    for (_, _, test), found in zip(pieces, outputs, strict=True):
        sounds = table.owners[test]
        if protocol == "strict":
            own, places = sounds.unique(return_inverse=True)
            sums = found.new_zeros(len(own), found.shape[1]).index_add_(0, places, found)
            found, sounds = sums / places.bincount()[:, None], own
        tested.append(Tested(found, table.labels[sounds], sounds))
    metric = _metric(table)
    folds = {plan.name: metric(fold.outputs, fold.labels) for plan, fold in zip(chosen, tested, strict=True)}
    whole = over_folds(tested, metric)
    everything = Tested(*(torch.cat(parts) for parts in zip(*tested, strict=True)))
    score = HeadScore(
        value=whole.value,
        low=whole.low,
        high=whole.high,
        n=len(everything.sounds),
        folds=folds if table.task.folds else {},
        classes=by_class(table, everything),
        settings=dict(settings),
    )
    return Judged(score, by_item(table, everything))


def _metric(table: Table) -> Callable[[Tensor, Tensor], float]:
    if table.task.kind == "regression":
        return mean_squared_error
    return mean_average_precision if table.labels.ndim == 2 else accuracy


# Metrics that are means over items: what each item contributes.
_OF_ITEMS: dict[Callable[[Tensor, Tensor], float], Callable[[Tensor, Tensor], Tensor]] = {
    accuracy: lambda outputs, labels: outputs.argmax(1) == labels,
    mean_squared_error: lambda outputs, labels: (outputs.double() - labels.double()).square().sum(1),
}


def over_folds(tested: Sequence[Tested], metric: Callable[[Tensor, Tensor], float]) -> Score:
    """Plain mean over folds of a metric of outputs and labels, and its 95 % interval over resampled sounds."""
    numbers = np.concatenate(
        [np.stack([np.full(len(f.sounds), i), np.arange(len(f.sounds))], 1) for i, f in enumerate(tested)]
    )
    sounds = torch.cat([fold.sounds for fold in tested]).numpy()
    if metric in _OF_ITEMS:
        each = torch.cat([_OF_ITEMS[metric](fold.outputs, fold.labels) for fold in tested]).double().numpy()
        return bootstrap_fold_means(each, numbers[:, 0], groups=sounds, rounds=BOOTSTRAP_ROUNDS)

    def mean(rows: Any) -> float:
        values = []
        for number, fold in enumerate(tested):
            picked = torch.from_numpy(rows[rows[:, 0] == number, 1].astype(np.int64))
            if len(picked):
                values.append(metric(fold.outputs[picked], fold.labels[picked]))
        return float(np.mean(values))

    return bootstrap_interval(numbers.astype(np.float64), mean, groups=sounds, rounds=BOOTSTRAP_ROUNDS)


def by_class(table: Table, tested: Tested) -> dict[str, float]:
    """Recall of each class, or its average precision; classes without test items are left out."""
    if table.task.kind == "regression":
        return {}
    found = {}
    for number, name in enumerate(table.classes):
        if tested.labels.ndim == 2:
            truth = tested.labels[:, number : number + 1]
            if truth.any():
                found[name] = mean_average_precision(tested.outputs[:, number : number + 1], truth)
        elif (own := tested.labels == number).any():
            found[name] = accuracy(tested.outputs[own], tested.labels[own])
    return found


def by_item(table: Table, tested: Tested) -> dict[str, float]:
    """What each sound contributes: right or wrong, the negative squared error, or its own average precision."""
    if table.task.kind == "regression":
        each = -(tested.outputs - tested.labels).square().sum(1)
    elif tested.labels.ndim == 2:
        each = torch.tensor([_ranked(*row) for row in zip(tested.outputs, tested.labels, strict=True)])
    else:
        each = (tested.outputs.argmax(1) == tested.labels).float()
    own, places = tested.sounds.unique(return_inverse=True)
    means = torch.zeros(len(own)).index_add_(0, places, each.float()) / places.bincount()
    return {table.ids[int(sound)]: round(float(mean), 6) for sound, mean in zip(own, means, strict=True)}


def _ranked(outputs: Tensor, truth: Tensor) -> float:
    return mean_average_precision(outputs[:, None], truth[:, None]) if truth.any() else 0.0


def _score_frames(
    table: Table,
    chosen: Sequence[Plan],
    pieces: Sequence[tuple[Tensor, Tensor, Tensor]],
    outputs: Sequence[Tensor],
    settings: Mapping[str, Any],
) -> Judged:
    """Segment F1 over the sounds of each fold; an item is a sound, its score its own F1."""
    examples = _examples(table)
    tested = []
    for (_, _, test), found in zip(pieces, outputs, strict=True):
        truth = examples.split(examples.targets[examples.rows(test)], test)
        tested.append((examples.split(found, test), truth, table.owners[test]))

    def metric(fold: int, picked: Sequence[int]) -> float:
        found, truth, _ = tested[fold]
        return _segments(table.task, table.hop_ms, [found[i] for i in picked], [truth[i] for i in picked])

    rows = np.array([(fold, i) for fold, (_, truth, _) in enumerate(tested) for i in range(len(truth))], np.float64)

    def mean(drawn: Any) -> float:
        groups = [[int(i) for f, i in drawn if f == fold] for fold in range(len(tested))]
        return float(np.mean([metric(fold, group) for fold, group in enumerate(groups) if group]))

    interval = bootstrap_interval(rows, mean, rounds=BOOTSTRAP_ROUNDS)
    items = {
        table.ids[int(sounds[i])]: metric(fold, [i])
        for fold, (_, truth, sounds) in enumerate(tested)
        for i in range(len(truth))
    }
    whole = {plan.name: metric(number, range(len(tested[number][1]))) for number, plan in enumerate(chosen)}
    score = HeadScore(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=len(rows),
        folds=whole if table.task.folds else {},
        classes={},
        settings=dict(settings),
    )
    return Judged(score, items)
