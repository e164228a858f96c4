"""The tables, lists and names of published data sets, read without trusting them.

Whatever is wrong with a file is a `DataError` that names it; what a table says about files stays below the folder.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from auricle.errors import DataError


def named_audio(
    folder: Path, pattern: str, name: re.Pattern[str], suffixes: tuple[str, ...] = (".wav", ".flac", ".ogg", ".mp3")
) -> Iterator[tuple[Path, re.Match[str]]]:
    """Audio files of a folder whose whole name follows the rule, sorted, with what the rule found."""
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() in suffixes and (match := name.fullmatch(path.stem)):
            yield path, match


def inside(folder: Path, name: str) -> Path:
    """The file of that name below the folder; a table from elsewhere may not point anywhere else.

    Raises:
        DataError: the name is absolute, climbs out, is empty or cannot be printed.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
        raise DataError(f"{name!r} is no file below {folder}; the table is damaged or forged")
    return folder / name


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Rows of a table as they are, its heading too.

    Raises:
        DataError: no such file, or no table in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=delimiter)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{path} is no table in UTF-8 ({error})") from None


def read_table(path: Path, *columns: str, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Rows of a table by the names in its first line; empty lines are skipped.

    Args:
        path: of the table.
        columns: that must be there; others may be.
        delimiter: between cells.

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
        DataError: no such file, or no UTF-8.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except UnicodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error})") from None


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
        DataError: no such file, no JSON, or JSON that is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected it in this layout") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a JSON {type(found).__name__}, expected an object")
    return found
