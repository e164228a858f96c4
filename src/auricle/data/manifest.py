"""Lists of audio files with facts about them: JSON Lines, CSV and TSV.

A relative path in a manifest is below the folder of the manifest and may not leave it; an absolute path is used as
written; addresses (``http://…``) and control characters are refused. A name is looked up in both forms of its accents.
Nothing is opened here; later, only regular files are, for reading.
"""

import csv
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from auricle.data.untrusted_json import has_half_pair, parse_json
from auricle.errors import DataError
from auricle.files import atomic_write, existing_path, is_printable

AUDIO_COLUMNS = ("audio", "path", "file", "filename")
_INTEGERS = ("age", "fold")  # facts that are numbers also in formats of text alone
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAX_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One audio file of a data set."""

    id: str  # unique inside the data set
    audio: Path
    meta: dict[str, Any] = field(default_factory=dict)


def read_manifest(path: str | Path) -> Iterator[Entry]:
    """Entries of a manifest, one at a time.

    The audio column is the first of ``audio``, ``path``, ``file``, ``filename``; ``id`` is the name of the entry (by
    default the path without its suffix); all other columns become `Entry.meta`. Empty CSV and TSV cells are left out,
    rows of empty cells skipped with a warning; spaces around names of columns do not count. TSV has no quoting.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.tsv``, UTF-8; CSV and TSV start with a line of column names.

    Raises:
        DataError: no such file or format, or a line that cannot be parsed; the message has its number.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path.name} has suffix {suffix!r}; a manifest is one of {', '.join(READERS)}")
    if not path.is_file():
        raise DataError(f"no manifest at {path}")
    return _entries(path, suffix)


def write_manifest(path: str | Path, entries: Iterable[Entry]) -> int:
    """Write entries to a ``.jsonl``, ``.csv`` or ``.tsv`` file.

    Audio inside the folder of the manifest is written as a relative path, other audio as an absolute one.

    Returns:
        Number of entries.

    Raises:
        DataError: an unknown suffix, or facts the format cannot hold.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path.name} has suffix {suffix!r}; a manifest is one of {', '.join(READERS)}")
    rows = [_row(entry, path.parent.resolve()) for entry in entries]
    with atomic_write(path, "w") as file:
        if suffix == ".jsonl":
            file.writelines(_json_line(row) for row in rows)
        else:
            _write_table(file, rows, suffix)
    return len(rows)


def _entries(path: Path, suffix: str) -> Iterator[Entry]:
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in READERS[suffix](file):
                yield _entry(number, row, path.parent, seen)
    except _LineError as error:
        raise DataError(f"{path}, line {error.line}: {error}") from None
    except UnicodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error})") from None


class _LineError(ValueError):
    """A line that cannot be parsed, with its number."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _read_jsonl(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise _LineError(number, f"longer than {_MAX_LINE} characters; is this JSON Lines, one object a line?")
        if not line.strip():
            continue
        try:
            row = parse_json(line, allow_nan=True)
        except ValueError as error:
            raise _LineError(number, f"not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise _LineError(number, f'a JSON {type(row).__name__}, expected an object such as {{"audio": "a.wav"}}')
        if broken := next((name for name, value in row.items() if has_half_pair([name, value])), None):
            raise _LineError(number, f"{broken!a} holds half of a surrogate pair, expected valid characters")
        yield number, row


def _read_table(reader: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    blank = []
    try:
        columns: list[str] = next(reader, [])
        names = [name.strip() for name in columns]
        if len(set(names)) != len(names):
            raise _LineError(1, f"column names repeat: {names}")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _row_of(cells, columns, reader.line_num)
            elif cells:
                blank.append(reader.line_num)
    except csv.Error as error:
        raise _LineError(reader.line_num, str(error)) from None
    if blank:
        warnings.warn(f"skipped {len(blank)} rows of empty cells, the first in line {blank[0]}", stacklevel=2)


def _row_of(cells: Sequence[str], columns: Sequence[str], line: int) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise _LineError(line, f"{len(cells)} cells under {len(columns)} column names")
    # In a table written as "a, b" the space is no part of the cell either.
    bare = (cell.lstrip(" ") if name[:1] == " " else cell for cell, name in zip(cells, columns, strict=True))
    found = dict(zip((name.strip() for name in columns), bare, strict=True))
    audio = next((name for name in AUDIO_COLUMNS if name in found), None)
    row: dict[str, Any] = {name: cell for name, cell in found.items() if cell != "" or name == audio}
    for name in set(_INTEGERS) & row.keys():
        if not re.fullmatch(r"-?\d{1,9}", row[name]):
            raise _LineError(line, f"{name} is {row[name]!r}, expected a whole number")
        row[name] = int(row[name])
    return row


READERS: dict[str, Callable[[TextIO], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": _read_jsonl,
    ".csv": lambda file: _read_table(csv.reader(file, strict=True)),
    ".tsv": lambda file: _read_table(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)),
}


def _entry(line: int, row: dict[str, Any], folder: Path, seen: set[str]) -> Entry:
    column = next((name for name in AUDIO_COLUMNS if name in row), None)
    if column is None:
        raise _LineError(line, f"found columns {sorted(row)}, expected the audio file in one of {list(AUDIO_COLUMNS)}")
    audio = resolve_audio(line, row[column], folder)
    given = row.get("id", os.path.splitext(row[column])[0])
    if not isinstance(given, str | int) or not str(given):
        raise _LineError(line, f"id is {given!r}, expected text")
    if str(given) in seen:
        raise _LineError(line, f"{given!r} is repeated; give each entry another 'id'")
    seen.add(str(given))
    return Entry(str(given), audio, {name: value for name, value in row.items() if name not in (column, "id")})


def resolve_audio(line: int, name: object, folder: Path) -> Path:
    """The file that a row's audio names; a ValueError with the line if that is not a local path below the folder."""
    if not isinstance(name, str) or not name or not is_printable(name) or _ADDRESS.match(name):
        raise _LineError(line, f"audio is {name!r}, expected the path of a local file")
    if os.path.isabs(name):
        return existing_path(Path(name))
    inside = os.path.normpath(name)
    if inside.split(os.sep)[0] == os.pardir:
        raise _LineError(line, f"{name!r} is outside the manifest's folder; move the manifest up or use absolute paths")
    return existing_path(folder / inside)


def _row(entry: Entry, folder: Path) -> dict[str, Any]:
    if taken := {"id", *AUDIO_COLUMNS} & entry.meta.keys():
        raise DataError(f"facts of {entry.id!r} use the reserved names {sorted(taken)}")
    audio = entry.audio.absolute()
    where = audio.relative_to(folder) if audio.is_relative_to(folder) else audio
    if broken := [name for name, value in (("id", entry.id), *entry.meta.items()) if has_half_pair([name, value])]:
        raise DataError(f"{broken[0]!a} of {entry.id!a} holds half of a surrogate pair, expected valid characters")
    return {"id": entry.id, "audio": where.as_posix(), **entry.meta}


def _json_line(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"facts of {row['id']!r} cannot be stored as JSON: {error}") from None


def _write_table(file: TextIO, rows: list[dict[str, Any]], suffix: str) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["id", "audio"]
    for row in rows:
        for name, value in row.items():
            is_plain = isinstance(value, str | int | float) and value != ""
            if not is_plain or (suffix == ".tsv" and re.search(r"[\t\r\n]", str(value))):
                raise DataError(f"{name} of {row['id']!r} is {value!r}, which {suffix} cannot hold; write .jsonl")
    options: dict[str, Any] = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if suffix == ".tsv" else {}
    )
    writer = csv.DictWriter(file, names, lineterminator="\n", **options)
    writer.writeheader()
    writer.writerows(rows)
