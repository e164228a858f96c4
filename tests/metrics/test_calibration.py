import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.metrics.calibration import (
    OFFSETS,
    SLOPES,
    LogisticMap,
    calibration_error,
    fit_map,
    log_loss,
    reliability,
)


def answers(count: int, slope: float, offset: float, seed: int = 0) -> np.ndarray:
    """Rows whose share of right answers is a known map of their confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 0.95, count)
    share = [LogisticMap(slope, offset)(value) for value in confidence]
    return np.stack([confidence, rng.uniform(size=count) < share], 1)


def mapped(rows: np.ndarray, found: LogisticMap) -> np.ndarray:
    return np.stack([[found(value) for value in rows[:, 0]], rows[:, 1]], 1)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.4, -1.0), (2.5, 0.8), (0.2, 1.5)])
def test_the_map_is_found_again(slope: float, offset: float) -> None:
    rows = answers(20_000, slope, offset)
    found = fit_map(rows)
    assert found.slope == pytest.approx(slope, abs=0.1) and found.offset == pytest.approx(offset, abs=0.1)
    assert calibration_error(mapped(rows, found)) < 0.02
    if (slope, offset) != (1.0, 0.0):
        assert calibration_error(rows) > 0.04


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30).filter(
        lambda found: 0 < sum(right for _, right in found) < len(found)
    )
)
def test_a_map_is_bounded_monotone_and_no_worse(rows: list[tuple[float, bool]]) -> None:
    table = np.array(rows, np.float64)
    found = fit_map(table)
    assert SLOPES[0] <= found.slope <= SLOPES[1] and OFFSETS[0] <= found.offset <= OFFSETS[1]
    values = [found(value) for value in np.linspace(0, 1, 9)]
    assert values == sorted(values) and all(0 <= value <= 1 for value in values)
    assert log_loss(mapped(table, found)) <= log_loss(table) + 1e-6


def test_what_says_nothing_becomes_the_share_that_is_right() -> None:
    rng = np.random.default_rng(1)
    rows = np.stack([1 - 0.2 * rng.uniform(size=4000), rng.uniform(size=4000) < 0.3], 1)
    assert fit_map(rows)(0.9) == pytest.approx(0.3, abs=0.03)


def test_a_confidence_that_falls_where_more_is_right_gets_the_least_slope() -> None:
    rows = answers(4000, 1.0, 0.0)
    rows[:, 1] = 1 - rows[:, 1]
    found = fit_map(rows)
    assert found.slope == SLOPES[0] and found(0.5) == pytest.approx(rows[:, 1].mean(), abs=0.01)


@pytest.mark.parametrize("right", [0, 1])
def test_answers_that_are_all_alike_give_no_map(right: int) -> None:
    with pytest.raises(ConfigError, match="expected some of both"):
        fit_map(np.array([[0.5, right], [0.7, right]]))


def test_a_map_that_changes_nothing_is_exact_and_others_are_bounded() -> None:
    assert LogisticMap()(0.123456789) == 0.123456789
    assert LogisticMap(2.0, 0.0)(0.8) == pytest.approx(0.64 / (0.64 + 0.04))
    assert 0 < LogisticMap(0.5, 1.0)(0.0) < LogisticMap(0.5, 1.0)(1.0) < 1
    for wrong in ({"slope": 0.0}, {"slope": 11.0}, {"offset": -11.0}, {"slope": math.nan}, {"offset": math.inf}):
        with pytest.raises(ConfigError, match="expected"):
            LogisticMap(**wrong)


def test_bins_are_of_equal_width_and_hold_their_answers() -> None:
    rows = np.array([[0.95, 1], [0.95, 0], [1.0, 1], [0.05, 0]])
    low, high = reliability(rows)
    assert low == (0.0, 0.1, 0.05, 0.0, 1) and high[:2] == (0.9, 1.0) and high.n == 3
    assert high.confidence == pytest.approx(2.9 / 3) and high.right == pytest.approx(2 / 3)
    assert calibration_error(rows) == pytest.approx((0.05 + 3 * 0.3) / 4)
