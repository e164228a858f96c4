from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer

from auricle.cli.options import LoadOptions, RuleOptions, with_groups

from .conftest import invoke


@dataclass(frozen=True, kw_only=True)
class Both(LoadOptions, RuleOptions):
    """Two groups that share --device, and an option without a default."""

    target: Annotated[str, typer.Option("--target", help="Where to.")]


def test_a_group_is_given_as_one_argument() -> None:
    given: list[Any] = []

    @with_groups
    def verb(name: str, count: Annotated[int, typer.Option("--count")] = 1, *, options: Both) -> None:
        """A verb."""
        given.append((name, count, options))

    done = invoke(verb, "a", "--target", "x", "--device", "cuda", "--count", 3, "--protocol", "both")
    assert done.code == 0, done.err
    assert given == [("a", 3, Both(target="x", device="cuda", scoring_rule="both"))]
    assert given[0][2].rules == ("compat", "strict")
    shown = invoke(verb, "--help").out
    assert "A verb." in shown and shown.count("--device") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "--target"), (("--target", "x", "--scoring-rule", "loose"), "expected one of strict, compat, both")],
)
def test_a_group_refuses_what_it_does_not_take(arguments: tuple[str, ...], message: str) -> None:
    @with_groups
    def verb(*, options: Both) -> None:
        raise AssertionError

    done = invoke(verb, *arguments)
    assert done.code == 2 and message in done.err
