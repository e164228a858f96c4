"""Intervals for scores."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z95 = 1.959964  # two-sided 95 % of the normal distribution


class Score(NamedTuple):
    """A value with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


def plain_score(score: Score) -> dict[str, float | int | None]:
    """As JSON holds it; a number that does not exist is null."""
    return {name: None if math.isnan(value) else value for name, value in score._asdict().items()}


def proportion(hits: npt.ArrayLike) -> Score:
    """Share of true items (n,), with Wilson's interval (sound near 0 and 1, where the normal one is not)."""
    outcomes = np.asarray(hits, dtype=bool)
    n = len(outcomes)
    if n == 0:
        return Score(math.nan, math.nan, math.nan, 0)
    share = float(outcomes.mean())
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    centre, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    # At shares of 0 and 1 an end is the share itself; rounding must not take it past.
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    return Score(share, min(share, low), max(share, high), n)


def bootstrap(
    rows: npt.NDArray[np.float64],
    statistic: Callable[[npt.NDArray[np.float64]], float],
    *,
    groups: npt.ArrayLike | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Score:
    """``statistic`` of ``rows`` (n, k) with the percentile interval over resampled rows.

    Args:
        rows: one row an item.
        statistic: of any resample of the rows.
        groups: (n,) labels; whole groups are resampled (utterances of one speaker are not independent).
        rounds: resamples.
        seed: of the resampling.
    """
    n = len(rows)
    if n == 0:
        return Score(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    labels = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(members), size=len(members))
        values.append(statistic(rows[np.concatenate([members[i] for i in drawn])]))
    low, high = np.quantile(values, [0.025, 0.975])
    return Score(float(statistic(rows)), float(low), float(high), n)


def bootstrap_means(
    values: npt.ArrayLike, folds: npt.ArrayLike, *, groups: npt.ArrayLike, rounds: int = 1000, seed: int = 0
) -> Score:
    """The mean over folds of the means within them; draws and interval are those of `bootstrap`, in one product.

    Args:
        values: (n,) what each item contributes.
        folds: (n,) whole numbers from 0.
        groups: (n,) labels; whole groups are resampled, and one of them may have items in several folds.
        rounds: resamples.
        seed: of the resampling.
    """
    each, places = np.asarray(values, np.float64), np.asarray(folds, np.int64)
    if not len(each):
        return Score(math.nan, math.nan, math.nan, 0)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    size = int(labels.max()) + 1, int(places.max()) + 1
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, (labels, places), each)
    np.add.at(counts, (labels, places), 1.0)
    drawn = np.random.default_rng(seed).integers(size[0], size=(rounds, size[0]))
    times = np.stack([np.bincount(row, minlength=size[0]) for row in drawn]).astype(np.float64)
    with np.errstate(invalid="ignore"):  # a resample may leave a fold empty, which then does not count
        low, high = np.quantile(np.nanmean((times @ sums) / (times @ counts), axis=1), [0.025, 0.975])
    return Score(float(np.mean(sums.sum(0) / counts.sum(0))), float(low), float(high), len(each))
