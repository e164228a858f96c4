from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.train.schedule import learning_rate


def test_warm_up_then_cosine_to_the_floor() -> None:
    rates = [learning_rate(step, peak=1.0, warmup=10, total=110, floor=0.1) for step in range(111)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == rates[10] == 1.0 and rates[110] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.55)  # half way
    assert all(before > after for before, after in pairwise(rates[10:]))


@given(st.integers(0, 10_000), st.integers(1, 500), st.integers(1, 5000), st.floats(0, 1))
def test_never_outside_zero_and_peak(step: int, warmup: int, total: int, floor: float) -> None:
    rate = learning_rate(step, peak=2.0, warmup=warmup, total=total, floor=floor)
    assert 0 < rate <= 2.0 or (floor == 0 and rate == pytest.approx(0, abs=1e-9))
    assert step < warmup or rate >= 2.0 * floor - 1e-9
