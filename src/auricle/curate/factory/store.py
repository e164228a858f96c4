"""Facts on disk, keyed by clip hash, expert and version, so that no expert runs twice on a clip.

``facts/EXPERT/VERSION/BLOCK.parquet`` (``.jsonl`` without the extra ``parquet``) holds what an expert said of a block
of clips. A file is written whole or not at all. Its rows have the columns ``clip``, ``expert``, ``version``, ``facts``
(JSON), ``error`` and ``seconds``, the time that computing took, from which runs are planned.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from auricle.curate.factory.experts import Expert, Fact
from auricle.data.untrusted_json import StrictFields, has_half_pair, parse_json, validate
from auricle.errors import AuricleError, DataError
from auricle.files import make_folder, read_regular, safe_file_name, write_bytes

COLUMNS = ("clip", "expert", "version", "facts", "error", "seconds")
_MAX_FILE, _MAX_FACTS, _MAX_ROWS = 256 << 20, 1 << 20, 1 << 16  # bytes of a file, characters of a row, rows
_MOST_FACTS = 2000  # of one clip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What an expert said of a clip."""

    clip: str  # hash
    facts: tuple[Fact, ...] = ()
    error: str = ""  # why there are none
    seconds: float = 0.0  # of computing


@dataclass(frozen=True, kw_only=True)
class _StoredFact(StrictFields):
    name: str
    value: Any
    confidence: float | None = None
    start_s: float = 0.0
    stop_s: float = 0.0


@dataclass
class FactStore:
    """The facts of a run, of all experts; read at once, one expert at a time."""

    folder: Path
    _known: dict[str, dict[str, Row]] = field(default_factory=dict, repr=False)

    def rows(self, expert: Expert) -> dict[str, Row]:
        """What this version of an expert has said, by clip hash.

        Raises:
            DataError: a file there is damaged, or another program's.
        """
        if expert.identity not in self._known:
            folder = self._folder(expert)
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            found = (row for file in files if file.suffix in (".parquet", ".jsonl") for row in read_rows(file))
            self._known[expert.identity] = {row.clip: row for row in found}
        return self._known[expert.identity]

    def add(self, expert: Expert, rows: Sequence[Row]) -> None:
        """Store what an expert said of a block of clips."""
        digest = sha256("\n".join(row.clip for row in rows).encode()).hexdigest()[:16]
        folder = make_folder(self._folder(expert))
        records = [_record(expert, row) for row in rows]
        packed = _to_parquet(records)
        if packed is not None:
            write_bytes(folder / f"{digest}.parquet", packed)
        else:
            lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
            write_bytes(folder / f"{digest}.jsonl", "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        self.rows(expert).update({row.clip: row for row in rows})

    def _folder(self, expert: Expert) -> Path:
        return self.folder / safe_file_name(expert.name) / safe_file_name(expert.version)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of facts, each checked.

    Raises:
        DataError: it is damaged, too large, or has other columns or values.
    """
    try:
        content = read_regular(path, _MAX_FILE)
        records = _from_parquet(content, path) if path.suffix == ".parquet" else _from_jsonl(content)
        for record in records:
            yield _row(record, str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no facts of the caption factory ({error}); delete it to find them again") from None


def _record(expert: Expert, row: Row) -> dict[str, Any]:
    facts = json.dumps([asdict(fact) for fact in row.facts], ensure_ascii=False, allow_nan=False)
    if len(facts) > _MAX_FACTS or len(row.facts) > _MOST_FACTS:
        raise DataError(f"expert {expert.name} gave {len(row.facts)} facts of one clip, at most {_MOST_FACTS} are kept")
    values = (row.clip, expert.name, expert.version, facts, row.error, row.seconds)
    return dict(zip(COLUMNS, values, strict=True))


def _row(record: Mapping[str, Any], origin: str) -> Row:
    clip, facts, error, seconds = (record[name] for name in ("clip", "facts", "error", "seconds"))
    if not all(isinstance(each, str) for each in (clip, facts, error)) or not isinstance(seconds, int | float):
        raise ValueError("a column of another type")
    if len(facts) > _MAX_FACTS or len(clip) > 64 or not clip.isalnum():
        raise ValueError("a value that is too long, or no hash of a clip")
    listed = parse_json(facts)
    if not isinstance(listed, list) or len(listed) > _MOST_FACTS or has_half_pair(listed):
        raise ValueError("facts are no list, or one that is too long")
    found = [validate(_StoredFact, each, origin) for each in listed]
    if not all(isinstance(each.value, str | int | float) for each in found):
        raise ValueError("a fact that is no text and no number")
    return Row(clip=clip, facts=tuple(Fact(**asdict(each)) for each in found), error=error, seconds=float(seconds))


def _to_parquet(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """None without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    types = dict(zip(COLUMNS, [pa.string()] * 5 + [pa.float64()], strict=True))
    table = pa.table({name: pa.array([each[name] for each in records], types[name]) for name in COLUMNS})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _from_parquet(content: bytes, path: Path) -> Iterable[Mapping[str, Any]]:
    from auricle.errors import MissingExtra

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(f"reading {path}", "parquet") from None
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > _MAX_ROWS or sum(sizes) > _MAX_FILE or set(file.schema_arrow.names) != set(COLUMNS):
            raise ValueError("other columns, or too many rows")
        rows: list[Mapping[str, Any]] = file.read().to_pylist()
        return rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from None


def _from_jsonl(content: bytes) -> list[Mapping[str, Any]]:
    rows = [parse_json(line) for line in content.decode().splitlines()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line that is no object")
    return rows


def error_row(clip: str, error: AuricleError, seconds: float) -> Row:
    """The row of a clip that an expert could not process."""
    return Row(clip=clip, error=str(error)[:2000], seconds=seconds)
