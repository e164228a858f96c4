"""Whether a file ends before its structure says it should: decoders return half of the audio and no error.

Only the structure is read, never the samples. A cut that falls exactly on a frame boundary of a container without
lengths (mp3 without an Info frame, ADTS) cannot be seen. Lengths that a writer to a pipe left open are replaced by what
the file holds.
"""

from __future__ import annotations

from typing import BinaryIO, Literal, NamedTuple

_OPEN_LENGTH = 0x7F000000  # writers to a pipe put this or more as a 32-bit length
_DOUBTFUL_LENGTH = 2_000_000_000  # or this, which a file may also hold
_MAX_CHUNKS = 4096  # real files have a few; more is an attack

Order = Literal["big", "little"]
_FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")  # another file begins


class Structure(NamedTuple):
    """What the structure of a file says about its end."""

    is_cut: bool = False  # it ends too early
    patch: tuple[int, bytes] | None = None  # byte of a length that is left open, and its true value
    note: str = ""


def inspect(file: BinaryIO, size: int, container: str) -> Structure:
    """Inspect the ``size`` bytes of ``file`` by the rules of a ``container`` named by `sniff`.

    The file position is undefined afterwards. Nothing is found for containers without a rule here, or with a walk of
    their own: MPEG audio, FLAC and Ogg.
    """
    file.seek(0)
    match container:
        case "wav" | "rf64" | "bw64":
            return _riff(file, size)
        case "aiff" | "svx":
            file.seek(12)
            return _chunks(file, size, b"SSND" if container == "aiff" else b"BODY", "big", 8 * (container == "aiff"))
        case "au":
            return _au(file.read(12), size)
        case "w64":
            return _w64(file, size)
        case "caf":
            return _caf(file, size)
        case "mp4":
            return Structure(_boxes_are_cut(file, size))
        case "matroska":
            return Structure(_matroska_is_cut(file.read(256), size))
    return Structure()


class _Field(NamedTuple):
    """The length of the audio as a header states it, and where the audio starts."""

    at: int
    width: int
    order: Order
    stated: int
    start: int  # first byte of audio
    extra: int = 0  # bytes that the length counts before it

    def compare(self, size: int, *, is_empty: bool = False) -> Structure:
        """Compare with a file of ``size`` bytes; ``is_empty``: a length of 0 is true."""
        rest, stated = size - self.start, self.stated - self.extra
        if 0 < stated <= rest:
            return Structure()
        is_huge = self.stated >= (_OPEN_LENGTH if self.width == 4 else 1 << 62)
        is_open = is_huge or (stated <= 0 < rest and not is_empty)
        is_doubtful = not is_open and self.stated >= _DOUBTFUL_LENGTH and stated > 4 * rest
        if not is_open and not is_doubtful:
            return Structure(stated > rest)
        true = rest + self.extra
        fits = 0 < true < 1 << 8 * self.width - 1
        patch = (self.at, true.to_bytes(self.width, self.order)) if fits else None
        note = f"the header states {self.stated:,} bytes of audio, as of a recording to a pipe; the file holds {rest:,}"
        return Structure(False, patch, note if is_doubtful else "")


def _riff(file: BinaryIO, size: int) -> Structure:
    head = file.read(12)
    if head[:4] in (b"RF64", b"BW64"):
        sizes = file.read(28)  # "ds64", chunk size, RIFF size, data size, sample count
        file.seek(12)
        if len(sizes) < 28 or sizes[:4] != b"ds64":
            return Structure()
        return _chunks(file, size, b"data", "little", length_at=28)
    return _chunks(file, size, b"data", "big" if head[:4] == b"RIFX" else "little")


def _chunks(
    file: BinaryIO, size: int, wanted: bytes, order: Order, extra: int = 0, length_at: int | None = None
) -> Structure:
    """Walk IFF-like chunks to ``wanted``, whose length is in its header or, 8 bytes wide, at ``length_at``."""
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return Structure(is_cut=True)
        stated = int.from_bytes(header[4:], order)
        if header[:4] == wanted:
            at = file.tell()
            found = _Field(at - 4, 4, order, stated, at + extra, extra)
            if length_at is not None and stated >= _OPEN_LENGTH:
                file.seek(length_at)
                found = _Field(length_at, 8, order, int.from_bytes(file.read(8), order), at)
            structure = found.compare(size, is_empty=_is_chunk(file, at, size, order))
            stop = at + found.stated + (found.stated & 1)
            if structure != Structure() or stop >= size or _is_chunk(file, stop, size, order):
                return structure
            return Structure(note=f"{size - stop:,} bytes behind the audio are no part of it and were not read")
        file.seek(stated + (stated & 1), 1)
    return Structure()


def _is_chunk(file: BinaryIO, at: int, size: int, order: Order) -> bool:
    """Whether chunks of the same file reach from byte ``at`` to the end, so that none of it is audio."""
    for _ in range(_MAX_CHUNKS):
        if at == size:
            return True
        file.seek(at)
        header = file.read(8)
        if len(header) < 8 or header[:4] in _FILES or not all(31 < byte < 127 for byte in header[:4]):
            return False
        length = int.from_bytes(header[4:], order)
        at += 8 + length + (length & 1 if at + 8 + length < size else 0)
    return False


def _au(head: bytes, size: int) -> Structure:
    if len(head) < 12:
        return Structure(is_cut=True)
    offset, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:], "big")
    return _Field(8, 4, "big", length, offset).compare(size)


def _w64(file: BinaryIO, size: int) -> Structure:
    """Sony Wave64: 16-byte ids, 8-byte lengths that count their own 24 bytes, everything on 8-byte steps."""
    file.seek(40)
    for _ in range(_MAX_CHUNKS):
        header = file.read(24)
        if len(header) < 24:
            return Structure(is_cut=True)
        length = int.from_bytes(header[16:], "little")
        if header[:4] == b"data":
            at = file.tell()
            return _Field(at - 8, 8, "little", length, at, 24).compare(size)
        if length < 24 or length > size:
            return Structure(is_cut=True)
        file.seek(((length + 7) & ~7) - 24, 1)
    return Structure()


def _caf(file: BinaryIO, size: int) -> Structure:
    """Apple Core Audio: ids of 4 bytes, lengths of 8; the audio is behind a count of edits."""
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        header = file.read(12)
        if len(header) < 12:
            return Structure(is_cut=True)
        length = int.from_bytes(header[4:], "big")
        if header[:4] == b"data":
            at = file.tell()
            return _Field(at - 8, 8, "big", length, at + 4, 4).compare(size)
        if length > size:
            return Structure(is_cut=True)
        file.seek(length, 1)
    return Structure()


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
