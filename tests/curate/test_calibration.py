import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.curate.calibration import (
    CURVE,
    auc,
    calibrate,
    density_ratio,
    equal_error,
    matched_auc,
    mismatched_share,
    p_values,
    rising,
)

few = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20).map(np.array)


def mixture(n: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of pairs of which a share is mismatched, and which these are."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < share
    return np.where(wrong, rng.normal(0, 1, n), rng.normal(4, 1, n)), wrong


def null(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, n)


@given(real=few, random=few)
def test_auc_counts_pairs(real: np.ndarray, random: np.ndarray) -> None:
    wins = (real[:, None] > random).mean() + (real[:, None] == random).mean() / 2
    assert auc(real, random) == pytest.approx(wins)
    assert auc(real, random) + auc(random, real) == pytest.approx(1)


@given(scores=few, random=few)
def test_p_values_count_the_score_itself(scores: np.ndarray, random: np.ndarray) -> None:
    expected = [(1 + sum(r >= s for r in random)) / (1 + len(random)) for s in scores]
    assert p_values(scores, random).tolist() == pytest.approx(expected)


def test_of_random_pairs_no_more_than_p_pass() -> None:
    passed = [(p_values(null(50, 2 * seed), null(99, 2 * seed + 1)) <= 0.01).mean() for seed in range(400)]
    assert 0.005 < np.mean(passed) <= 0.0115  # 0.01, within three standard errors of 20,000 draws


def test_equal_error_of_two_normals() -> None:
    real, random = null(40_000, 1) + 2, null(40_000, 2)
    threshold, rate = equal_error(real, random)
    assert threshold == pytest.approx(1, abs=0.03) and rate == pytest.approx(0.1587, abs=0.005)
    assert equal_error(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == (3.0, 0.0)


def test_mismatched_pairs_are_counted_and_taken_out() -> None:
    real, wrong = mixture(20_000, 0.3)
    random = null(20_000, 9)
    share = mismatched_share(p_values(real, random))
    assert share == pytest.approx(0.3, abs=0.02)
    assert matched_auc(auc(real, random), share) == pytest.approx(auc(real[~wrong], random), abs=0.01)
    assert equal_error(real, random, share).threshold == pytest.approx(2, abs=0.15)
    assert mismatched_share(np.full(100, 0.01)) == 0.02 and mismatched_share(np.ones(100)) == 1.0
    assert matched_auc(0.5, 1.0) == 0.5


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), min_size=1, max_size=30))
def test_rising_is_the_nearest_rising_sequence(items: list[tuple[int, int]]) -> None:
    values, weights = np.array(items, float).T
    fitted = rising(values, weights)
    assert (np.diff(fitted) >= -1e-12).all()
    # The min-max formula of isotonic regression.
    n = len(values)
    means = [[np.average(values[a : b + 1], weights=weights[a : b + 1]) for b in range(a, n)] for a in range(n)]
    exact = [max(min(means[a][b - a] for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    assert fitted.tolist() == pytest.approx(exact)


def test_the_probability_is_one() -> None:
    real, wrong = mixture(30_000, 0.3)
    calibration = calibrate("all", real, null(10_000, 1), null(10_000, 2), null(10_000, 3))
    scores, is_wrong = mixture(30_000, 0.3, seed=5)
    probability = calibration.probability(scores)
    errors = []
    for low in np.arange(0, 1, 0.2):
        inside = (probability >= low) & (probability <= low + 0.2)
        errors.append(inside.mean() * abs((~is_wrong)[inside].mean() - probability[inside].mean()))
    assert sum(errors) < 0.01  # the expected calibration error
    ordered = calibration.probability(np.linspace(-5, 9, 100))
    assert (np.diff(ordered) >= 0).all() and ordered[0] == 0 and ordered[-1] > 0.99
    assert (~wrong)[calibration.probability(real) > 0.5].mean() > 0.95


def test_what_thresholds_keep() -> None:
    real, wrong = mixture(20_000, 0.3)
    calibration = calibrate("all", real, null(20_000, 1), null(20_000, 2), null(20_000, 3))
    p, randa, randt = calibration.p(real)
    assert (p == np.maximum(randa, randt)).all()
    for row in calibration.curve():
        kept = p <= row.p
        assert row.kept == pytest.approx(kept.mean()) and row.mismatched == pytest.approx(wrong[kept].mean(), abs=0.01)
    facts = calibration.facts(0.01)
    threshold = facts["score_at_p"]
    assert ((real >= threshold) == (p <= 0.01)).mean() > 0.999 and threshold == pytest.approx(2.33, abs=0.1)
    assert facts["random_passing"] == pytest.approx(0.01, abs=0.002)
    assert facts["auc_matched"] == pytest.approx(auc(real[~wrong], null(20_000, 4)), abs=0.01)
    assert [row["p"] for row in facts["keep_rate"]] == list(CURVE)


def test_scores_that_are_all_the_same_say_nothing() -> None:
    calibration = calibrate("all", np.ones(50), np.ones(300), np.ones(300), np.ones(300))
    assert calibration.p(np.ones(1))[0] == 1 and calibration.mismatched == 1
    assert calibration.probability(np.ones(1)) == 0
    facts = calibration.facts(0.01)
    assert facts["score_at_p"] is None and facts["auc"] == 0.5 and facts["random_passing"] == 0
    knots, ratios = density_ratio(np.ones(3), np.ones(3))
    assert len(knots) == len(ratios) == 1
