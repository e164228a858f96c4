"""The number of a whole suite of tasks."""

from collections.abc import Iterable


def weighted_average(scores: Iterable[tuple[float, float]]) -> float:
    """Σ value · weight / Σ weight of (value, weight) pairs; 0 where the weights add up to 0.

    >>> weighted_average([(0.5, 1.0), (1.0, 3.0), (0.0, 0.0)])
    0.875

    Source: X-ARES `metrics.py`, where a task without a score contributes (0, 0).
    """
    pairs = list(scores)
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else 0.0
