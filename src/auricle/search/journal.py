"""The journal of an indexing run, so that a killed run can be continued.

A line of settings, then a record for each clip: its number of segments (8 bytes, little-endian), its SHA-256, their
times and vectors, and 16 bytes of BLAKE2b over all of that. A torn record is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from auricle.search.index import DIGEST_BYTES, Entry, Settings, Times, Vectors

_HEAD_BYTES = 8 + DIGEST_BYTES
_CHECK_BYTES = 16


class Journal:
    """The clips that a run has encoded so far."""

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        """Read the records of a run with the same settings; drop those of others, and a torn end."""
        self._file, self._width = file, settings.embedding_dim
        self._places: dict[bytes, tuple[int, int]] = {}  # hash of a clip -> offset of its times, number of segments
        head = json.dumps(asdict(settings) | {"model": ""}, allow_nan=False).encode() + b"\n"
        file.seek(0)
        if file.read(len(head)) != head:
            file.seek(0)
            file.truncate()
            file.write(head)
        size = file.seek(0, os.SEEK_END)
        self._end = len(head)
        while self._end < size and (length := self._read_record(size)):
            self._end += length
        file.truncate(self._end)
        file.flush()

    def find(self, digest: bytes) -> Entry | None:
        """The segments of a clip, without a file name."""
        if digest not in self._places:
            return None
        start, count = self._places[digest]
        return Entry("", 0, 0, digest, self, start, count)

    def add(self, digest: bytes, times: Times, vectors: Vectors) -> Entry:
        """Write the segments of a clip."""
        head = len(times).to_bytes(8, "little") + digest
        body = head + times.astype("<f8").tobytes() + vectors.astype("<f2").tobytes()
        self._file.seek(self._end)
        self._file.write(body + _check(body))
        self._file.flush()
        entry = Entry("", 0, 0, digest, self, self._end + _HEAD_BYTES, len(times))
        self._places[digest] = entry.start, entry.segments
        self._end += len(body) + _CHECK_BYTES
        return entry

    def rows(self, start: int, count: int) -> tuple[Times, Vectors]:
        """Times (count, 2) and vectors (count, width)."""
        self._file.seek(start)
        data = self._file.read(self._size(count))
        times = np.frombuffer(data, "<f8", 2 * count).reshape(count, 2)
        return times, np.frombuffer(data, "<f2", offset=times.nbytes).reshape(count, self._width)

    def _size(self, count: int) -> int:
        return count * (16 + 2 * self._width)

    def _read_record(self, size: int) -> int:
        """Bytes of the next record, 0 if it is torn."""
        self._file.seek(self._end)
        head = self._file.read(_HEAD_BYTES)
        count = int.from_bytes(head[:8], "little")
        length = _HEAD_BYTES + self._size(count) + _CHECK_BYTES
        if not count or self._end + length > size:
            return 0
        body = head + self._file.read(length - _HEAD_BYTES - _CHECK_BYTES)
        if self._file.read(_CHECK_BYTES) != _check(body):
            return 0
        self._places[head[8:]] = self._end + _HEAD_BYTES, count
        return length


@contextmanager
def open_journal(path: Path, settings: Settings) -> Iterator[Journal]:
    """The journal of a run, which holds the lock of the index; it is removed when the run is complete."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b") as file:
        yield Journal(file, settings)
        path.unlink(missing_ok=True)


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()
