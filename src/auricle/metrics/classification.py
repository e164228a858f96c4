"""Scores of classifiers, from the outputs of a model: accuracy, average precision, ROC area, equal error rate.

Average precision, ROC area, d' and equal error rate are computed by scikit-learn (extra ``bench``), whose rules X-ARES
and HEAR follow. Legend: n items, C classes, B clips, T frames.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.errors import DataError, MissingExtra

_Scores = npt.NDArray[np.floating[Any]]
_Targets = npt.NDArray[np.int8]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of items whose largest output is at their class, in [0, 1]; of equal outputs the first counts.

    Args:
        logits: (n, C) of any monotone scale.
        labels: (n,) int64 in [0, C).

    Raises:
        DataError: shapes that do not fit, or no items.

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"outputs {tuple(logits.shape)} and labels {tuple(labels.shape)}; expected (n, C) and (n,), n > 0"
        )
    return float((logits.argmax(1) == labels).double().mean())


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Macro average of the average precision of each class, in [0, 1]; a class without positives counts as 0.

    AP = Σ over thresholds k of (recall_k − recall_(k−1)) · precision_k, thresholds falling; equal scores share one.

    Args:
        scores: (n, C) of any monotone scale.
        targets: (n, C) of 0 and 1.

    Raises:
        DataError: shapes that do not fit, no items, or scores that are not finite.
        MissingExtra: scikit-learn is not installed.

    >>> scores, targets = torch.tensor([[0.9], [0.8], [0.7]]), torch.tensor([[1], [0], [1]])
    >>> round(mean_average_precision(scores, targets), 4)
    0.8333

    Source: scikit-learn `average_precision_score`, which X-ARES and HEAR call.
    """
    values, hits = _checked(scores, targets)
    return float(_by_class("average_precision_score", values, hits, np.any(hits, axis=0), otherwise=0.0).mean())


def frame_mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """`mean_average_precision` of frames (B, T, C), each frame an item.

    Source: X-ARES `metrics.py`.
    """
    if scores.ndim != 3 or scores.shape != targets.shape:
        raise DataError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)}; expected both (B, T, C)")
    return mean_average_precision(scores.flatten(0, 1), targets.flatten(0, 1))


def roc_auc(scores: Tensor, targets: Tensor) -> float:
    """Macro average of the area under the ROC curve of each class, in [0, 1].

    The area is the probability that a positive scores higher than a negative, equal scores counting half; nan where a
    class has no positives or no negatives. Shapes and errors as in `mean_average_precision`.

    >>> roc_auc(torch.tensor([[0.9], [0.8], [0.7], [0.6]]), torch.tensor([[1], [0], [1], [0]]))
    0.75

    Source: scikit-learn `roc_auc_score`; HEAR `score.py`, aucroc.
    """
    return float(np.mean(_roc_areas(*_checked(scores, targets))))


def d_prime(scores: Tensor, targets: Tensor) -> float:
    """Macro average of the sensitivity index d' = √2 · Φ⁻¹(area under the ROC curve); inf where a class is perfect.

    Shapes and errors as in `mean_average_precision`, nan as in `roc_auc`.

    Source: HEAR `score.py`, d_prime.
    """
    areas = torch.from_numpy(_roc_areas(*_checked(scores, targets)))
    return float(torch.special.ndtri(areas).mean()) * math.sqrt(2.0)


def equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """(FPR + FNR) / 2 at the threshold where they are closest, in [0, 1]; lower is better.

    Args:
        scores: (n,), high for label 1.
        labels: (n,) of 0 and 1.

    Raises:
        DataError: shapes that do not fit, scores that are not finite, or only one of the two labels.
        MissingExtra: scikit-learn is not installed.

    >>> equal_error_rate(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.5

    Source: X-ARES `metrics.py` over scikit-learn `roc_curve`, with positive label 1 (as released it raises a
    TypeError). Of equally close thresholds the highest counts.
    """
    values, hits = _checked(scores[:, None], labels[:, None])
    ones = int(hits.sum())
    if ones in (0, len(hits)):
        raise DataError(f"an equal error rate needs both labels; found {ones} of 1 and {len(hits) - ones} of 0")
    fpr, tpr, _ = _scikit_learn().metrics.roc_curve(hits[:, 0], values[:, 0], pos_label=1)
    fnr = 1 - tpr
    closest = int(np.abs(fnr - fpr).argmin())
    return float(fnr[closest] + fpr[closest]) / 2


def _roc_areas(values: _Scores, hits: _Targets) -> npt.NDArray[np.float64]:
    """Of each class (C,)."""
    return _by_class("roc_auc_score", values, hits, np.any(hits, axis=0) & ~np.all(hits, axis=0), otherwise=math.nan)


def _by_class(
    metric: str, values: _Scores, hits: _Targets, is_defined: npt.NDArray[np.bool_], *, otherwise: float
) -> npt.NDArray[np.float64]:
    """A metric of scikit-learn for each class where it is defined (C,)."""
    found = np.full(hits.shape[1], otherwise)
    sklearn = _scikit_learn()
    # What its checks would look for was checked here already, and they take as long as the metric.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for column in np.flatnonzero(is_defined):
            found[column] = getattr(sklearn.metrics, metric)(hits[:, column], values[:, column])
    return found


def _checked(scores: Tensor, targets: Tensor) -> tuple[_Scores, _Targets]:
    """Both as arrays (n, C)."""
    if scores.ndim != 2 or scores.shape != targets.shape or not scores.numel():
        raise DataError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)}; expected both (n, C), n > 0")
    if not bool(torch.isfinite(scores).all()):
        raise DataError("some scores are not finite, so items have no order; check the features and the training")
    return scores.detach().cpu().double().numpy(), (targets.detach() > 0).cpu().numpy().astype(np.int8)


def _scikit_learn() -> Any:
    """The package, with its metrics."""
    try:
        import sklearn.metrics
    except ImportError:
        raise MissingExtra("average precision, ROC areas and equal error rates (scikit-learn)", "bench") from None
    return sklearn
