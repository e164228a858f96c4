"""Whether a file ends before its structure says it should: decoders return half of the audio and no error.

Only the structure is read, never the samples. A cut that falls exactly on a frame boundary of a container without
lengths (mp3 without an Info frame, ADTS) cannot be seen.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Literal

_MAX_OGG_PAGE = 65_307  # bytes; RFC 3533 §6
_END_OF_STREAM = 4  # flag of an Ogg page; RFC 3533 §6
_UNKNOWN_LENGTH = 0x7FFFF000  # writers to a pipe put this or more as a 32-bit length
_MAX_CHUNKS = 4096  # real files have a few; more is an attack


def is_cut(file: BinaryIO, size: int, container: str) -> bool:
    """Whether the ``size`` bytes of ``file`` end too early for a ``container`` named by `sniff`.

    The file position is undefined afterwards. False for containers without a rule here, and for mp3 (see
    `auricle.audio.mpeg`).
    """
    file.seek(0)
    match container:
        case "wav" | "rf64":
            return _riff_is_cut(file, size)
        case "aiff" | "svx":
            file.seek(12)
            return _chunks_are_cut(file, size, b"SSND" if container == "aiff" else b"BODY", "big")
        case "au":
            return _au_is_cut(file.read(12), size)
        case "w64":
            return _w64_is_cut(file, size)
        case "ogg":
            return _ogg_is_cut(file, size)
        case "mp4":
            return _boxes_are_cut(file, size)
        case "matroska":
            return _matroska_is_cut(file.read(256), size)
    return False


def _riff_is_cut(file: BinaryIO, size: int) -> bool:
    head = file.read(12)
    if head[:4] == b"RF64":
        sizes = file.read(28)  # "ds64", chunk size, RIFF size, data size, sample count
        file.seek(12)
        if len(sizes) < 28 or sizes[:4] != b"ds64":
            return False
        return _chunks_are_cut(file, size, b"data", "little", int.from_bytes(sizes[16:24], "little"))
    return _chunks_are_cut(file, size, b"data", "big" if head[:4] == b"RIFX" else "little")


def _chunks_are_cut(
    file: BinaryIO, size: int, wanted: bytes, order: Literal["big", "little"], length: int | None = None
) -> bool:
    """Walk IFF-like chunks to ``wanted`` and compare its length (or ``length``, from a side table) with the file."""
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return True
        stated = int.from_bytes(header[4:], order)
        if header[:4] == wanted:
            stated = stated if length is None else length
            unknown = length is None and stated >= _UNKNOWN_LENGTH
            return not unknown and file.tell() + stated > size
        file.seek(stated + (stated & 1), 1)
    return False


def _au_is_cut(head: bytes, size: int) -> bool:
    if len(head) < 12:
        return True
    offset, length = struct.unpack(">II", head[4:])
    return bool(length < _UNKNOWN_LENGTH and offset + length > size)


def _w64_is_cut(file: BinaryIO, size: int) -> bool:
    """Sony Wave64: 16-byte ids, 8-byte lengths that count their own 24 bytes, everything on 8-byte steps."""
    file.seek(40)
    for _ in range(_MAX_CHUNKS):
        header = file.read(24)
        if len(header) < 24:
            return True
        length = int.from_bytes(header[16:], "little")
        if header[:4] == b"data":
            return file.tell() - 24 + length > size
        if length < 24 or length > size:
            return True
        file.seek(((length + 7) & ~7) - 24, 1)
    return False


def _ogg_is_cut(file: BinaryIO, size: int) -> bool:
    """The last page must be whole and carry the end-of-stream flag."""
    file.seek(max(0, size - _MAX_OGG_PAGE - 1024))
    tail = file.read()
    at = tail.rfind(b"OggS\x00")
    page = tail[at:]
    if at < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return True
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) < length or not page[5] & _END_OF_STREAM


def is_chained_ogg(file: BinaryIO, size: int) -> bool:
    """Whether the last page belongs to another stream than the first: libsndfile would stop at the end of the first."""
    file.seek(0)
    head = file.read(27)
    file.seek(max(0, size - _MAX_OGG_PAGE - 1024))
    tail = file.read()
    page = tail[max(tail.rfind(b"OggS\x00"), 0) :]
    return len(page) >= 27 and page[14:18] != head[14:18]


def _boxes_are_cut(file: BinaryIO, size: int) -> bool:
    """Top-level boxes of ISO 14496-12 §4.2 must end where the file ends, or before."""
    at = 0
    for _ in range(_MAX_CHUNKS):
        if at >= size:
            return at > size
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return False
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:
            return False
        if length < 8:
            return True
        at += length
    return False


def _matroska_is_cut(head: bytes, size: int) -> bool:
    """The Segment (RFC 8794, RFC 9559) must fit into the file when its length is known."""
    at = 4
    header_size, width = _ebml_size(head, at)
    if header_size is None:
        return False
    at += width + header_size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return False
    segment_size, width = _ebml_size(head, at + 4)
    return segment_size is not None and at + 4 + width + segment_size > size


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """Variable-width length at ``at`` and its width in bytes; None for "unknown" (all ones) or a bad width."""
    if at >= len(head) or head[at] == 0:
        return None, 1
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width
