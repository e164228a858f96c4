"""A file made of ranges of other files: a part of a chain, or a file behind a corrected header."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import BinaryIO, NamedTuple


class Piece(NamedTuple):
    """Bytes ``start … stop`` of a file."""

    file: BinaryIO
    start: int
    stop: int


class Pieces(io.RawIOBase):
    """Pieces one behind the other, read and sought like one file; closing it leaves their files open."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Start at the first byte; empty pieces are allowed."""
        super().__init__()
        self._pieces = [piece for piece in pieces if piece.start < piece.stop]
        self._starts = [0, *accumulate(piece.stop - piece.start for piece in self._pieces)]
        self._at = 0
        self.size = self._starts[-1]

    def readable(self) -> bool:
        """Whether bytes can be read."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be set."""
        return True

    def tell(self) -> int:
        """Position, bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; one before the start is refused, one behind the end reads nothing."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"negative position {at}")
        self._at = at
        return at

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, fewer only at the end."""
        left = max(0, self.size - self._at)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left:
            index = bisect_right(self._starts, self._at) - 1
            piece = self._pieces[index]
            inside = self._at - self._starts[index]
            piece.file.seek(piece.start + inside)
            data = piece.file.read(min(left, piece.stop - piece.start - inside))
            if not data:  # the file became shorter
                break
            parts.append(data)
            self._at += len(data)
            left -= len(data)
        return b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read into ``buffer``; returns the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def of_bytes(data: bytes) -> Piece:
    """Bytes in memory as a piece."""
    return Piece(io.BytesIO(data), 0, len(data))


def patched(file: BinaryIO, size: int, at: int, data: bytes) -> Pieces:
    """The file of ``size`` bytes with ``data`` in place of what it holds at byte ``at``."""
    return Pieces([Piece(file, 0, at), of_bytes(data), Piece(file, at + len(data), size)])
