"""Scores with 95 % intervals: Wilson's interval for shares, the percentile bootstrap for everything else.

A bootstrap resamples whole groups with replacement, since utterances of one speaker or questions about one clip are not
independent. Equal seeds give equal resamples, whatever the statistic. Legend: n items, g groups, r resamples.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[Array], Array]  # column sums (r, k) of r resamples at once -> values (r,)

Z95 = 1.959964  # two-sided 95 % of the normal distribution
ROUNDS = 1000  # resamples
MAX_ROUNDS = 10**7
QUANTILES = (0.025, 0.975)  # ends of a 95 % interval
_CELLS = 8_000_000  # of a block of resamples: bounds the memory at 64 MB


class Score(NamedTuple):
    """A value, its 95 % interval and the number of its items."""

    value: float
    low: float
    high: float
    n: int


def no_score(n: int = 0) -> Score:
    """A score that does not exist: nan with a nan interval."""
    return Score(math.nan, math.nan, math.nan, n)


# Where values of metrics lie; a small excess is rounding.
_UNIT = (
    *("accuracy", "recall", "unparseable_rate", "f1", "micro_f1", "macro_f1", "segmentf1_macro", "segmentf1_micro"),
    *("onset_f", "mAP", "AUCROC", "recallatk_r1", "WER_inv", "bleu", "chrf"),
    *(f"bleu{order}{end}" for order in range(1, 5) for end in ("", "_of_sentences")),
)
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(_UNIT, (0.0, 1.0)),
    **dict.fromkeys(("sbert", "fense", "date", "similarity"), (-1.0, 1.0)),
    **dict.fromkeys(("error_rate", "errors", "tokens", "MSE"), (0.0, math.inf)),
}


def fault_of_range(metric: str, values: Iterable[float | None]) -> str | None:
    """What is wrong with values of a metric; None: nothing, or the metric has no known range; nan and None pass.

    >>> fault_of_range("accuracy", [0.5, 1.5])
    'accuracy is 1.5, expected 0 to 1'
    """
    low, high = RANGES.get(metric, (-math.inf, math.inf))
    wrong = next((each for each in values if each is not None and not low - 1e-9 <= each <= high + 1e-9), None)
    if wrong is None or math.isnan(wrong):
        return None
    return f"{metric} is {wrong:g}, expected {f'{low:g} to {high:g}' if high < math.inf else f'at least {low:g}'}"


def plain_score(score: Score) -> dict[str, float | int | None]:
    """The score as JSON holds it; a number that does not exist is null."""
    return {name: None if math.isnan(value) else value for name, value in score._asdict().items()}


def wilson_interval(hits: npt.ArrayLike) -> Score:
    """Share of true items (n,) with Wilson's interval, which is sound near 0 and 1 too.

    centre = (p + z² / 2n) / (1 + z² / n), half width = z √(p(1 − p) / n + z² / 4n²) / (1 + z² / n); nan for no items.

    >>> score = wilson_interval([True, True, False, True])
    >>> score.value, round(score.low, 3), round(score.high, 3), score.n
    (0.75, 0.301, 0.954, 4)

    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    outcomes = np.asarray(hits, dtype=bool)
    n = len(outcomes)
    if n == 0:
        return no_score()
    share = float(outcomes.mean())
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    centre, scale = share + Z95**2 / (2 * n), 1 + Z95**2 / n
    # At shares of 0 and 1 one end is the share itself; rounding must not move it past.
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Score(share, min(share, low), max(share, high), n)


def proportion_interval(
    hits: Sequence[bool], *, groups: Sequence[str] | None = None, rounds: int = ROUNDS, seed: int = 0
) -> Score:
    """Share of true items: `wilson_interval` where each item is its own group, `bootstrap_mean` otherwise."""
    if groups is None or len(set(groups)) == len(groups):
        return wilson_interval(hits)
    return bootstrap_mean(hits, groups=groups, rounds=rounds, seed=seed)


def bootstrap_interval(
    rows: Array,
    statistic: Callable[[Array], float],
    *,
    groups: npt.ArrayLike | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """Any statistic of ``rows`` (n, k) with its percentile interval over resampled rows.

    Args:
        rows: one row an item.
        statistic: of the rows of one resample.
        groups: (n,) labels; whole groups are resampled. None: each item is its own group.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        The score; nan for no rows.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    n = len(rows)
    if n == 0:
        return no_score()
    labels = np.arange(n) if groups is None else _group_numbers(groups)
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    values = [
        statistic(rows[np.concatenate([members[group] for group in resample])])
        for block in _resamples(len(members), rounds, seed)
        for resample in block
    ]
    low, high = np.quantile(values, QUANTILES)
    return Score(float(statistic(rows)), float(low), float(high), n)


def bootstrap_sums(
    columns: npt.ArrayLike,
    statistic: Statistic,
    *,
    groups: npt.ArrayLike | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """A statistic of column sums with its percentile interval; all resamples are one matrix product.

    Args:
        columns: (n, k), one row an item.
        statistic: of the sums of several resamples, (r, k) -> (r,); nan where a resample has no value.
        groups: (n,) labels; whole groups are resampled. None: each item is its own group.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        The score, with n counting items; nan for no items.
    """
    return bootstrap_statistics(columns, {"": statistic}, groups=groups, rounds=rounds, seed=seed)[""]


def bootstrap_statistics(
    columns: npt.ArrayLike,
    statistics: Mapping[str, Statistic],
    *,
    groups: npt.ArrayLike | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Score]:
    """Several statistics of the same resamples, by name; otherwise as `bootstrap_sums`."""
    rows = np.asarray(columns, np.float64)
    if not len(rows):
        return dict.fromkeys(statistics, no_score())
    sums = rows if groups is None else _group_sums(rows, groups)
    values: dict[str, list[Array]] = {name: [] for name in statistics}
    for block in resampled_counts(len(sums), rounds, seed):
        resampled = block @ sums
        for name, statistic in statistics.items():
            values[name].append(statistic(resampled))
    whole = sums.sum(0, keepdims=True)
    return {
        name: Score(float(statistic(whole)[0]), *_percentiles(np.concatenate(values[name])), len(rows))
        for name, statistic in statistics.items()
    }


def bootstrap_mean(
    values: npt.ArrayLike, *, groups: npt.ArrayLike | None = None, rounds: int = ROUNDS, seed: int = 0
) -> Score:
    """The mean of ``values`` (n,) with its percentile interval; arguments as in `bootstrap_sums`."""
    each = np.asarray(values, np.float64)
    return bootstrap_sums(np.stack([each, np.ones(len(each))], 1), ratio, groups=groups, rounds=rounds, seed=seed)


def bootstrap_fold_means(
    values: npt.ArrayLike, folds: npt.ArrayLike, *, groups: npt.ArrayLike, rounds: int = ROUNDS, seed: int = 0
) -> Score:
    """The mean over folds of the means within them, with its percentile interval.

    Args:
        values: (n,) of each item.
        folds: (n,) whole numbers from 0. A fold that a resample leaves empty is left out of its mean.
        groups: (n,) labels; whole groups are resampled, and a group may have items in several folds.
        rounds: resamples.
        seed: of the resampling.
    """
    each, numbers = np.asarray(values, np.float64), np.asarray(folds, np.int64)
    if not len(each):
        return no_score()
    count = int(numbers.max()) + 1
    is_in = np.eye(count)[numbers]

    def mean_of_folds(sums: Array) -> Array:
        with np.errstate(invalid="ignore"):
            means: Array = np.nanmean(sums[:, :count] / sums[:, count:], axis=1)
        return means

    columns = np.concatenate([each[:, None] * is_in, is_in], axis=1)
    return bootstrap_sums(columns, mean_of_folds, groups=groups, rounds=rounds, seed=seed)


def ratio(sums: Array) -> Array:
    """First column over the second; nan where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotients: Array = np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)
    return quotients


def resampled_counts(num_groups: int, rounds: int, seed: int) -> Iterator[Array]:
    """How often each group was sampled, in blocks (b, g) of resamples; the same resamples as everywhere here."""
    for block in _resamples(num_groups, rounds, seed):
        yield np.stack([np.bincount(resample, minlength=num_groups) for resample in block]).astype(np.float64)


def _resamples(num_groups: int, rounds: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of the sampled groups, in blocks (b, g) of resamples."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // num_groups)
    for start in range(0, rounds, step):
        yield rng.integers(num_groups, size=(min(step, rounds - start), num_groups))


def _group_numbers(groups: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _group_sums(rows: Array, groups: npt.ArrayLike) -> Array:
    numbers = _group_numbers(groups)
    sums = np.zeros((int(numbers.max()) + 1, rows.shape[1]))
    np.add.at(sums, numbers, rows)
    return sums


def _percentiles(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, QUANTILES) if len(known) else (math.nan, math.nan)
    return float(low), float(high)
