"""The linear head and the nearest neighbours of X-ARES on the embeddings of a task, by both scoring rules.

``compat`` follows X-ARES 0.1.3: k-fold tasks pick the best epoch on the very fold they are tested on, crops are test
items of their own, and kNN scales features instead of clips. ``strict`` picks the epoch on clips kept from training,
scores whole clips by the mean over their crops, and compares clips by true cosine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from auricle.bench.embedded_task import EmbeddedTask, Partition, partitions
from auricle.bench.heads import Fold, HeadSettings, LabelledFeatures, train_heads
from auricle.bench.probes import Mode, knn_scores
from auricle.bench.results import HeadScore
from auricle.metrics.classification import accuracy, mean_average_precision
from auricle.metrics.events import segment_f1
from auricle.metrics.intervals import Score, bootstrap_fold_means, bootstrap_interval
from auricle.metrics.regression import mean_squared_error
from auricle.metrics.scoring_rule import ScoringRule

KNN_NEIGHBOURS, KNN_TEMPERATURE = 10, 0.07  # X-ARES `knn.py`
BOOTSTRAP_ROUNDS = 300

Metric = Callable[[Tensor, Tensor], float]  # of outputs (m, C) and labels (m, …)


class HeadResult(NamedTuple):
    """A score, and what each test clip contributed to it."""

    score: HeadScore
    items: Mapping[str, float]


class Predictions(NamedTuple):
    """Test items of a fold: outputs (m, C), labels (m, …) and the clip of each."""

    outputs: Tensor
    labels: Tensor
    clips: Tensor


class _Pieces(NamedTuple):
    """Numbers of the pieces of the clips of a partition's three sets."""

    train: Tensor
    valid: Tensor
    test: Tensor


def score_linear_head(
    data: EmbeddedTask, scoring_rule: ScoringRule, *, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None
) -> HeadResult:
    """Train and test the X-ARES "MLP" (LayerNorm and a linear layer), all folds at once."""
    task = data.task
    chosen = partitions(data, scoring_rule, seed)
    settings = HeadSettings(
        epochs=task.epochs,
        batch_size=task.batch_size,
        rates=(task.learning_rate,),
        loss=task.loss,  # type: ignore[arg-type]  # clip, frame and regression tasks have these
        pos_weight=task.pos_weight,
        seed=seed,
    )
    examples = _labelled_features(data)
    pieces = [_pieces(data, partition) for partition in chosen]
    trained = train_heads(
        examples,
        [Fold(number, own.train, own.valid) for number, own in enumerate(pieces)],
        num_outputs=data.num_outputs,
        score=_selection_metric(data),
        settings=settings,
        on_epoch=on_epoch,
    )
    outputs = [
        trained.best.outputs(data.features[examples.rows(own.test)], number)[0] for number, own in enumerate(pieces)
    ]
    facts = {"epochs": task.epochs, "best_epoch": trained.best_epoch[:, 0].tolist(), "rate": task.learning_rate}
    names = [partition.name for partition in chosen]
    if task.kind == "frame":
        return _score_frames(data, names, pieces, outputs, facts)
    return _score_clips(data, names, _predictions(data, pieces, outputs, scoring_rule), facts)


def score_knn(data: EmbeddedTask, scoring_rule: ScoringRule) -> HeadResult:
    """Score k nearest neighbours, k = 10; the metric is always accuracy, as in X-ARES."""
    chosen = partitions(data, "compat", 0)  # nothing is picked, so nothing is kept from the neighbours
    mode: Mode = "compat" if scoring_rule == "compat" else "cosine"
    pieces = [_pieces(data, partition) for partition in chosen]
    outputs = [
        knn_scores(
            data.features[own.train],
            data.labels[data.owners[own.train]],
            data.features[own.test],
            k=KNN_NEIGHBOURS,
            temperature=KNN_TEMPERATURE,
            mode=mode,
            num_classes=len(data.classes),
        )
        for own in pieces
    ]
    facts = {"k": KNN_NEIGHBOURS, "temperature": KNN_TEMPERATURE, "mode": mode}
    names = [partition.name for partition in chosen]
    return _score_clips(data, names, _predictions(data, pieces, outputs, scoring_rule), facts)


def mean_over_folds(tested: Sequence[Predictions], metric: Metric) -> Score:
    """Plain mean over folds of a metric, and its 95 % interval over resampled clips."""
    numbers = np.concatenate(
        [np.stack([np.full(len(f.clips), i), np.arange(len(f.clips))], 1) for i, f in enumerate(tested)]
    )
    clips = torch.cat([fold.clips for fold in tested]).numpy()
    if metric in _OF_ITEMS:
        each = torch.cat([_OF_ITEMS[metric](fold.outputs, fold.labels) for fold in tested]).double().numpy()
        return bootstrap_fold_means(each, numbers[:, 0], groups=clips, rounds=BOOTSTRAP_ROUNDS)

    def mean(rows: Any) -> float:
        values = []
        for number, fold in enumerate(tested):
            picked = torch.from_numpy(rows[rows[:, 0] == number, 1].astype(np.int64))
            if len(picked):
                values.append(metric(fold.outputs[picked], fold.labels[picked]))
        return float(np.mean(values))

    return bootstrap_interval(numbers.astype(np.float64), mean, groups=clips, rounds=BOOTSTRAP_ROUNDS)


def scores_by_class(data: EmbeddedTask, tested: Predictions) -> dict[str, float]:
    """Recall of each class, or its average precision; classes without test items are left out."""
    if data.task.kind == "regression":
        return {}
    found = {}
    for number, name in enumerate(data.classes):
        if tested.labels.ndim == 2:
            truth = tested.labels[:, number : number + 1]
            if truth.any():
                found[name] = mean_average_precision(tested.outputs[:, number : number + 1], truth)
        elif (own := tested.labels == number).any():
            found[name] = accuracy(tested.outputs[own], tested.labels[own])
    return found


def scores_by_item(data: EmbeddedTask, tested: Predictions) -> dict[str, float]:
    """What each clip contributes: right or wrong, the negative squared error, or its own average precision."""
    if data.task.kind == "regression":
        each = -(tested.outputs - tested.labels).square().sum(1)
    elif tested.labels.ndim == 2:
        each = torch.tensor([_average_precision(*row) for row in zip(tested.outputs, tested.labels, strict=True)])
    else:
        each = (tested.outputs.argmax(1) == tested.labels).float()
    own, places = tested.clips.unique(return_inverse=True)
    means = torch.zeros(len(own)).index_add_(0, places, each.float()) / places.bincount()
    return {data.ids[int(clip)]: round(float(mean), 6) for clip, mean in zip(own, means, strict=True)}


def _labelled_features(data: EmbeddedTask) -> LabelledFeatures:
    if data.lengths is not None:
        return LabelledFeatures.of_frames(data.frames(), [data.targets[int(owner)] for owner in data.owners])
    targets = data.labels[data.owners]
    return LabelledFeatures(data.features, targets.clamp(min=0) if targets.dtype == torch.int64 else targets)


def _pieces(data: EmbeddedTask, partition: Partition) -> _Pieces:
    return _Pieces(*(torch.isin(data.owners, clips).nonzero()[:, 0] for clips in partition[1:]))


def _selection_metric(data: EmbeddedTask) -> Callable[[Any, Any], float]:
    """The metric that picks the best epoch: the task's own, higher is better."""
    if data.task.kind == "frame":
        return lambda outputs, targets: _segment_f1(data, outputs, targets)
    if data.task.kind == "regression":
        return lambda outputs, targets: -mean_squared_error(outputs, targets)
    return mean_average_precision if data.task.is_multilabel else accuracy


def _segment_f1(data: EmbeddedTask, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    average = cast(Literal["macro", "micro"], data.task.metric.rpartition("_")[2])
    return segment_f1(outputs, targets, hop_ms=data.hop_ms, segment_s=data.task.segment_s or 1.0, average=average)


def _metric(data: EmbeddedTask) -> Metric:
    if data.task.kind == "regression":
        return mean_squared_error
    return mean_average_precision if data.labels.ndim == 2 else accuracy


# Metrics that are means over items: what each item contributes.
_OF_ITEMS: dict[Metric, Callable[[Tensor, Tensor], Tensor]] = {
    accuracy: lambda outputs, labels: outputs.argmax(1) == labels,
    mean_squared_error: lambda outputs, labels: (outputs.double() - labels.double()).square().sum(1),
}


def _average_precision(outputs: Tensor, truth: Tensor) -> float:
    return mean_average_precision(outputs[:, None], truth[:, None]) if truth.any() else 0.0


def _predictions(
    data: EmbeddedTask, pieces: Sequence[_Pieces], outputs: Sequence[Tensor], scoring_rule: ScoringRule
) -> list[Predictions]:
    """Of each fold; ``strict`` takes the mean over the crops of a clip."""
    tested = []
    for own, found in zip(pieces, outputs, strict=True):
        clips = data.owners[own.test]
        if scoring_rule == "strict":
            clips, places = clips.unique(return_inverse=True)
            sums = found.new_zeros(len(clips), found.shape[1]).index_add_(0, places, found)
            found = sums / places.bincount()[:, None]
        tested.append(Predictions(found, data.labels[clips], clips))
    return tested


def _score_clips(
    data: EmbeddedTask, names: Sequence[str], tested: Sequence[Predictions], settings: Mapping[str, Any]
) -> HeadResult:
    metric = _metric(data)
    folds = {name: metric(fold.outputs, fold.labels) for name, fold in zip(names, tested, strict=True)}
    everything = Predictions(*(torch.cat(parts) for parts in zip(*tested, strict=True)))
    score = HeadScore.of(
        mean_over_folds(tested, metric),
        folds=folds if data.task.folds else {},
        classes=scores_by_class(data, everything),
        settings=settings,
    )
    return HeadResult(score, scores_by_item(data, everything))


def _score_frames(
    data: EmbeddedTask,
    names: Sequence[str],
    pieces: Sequence[_Pieces],
    outputs: Sequence[Tensor],
    settings: Mapping[str, Any],
) -> HeadResult:
    """Segment F1 over the clips of each fold; an item is a clip, its score its own F1."""
    examples = _labelled_features(data)
    tested = []
    for own, found in zip(pieces, outputs, strict=True):
        truth = examples.split(examples.targets[examples.rows(own.test)], own.test)
        tested.append((examples.split(found, own.test), truth, data.owners[own.test]))

    def metric(fold: int, picked: Sequence[int]) -> float:
        found, truth, _ = tested[fold]
        return _segment_f1(data, [found[i] for i in picked], [truth[i] for i in picked])

    rows = np.array([(fold, i) for fold, (_, truth, _) in enumerate(tested) for i in range(len(truth))], np.float64)

    def mean(sampled: Any) -> float:
        groups = [[int(i) for f, i in sampled if f == fold] for fold in range(len(tested))]
        return float(np.mean([metric(fold, group) for fold, group in enumerate(groups) if group]))

    items = {
        data.ids[int(clips[i])]: metric(fold, [i])
        for fold, (_, truth, clips) in enumerate(tested)
        for i in range(len(truth))
    }
    folds = {name: metric(number, range(len(tested[number][1]))) for number, name in enumerate(names)}
    interval = bootstrap_interval(rows, mean, rounds=BOOTSTRAP_ROUNDS)
    score = HeadScore.of(interval, folds=folds if data.task.folds else {}, settings=settings)
    return HeadResult(score, items)
