from pathlib import Path
from typing import Any

import pytest

from auricle.curate.decision import FilterConfig
from auricle.curate.filter import filter_stages
from auricle.curate.stages import Stage, check_stages, run_stages
from auricle.errors import ConfigError

from .tones import Tones


def stage(name: str, needs: str, gives: str = "", run: Any = lambda *values: "".join(values)) -> Stage:
    return Stage(name, tuple(needs.split()), gives, run)


def test_each_stage_gets_what_it_needs_in_order() -> None:
    seen: list[tuple[str, ...]] = []
    stages = [stage("one", "b a", "c"), stage("look", "c a", run=lambda *values: seen.append(values))]
    assert run_stages(stages, {"a": "A", "b": "B"}) == {"a": "A", "b": "B", "c": "BA"}
    assert seen == [("BA", "A")]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage("one", "a", "c"), stage("two", "d")], "stage 'two' needs 'd', found only a, c; put the stage"),
        ([stage("two", "c"), stage("one", "a", "c")], "stage 'two' needs 'c', found only a"),
        ([stage("one", "a", "a")], "stage 'one' gives 'a', as the input does"),
        ([stage("one", "a", "c"), stage("two", "a", "c")], "stage 'two' gives 'c', as stage 'one' does"),
    ],
)
def test_nothing_runs_where_a_value_is_missing_or_replaced(stages: list[Stage], message: str) -> None:
    def refuse(*values: Any) -> None:
        raise AssertionError("a stage ran")

    first = Stage("first", ("a",), "", refuse)
    with pytest.raises(ConfigError, match=message):
        run_stages([first, *stages], {"a": "A"})


def test_the_stages_of_the_filter_fit_together() -> None:
    stages = filter_stages(Path("out"), Tones(), FilterConfig())
    check_stages(stages, ["shards"])
    assert [each.name for each in stages] == [
        *("embed", "score", "decide", "summarise", "split", "list", "calibrate", "report", "finish")
    ]
    for at in range(len(stages) - 1):
        if stages[at].gives:
            with pytest.raises(ConfigError, match=f"needs '{stages[at].gives}'"):
                check_stages(stages[:at] + stages[at + 1 :], ["shards"])
