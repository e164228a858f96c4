"""Intervals and paired tests."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.metrics import intervals, paired
from auricle.metrics.paired import Measured, Part

from .metric_tester import Arguments, MetricCase, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Statistic = Callable[[Array], float]
Generator = np.random.Generator
ROUNDS, SEED = 20, 3
RESAMPLING = {"rounds": ROUNDS, "seed": SEED}
HITS = st.lists(st.booleans(), min_size=1, max_size=300)


# References


def reference_wilson_interval(hits: Sequence[bool]) -> list[float]:
    stats = pytest.importorskip("scipy.stats")
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return [sum(hits) / len(hits), interval.low, interval.high, len(hits)]


def reference_bootstrap(
    rows: Array, statistic: Callable[[Array], float], groups: Any, rounds: int, seed: int
) -> list[float]:
    """Percentiles over resamples of groups, one after the other."""
    labels = list(range(len(rows))) if groups is None else list(groups)
    members = {label: np.flatnonzero([each == label for each in labels]) for label in sorted(set(labels))}
    names, rng = list(members), np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        picked = [names[at] for at in rng.integers(len(names), size=len(names))]
        values.append(statistic(np.concatenate([rows[members[name]] for name in picked])))
    known = [value for value in values if not math.isnan(value)]
    ends = np.quantile(known, [0.025, 0.975]).tolist() if known else [math.nan, math.nan]
    return [statistic(rows), *ends, len(rows)]


def reference_fold_means(rows: Array) -> float:
    """The mean over folds in the second column, of the means of the first column."""
    return float(np.mean([rows[rows[:, 1] == fold, 0].mean() for fold in np.unique(rows[:, 1])]))


def reference_quotient(rows: Array) -> float:
    total = rows[:, 1].sum()
    return float(rows[:, 0].sum() / total) if total > 0 else math.nan


def reference_pair(clean: Measured, other: Measured, groups: Any) -> list[float]:
    """Of the items both have: the difference of two quotients and their quotient, bootstrapped together."""
    before, after = clean.parts[""].items, other.parts[""].items
    rows = np.array([[*after[name], *before[name]] for name in sorted(before.keys() & after.keys())])

    def difference(sampled: Array) -> float:
        return reference_quotient(sampled[:, :2]) - reference_quotient(sampled[:, 2:])

    def retention(sampled: Array) -> float:
        return reference_quotient(sampled[:, :2]) / reference_quotient(sampled[:, 2:])

    both = [reference_bootstrap(rows, statistic, None, ROUNDS, SEED) for statistic in (difference, retention)]
    return [*both[0], *both[1], len(before.keys() ^ after.keys())]


def reference_sign_test(wins: int, losses: int) -> float:
    stats = pytest.importorskip("scipy.stats")
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def reference_holm_correction(p_values: Sequence[float]) -> list[float]:
    """The largest of the scaled p values of all hypotheses at most as likely."""
    ordered = sorted(p_values)
    scaled = [min(1.0, (len(ordered) - at) * p) for at, p in enumerate(ordered)]
    return [max(scaled[: ordered.index(p) + ordered.count(p)]) for p in p_values]


# Inputs


def grouped_rows(rng: Generator, n: int) -> Arguments:
    columns = np.stack([rng.integers(0, 5, n), rng.integers(0, 5, n)], 1).astype(np.float64)
    groups = rng.integers(max(1, n // 2), size=n).astype(str).tolist() if rng.random() < 0.5 else None
    return columns, groups


def folded(rng: Generator, n: int) -> Arguments:
    folds = np.unique(rng.integers(4, size=n), return_inverse=True)[1]
    return rng.random(n), folds, rng.integers(max(1, n // 2), size=n)


def hits_in_groups(rng: Generator, n: int) -> Arguments:
    return (rng.random(n) < 0.7).tolist(), None if rng.random() < 0.5 else ["a", "a", *map(str, range(2, n))]


def paired_runs(rng: Generator, n: int) -> Arguments:
    """Two runs that have not all items in common."""
    return (*(run({f"{at:03}": rng.integers(1, 4, 2).tolist() for at in range(first, n)}) for first in (0, 1)), {})


def run(items: Any) -> Measured:
    return Measured("date", intervals.no_score(), "date", {"": Part(1.0, items)})


# Cases

INTERVALS = [
    MetricCase(
        metric=intervals.wilson_interval,
        reference=reference_wilson_interval,
        inputs=st.tuples(HITS),
        bounds=(0, 300),
        items=(0,),
        tolerance=1e-6,  # of the normal quantile 1.959964
        degenerate={"empty": (([],), [NAN, NAN, NAN, 0])},
    ),
    MetricCase(
        metric=intervals.proportion_interval,
        keywords=("groups",),
        options=RESAMPLING,
        reference=lambda hits, groups: (
            reference_wilson_interval(hits)
            if groups is None
            else reference_bootstrap(
                np.array([[hit, 1] for hit in hits], float), reference_quotient, groups, ROUNDS, SEED
            )
        ),
        inputs=seeded(hits_in_groups, least=2),
        tolerance=1e-6,
        degenerate={"empty": (([], None), [NAN, NAN, NAN, 0])},
    ),
    MetricCase(
        metric=intervals.bootstrap_interval,
        keywords=("groups",),
        options={"statistic": reference_quotient, **RESAMPLING},
        reference=lambda rows, groups: reference_bootstrap(rows, reference_quotient, groups, ROUNDS, SEED),
        inputs=seeded(lambda rng, n: (grouped_rows(rng, n)[0] + 1, grouped_rows(rng, n)[1])),
        degenerate={"empty": ((np.empty((0, 2)), None), [NAN, NAN, NAN, 0])},
    ),
    MetricCase(
        metric=intervals.bootstrap_sums,
        keywords=("groups",),
        options={"statistic": intervals.ratio, **RESAMPLING},
        reference=lambda rows, groups: reference_bootstrap(rows, reference_quotient, groups, ROUNDS, SEED),
        inputs=seeded(grouped_rows),
        degenerate={
            "empty": ((np.empty((0, 2)), None), [NAN, NAN, NAN, 0]),
            "nothing to divide by": ((np.zeros((2, 2)), None), [NAN, NAN, NAN, 2]),
        },
    ),
    MetricCase(
        metric=intervals.bootstrap_statistics,
        keywords=("groups",),
        options={"statistics": {"a": intervals.ratio, "b": lambda sums: sums[:, 0]}, **RESAMPLING},
        reference=lambda rows, groups: [
            reference_bootstrap(rows, statistic, groups, ROUNDS, SEED)
            for statistic in (reference_quotient, lambda own: float(own[:, 0].sum()))
        ],
        inputs=seeded(grouped_rows),
        degenerate={"empty": ((np.empty((0, 2)), None), [NAN, NAN, NAN, 0] * 2)},
    ),
    MetricCase(
        metric=intervals.bootstrap_mean,
        keywords=("groups",),
        options=RESAMPLING,
        reference=lambda values, groups: reference_bootstrap(
            values[:, None], lambda rows: float(rows.mean()), groups, ROUNDS, SEED
        ),
        inputs=seeded(lambda rng, n: (rng.random(n), grouped_rows(rng, n)[1])),
        degenerate={"empty": (([], None), [NAN, NAN, NAN, 0]), "not a number": (([NAN], None), [NAN, NAN, NAN, 1])},
    ),
    MetricCase(
        metric=intervals.bootstrap_fold_means,
        keywords=("groups",),
        options=RESAMPLING,
        reference=lambda values, folds, groups: reference_bootstrap(
            np.stack([values, folds], 1), reference_fold_means, groups, ROUNDS, SEED
        ),
        inputs=seeded(folded),
        degenerate={"empty": (([], [], []), [NAN, NAN, NAN, 0])},
    ),
    MetricCase(
        metric=intervals.ratio,
        reference=lambda sums: [row[0] / row[1] if row[1] else NAN for row in sums],
        inputs=seeded(lambda rng, n: (grouped_rows(rng, n)[0],)),
        items=(0,),
        per_item=True,
    ),
    MetricCase(
        metric=paired.pair,
        options=RESAMPLING,
        reference=reference_pair,
        inputs=seeded(paired_runs, least=2, large=40),
        tolerance=1e-9,
        degenerate={
            "nothing shared": ((run({"a": (1.0, 1.0)}), run({"b": (1.0, 1.0)}), {}), [NAN, NAN, NAN, 0] * 2 + [2])
        },
    ),
    MetricCase(
        metric=paired.sign_test,
        reference=reference_sign_test,
        inputs=st.tuples(st.integers(0, 60), st.integers(0, 60)),
        bounds=(0, 1),
        degenerate={"no unit": ((0, 0), 1.0), "even": ((5, 5), 1.0), "negative": ((-1, 2), ConfigError)},
    ),
    MetricCase(
        metric=paired.holm_correction,
        reference=reference_holm_correction,
        inputs=st.tuples(st.lists(st.floats(0, 1), min_size=1, max_size=9)),
        bounds=(0, 1),
        items=(0,),
        per_item=True,
        degenerate={"empty": (([],), []), "one": (([0.7],), [0.7])},
    ),
]
