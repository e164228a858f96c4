"""Tables of mp4 files, checked before FFmpeg allocates what they claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from auricle.errors import BrokenAudio

_PARENTS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"cmov"))
# Bytes of one entry behind version, flags and count; ISO 14496-12 §8.6 and §8.7.
_ENTRY_BYTES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"stps": 4, b"elst": 12}
_MOST_BOXES = 1_000_000  # fragments of a second over half a day are fewer
_MOST_INFLATED = 64 << 20  # bytes of a compressed moov


def check_boxes(file: BinaryIO, size: int, name: str) -> None:
    """Refuse tables that claim more entries than their box, or more samples than the file, can hold.

    Raises:
        BrokenAudio: such a table, or too many boxes.
    """
    samples = 0
    for count, (kind, start, stop) in enumerate(_boxes(file, 0, size)):
        if count >= _MOST_BOXES:
            raise BrokenAudio(f"{name}: has over {_MOST_BOXES:,} boxes; convert it to flac, or cut it into parts")
        file.seek(start)
        claimed, room = _claim(kind, file.read(12), stop - start, size)
        samples += 0 if room else claimed
        if claimed > room > 0 or samples > size:
            raise BrokenAudio(
                f"{name}: its {kind.decode('latin-1')} table claims {claimed:,} entries, more than the file holds; "
                "its header cannot be used. Download or export it again"
            )


def _boxes(file: BinaryIO, at: int, stop: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte of the contents and end of each box, those inside others included."""
    while at + 8 <= stop:
        file.seek(at)
        header = file.read(16)
        length, kind, width = int.from_bytes(header[:4], "big"), header[4:8], 8
        if length == 1:
            length, width = int.from_bytes(header[8:16], "big"), 16
        end = stop if length == 0 else min(at + length, stop)
        if length and length < width:
            return
        yield kind, at + width, end
        if kind in _PARENTS and depth < 8:
            yield from _boxes(file, at + width, end, depth + 1)
        at = end


def _claim(kind: bytes, head: bytes, length: int, size: int) -> tuple[int, int]:
    """Entries that a table claims, and how many its box has room for; 0: the file alone bounds them."""
    if len(head) < 12:
        return 0, 0
    second, third = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    if kind in _ENTRY_BYTES:
        return second, max(1, (length - 8) // _ENTRY_BYTES[kind])
    if kind == b"stsz":
        return third * max(second, 1), 0 if second else max(1, (length - 12) // 4)
    if kind == b"stz2":
        return third, max(1, (length - 12) * 8 // max(head[7], 1))
    if kind == b"trun":
        entry = 4 * (int.from_bytes(head[1:4], "big") >> 8 & 15).bit_count()
        return second, max(1, (length - 8) // entry) if entry else 0
    if kind == b"cmvd":
        return int.from_bytes(head[:4], "big"), max(size, _MOST_INFLATED)
    return 0, 0
