"""The index on disk: one safetensors file that is mapped, never loaded.

========== ==== ===================== ================================================================
tensor     type shape                 holds
========== ==== ===================== ================================================================
times      F64  (segments, 2)         start and end of each segment in its file, s
file_ends  I64  (files,)              number of segments up to and with each file
file_sizes I64  (files,)              bytes
file_times I64  (files,)              time of the last change, ns
name_ends  I64  (files,)              bytes of `names` up to and with each file's
vectors    F16  (segments, width)     embeddings of length 1
digests    U8   (files, 32)           SHA-256 of each file
names      U8   (bytes,)              paths as given, one after the other
========== ==== ===================== ================================================================

Files are in the order of their names, so that the same files give the same bytes. The table has few columns, so it is
in the same file as the vectors: a single file is easy to copy, any reader of safetensors opens it, and Parquet would
need pyarrow. The file is untrusted: names in it are never opened.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from auricle.errors import DataError
from auricle.files import atomic_write

FORMAT = "auricle-index-1"
DIGEST_BYTES = 32  # of SHA-256

_MAX_HEADER_BYTES = 1 << 16  # eight tensors and five words take less than 2 KB
_MAX_COUNT = 1 << 40  # rows, files, widths, bytes of names: far above any disk, far below 64 bits
_ALIGNMENT = 64  # bytes, a cache line: rows of usual widths start on one
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
_HEX = re.compile(r"[0-9a-f]{64}")

Vectors = npt.NDArray[np.float16]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of all segments of an index."""

    fingerprint: str  # of the model, SHA-256 in hexadecimal
    embedding_dim: int
    window_s: float  # length of a segment, s
    hop_s: float  # distance of the segments' starts, s
    model: str = ""  # name of the model; shown, never opened

    def same_vectors(self, other: Settings) -> bool:
        """Whether both give the same vectors; the name of the model does not count."""
        return asdict(self) | {"model": ""} == asdict(other) | {"model": ""}


class Rows(Protocol):
    """A store of segments: an index, or the journal of a run."""

    def rows(self, start: int, count: int) -> tuple[Times, Vectors]:
        """Times (count, 2) and vectors (count, width)."""


class Entry(NamedTuple):
    """One file, and where its segments are."""

    name: str
    size: int  # bytes
    changed_ns: int
    digest: bytes
    origin: Rows
    start: int  # of its segments in `origin`
    segments: int

    def rows(self) -> tuple[Times, Vectors]:
        """Times (segments, 2) and vectors (segments, width)."""
        return self.origin.rows(self.start, self.segments)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFile:
    """A mapped index: every column is a view of the file."""

    path: Path
    settings: Settings
    times: Times
    vectors: Vectors
    file_ends: npt.NDArray[np.int64]
    file_sizes: npt.NDArray[np.int64]
    file_times: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    name_ends: npt.NDArray[np.int64]
    names: npt.NDArray[np.uint8]

    def rows(self, start: int, count: int) -> tuple[Times, Vectors]:
        """Times (count, 2) and vectors (count, width)."""
        return self.times[start : start + count], self.vectors[start : start + count]

    def name(self, file: int) -> str:
        """Path of a file, as given."""
        start = int(self.name_ends[file - 1]) if file else 0
        return os.fsdecode(self.names[start : int(self.name_ends[file])].tobytes())

    def entries(self) -> Iterator[Entry]:
        """All files in their order."""
        start = 0
        for file, end in enumerate(self.file_ends.tolist()):
            size, changed_ns = int(self.file_sizes[file]), int(self.file_times[file])
            yield Entry(self.name(file), size, changed_ns, self.digests[file].tobytes(), self, start, end - start)
            start = end


def read_index(path: str | Path) -> IndexFile:
    """Map an index after comparing its header, sizes and order with what `write_index` writes.

    Raises:
        DataError: it is missing, not an index, damaged or truncated.
    """
    path = Path(path)
    try:
        header, start = _read_header(path)
        settings = _read_settings(header.pop("__metadata__", None))
        rows, width = header["vectors"]["shape"]
        sizes = rows, width, *header["file_ends"]["shape"], *header["names"]["shape"]
        layout = _layout(*map(_count, sizes))
        if header != layout:
            raise ValueError(f"its tensors are not {', '.join(layout)} of fitting shapes")
        total = start + layout["names"]["data_offsets"][1]
        if path.stat().st_size != total:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, its header says {total:,}")
        if width != settings.embedding_dim or width < 1:
            raise ValueError(f"its vectors are {width} wide, its header says {settings.embedding_dim}")
        mapped = np.asarray(np.memmap(path, np.uint8, "r"))
        columns = {name: _view(mapped, start, facts) for name, facts in layout.items()}
        _check_order(columns)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make it with `auricle index FOLDER -o {path}`") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path}: not an index ({reason}); expected a file made by `auricle index`") from None
    return IndexFile(path=path, settings=settings, **columns)


def write_index(path: str | Path, settings: Settings, entries: Sequence[Entry]) -> None:
    """Write an index of files in the order of their names; rows are fetched as they are written."""
    path = Path(path)
    names = [os.fsencode(entry.name) for entry in entries]
    counts = [entry.segments for entry in entries]
    layout = _layout(sum(counts), settings.embedding_dim, len(entries), sum(map(len, names)))
    with atomic_write(path) as file:
        file.write(_header(settings, layout))
        for entry in entries:
            file.write(entry.rows()[0].astype("<f8").tobytes())
        for numbers in (
            np.cumsum(counts),
            [entry.size for entry in entries],
            [entry.changed_ns for entry in entries],
            np.cumsum([len(name) for name in names]),
        ):
            file.write(np.asarray(numbers, dtype="<i8").tobytes())
        for entry in entries:
            file.write(entry.rows()[1].astype("<f2").tobytes())
        file.writelines(entry.digest for entry in entries)
        file.writelines(names)


def _layout(rows: int, width: int, files: int, name_bytes: int) -> dict[str, Any]:
    """The tensors of a safetensors header, in their order."""
    shapes = {
        "times": ("F64", [rows, 2]),
        "file_ends": ("I64", [files]),
        "file_sizes": ("I64", [files]),
        "file_times": ("I64", [files]),
        "name_ends": ("I64", [files]),
        "vectors": ("F16", [rows, width]),
        "digests": ("U8", [files, DIGEST_BYTES]),
        "names": ("U8", [name_bytes]),
    }
    layout, at = {}, 0
    for name, (dtype, shape) in shapes.items():
        end = at + math.prod(shape) * _DTYPES[dtype].itemsize
        layout[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return layout


def _header(settings: Settings, layout: dict[str, Any]) -> bytes:
    """The first bytes of the file; blanks after the JSON, which safetensors allows, align vectors to a cache line."""
    metadata = {"format": FORMAT, **{key: str(value) for key, value in asdict(settings).items()}}
    text = json.dumps({"__metadata__": metadata, **layout}, allow_nan=False).encode()
    text += b" " * (-(8 + len(text) + layout["vectors"]["data_offsets"][0]) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the offset of the tensors."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(status.st_size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"it claims a header of {length:,} bytes in a file of {status.st_size:,}")
        header = json.loads(file.read(length))
    if not isinstance(header, dict) or length % 8:  # numbers of 8 bytes follow
        raise ValueError("its header is not a JSON object of whole words")
    return header, 8 + length


def _read_settings(metadata: Any) -> Settings:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        raise ValueError(f"its format is {found!r:.40}, this version reads {FORMAT!r}")
    settings = Settings(
        fingerprint=str(metadata["fingerprint"]),
        embedding_dim=int(metadata["embedding_dim"]),
        window_s=float(metadata["window_s"]),
        hop_s=float(metadata["hop_s"]),
        model=str(metadata["model"]),
    )
    if not _HEX.fullmatch(settings.fingerprint):
        raise ValueError("its model's fingerprint is not a SHA-256")
    if not 0 < settings.hop_s <= settings.window_s < math.inf:
        raise ValueError(f"its windows are {settings.window_s} s long and {settings.hop_s} s apart")
    return settings


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise ValueError(f"it claims a size of {value!r:.40}")
    return value


def _view(mapped: npt.NDArray[np.uint8], first: int, facts: dict[str, Any]) -> npt.NDArray[Any]:
    start, end = (first + offset for offset in facts["data_offsets"])
    return mapped[start:end].view(_DTYPES[facts["dtype"]]).reshape(facts["shape"])


def _check_order(columns: dict[str, npt.NDArray[Any]]) -> None:
    """Raise ValueError unless every file has segments and a name, and all of both belong to a file."""
    for name, whole in (("file_ends", "times"), ("name_ends", "names")):
        ends = columns[name]
        if (np.diff(ends, prepend=0) < 1).any() or (ends[-1] if len(ends) else 0) != len(columns[whole]):
            raise ValueError(f"its column {name} does not divide {whole}")
