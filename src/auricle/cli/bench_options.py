"""Options, progress and JSON that the verbs of `auricle bench` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from auricle.cli.output import progress

FAILED = 1  # exit code
_KEYS = {"scoring_rule": "protocol", "head": "judge"}  # fields whose names in JSON are older

Data = Annotated[Path, typer.Option("--data", help="Folder with a folder of data for each task that names none.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Folder of embeddings, kept for later runs [default: OUTPUT/store].")
]
To = Annotated[Path, typer.Option("--to", help="Folder in which each task gets a folder of its name.")]


@contextmanager
def clip_progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar, see `auricle.cli.output.progress`: a function of how many clips are finished, and of how many."""
    with progress(what, quiet=quiet) as advance:

        def update(finished: int, total: int) -> None:
            advance.start(total)
            advance.at(finished)

        yield update


def to_json(value: Any) -> Any:
    """Plain values of JSON: objects of dataclasses and mappings, lists of sequences."""
    if is_dataclass(value):
        return {_KEYS.get(part.name, part.name): to_json(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, list | tuple) else value
