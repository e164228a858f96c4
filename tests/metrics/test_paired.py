import math

import pytest

from auricle.metrics.intervals import Score, no_score
from auricle.metrics.paired import Measured, Part, goodness, pair


def test_goodness_is_higher_for_the_better() -> None:
    assert goodness(0.25, "error_rate") == 0.75 and goodness(1.5, "error_rate") == 0.0
    assert goodness(0.25, "accuracy") == 0.25


def test_retention_of_map_is_that_of_the_scores() -> None:
    """Items are paired by another metric than the reported one, so there is no interval."""
    parts = {"": Part(1.0, {"a": (1.0, 1.0), "b": (0.5, 1.0)})}
    clean, other = (Measured("mAP", Score(value, 0.0, 1.0, 2), "f1", parts) for value in (0.8, 0.4))
    found = pair(clean, other, {}, rounds=5).retention
    assert found.value == pytest.approx(0.5) and math.isnan(found.low) and found.n == 2
    none = pair(clean._replace(score=no_score()._replace(value=0.0)), other, {}, rounds=5).retention
    assert math.isnan(none.value)
