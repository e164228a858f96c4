import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.bench.compare import compare
from auricle.bench.results import NO_LEAKS, Cost, DataFacts, EncoderFacts, HeadScore, Result, TaskFacts
from auricle.errors import ConfigError, DataError
from auricle.metrics.paired import holm_correction, sign_test
from auricle.metrics.scoring_rule import ScoringRule


def made_up(
    encoder: str,
    task: str,
    items: dict[str, float],
    *,
    value: float | None = None,
    head: str = "mlp",
    scoring_rule: ScoringRule = "strict",
    weight: float = 1.0,
    higher_is_better: bool = True,
    manifest: str = "0" * 64,
) -> Result:
    scored = value if value is not None else sum(items.values()) / max(1, len(items))
    return Result(
        task=TaskFacts(
            name=task,
            title=task,
            suite="xares",
            domain="sound",
            kind="clip",
            metric="accuracy",
            higher_is_better=higher_is_better,
            weight=weight,
        ),
        encoder=EncoderFacts(
            name=encoder, fingerprint=encoder, output_dim=8, hop_ms=40.0, parameters=None, random=False
        ),
        scoring_rule=scoring_rule,
        seed=0,
        data=DataFacts(manifest=manifest, clips=len(items), pieces=len(items), seconds=1.0, splits={}),
        scores={head: HeadScore(value=scored, low=None, high=None, n=len(items), folds={}, classes={}, settings={})},
        items={head: items},
        leaks=NO_LEAKS,
        cost=Cost(encode_s=1.0, audio_s=1.0, encoded=1, reused=0, heads_s=1.0, peak_rss_mb=1.0, threads=1),
        version="0.1.0",
    )


def numbered(values: list[float]) -> dict[str, float]:
    return {f"item{i}": float(value) for i, value in enumerate(values)}


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_tail(wins: int, losses: int) -> None:
    n = wins + losses
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(wins, losses) + 1))
    assert sign_test(wins, losses) == float(min(Fraction(1), 2 * tail))
    assert sign_test(wins, losses) == sign_test(losses, wins)


def test_a_published_value_of_mcnemars_exact_test() -> None:
    # Fay, "Exact McNemar's test and matching confidence intervals" (R package exact2x2): b = 2, c = 9.
    assert sign_test(2, 9) == pytest.approx(0.06543, abs=5e-6)
    assert sign_test(0, 5) == 0.0625 and sign_test(0, 0) == sign_test(3, 3) == 1.0


def test_the_sign_test_of_many_items_neither_overflows_nor_vanishes() -> None:
    assert sign_test(5000, 5200) == pytest.approx(0.0487, abs=1e-4)
    assert 0 < sign_test(0, 1000) < 1e-300
    with pytest.raises(ConfigError, match="at least 0"):
        sign_test(-1, 2)


def test_holm_by_hand() -> None:
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([]) == [] and holm_correction([0.7]) == [0.7] and holm_correction([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_raises_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm_correction(p_values)
    assert all(1 >= after >= before for before, after in zip(p_values, corrected, strict=True))
    by_before = [after for _, after in sorted(zip(p_values, corrected, strict=True))]
    assert by_before == sorted(by_before)


outcomes = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(-10, 10), min_size=1, max_size=120)


@given(outcomes)
@settings(max_examples=40)
def test_a_result_compared_with_itself(values: list[float]) -> None:
    result = made_up("a", "t", numbered(values))
    comparison = compare([result], [result], rounds=50)
    (test,) = comparison.tests
    assert test.difference == (0.0, 0.0, 0.0, len(values))
    assert (test.p, test.p_holm, test.wins, test.losses, test.ties) == (1.0, 1.0, 0, 0, len(values))
    (overall,) = comparison.overall
    assert overall.scores == 0 and overall.items == test.difference and not comparison.left_out


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 2), min_size=1, max_size=60))
@settings(max_examples=40)
def test_swapping_the_encoders_swaps_the_signs(pairs: list[tuple[float, float]]) -> None:
    one = made_up("a", "t", numbered([first for first, _ in pairs]))
    two = made_up("b", "t", numbered([second for _, second in pairs]))
    (there,), (back,) = compare([one], [two]).tests, compare([two], [one]).tests
    assert there.p == back.p and there.test == "mcnemar"
    assert there.difference.value == -back.difference.value == pytest.approx(there.first - there.second)
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.difference.low <= there.difference.value <= there.difference.high


def test_a_clear_difference_is_found_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    strong, weak = (rng.random(800) < 0.8).astype(float), (rng.random(800) < 0.6).astype(float)
    again = (rng.random(800) < 0.8).astype(float)
    comparison = compare(
        [made_up("a", task, numbered(list(strong))) for task in ("t", "u")],
        [made_up("b", "t", numbered(list(weak))), made_up("b", "u", numbered(list(again)))],
    )
    clear, chance = comparison.tests
    assert clear.difference.low > 0.1 and clear.p_holm == 2 * clear.p < 1e-6
    assert chance.difference.low < 0 < chance.difference.high and chance.p_holm == chance.p > 0.05
    # The interval of a difference of proportions, by its standard error.
    error = math.sqrt(float(np.var(strong - weak)) / 800)
    assert clear.difference.high - clear.difference.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_both_ways_of_resampling_agree() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 500)
    coarse = np.round(values)
    zero = made_up("b", "t", numbered([0.0] * 500))
    fine = compare([made_up("a", "t", numbered(list(values)))], [zero]).tests[0]
    few = compare([made_up("a", "t", numbered(list(coarse)))], [zero]).tests[0]
    assert fine.test == few.test == "sign"
    for test, own in ((fine, values), (few, coarse)):
        assert test.difference.high - test.difference.low == pytest.approx(2 * 1.96 * own.std() / 500**0.5, rel=0.1)


def test_only_outcomes_of_0_and_1_are_called_mcnemars() -> None:
    counts, none = made_up("a", "t", numbered([2.0, 3.0])), made_up("b", "t", numbered([1.0, 3.0]))
    assert compare([counts], [none]).tests[0].test == "sign"


def test_the_same_seed_gives_the_same_interval_whatever_else_is_compared() -> None:
    rng = np.random.default_rng(2)
    mine = [made_up("a", task, numbered(list(rng.normal(size=100)))) for task in ("t", "u")]
    theirs = [made_up("b", task, numbered(list(rng.normal(size=100)))) for task in ("t", "u")]
    both = compare(mine, theirs)
    assert compare(mine[1:], theirs).tests[0].difference == both.tests[1].difference
    assert compare(mine, theirs, seed=1).tests[0].difference != both.tests[0].difference


def test_lower_is_better_turns_the_sign() -> None:
    one = made_up("a", "t", numbered([0.0, 0.0, 1.0]), higher_is_better=False)
    two = made_up("b", "t", numbered([1.0, 1.0, 1.0]), higher_is_better=False)
    comparison = compare([one], [two])
    assert comparison.tests[0].difference.value == pytest.approx(2 / 3) and comparison.tests[0].wins == 2
    assert comparison.overall[0].scores == pytest.approx(2 / 3)


def test_the_weighted_difference_uses_the_tasks_weights() -> None:
    mine = [made_up("a", "t", numbered([1.0] * 10), weight=3.0), made_up("a", "u", numbered([0.0] * 10))]
    theirs = [made_up("b", "t", numbered([0.0] * 10), weight=3.0), made_up("b", "u", numbered([1.0] * 10))]
    (overall,) = compare(mine, theirs).overall
    assert overall.scores == pytest.approx(0.5) and overall.tasks == overall.item_tasks == ("t", "u")
    assert overall.items == pytest.approx((0.5, 0.5, 0.5, 20))
    free = [[replace(r, task=replace(r.task, weight=0.0)) for r in side] for side in (mine, theirs)]
    assert compare(*free).overall[0].scores == pytest.approx(0.0)


def test_what_cannot_be_compared_is_named() -> None:
    items = numbered([1.0, 0.0])
    mine = [
        made_up("a", "alone", items),
        made_up("a", "moved", items),
        made_up("a", "turned", items),
        made_up("a", "empty", {}, value=0.5),
        made_up("a", "other", items),
        made_up("a", "scored", items, head="knn"),
        made_up("a", "fine", items),
    ]
    theirs = [
        made_up("b", "fine", items, scoring_rule="compat"),
        made_up("b", "moved", items, manifest="1" * 64),
        made_up("b", "turned", items, higher_is_better=False),
        made_up("b", "empty", {}, value=0.25),
        made_up("b", "other", {"item0": 1.0, "item9": 1.0}, value=0.5),
        made_up("b", "scored", items),
        made_up("b", "fine", items),
    ]
    comparison = compare(mine, theirs)
    reasons = {(left.task, left.scoring_rule, left.head): left.reason for left in comparison.left_out}
    assert [test.task for test in comparison.tests] == ["fine"]
    assert "only the first" in reasons["alone", "strict", None]
    assert "other data" in reasons["moved", "strict", None]
    assert "other metric" in reasons["turned", "strict", None]
    assert "no scores of single items" in reasons["empty", "strict", "mlp"]
    assert "2 items" in reasons["other", "strict", "mlp"]
    assert "only the first" in reasons["scored", "strict", "knn"]
    assert "only the second" in reasons["scored", "strict", "mlp"]
    assert "only the second" in reasons["fine", "compat", None] and len(reasons) == 8
    (overall,) = comparison.overall
    assert overall.tasks == ("empty", "other", "fine") and overall.item_tasks == ("fine",)
    assert overall.scores == pytest.approx(0.25 / 3)


def test_one_encoder_on_each_side() -> None:
    one, two = made_up("a", "t", numbered([1.0])), made_up("b", "t", numbered([1.0]))
    for first, second in (([one, two], [two]), ([one], []), ([one, one], [two])):
        with pytest.raises(DataError, match="side, expected"):
            compare(first, second)
    with pytest.raises(ConfigError, match="rounds"):
        compare([one], [two], rounds=0)
    assert (compare([one], [two]).first, compare([one], [two]).second) == ("a", "b")
