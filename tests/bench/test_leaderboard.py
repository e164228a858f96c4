from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.bench.leaderboard import Average, LeaderboardEntry, leaderboard, suite_tasks
from auricle.bench.published import published_tables
from auricle.bench.results import NO_LEAKS, Cost, DataFacts, EncoderFacts, HeadScore, Result, TaskFacts
from auricle.bench.task import Domain, LabelRule, Source, Suite, Task
from auricle.errors import ConfigError, DataError
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.suite_average import weighted_average


def known_task(name: str, domain: Domain, weight: float, **changes: Any) -> Task:
    suite: Suite = "private" if domain == "private" else "xares"
    splits = {"train": "a", "valid": "b", "test": "c"}
    given: dict[str, Any] = {"kind": "clip", "metric": "accuracy", "label": LabelRule(field="label"), **splits}
    given |= {"name": name, "title": name, "domain": domain, "suite": suite, "weight": weight, "source": Source()}
    return Task(**{**given, **changes})


KNOWN = (
    known_task("bark", "sound", 1.0),
    known_task("ring", "sound", 3.0, knn=False),
    known_task("word", "speech", 4.0),
    known_task("error", "speech", 9.0, knn=False, kind="regression", metric="MSE", loss="mse"),
    known_task("car", "private", 12.0),
    known_task("off", "private", 10.0, enabled=False),
)


def made_up(
    task: str, value: float, *, head: str = "mlp", scoring_rule: ScoringRule = "strict", random: bool = False
) -> Result:
    """A result whose own weight and domain must not count."""
    return Result(
        task=TaskFacts(
            name=task,
            title=task,
            suite="xares",
            domain="music",
            kind="clip",
            metric="accuracy",
            higher_is_better=True,
            weight=1e9,
        ),
        encoder=EncoderFacts(name="tiny", fingerprint="f0", output_dim=8, hop_ms=40.0, parameters=9, random=random),
        scoring_rule=scoring_rule,
        seed=0,
        data=DataFacts(manifest="0" * 64, clips=1, pieces=1, seconds=1.0, splits={}),
        scores={head: HeadScore(value=value, low=None, high=None, n=1, folds={}, classes={}, settings={})},
        items={},
        leaks=NO_LEAKS,
        cost=Cost(encode_s=1.0, audio_s=1.0, encoded=1, reused=0, heads_s=1.0, peak_rss_mb=1.0, threads=1),
        version="0.1.0",
    )


def own(*results: Result) -> list[LeaderboardEntry]:
    return leaderboard(results, published=False, known=KNOWN)


def test_the_released_formula() -> None:
    # parity/xares/metrics.json, computed by X-ARES 0.1.3.
    mlp = [(0.5, 100.0), (0.9, 300.0), (0.9766997666981422, 1144.0), (0.0, 0.0)]
    knn = [(0.4, 100.0), (0.0, 0.0), (0.3801957350196178, 1144.0), (0.0, 0.0)]
    assert weighted_average(mlp) == pytest.approx(0.9309226250664991, abs=1e-12)
    assert weighted_average(knn) == pytest.approx(0.3817877177350826, abs=1e-12)
    assert weighted_average([(0.3, 0.0)]) == weighted_average([]) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 1e4)), min_size=1, max_size=20))
def test_an_average_lies_between_its_values(pairs: list[tuple[float, float]]) -> None:
    values = [value for value, _ in pairs]
    assert min(values) - 1e-9 <= weighted_average(pairs) <= max(values) + 1e-9


def test_strict_names_public_what_is_public() -> None:
    (entry,) = own(made_up("bark", 1.0), made_up("ring", 0.0), made_up("word", 0.5), made_up("car", 0.9))
    assert entry.averages == {
        "public": Average(pytest.approx(3 / 8), 3, 3),
        "private": Average(pytest.approx(0.9), 1, 1),
        "all": Average(pytest.approx((3 + 10.8) / 20), 4, 4),
    }
    assert entry.headline == entry.averages["public"] and entry.remarks == ()
    assert entry.source == "auricle 0.1.0" and entry.origin == "measured"


def test_compat_inverts_public_as_released() -> None:
    scores = [made_up(name, value, scoring_rule="compat") for name, value in (("bark", 1.0), ("word", 0.5))]
    (without,) = own(*scores)
    assert without.averages == {"all": Average(pytest.approx(3 / 5), 2, 4)}
    (with_private,) = own(*scores, made_up("car", 0.9, scoring_rule="compat"))
    assert with_private.averages["public"] == Average(pytest.approx(0.9), 1, 1)
    assert with_private.averages["all"].value == pytest.approx((3 + 10.8) / 17)
    (nothing,) = leaderboard(
        [made_up("free", 0.4, scoring_rule="compat")],
        published=False,
        known=[known_task("free", "sound", 0.0)],
    )
    assert nothing.averages == {"all": Average(0.0, 1, 1)}


def test_domains_and_weights_are_the_declared_ones() -> None:
    (entry,) = own(made_up("bark", 1.0), made_up("ring", 0.2), made_up("word", 0.5))
    assert entry.domains == {
        "sound": Average(pytest.approx(0.4), 2, 2),
        "speech": Average(pytest.approx(0.5), 1, 1),
    }


def test_a_partial_average_says_so() -> None:
    (entry,) = own(made_up("bark", 1.0))
    assert entry.headline == (1.0, 1, 3) and entry.remarks == ("partial: 1 of 3 tasks",)
    # The two tasks without kNN are none of its tasks.
    (entry,) = own(made_up("bark", 1.0, head="knn"))
    assert entry.headline == (1.0, 1, 2)
    # A task nobody runs counts where it was run.
    (entry,) = own(made_up("off", 0.5))
    assert entry.averages["private"] == (0.5, 1, 2) and entry.headline == (None, 0, 3)


def test_lower_is_better_is_shown_but_not_averaged() -> None:
    (entry,) = own(made_up("bark", 1.0), made_up("error", 7.0))
    assert entry.scores == {"bark": 1.0, "error": 7.0} and entry.headline == (1.0, 1, 3)


def test_random_weights_are_marked() -> None:
    (entry,) = own(made_up("bark", 1.0, random=True))
    assert entry.is_random and "random weights" in entry.remarks


def test_complete_averages_come_first_then_the_best() -> None:
    part = made_up("bark", 1.0)
    whole = [made_up(name, 0.1, scoring_rule="compat") for name in ("bark", "ring", "word", "error")]
    assert [entry.scoring_rule for entry in own(part, *whole)] == ["compat", "strict"]
    assert own(made_up("elsewhere", 0.5)) == []
    with pytest.raises(DataError, match="twice"):
        own(part, part)


def test_published_tables_are_marked_and_keep_their_source() -> None:
    entries = leaderboard([made_up("esc50", 0.5)])
    assert len(entries) == 1 + sum(len(table.systems) for table in published_tables())
    for entry in entries:
        is_published = entry.origin == "published"
        assert is_published == ("published, not re-measured" in entry.remarks) == ("auricle" not in entry.source)
        assert is_published == (entry.scoring_rule == "as published") and not entry.is_random
    assert all(table.source and table.systems for table in published_tables())
    assert leaderboard(suite="hear") == leaderboard(suite="xares", published=False) == []
    with pytest.raises(ConfigError, match="no suite"):
        leaderboard(suite="zares")


def test_the_averages_of_the_readme() -> None:
    found = {(s.system, s.head): s for s in leaderboard() if "README" in s.source}
    # X-ARES README: kNN averages over public and all tasks, MLP over all tasks.
    printed = {
        "dasheng": (0.504, 0.683),
        "wav2vec2": (0.262, 0.469),
        "whisper": (0.299, None),
        "data2vec": (0.388, None),
    }
    for system, (public, everything) in printed.items():
        averages = found[system, "knn"].averages
        assert averages["public"].value == pytest.approx(public, abs=1.1e-3)
        assert everything is None or averages["all"].value == pytest.approx(everything, abs=1e-3)
    # What its own MLP rows give with the released weights; the README prints 0.699, which no weights explain.
    assert found["dasheng", "mlp"].averages["public"].value == pytest.approx(0.694, abs=5e-4)
    assert found["dasheng", "mlp"].remarks == ("published, not re-measured",)


def test_published_scores_are_fractions() -> None:
    values = [v for table in published_tables() for scores in table.systems.values() for v in scores.values()]
    assert all(0 <= value <= 1 for value in values)
    (table,) = (table for table in published_tables() if table.name == "midashenglm_encoder_vs_whisper")
    assert table.systems["Whisper-Large v3 encoder"]["esc50"] == 0.625


def test_every_published_score_is_of_a_declared_task() -> None:
    declared = {task.name for task in suite_tasks()}
    assert {"esc50", "subway_broadcast"} <= declared
    for table in published_tables():
        assert {task for scores in table.systems.values() for task in scores} <= declared, table.name
