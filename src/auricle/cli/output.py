"""What verbs print: lines for people, JSON Lines for programs, progress for the patient."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import typer

Item = TypeVar("Item")

_WORTH_A_BAR = 4  # files


def print_json(record: dict[str, Any]) -> None:
    """Print one object as a line of UTF-8; what UTF-8 cannot hold (odd file names) is escaped."""
    typer.echo(json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line of text; control characters in file names and answers cannot reach the terminal."""
    shown = "".join(c if c.isprintable() else " " if c in "\r\n\t" else repr(c)[1:-1] for c in text)
    typer.echo(shown.encode("utf-8", "backslashreplace"), err=err)


def with_progress(items: Iterable[Item], total: int, what: str, *, prints: bool) -> Iterator[Item]:
    """Pass items on, with a bar on a terminal's standard error where there are several.

    Args:
        items: results.
        total: how many.
        what: is being done.
        prints: whether each item is printed; on a terminal these lines are progress enough, and a bar would break them.
    """
    if total < _WORTH_A_BAR or not sys.stderr.isatty() or (prints and sys.stdout.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, total=total, description=what, console=Console(stderr=True), transient=True)
