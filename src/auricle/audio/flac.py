"""FLAC, walked frame by frame: its header may state too few samples, and files may be joined."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

_MARKER = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # and the head of STREAMINFO; RFC 9639 §8.2
_SYNC = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe][\x00-\xae]")  # of a frame, with legal fields behind it; §9.1
_TOTAL = (1 << 36) - 1  # mask of the total of samples in bytes 21 to 26 of a file
_CHUNK = 1 << 20  # bytes read at once
_OVERLAP = 64  # bytes; longer than any header
_MOST_PARTS = 4096  # of joined files
_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def _crc_table() -> bytes:
    table = bytearray()
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
        table.append(value)
    return bytes(table)


_CRC8 = _crc_table()


class Frame(NamedTuple):
    """What the header of one frame states."""

    number: int  # of the frame, or of its first sample
    is_numbered: bool  # it is the number of the frame
    num_samples: int  # per channel
    sample_rate: int  # Hz; 0: as in the header of the file
    channels: int

    def follows(self, other: Frame) -> bool:
        """Whether this is the frame behind ``other``."""
        step = 1 if self.is_numbered else other.num_samples
        return self.is_numbered == other.is_numbered and self.number == other.number + step


@dataclass(slots=True)
class Part:
    """A FLAC file, which may be one of several that were joined, and what the frames read so far hold."""

    start: int  # byte
    stop: int
    stated: int  # samples per channel in its header; 0: unknown
    counted: int = 0  # by its frames
    layouts: set[tuple[int, int]] = field(default_factory=set)  # (rate, channels) of its frames
    _last: Frame | None = None
    _block: int = 0  # samples of all blocks but the last
    _origin: int = 0  # samples before frames were counted from 0 again

    def add(self, frame: Frame) -> None:
        """Count a frame that continues the others, or the frame that was last given; bytes may only look like one."""
        is_confirmed = self._last is not None and frame.follows(self._last)
        if is_confirmed and self._last is not None and self._last.number == 0 and self.counted > self._end(self._last):
            self._origin, self._block = self.counted, self._last.num_samples  # joined without a header
        self._block = self._block or frame.num_samples
        start = self._end(frame) - frame.num_samples
        if start == self.counted or (is_confirmed and start > self.counted):
            self.counted = start + frame.num_samples
            self.layouts.add((frame.sample_rate, frame.channels))
        self._last = frame

    def _end(self, frame: Frame) -> int:
        start = frame.number * self._block if frame.is_numbered else frame.number
        return self._origin + start + frame.num_samples


def walk(file: BinaryIO, size: int) -> list[Part]:
    """Find the parts of ``size`` bytes and count the frames of each; the file position is undefined afterwards."""
    parts: list[Part] = []
    base, data = 0, b""
    file.seek(0)
    while fresh := file.read(_CHUNK):
        kept = data[-_OVERLAP:]
        base, data = base + len(data) - len(kept), kept + fresh
        certain = len(data) if base + len(data) >= size else len(data) - _OVERLAP
        markers = {match.start() for match in _MARKER.finditer(data)}
        for at in sorted(markers.union(match.start() for match in _SYNC.finditer(data))):
            if at >= certain:
                break
            if at in markers:
                _begin(parts, base + at, size, data[at : at + 42])
            elif parts and (frame := read_header(data[at : at + 32])):
                parts[-1].add(frame)
    return parts


def _begin(parts: list[Part], at: int, size: int, header: bytes) -> None:
    if len(parts) >= _MOST_PARTS:
        return
    if parts:
        parts[-1].stop = at
    parts.append(Part(at, size, int.from_bytes(header[21:26], "big") & _TOTAL))


def read_header(data: bytes) -> Frame | None:
    """The header at the start of a frame; None: there is none (RFC 9639 §9.1)."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8 or data[3] & 1 or data[3] >> 4 > 10:
        return None
    code, rate_code = data[2] >> 4, data[2] & 15
    if code == 0 or rate_code == 15 or data[3] >> 1 & 7 == 3:
        return None
    number, at = _coded_number(data)
    if at == 0:
        return None
    num_samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << max(code - 8, 0)
    if code in (6, 7):
        num_samples = int.from_bytes(data[at : at + code - 5], "big") + 1
        at += code - 5
    rate = _RATES[rate_code] if rate_code < 12 else 0
    if rate_code >= 12:
        width = 1 if rate_code == 12 else 2
        rate = int.from_bytes(data[at : at + width], "big") * (1000, 1, 10)[rate_code - 12]
        at += width
    crc = 0
    for byte in data[:at]:
        crc = _CRC8[crc ^ byte]
    if at >= len(data) or crc != data[at]:
        return None
    channels = (data[3] >> 4) + 1 if data[3] >> 4 < 8 else 2
    return Frame(number, data[1] == 0xF8, num_samples, rate, channels)


def _coded_number(data: bytes) -> tuple[int, int]:
    """The number coded like UTF-8 from byte 4 on, and the byte behind it; 0: it is not coded so."""
    first = data[4]
    if first < 0x80:
        return first, 5
    width = 8 - (first ^ 0xFF).bit_length()
    rest = data[5 : 4 + width]
    if width < 2 or len(rest) < width - 1 or any(byte & 0xC0 != 0x80 for byte in rest):
        return 0, 0
    number = first & (0x7F >> width)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 4 + width


def patched_total(header: bytes, total: int) -> bytes:
    """Bytes 21 to 26 of a FLAC file with another total of samples."""
    kept = int.from_bytes(header, "big") & ~_TOTAL
    return (kept | total & _TOTAL).to_bytes(5, "big")
