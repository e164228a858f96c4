"""A pipeline as a list of stages, each of which declares the values it needs and gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auricle.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a pipeline.

    A killed pipeline is run again from its first stage. So a stage that writes files or takes long must continue from
    what it finds on disk, and end with the same bytes.
    """

    name: str
    needs: tuple[str, ...]  # of the input and of earlier stages; the arguments of `run`, in this order
    gives: str  # name of what `run` returns; empty: nothing
    run: Callable[..., Any]


def check_stages(stages: Sequence[Stage], given: Sequence[str]) -> None:
    """Check that each value a stage needs is there when it runs, and that none is replaced.

    Raises:
        ConfigError: a value is missing or given twice.
    """
    known = dict.fromkeys(given, "the input")
    for stage in stages:
        for name in stage.needs:
            if name not in known:
                raise ConfigError(
                    f"stage {stage.name!r} needs {name!r}, found only {', '.join(known) or 'nothing'}; put the stage "
                    "that gives it before this one"
                )
        if stage.gives in known:
            raise ConfigError(f"stage {stage.name!r} gives {stage.gives!r}, as {known[stage.gives]} does; rename one")
        if stage.gives:
            known[stage.gives] = f"stage {stage.name!r}"


def run_stages(stages: Sequence[Stage], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check all stages, then run one after the other; returns all values by name.

    Raises:
        ConfigError: see `check_stages`; no stage has run then.
    """
    check_stages(stages, list(given))
    values = dict(given)
    for stage in stages:
        result = stage.run(*(values[name] for name in stage.needs))
        if stage.gives:
            values[stage.gives] = result
    return values
