"""Output of all verbs: lines for people, JSON Lines for programs, and progress bars on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from threading import Event, RLock, Thread, Timer
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import typer

from auricle.errors import OutputError, visible

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress, ProgressColumn, TaskID

Unit = Literal["items", "audio", "bytes"]

_DELAY_S = 0.5  # work that is done sooner shows no bar
_LINE_S = 30.0  # between lines about the progress, where standard error is no terminal
_KEYS = {"scoring_rule": "protocol", "head": "judge"}  # fields whose names in JSON are older


def print_json(record: dict[str, Any]) -> None:
    """Print one object as a line of UTF-8; characters that UTF-8 cannot hold (odd file names) are escaped."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise OutputError("not printed, as a number of the result is NaN or infinite, which JSON has not") from error
    with _bars.hidden():
        typer.echo(line.encode("utf-8", "backslashreplace"))


def print_raw(text: str) -> None:
    """Print a text of several lines as it is."""
    with _bars.hidden():
        typer.echo(text.encode("utf-8", "backslashreplace"), nl=False)


def to_json(value: Any) -> Any:
    """Plain values of JSON: objects of dataclasses and mappings, lists of sequences."""
    if is_dataclass(value):
        return {_KEYS.get(part.name, part.name): to_json(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, list | tuple) else value


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line of text; control characters in file names and answers cannot reach the terminal."""
    with _bars.hidden():
        typer.echo(visible(text).encode("utf-8", "backslashreplace"), err=err)


def print_result(record: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result as JSON, or as lines for people."""
    if as_json:
        print_json(record)
        return
    for line in lines:
        print_line(line)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows below their headers, each column as wide as it needs."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def warn(text: str) -> None:
    """Print what a user should know on standard error."""
    print_line(f"auricle: {text}", err=True)


def named(name: str, error: str) -> str:
    """An error with the name of its file, once."""
    return error if name.rstrip("/") in error else f"{name}: {error}"


class Advance:
    """Counts the work that is done, and advances a bar if one is shown."""

    def __init__(self, what: str = "", total: float | None = None, bars: Progress | None = None) -> None:
        """Add a row to the bars; None: no bar is shown."""
        self.what, self.total, self.done = what, total, 0.0
        self._bars = bars
        self.row: TaskID | None = None

    def __call__(self, amount: float = 1) -> None:
        """Add to the work done."""
        self.at(self.done + amount)

    def start(self, total: float) -> None:
        """Set the total."""
        self.total = total
        self._show()

    def at(self, done: float, what: str | None = None) -> None:
        """Set the work done, and the words before the bar."""
        self.done = done
        self.what = self.what if what is None else visible(what)
        self._show()

    def _show(self) -> None:
        if self._bars is not None and self.row is not None:
            self._bars.update(self.row, total=self.total, completed=self.done, description=self.what)


@contextmanager
def progress(
    what: str, total: float | Callable[[], float | None] | None = None, *, unit: Unit = "items", quiet: bool = False
) -> Iterator[Advance]:
    """Show on standard error how far the block is: a bar on a terminal, otherwise a line every 30 seconds.

    Lines of results are printed above the bar.

    Args:
        what: the words before the bar.
        total: amount of work, or a function that returns it, called if anything is shown; None: unknown (see
            `Advance.start`).
        unit: of the work: counted items, seconds of audio, or bytes.
        quiet: show nothing; for verbs that print JSON.
    """
    if quiet:
        yield Advance()
        return
    shown = _bars.row if sys.stderr.isatty() else _lines
    with shown(visible(what), total, unit) as advance:
        yield advance


@contextmanager
def clip_progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar, see `progress`: a function of how many clips are finished, and of how many."""
    with progress(what, quiet=quiet) as advance:

        def update(finished: int, total: int) -> None:
            advance.start(total)
            advance.at(finished)

        yield update


@contextmanager
def _lines(what: str, total: float | Callable[[], float | None] | None, unit: Unit) -> Iterator[Advance]:
    """A line every `_LINE_S`, for logs; nothing for work that is done sooner."""
    advance, ended, started = Advance(what), Event(), monotonic()

    def print_lines() -> None:
        while not ended.wait(_LINE_S):
            if advance.total is None:
                advance.total = total() if callable(total) else total
            amount = _amount(advance.done, advance.total, unit)
            warn(f"{advance.what}: {amount}, after {_clock(monotonic() - started)}")

    Thread(target=print_lines, daemon=True).start()
    try:
        yield advance
    finally:
        ended.set()


class _Bars:
    """The bars of this process, below each other."""

    def __init__(self) -> None:
        self.shown: Live | None = None
        self._bars: Progress | None = None
        self._rows = 0
        self._timer: Timer | None = None
        self._lock = RLock()

    @contextmanager
    def row(self, what: str, total: float | Callable[[], float | None] | None, unit: Unit) -> Iterator[Advance]:
        whole = total() if callable(total) else total
        with self._lock:
            if self._bars is None:
                self._bars = _new_bars()
                self._timer = Timer(_DELAY_S, self._draw)
                self._timer.daemon = True
                self._timer.start()
            bars, advance = self._bars, Advance(what, whole, self._bars)
            advance.row = row = bars.add_task(what, total=whole, unit=unit)
            self._rows += 1
        try:
            yield advance
        finally:
            with self._lock:
                bars.remove_task(row)
                self._rows -= 1
                if not self._rows:
                    self._close()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the bars while a line is printed, and draw them again below it."""
        with self._lock:
            was_drawn = self.shown is not None
            self._erase()
            try:
                yield
            finally:
                if was_drawn:
                    self._draw()

    def _draw(self) -> None:
        from rich.live import Live

        with self._lock:
            if self._bars is not None and not self._bars.console.is_dumb_terminal:
                # A new one each time: a restarted one would erase the lines above it.
                self.shown = Live(
                    self._bars,
                    console=self._bars.console,
                    transient=True,
                    refresh_per_second=10,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self.shown.start(refresh=True)

    def _erase(self) -> None:
        if self.shown is not None:
            self.shown.stop()
            self.shown = None

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._erase()
        self._bars = None


_bars = _Bars()


def _new_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    columns = words, BarColumn(), _amount_column(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def _amount_column() -> ProgressColumn:
    from rich.progress import DownloadColumn, ProgressColumn, Task
    from rich.text import Text

    class Amount(ProgressColumn):
        """How much of how much."""

        def render(self, task: Task) -> Text:
            unit = task.fields["unit"]
            if unit == "bytes":
                return DownloadColumn().render(task)
            return Text(_amount(task.completed, task.total, unit))

    return Amount()


def _amount(done: float, total: float | None, unit: Unit) -> str:
    """How much is done, and of how much."""
    write: Callable[[float], str] = {
        "items": "{:,.0f}".format,
        "audio": _clock,
        "bytes": lambda size: f"{size / 1e6:,.1f} MB",
    }[unit]
    whole = "" if total is None else f"/{write(total)}"
    return f"{write(done)}{whole}{' of audio' if unit == 'audio' else ''}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
