"""Two runs on the same items: paired bootstrap of differences and ratios, the sign test, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from auricle.errors import ConfigError
from auricle.metrics.intervals import ROUNDS, Array, Score, bootstrap_statistics, no_score, ratio

LOWER_IS_BETTER = frozenset({"error_rate"})


class Measured(NamedTuple):
    """The main score of a run, and the score by which its items are paired."""

    metric: str  # of the rule, or the nearest available
    score: Score
    paired_metric: str  # another one only where a score is no function of sums over items, as mAP
    parts: Mapping[str, "Part"]  # by name; most tasks have one


class Part(NamedTuple):
    """What items contribute: the sum of the first number over the sum of the second, times the weight."""

    weight: float
    items: Mapping[str, tuple[float, float]]


class Pairing(NamedTuple):
    """A run compared with the clean one."""

    difference: Score  # of the paired metric: run minus clean
    retention: Score  # goodness of the run over that of the clean one
    lost: int  # items of only one of the runs, as where a rule leaves empty answers out


def goodness(value: float, metric: str) -> float:
    """The score, or 1 minus an error rate, at least 0: higher is better.

    >>> goodness(0.25, "error_rate"), goodness(0.25, "accuracy")
    (0.75, 0.25)
    """
    return max(0.0, 1.0 - value) if metric in LOWER_IS_BETTER else value


def pair(
    clean: Measured, other: Measured, groups: Mapping[str, str], *, rounds: int = ROUNDS, seed: int = 0
) -> Pairing:
    """Compare a run with the clean one on the items of both, by a bootstrap that resamples them together.

    Args:
        clean: the run to compare with.
        other: another run on the same questions.
        groups: by item the name of its group, resampled together; an item without one is a group by itself.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        Scores that are nan where the denominator is 0; retention has no interval where items are paired by another
        metric than the reported one.
    """
    names = [name for name in clean.parts if name in other.parts]
    mine = [clean.parts[name].items for name in names]
    theirs = [other.parts[name].items for name in names]
    items = sorted({item for own, its in zip(mine, theirs, strict=True) for item in own.keys() & its.keys()})
    every = {item for own in (*mine, *theirs) for item in own}
    weights = [clean.parts[name].weight for name in names]
    found = bootstrap_statistics(
        _columns(items, mine, theirs),
        _statistics(weights, clean.paired_metric),
        groups=[groups.get(item, item) for item in items],
        rounds=rounds,
        seed=seed,
    )
    retention = found["retention"]
    if clean.metric != clean.paired_metric and clean.metric == "mAP":
        before, after = (goodness(each.score.value, each.metric) for each in (clean, other))
        retention = no_score(len(items))._replace(value=after / before if before > 0 else math.nan)
    return Pairing(found["difference"], retention, len(every) - len(items))


def _columns(
    items: Sequence[str],
    clean: Sequence[Mapping[str, tuple[float, float]]],
    other: Sequence[Mapping[str, tuple[float, float]]],
) -> Array:
    """(items, 4 · parts): of each part both numbers of the other run, then both of the clean one."""
    columns = np.zeros((len(items), 4 * len(clean)))
    for part, (before, after) in enumerate(zip(clean, other, strict=True)):
        for row, item in enumerate(items):
            if item in before and item in after:
                columns[row, 4 * part : 4 * part + 4] = (*after[item], *before[item])
    return columns


def _statistics(weights: Sequence[float], metric: str) -> dict[str, Any]:
    def of(sums: Array, first: int) -> Array:
        each = [weight * ratio(sums[:, 4 * part + first : 4 * part + first + 2]) for part, weight in enumerate(weights)]
        return np.asarray(np.sum(each, axis=0) if each else np.full(len(sums), np.nan), np.float64)

    def difference(sums: Array) -> Array:
        return of(sums, 0) - of(sums, 2)

    def retention(sums: Array) -> Array:
        after, before = of(sums, 0), of(sums, 2)
        if metric in LOWER_IS_BETTER:
            after, before = np.maximum(0.0, 1.0 - after), np.maximum(0.0, 1.0 - before)
        return ratio(np.stack([after, before], 1))

    return {"difference": difference, "retention": retention}


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p value of the exact sign test, in [0, 1]; ties are left out before.

    p = min(1, 2 · Σ over i ≤ min(wins, losses) of C(n, i) / 2ⁿ), computed in whole numbers and divided once. On items
    of 0 and 1 this is McNemar's exact test.

    Raises:
        ConfigError: a negative count.

    >>> sign_test(8, 1)
    0.0390625
    """
    if wins < 0 or losses < 0:
        raise ConfigError(f"wins and losses must be at least 0, got {wins} and {losses}")
    n, fewer = wins + losses, min(wins, losses)
    term = tail = math.comb(n, fewer)
    for i in range(fewer, 0, -1):
        term = term * i // (n - i + 1)  # comb(n, i - 1), without computing it anew
        tail += term
    return min(1.0, 2 * tail / 2**n)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method, in their order.

    The k-th smallest of m becomes the largest of min(1, (m − j + 1) · p_j) over j ≤ k.

    >>> holm_correction([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected
