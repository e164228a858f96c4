"""Intervals for scores that are functions of sums over items: rates, means, F1, corpus BLEU."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from auricle.metrics.intervals import Score, proportion

Array: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[Array], Array]

ROUNDS = 1000
_CELLS = 8_000_000  # of the table of how often a group was drawn: bounds the memory at 64 MB


def bootstrap_sums(
    columns: npt.ArrayLike,
    statistic: Statistic,
    *,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """``statistic`` of the column sums of all items, with its 95 % percentile interval over resampled groups.

    Args:
        columns: (n, k), one row an item.
        statistic: of several resamples at once, sums (r, k) → values (r,); nan where a resample has no value.
        groups: (n,) names; items of one name are drawn together, as questions on one clip are not independent. None:
            each item is its own group.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        The score, n counting items; nan where there are none.
    """
    return bootstrap_each(columns, {"": statistic}, groups=groups, rounds=rounds, seed=seed)[""]


def bootstrap_each(
    columns: npt.ArrayLike,
    statistics: Mapping[str, Statistic],
    *,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Score]:
    """Several statistics of the same resamples, by name; otherwise as `bootstrap_sums`."""
    rows = np.asarray(columns, np.float64)
    if not len(rows):
        return dict.fromkeys(statistics, Score(math.nan, math.nan, math.nan, 0))
    sums = rows if groups is None else _group_sums(rows, groups)
    rng, count = np.random.default_rng(seed), len(sums)
    values: dict[str, list[Array]] = {name: [] for name in statistics}
    step = max(1, _CELLS // count)
    for start in range(0, rounds, step):
        drawn = rng.integers(count, size=(min(step, rounds - start), count))
        resampled = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64) @ sums
        for name, statistic in statistics.items():
            values[name].append(statistic(resampled))
    whole = sums.sum(0, keepdims=True)
    return {
        name: Score(float(statistic(whole)[0]), *_ends(np.concatenate(values[name])), len(rows))
        for name, statistic in statistics.items()
    }


def _group_sums(rows: Array, groups: Sequence[str]) -> Array:
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.zeros((int(labels.max()) + 1, rows.shape[1]))
    np.add.at(sums, labels, rows)
    return sums


def _ends(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
    return float(low), float(high)


def ratio(sums: Array) -> Array:
    """First column over the second; nan where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)
    return found


def bootstrap_mean(
    values: npt.ArrayLike, *, groups: Sequence[str] | None = None, rounds: int = ROUNDS, seed: int = 0
) -> Score:
    """The mean of ``values`` (n,) with its interval; arguments as in `bootstrap_sums`."""
    each = np.asarray(values, np.float64)
    return bootstrap_sums(np.stack([each, np.ones(len(each))], 1), ratio, groups=groups, rounds=rounds, seed=seed)


def share(hits: Sequence[bool], *, groups: Sequence[str] | None = None, rounds: int = ROUNDS, seed: int = 0) -> Score:
    """Share of true items; Wilson's interval where each item is its own group, which is sound near 0 and 1 too.

    Arguments as in `bootstrap_sums`.
    """
    if groups is None or len(set(groups)) == len(groups):
        return proportion(hits)
    return bootstrap_mean(hits, groups=groups, rounds=rounds, seed=seed)
