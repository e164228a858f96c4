"""HEAR 2021: its predictor on embeddings of clips or of frames, and its scores.

A few points of the grid are trained on the first fold; the best on validation serves all folds. With folds, each is
tested once and the next one validates. Tasks of events in time continue in `auricle.bench.hear_events`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.bench.embedded_task import EmbeddedTask, Partition
from auricle.bench.hear_events import event_folds, score_events
from auricle.bench.hear_predictor import Fitted, FoldRows, GridPoint, PredictorSettings, Rows, fit_folds
from auricle.bench.results import HeadScore
from auricle.bench.task import Task
from auricle.bench.xares import HeadResult, Metric, Predictions, mean_over_folds, scores_by_class, scores_by_item
from auricle.errors import ConfigError, DataError
from auricle.metrics.classification import accuracy, d_prime, mean_average_precision, roc_auc

SEMITONES = 12  # of an octave


def score_hear(
    data: EmbeddedTask,
    *,
    seed: int,
    settings: PredictorSettings | None = None,
    points: Sequence[GridPoint] | None = None,
    on_point: Callable[[Fitted], None] = lambda fitted: None,
) -> HeadResult:
    """Score a HEAR task by HEAR's rules.

    An item of accuracy is right or wrong; of mAP it is the clip's own average precision over classes; of AUCROC the
    share of clips with the other label that it is ordered against correctly; of onset F the F of its own events.

    Args:
        data: one piece of each clip; of timestamp tasks with frames and events.
        seed: of the points of the grid, weights, dropout and shuffles.
        settings: of the predictor; None: those of `predictor_settings`.
        points: of the grid to try; None: eight random ones.
        on_point: called with each predictor after its training.

    Raises:
        ConfigError: no HEAR task, or one with a metric that HEAR does not have.
        DataError: clips in several pieces, fewer than three folds, no events, or labels that cannot be scored.

    Source: hear-eval-kit 2021.1 `task_predictions.py`, `score.py`. Differs from: it, in that a class without positives
    or without negatives is left out of areas and d', which are undefined with it there.
    """
    settings = settings or predictor_settings(data.task, seed)
    if not torch.equal(data.owners, torch.arange(len(data.ids))):
        raise DataError(f"{len(data.owners)} pieces of {len(data.ids)} clips; HEAR scores each clip as a whole")
    chosen = hear_partitions(data)
    is_timed = data.task.kind == "frame"
    metrics = {} if is_timed else _metrics(data)
    folds = event_folds(data, chosen) if is_timed else _scene_folds(data, chosen, metrics[data.task.metric])
    fitted = fit_folds(folds, num_classes=len(data.classes), settings=settings, points=points, on_point=on_point)
    scored = score_events(data, chosen, fitted) if is_timed else _score_scenes(data, chosen, fitted, metrics)
    facts = {**_training_facts(fitted, settings), **scored.score.settings}
    by_fold = scored.score.folds if data.task.folds else {}
    if by_fold:
        facts["deviation"] = float(np.std(list(by_fold.values()), ddof=1))  # over folds, as HEAR reports it
    return scored._replace(score=replace(scored.score, folds=by_fold, settings=facts))


def predictor_settings(task: Task, seed: int) -> PredictorSettings:
    """HEAR's own for the task.

    Raises:
        ConfigError: no HEAR task.
    """
    if task.hear is None:
        raise ConfigError(f"task {task.name!r} is of the suite {task.suite!r}; expected one of 'hear'")
    return PredictorSettings(
        kind=task.hear.mode,
        batch_size=task.batch_size,
        max_epochs=task.epochs,
        check_every=task.hear.check_every,
        select_by=task.hear.select_by,
        seed=seed,
    )


def hear_partitions(data: EmbeddedTask) -> list[Partition]:
    """One partition for train, valid and test; or one for each fold, tested while the next one validates.

    Raises:
        DataError: fewer than three folds, or a split without clips.
    """
    task = data.task
    of = {name: data.clips_of(name) for name in task.splits}
    if empty := [name for name, clips in of.items() if not len(clips)]:
        raise DataError(f"no clips of {', '.join(empty)} for task {task.name!r}; expected some of every split")
    if not task.folds:
        return [Partition("test", *(of[str(name)] for name in (task.train, task.valid, task.test)))]
    if len(task.folds) < 3:
        raise DataError(f"task {task.name!r} has {len(task.folds)} folds; expected 3: to train, to validate, to test")
    found = []
    for number, name in enumerate(task.folds):
        following = task.folds[(number + 1) % len(task.folds)]
        train = torch.cat([of[other] for other in task.folds if other not in (name, following)])
        found.append(Partition(name, train, of[following], of[name]))
    return found


def chroma_accuracy(outputs: Tensor, labels: Tensor, pitches: Tensor) -> float:
    """Accuracy of pitches, where an error of whole octaves counts as right.

    Args:
        outputs: (n, C).
        labels: (n,) int64, -1 for a class that is none of C.
        pitches: (C,) int64, semitones of the classes in any order.

    Source: HEAR `score.py`, chroma_acc, where classes are successive semitones.
    """
    same = (pitches[outputs.argmax(1)] - pitches[labels]) % SEMITONES == 0
    return float((same & (labels >= 0)).double().mean())


def placements(outputs: Tensor, truth: Tensor) -> Tensor:
    """Share of items of the other label that each item is ordered against correctly, averaged over classes.

    Args:
        outputs: (n, C) of any monotone scale; equal ones are half right.
        truth: (n, C) of 0 and 1; classes without positives or negatives do not count.

    Returns:
        (n,) float64; their mean is the mean area under the ROC curve.
    """
    columns = []
    for number in _defined(truth):
        scores, is_own = outputs[:, number].double().contiguous(), truth[:, number] > 0
        lower = []
        for others in (scores[~is_own].sort().values, scores[is_own].sort().values):
            twice = torch.searchsorted(others, scores) + torch.searchsorted(others, scores, right=True)
            lower.append(twice / (2.0 * len(others)))
        columns.append(torch.where(is_own, lower[0], 1.0 - lower[1]))
    return torch.stack(columns).mean(0) if columns else torch.full((len(truth),), 0.5, dtype=torch.float64)


def _training_facts(fitted: Sequence[Fitted], settings: PredictorSettings) -> dict[str, Any]:
    point = fitted[0].point
    return {
        "hidden_layers": point.hidden_layers,
        "rate": point.rate,
        "initialisation": point.initialisation,
        "max_epochs": settings.max_epochs,
        "check_every": settings.check_every,
        "select_by": settings.select_by,
        "epoch": [each.epoch for each in fitted],
        "validation": [_finite(each.score) for each in fitted],
    }


def _scene_folds(data: EmbeddedTask, chosen: Sequence[Partition], metric: Metric) -> Iterator[FoldRows]:
    for partition in chosen:
        both = []
        for clips in (partition.train, partition.valid):
            # A class without training clips cannot be learnt; where it validates, nothing can find it.
            known = clips[data.labels[clips] >= 0] if data.labels.ndim == 1 else clips
            if not len(known):
                raise DataError(f"none of {len(clips)} clips has a class of the training set; check the labels")
            both.append(Rows(data.features[known], data.labels[known]))
        yield FoldRows(both[0], both[1], metric)


def _score_scenes(
    data: EmbeddedTask, chosen: Sequence[Partition], fitted: Sequence[Fitted], metrics: Mapping[str, Metric]
) -> HeadResult:
    main = data.task.metric
    tested = [
        Predictions(each.probabilities(data.features[own.test]), data.labels[own.test], own.test)
        for own, each in zip(chosen, fitted, strict=True)
    ]
    values = {name: [metric(fold.outputs, fold.labels) for fold in tested] for name, metric in metrics.items()}
    # Of mAP and areas each class is there or not, also where a clip has one only.
    seen = [fold if main == "accuracy" else fold._replace(labels=_multi_hot(data, fold.labels)) for fold in tested]
    everything = Predictions(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    if main == "AUCROC":
        shares = torch.cat([placements(fold.outputs, fold.labels) for fold in seen]).tolist()
        items = {data.ids[i]: round(share, 6) for i, share in zip(everything.clips.tolist(), shares, strict=True)}
        classes = {
            data.classes[c]: roc_auc(everything.outputs[:, [c]], everything.labels[:, [c]])
            for c in _defined(everything.labels)
        }
    else:
        items, classes = scores_by_item(data, everything), scores_by_class(data, everything)
    score = HeadScore.of(
        mean_over_folds(tested, metrics[main]),
        folds={own.name: value for own, value in zip(chosen, values[main], strict=True)},
        classes=classes,
        settings={"beside": {name: _finite(float(np.mean(own))) for name, own in values.items() if name != main}},
    )
    return HeadResult(score, items)


def _metrics(data: EmbeddedTask) -> dict[str, Metric]:
    """HEAR's metrics of scenes, by their names in the declarations."""
    beside = data.task.hear.beside if data.task.hear else ()

    def of_classes(metric: Metric) -> Metric:
        return lambda outputs, labels: metric(outputs, _multi_hot(data, labels))

    found = {"mAP": of_classes(mean_average_precision), "AUCROC": of_classes(_area), "d prime": of_classes(_d_prime)}
    if data.labels.ndim == 1:
        found["accuracy"] = accuracy
    if "chroma accuracy" in beside:
        pitches = _pitches(data.classes)
        found["chroma accuracy"] = lambda outputs, labels: chroma_accuracy(outputs, labels, pitches)
    if unknown := sorted({data.task.metric, *beside} - set(found)):
        raise ConfigError(f"task {data.task.name!r}: no metric {', '.join(unknown)}; expected {', '.join(found)}")
    return found


def _pitches(classes: Sequence[str]) -> Tensor:
    try:
        return torch.tensor([int(name) for name in classes])
    except ValueError:
        raise DataError(f"classes {', '.join(classes[:8])} are no pitches; expected numbers of semitones") from None


def _multi_hot(data: EmbeddedTask, labels: Tensor) -> Tensor:
    """(n, C) of 0 and 1; a label of -1 is none of the classes."""
    if labels.ndim == 2:
        return labels
    return F.one_hot(labels + 1, len(data.classes) + 1)[:, 1:].float()


def _defined(truth: Tensor) -> list[int]:
    """Classes with positives and negatives; without both there is no area."""
    found: list[int] = ((truth > 0).any(0) & ~(truth > 0).all(0)).nonzero()[:, 0].tolist()
    return found


def _area(outputs: Tensor, truth: Tensor) -> float:
    known = _defined(truth)
    # One class alone, as in some resamples of a few clips, is ordered neither correctly nor wrongly.
    return roc_auc(outputs[:, known], truth[:, known]) if known else 0.5


def _d_prime(outputs: Tensor, truth: Tensor) -> float:
    known = _defined(truth)
    return d_prime(outputs[:, known], truth[:, known]) if known else 0.0


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity: a perfect d' is none."""
    return value if math.isfinite(value) else None
