"""Tables, lists and names of published data sets, which are untrusted.

A fault of a file is a `DataError` that names it; files named by a table must be below the folder.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from auricle.errors import DataError
from auricle.files import existing_path, is_printable, read_regular_text

MAX_BYTES = 2**30  # of one file


def named_audio(
    folder: Path, pattern: str, name: re.Pattern[str], suffixes: tuple[str, ...] = (".wav", ".flac", ".ogg", ".mp3")
) -> Iterator[tuple[Path, re.Match[str]]]:
    """Audio files of a folder whose whole name matches, sorted, with the match."""
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() in suffixes and (match := name.fullmatch(path.stem)):
            yield path, match


def inside(folder: Path, name: str) -> Path:
    """The file of that name below the folder.

    Raises:
        DataError: the name is absolute, outside the folder, empty or not printable.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or not is_printable(name):
        raise DataError(f"{name!r} is not a file below {folder}; the table is damaged or forged")
    return existing_path(folder / name)


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Rows of a table, the heading included.

    Raises:
        DataError: no such file, or not a table in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=delimiter)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error})") from None


def read_table(path: Path, *columns: str, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Rows of a table by the names in its first line; empty lines are skipped.

    Raises:
        DataError: see `read_rows`; a column is missing, or a row has more or fewer cells than there are names.
    """
    rows = read_rows(path, delimiter)
    names = next(rows, [])
    if missing := [column for column in columns if column not in names]:
        raise DataError(f"{path} has columns {names}, expected {missing} among them")
    for number, row in enumerate(rows, 2):
        if row and len(row) != len(names):
            raise DataError(f"{path}, row {number}: {len(row)} cells under {len(names)} column names")
        if row:
            yield dict(zip(names, row, strict=True))


def read_lines(path: Path) -> list[str]:
    """Lines of a text that are not empty.

    Raises:
        DataError: no such file, or not UTF-8.
    """
    try:
        return [line for line in read_regular_text(path, MAX_BYTES).splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except UnicodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error})") from None


def read_fields(path: Path, count: int) -> Iterator[list[str]]:
    """Fields between blanks of each line.

    Raises:
        DataError: see `read_lines`; or a line has another number of fields.
    """
    for number, line in enumerate(read_lines(path), 1):
        if len(fields := line.split()) != count:
            raise DataError(f"{path}, line {number}: {len(fields)} fields, expected {count}")
        yield fields


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: no such file, not JSON, or not a JSON object.
    """
    try:
        found = json.loads(read_regular_text(path, MAX_BYTES))
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a JSON {type(found).__name__}, expected an object")
    return found
