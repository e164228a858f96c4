import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.metrics.intervals import bootstrap_fold_means, bootstrap_interval, wilson_interval


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    score = wilson_interval([True] * hits + [False] * (n - hits))
    assert (score.value, score.n) == (pytest.approx(hits / n), n)
    assert (score.low, score.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_intervals_hold_their_value_and_mirror(hits: list[bool]) -> None:
    score, mirrored = wilson_interval(hits), wilson_interval([not hit for hit in hits])
    assert 0 <= score.low <= score.value <= score.high <= 1 and score.low < score.high
    assert mirrored.low == pytest.approx(1 - score.high) and mirrored.value == pytest.approx(1 - score.value)


def test_no_items_have_no_value() -> None:
    for score in (wilson_interval([]), bootstrap_interval(np.empty((0, 1)), lambda rows: float(rows.mean()))):
        assert score.n == 0 and all(math.isnan(value) for value in score[:3])


def mean(rows: np.ndarray) -> float:
    return float(rows.mean())


def test_the_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for round_ in range(100):
        score = bootstrap_interval(rng.normal(2.0, 1.0, (40, 1)), mean, rounds=200, seed=round_)
        covered += score.low <= 2.0 <= score.high
    assert 0.88 <= covered / 100 <= 0.99


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    rows = np.random.default_rng(1).normal(0, 1, (400, 1))
    score = bootstrap_interval(rows, mean)
    assert score.value == pytest.approx(rows.mean())
    assert score.high - score.low == pytest.approx(2 * 1.96 * rows.std() / 20, rel=0.1)
    assert bootstrap_interval(rows, mean) == score != bootstrap_interval(rows, mean, seed=1)


def test_items_of_one_group_are_not_independent() -> None:
    values = np.repeat(np.random.default_rng(2).normal(0, 1, 20), 20)[:, None]
    speakers = [f"speaker{i // 20}" for i in range(400)]
    alone, grouped = bootstrap_interval(values, mean), bootstrap_interval(values, mean, groups=speakers)
    assert grouped.value == alone.value and grouped.n == 400
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 5), st.integers(1, 20))
def test_the_product_draws_as_the_loop_does(seed: int, n: int, folds: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    values, labels = rng.random(n), rng.integers(groups, size=n)
    places = np.unique(rng.integers(folds, size=n), return_inverse=True)[1]

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([rows[rows[:, 1] == fold, 0].mean() for fold in np.unique(rows[:, 1])]))

    looped = bootstrap_interval(np.stack([values, places], 1), mean, groups=labels, rounds=20, seed=3)
    found = bootstrap_fold_means(values, places, groups=labels, rounds=20, seed=3)
    assert found == pytest.approx(looped, abs=1e-12)
