"""The judge of HEAR 2021 tasks: its predictor on embeddings of sounds or of frames, and its scores.

A few points of the grid are trained on the first fold; the best on validation serves all folds. With folds, each is
tested once and the next one validates. Tasks of events in time go on in `auricle.bench.hear_events`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.bench.hear_events import event_folds, score_events
from auricle.bench.hear_predictor import Fitted, FoldRows, GridPoint, PredictorSettings, Rows, fit_folds
from auricle.bench.results import HeadScore
from auricle.bench.task import Task
from auricle.bench.xares import Judged, Plan, Table, Tested, by_class, by_item, over_folds
from auricle.errors import ConfigError, DataError
from auricle.metrics.classification import accuracy, d_prime, mean_average_precision, roc_auc

SEMITONES = 12  # of an octave

Metric = Callable[[Tensor, Tensor], float]  # of probabilities (n, C) and labels as in a `Table`


def judge_hear(
    table: Table,
    *,
    seed: int,
    settings: PredictorSettings | None = None,
    points: Sequence[GridPoint] | None = None,
    on_point: Callable[[Fitted], None] = lambda fitted: None,
) -> Judged:
    """Judge a HEAR task by HEAR's protocol.

    An item of accuracy is right or wrong; of mAP it is the sound's own average precision over classes; of AUCROC the
    share of sounds with the other label that it is ordered against rightly; of onset F the F of its own events.

    Args:
        table: one piece of each sound; of timestamp tasks with frames and events.
        seed: of the grid's draw, weights, dropout and shuffles.
        settings: of the predictor; None: those of `predictor_settings`.
        points: of the grid to try; None: eight drawn ones.
        on_point: called with each predictor after its training.

    Raises:
        ConfigError: no HEAR task, or one with a metric that HEAR does not have.
        DataError: sounds in several pieces, fewer than three folds, no events, or labels that cannot be scored.

    Source: hear-eval-kit 2021.1 `task_predictions.py`, `score.py`. Differs from: it, in that a class without positives
    or without negatives is left out of areas and d', which are undefined with it there.
    """
    settings = settings or predictor_settings(table.task, seed)
    if not torch.equal(table.owners, torch.arange(len(table.ids))):
        raise DataError(f"{len(table.owners)} pieces of {len(table.ids)} sounds; HEAR judges each sound as a whole")
    chosen = hear_plans(table)
    is_timed = table.task.kind == "frame"
    metrics = {} if is_timed else _metrics(table)
    folds = event_folds(table, chosen) if is_timed else _scene_folds(table, chosen, metrics[table.task.metric])
    fitted = fit_folds(folds, num_classes=len(table.classes), settings=settings, points=points, on_point=on_point)
    judged = score_events(table, chosen, fitted) if is_timed else _score_scenes(table, chosen, fitted, metrics)
    facts = {**_training_facts(fitted, settings), **judged.score.settings}
    by_fold = judged.score.folds if table.task.folds else {}
    if by_fold:
        facts["deviation"] = float(np.std(list(by_fold.values()), ddof=1))  # over folds, as HEAR reports it
    return judged._replace(score=replace(judged.score, folds=by_fold, settings=facts))


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


def hear_plans(table: Table) -> list[Plan]:
    """One plan for train, valid and test; or one for each fold, tested while the next one validates.

    Raises:
        DataError: fewer than three folds, or a split without sounds.
    """
    task = table.task
    of = {name: torch.tensor([i for i, s in enumerate(table.splits) if s == name]) for name in task.splits}
    if empty := [name for name, sounds in of.items() if not len(sounds)]:
        raise DataError(f"no sounds of {', '.join(empty)} for task {task.name!r}; expected some of every split")
    if not task.folds:
        return [Plan("test", *(of[str(name)] for name in (task.train, task.valid, task.test)))]
    if len(task.folds) < 3:
        raise DataError(f"task {task.name!r} has {len(task.folds)} folds; expected 3: to train, to validate, to test")
    found = []
    for number, name in enumerate(task.folds):
        following = task.folds[(number + 1) % len(task.folds)]
        train = torch.cat([of[other] for other in task.folds if other not in (name, following)])
        found.append(Plan(name, train, of[following], of[name]))
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
    """Share of items of the other label that each item is ordered against rightly, averaged over classes.

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


def _scene_folds(table: Table, chosen: Sequence[Plan], metric: Metric) -> Iterator[FoldRows]:
    for plan in chosen:
        both = []
        for sounds in (plan.train, plan.valid):
            # A class without training sounds cannot be learnt; where it validates, nothing can find it.
            known = sounds[table.labels[sounds] >= 0] if table.labels.ndim == 1 else sounds
            if not len(known):
                raise DataError(f"none of {len(sounds)} sounds has a class of the training set; check the labels")
            both.append(Rows(table.features[known], table.labels[known]))
        yield FoldRows(both[0], both[1], metric)


def _score_scenes(
    table: Table, chosen: Sequence[Plan], fitted: Sequence[Fitted], metrics: Mapping[str, Metric]
) -> Judged:
    main = table.task.metric
    tested = [
        Tested(each.probabilities(table.features[plan.test]), table.labels[plan.test], plan.test)
        for plan, each in zip(chosen, fitted, strict=True)
    ]
    values = {name: [metric(fold.outputs, fold.labels) for fold in tested] for name, metric in metrics.items()}
    # Of mAP and areas each class is there or not, also where a sound has one only.
    seen = [fold if main == "accuracy" else fold._replace(labels=_multi_hot(table, fold.labels)) for fold in tested]
    everything = Tested(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    if main == "AUCROC":
        shares = torch.cat([placements(fold.outputs, fold.labels) for fold in seen]).tolist()
        items = {table.ids[i]: round(share, 6) for i, share in zip(everything.sounds.tolist(), shares, strict=True)}
        classes = {
            table.classes[c]: roc_auc(everything.outputs[:, [c]], everything.labels[:, [c]])
            for c in _defined(everything.labels)
        }
    else:
        items, classes = by_item(table, everything), by_class(table, everything)
    whole = over_folds(tested, metrics[main])
    score = HeadScore(
        value=whole.value,
        low=whole.low,
        high=whole.high,
        n=len(everything.sounds),
        folds={plan.name: value for plan, value in zip(chosen, values[main], strict=True)},
        classes=classes,
        settings={"beside": {name: _finite(float(np.mean(own))) for name, own in values.items() if name != main}},
    )
    return Judged(score, items)


def _metrics(table: Table) -> dict[str, Metric]:
    """HEAR's metrics of scenes, by their names in the declarations."""
    beside = table.task.hear.beside if table.task.hear else ()

    def of_classes(metric: Metric) -> Metric:
        return lambda outputs, labels: metric(outputs, _multi_hot(table, labels))

    found = {"mAP": of_classes(mean_average_precision), "AUCROC": of_classes(_area), "d prime": of_classes(_d_prime)}
    if table.labels.ndim == 1:
        found["accuracy"] = accuracy
    if "chroma accuracy" in beside:
        pitches = _pitches(table.classes)
        found["chroma accuracy"] = lambda outputs, labels: chroma_accuracy(outputs, labels, pitches)
    if unknown := sorted({table.task.metric, *beside} - set(found)):
        raise ConfigError(f"task {table.task.name!r}: no metric {', '.join(unknown)}; expected {', '.join(found)}")
    return found


def _pitches(classes: Sequence[str]) -> Tensor:
    try:
        return torch.tensor([int(name) for name in classes])
    except ValueError:
        raise DataError(f"classes {', '.join(classes[:8])} are no pitches; expected numbers of semitones") from None


def _multi_hot(table: Table, labels: Tensor) -> Tensor:
    """(n, C) of 0 and 1; a label of -1 is none of the classes."""
    if labels.ndim == 2:
        return labels
    return F.one_hot(labels + 1, len(table.classes) + 1)[:, 1:].float()


def _defined(truth: Tensor) -> list[int]:
    """Classes with positives and negatives; without both there is no area."""
    found: list[int] = ((truth > 0).any(0) & ~(truth > 0).all(0)).nonzero()[:, 0].tolist()
    return found


def _area(outputs: Tensor, truth: Tensor) -> float:
    known = _defined(truth)
    # One class alone, as in some resamples of a few sounds, is ordered neither rightly nor wrongly.
    return roc_auc(outputs[:, known], truth[:, known]) if known else 0.5


def _d_prime(outputs: Tensor, truth: Tensor) -> float:
    known = _defined(truth)
    return d_prime(outputs[:, known], truth[:, known]) if known else 0.0


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity: a perfect d' is none."""
    return value if math.isfinite(value) else None
