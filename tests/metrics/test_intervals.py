import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.metrics.intervals import (
    bootstrap_interval,
    bootstrap_mean,
    bootstrap_statistics,
    bootstrap_sums,
    fault_of_range,
    no_score,
    plain_score,
    proportion_interval,
    ratio,
    resampled_counts,
    wilson_interval,
)


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


def test_one_pass_over_sums_gives_several_scores() -> None:
    both = bootstrap_statistics([[1.0, 2.0], [0.0, 2.0]], {"a": ratio, "b": lambda sums: sums[:, 0]}, rounds=50)
    assert both["a"] == bootstrap_sums([[1.0, 2.0], [0.0, 2.0]], ratio, rounds=50) and both["b"].value == 1.0


def test_wilsons_interval_is_for_items_that_are_groups_themselves() -> None:
    assert proportion_interval([True, False, True]) == wilson_interval([True, False, True])
    assert proportion_interval([True, False], groups=["x", "y"]) == wilson_interval([True, False])
    assert proportion_interval([True, False], groups=["a", "a"], rounds=20)[:3] == (0.5, 0.5, 0.5)


def test_groups_widen_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).random(20).repeat(3)
    grouped = bootstrap_mean(values, groups=[str(at // 3) for at in range(60)], rounds=300)
    alone = bootstrap_mean(values, rounds=300)
    assert grouped.value == pytest.approx(alone.value) and grouped.n == 60
    assert grouped.high - grouped.low > 1.2 * (alone.high - alone.low)


def test_blocks_of_resamples_are_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resampled_counts(7, 10, seed=1)
    monkeypatch.setattr("auricle.metrics.intervals._CELLS", 21)
    blocks = list(resampled_counts(7, 10, seed=1))
    assert [len(block) for block in blocks] == [3, 3, 3, 1] and (np.concatenate(blocks) == whole).all()
    assert (whole.sum(1) == 7).all()


def test_json_has_null_for_a_number_that_does_not_exist() -> None:
    assert fault_of_range("mAP", [None, math.nan, 0.0, 1.0 + 1e-12]) is None and fault_of_range("other", [9]) is None
    assert fault_of_range("sbert", [-1.2]) == "sbert is -1.2, expected -1 to 1"
    assert plain_score(no_score(3)) == {"value": None, "low": None, "high": None, "n": 3}
