"""Classification, regression and suite averages."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics import classification, regression, suite_average

from .metric_tester import FLOATS, Arguments, MetricCase, quarters, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Generator = np.random.Generator
SCIKIT_LEARN, SACREBLEU = ("sklearn", "bench"), ("sacrebleu", "evaluate")
EMPTY = torch.zeros(0, 3)
NOT_FINITE = (torch.tensor([[NAN], [0.0]]), torch.tensor([[1], [0]]))
NO_POSITIVES = (torch.tensor([[0.1], [0.2]]), torch.tensor([[0], [0]]))
ALL_TIED = (torch.zeros(4, 1), torch.tensor([[1], [0], [0], [0]]))
MISFIT = (torch.zeros(3, 2), torch.zeros(3, 1))


# References


def reference_accuracy(logits: Tensor, labels: Tensor) -> float:
    sklearn = pytest.importorskip("sklearn.metrics")
    return float(sklearn.accuracy_score(labels.numpy(), logits.numpy().argmax(1)))


def reference_mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """By the definition: the precision at each threshold, weighted by the growth of recall."""
    return float(
        np.mean([_average_precision(*each) for each in zip(scores.t().tolist(), targets.t().tolist(), strict=True)])
    )


def _average_precision(scores: list[float], hits: list[float]) -> float:
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(hits) if sum(hits) else 0.0
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


def reference_frame_mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    return reference_mean_average_precision(scores.reshape(-1, scores.shape[2]), targets.reshape(-1, targets.shape[2]))


def _roc_areas(scores: Tensor, targets: Tensor) -> list[float]:
    """The share of pairs of positive and negative in the right order."""
    areas = []
    for column, hits in zip(scores.t(), targets.t() > 0, strict=True):
        positive, negative = column[hits], column[~hits]
        pairs = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
        areas.append(float(pairs.mean()))
    return areas


def reference_roc_auc(scores: Tensor, targets: Tensor) -> float:
    return float(np.mean(_roc_areas(scores, targets)))


def reference_d_prime(scores: Tensor, targets: Tensor) -> float:
    stats = pytest.importorskip("scipy.stats")
    with np.errstate(invalid="ignore"):  # one class perfect, another one perfectly wrong
        return math.sqrt(2) * float(np.mean([stats.norm.ppf(area) for area in _roc_areas(scores, targets)]))


def reference_equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """Over the corners of the ROC curve; the first threshold counts as one, as in scikit-learn."""
    values, truth = scores.tolist(), [bool(label) for label in labels.tolist()]
    curve = []
    for threshold in sorted(set(values), reverse=True):
        alarms = sum(value >= threshold and not hit for value, hit in zip(values, truth, strict=True))
        hits = sum(value >= threshold and hit for value, hit in zip(values, truth, strict=True))
        curve.append((alarms, hits))
    corners = [
        point
        for at, point in enumerate(curve)
        if at in (0, len(curve) - 1)
        or any(curve[at + 1][axis] - point[axis] != point[axis] - curve[at - 1][axis] for axis in (0, 1))
    ]
    rates = [(1 - hits / sum(truth), alarms / (len(truth) - sum(truth))) for alarms, hits in [(0, 0), *corners]]
    misses, alarms = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
    return (misses + alarms) / 2


def reference_mean_absolute_error(outputs: Tensor, targets: Tensor) -> float:
    sklearn = pytest.importorskip("sklearn.metrics")
    return float(sklearn.mean_absolute_error(targets.numpy(), outputs.numpy(), multioutput="raw_values").sum())


def reference_mean_squared_error(outputs: Tensor, targets: Tensor) -> float:
    sklearn = pytest.importorskip("sklearn.metrics")
    return float(sklearn.mean_squared_error(targets.numpy(), outputs.numpy(), multioutput="raw_values").sum())


def reference_weighted_average(pairs: Sequence[tuple[float, float]]) -> float:
    values, weights = zip(*pairs, strict=True)
    return float(np.average(values, weights=weights))


# Inputs


def scored(rng: Generator, n: int, *, classes: int = 3) -> Arguments:
    """Scores with ties, and targets of which each class has both values."""
    targets = torch.from_numpy((rng.random((n, classes)) < 0.4).astype(np.int64))
    targets[0], targets[1] = 1, 0
    return quarters(rng, n, classes), targets


def one_class(rng: Generator, n: int) -> Arguments:
    scores, targets = scored(rng, n, classes=1)
    return scores[:, 0], targets[:, 0]


def framed(rng: Generator, n: int) -> Arguments:
    scores, targets = scored(rng, 2 * n, classes=2)
    return scores.view(2, n, 2), targets.view(2, n, 2)


# Cases

CLASSIFICATION = [
    MetricCase(
        metric=classification.accuracy,
        reference=reference_accuracy,
        inputs=seeded(lambda rng, n: (quarters(rng, n, 3), torch.from_numpy(rng.integers(3, size=n)))),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "empty": ((EMPTY, torch.zeros(0, dtype=torch.int64)), DataError),
            "ties": ((torch.zeros(2, 3), torch.tensor([0, 1])), 0.5),
            "misfit": ((torch.zeros(3, 2), torch.zeros(2)), DataError),
        },
    ),
    MetricCase(
        metric=classification.mean_average_precision,
        reference=reference_mean_average_precision,
        inputs=seeded(scored, least=2),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "empty": ((EMPTY, EMPTY), DataError),
            "no positives": (NO_POSITIVES, 0.0),
            "all tied": (ALL_TIED, 0.25),
            "not finite": (NOT_FINITE, DataError),
            "misfit": (MISFIT, DataError),
        },
        needs=SCIKIT_LEARN,
    ),
    MetricCase(
        metric=classification.frame_mean_average_precision,
        reference=reference_frame_mean_average_precision,
        inputs=seeded(framed, least=2),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={"misfit": (MISFIT, DataError)},
        needs=SCIKIT_LEARN,
    ),
    MetricCase(
        metric=classification.roc_auc,
        reference=reference_roc_auc,
        inputs=seeded(scored, least=2),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "empty": ((EMPTY, EMPTY), DataError),
            "no positives": (NO_POSITIVES, NAN),
            "no negatives": ((torch.zeros(2, 1), torch.ones(2, 1)), NAN),
            "all tied": (ALL_TIED, 0.5),
            "not finite": (NOT_FINITE, DataError),
        },
        needs=SCIKIT_LEARN,
    ),
    MetricCase(
        metric=classification.d_prime,
        reference=reference_d_prime,
        inputs=seeded(scored, least=2),
        items=(0, 1),
        dtypes=FLOATS,
        tolerance=1e-9,
        degenerate={
            "no positives": (NO_POSITIVES, NAN),
            "perfect": ((torch.tensor([[1.0], [0.0]]), torch.tensor([[1], [0]])), math.inf),
            "all tied": (ALL_TIED, 0.0),
            "not finite": (NOT_FINITE, DataError),
        },
        needs=SCIKIT_LEARN,
    ),
    MetricCase(
        metric=classification.equal_error_rate,
        reference=reference_equal_error_rate,
        inputs=seeded(one_class, least=2),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "one label": ((torch.zeros(3), torch.ones(3)), DataError),
            "all tied": ((torch.zeros(4), torch.tensor([1, 0, 0, 0])), 0.5),
            "not finite": ((torch.tensor([NAN, 0.0]), torch.tensor([1, 0])), DataError),
        },
        needs=SCIKIT_LEARN,
    ),
    *(
        MetricCase(
            metric=metric,
            reference=reference,
            inputs=seeded(lambda rng, n: (quarters(rng, n, 2), quarters(rng, n, 2))),
            bounds=(0, math.inf),
            items=(0, 1),
            dtypes=FLOATS,
            degenerate={"empty": ((EMPTY, EMPTY), DataError), "misfit": (MISFIT, DataError)},
        )
        for metric, reference in (
            (regression.mean_absolute_error, reference_mean_absolute_error),
            (regression.mean_squared_error, reference_mean_squared_error),
        )
    ),
    MetricCase(
        metric=suite_average.weighted_average,
        reference=reference_weighted_average,
        inputs=seeded(lambda rng, n: (list(zip(rng.random(n).tolist(), (rng.random(n) + 0.1).tolist(), strict=True)),)),
        bounds=(0, 1),
        items=(0,),
        degenerate={"empty": (([],), 0.0), "no weight": (([(0.7, 0.0)],), 0.0)},
    ),
]
