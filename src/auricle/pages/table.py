"""Tables and lists of facts as plain data: rooms give numbers and words, the page decides how they look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

DASH = "–"
_LARGEST = 1e6  # numbers beyond it are printed with an exponent


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of texts, or of numbers with equally many decimals."""

    title: str
    note: str = ""  # small, below the title
    decimals: int | None = None  # of numbers; None: a column of texts
    is_percent: bool = False  # numbers are fractions and are shown times 100
    is_quoted: bool = False  # published elsewhere, not measured

    def format(self, value: float | None) -> str:
        """A number as this column shows it; a dash for None and NaN."""
        if value is None or math.isnan(value):
            return DASH
        value = 100 * value if self.is_percent else value
        return f"{value:.{self.decimals}f}" if abs(value) < _LARGEST else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number with its 95 % interval, where there is one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None  # items it is over; shown once where all numbers of a row agree
    is_best: bool = False  # of its row


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text with a small line below it and tags beside it."""

    text: str
    note: str = ""
    tags: Sequence[str] = ()
    is_quoted: bool = False  # published elsewhere, not measured


Entry: TypeAlias = Number | Text | str | float | None  # a float is a number without interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of entries, one for each column; the first column names the row and has texts."""

    label: str  # for screen readers
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    foot: Sequence[Entry] = ()  # a last row that sums up; empty: none

    @property
    def head(self) -> list["Cell"]:
        """Titles of the columns; one with intervals takes two columns of cells."""
        return [
            Cell(_style(column), column.title, column.note, span=1 + has_interval)
            for column, has_interval in zip(self.columns, self._have_interval(), strict=True)
        ]

    @property
    def body(self) -> list[list["Cell"]]:
        """The cells of each row."""
        have_interval = self._have_interval()
        return [self._cells(row, have_interval) for row in self.rows]

    @property
    def last(self) -> list["Cell"]:
        """The cells of the foot."""
        return self._cells(self.foot, self._have_interval()) if self.foot else []

    def _have_interval(self) -> list[bool]:
        """Which columns have one."""
        found = [False] * len(self.columns)
        for row in self.rows:
            for place, (column, entry) in enumerate(zip(self.columns, row, strict=True)):
                found[place] |= _beside(column, entry, row) != ""
        return found

    def _cells(self, row: Sequence[Entry], have_interval: Sequence[bool]) -> list["Cell"]:
        cells: list[Cell] = []
        for column, has_interval, entry in zip(self.columns, have_interval, row, strict=True):
            entry = Text(text=entry) if isinstance(entry, str) else entry
            if isinstance(entry, Text):
                quoted = " quoted" * (entry.is_quoted and not column.is_quoted)
                notes = [entry.note, *map(_size, _sizes(row) if len(_sizes(row)) == 1 and not cells else ())]
                cells.append(Cell(_style(column) + quoted, entry.text, " · ".join(filter(None, notes)), entry.tags))
                continue
            number = entry if isinstance(entry, Number) else Number(value=entry)
            best = " best" * number.is_best
            cells.append(Cell(f"{_style(column)}{best}", column.format(number.value)))
            if has_interval:
                cells.append(Cell(f"interval{best}", _beside(column, number, row)))
        return cells


class Cell(NamedTuple):
    """What a cell shows."""

    style: str
    text: str
    note: str = ""
    tags: Sequence[str] = ()
    span: int = 1  # columns of cells


def _style(column: Column) -> str:
    return ("text" if column.decimals is None else "n") + " quoted" * column.is_quoted


def _beside(column: Column, entry: Entry, row: Sequence[Entry]) -> str:
    """Interval and size of a number, where there are any to show."""
    if not isinstance(entry, Number) or entry.value is None or math.isnan(entry.value):
        return ""
    has_interval = entry.low is not None and entry.high is not None and not math.isnan(entry.low + entry.high)
    ends = f"{column.format(entry.low)} to {column.format(entry.high)}" if has_interval else ""
    size = _size(entry.n) if entry.n is not None and len(_sizes(row)) > 1 else ""
    return ", ".join(filter(None, (ends, size)))


def _sizes(row: Sequence[Entry]) -> set[int]:
    return {entry.n for entry in row if isinstance(entry, Number) and entry.n is not None}


def _size(n: int) -> str:
    return f"n\u00a0=\u00a0{n}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What decided one figure or one set of them: facts for people, then hashes and settings."""

    title: str
    facts: Mapping[str, str]
    codes: Mapping[str, str] = field(default_factory=dict)


def count(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
