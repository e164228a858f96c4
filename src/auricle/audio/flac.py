"""FLAC, walked frame by frame: its header may state too few samples, and files may be joined."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

_MARKER = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # and the head of STREAMINFO; RFC 9639 §8.2
_SYNC = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe][\x00-\xae]")  # of a frame, with legal fields behind it; §9.1
_TOTAL = (1 << 36) - 1  # mask of the total of samples in bytes 21 to 26 of a file
_CHUNK = 1 << 20  # bytes read at once
_OVERLAP = 64  # bytes; longer than any header
MOST_PARTS = 4096  # of joined files
_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_BITS = (0, 8, 12, 0, 16, 20, 24, 32)


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
    bits: int  # of a sample; 0: as in the header of the file

    def follows(self, other: Frame) -> bool:
        """Whether this is the frame behind ``other``."""
        step = 1 if self.is_numbered else other.num_samples
        return self.is_numbered == other.is_numbered and self.number == other.number + step


Layout = tuple[int, int, int]  # rate, Hz; channels; bits of a sample


@dataclass(slots=True)
class Part:
    """Frames of one layout behind the header of a file, or without one, and what those read so far hold."""

    start: int  # byte
    stop: int
    header: bytes  # marker and STREAMINFO of the file, 42 bytes
    has_header: bool  # the part begins with it
    counted: int = 0  # samples per channel of its frames
    layout: Layout | None = None  # of its frames
    last: tuple[Frame, int] | None = None  # that was given, and its byte
    first: int = 0  # byte of the first frame that counts
    block: int = 0  # samples of all blocks but the last
    origin: int = 0  # first sample, by the numbers of the frames

    @property
    def stated(self) -> int:
        """Samples per channel in the header; 0: unknown."""
        return int.from_bytes(self.header[21:26], "big") & _TOTAL

    def add(self, frame: Frame, at: int) -> Part | None:
        """Count a frame at byte ``at``, and give the part that begins with it or with the one before, if one does.

        Bytes may only look like a frame: one counts that continues the others, or the last one given.
        """
        last, self.last = self.last, (frame, at)
        is_confirmed = last is not None and frame.follows(last[0])
        if last is not None and is_confirmed and self._restarts(*last):
            begun = self._begin(*last)
            begun.add(frame, at)
            return begun
        self.block = self.block or frame.num_samples
        start = self._start(frame)
        if start == self.counted or (is_confirmed and start > self.counted):
            if self.layout not in (None, self._layout(frame)):
                return self._begin(frame, at)
            self.layout, self.first = self._layout(frame), self.first if self.counted else at
            self.counted = start + frame.num_samples
        return None

    def finish(self) -> Part | None:
        """The part that the last frame begins, if one does."""
        return self._begin(*self.last) if self.last is not None and self._restarts(*self.last) else None

    def corrected(self) -> bytes:
        """A header that states the layout and at least the samples of the frames; empty: the header does so."""
        stated = int.from_bytes(self.header[18:26], "big")
        own = stated >> 44, (stated >> 41 & 7) + 1, (stated >> 36 & 31) + 1
        layout = self.layout or own
        if self.has_header and layout == own and not 0 < self.stated < self.counted:
            return b""
        rate, channels, bits = layout
        packed = rate << 44 | channels - 1 << 41 | bits - 1 << 36 | self.counted & _TOTAL
        kind = self.header[4:5] if self.has_header else b"\x80"  # the last block of metadata
        block = self.block.to_bytes(2, "big")
        return b"fLaC" + kind + self.header[5:8] + 2 * block + bytes(6) + packed.to_bytes(8, "big") + bytes(16)

    def _restarts(self, frame: Frame, at: int) -> bool:
        """Whether frames are counted from 0 again."""
        return frame.number == 0 and self.counted > 0 and at > self.first

    def _begin(self, frame: Frame, at: int) -> Part:
        begun = Part(at, self.stop, self.header, False)
        begun.block = frame.num_samples
        begun.origin = frame.number * frame.num_samples if frame.is_numbered else frame.number
        begun.add(frame, at)
        self.stop = at
        return begun

    def _start(self, frame: Frame) -> int:
        return (frame.number * self.block if frame.is_numbered else frame.number) - self.origin

    def _layout(self, frame: Frame) -> Layout:
        stated = int.from_bytes(self.header[18:26], "big")
        return frame.sample_rate or stated >> 44, frame.channels, frame.bits or (stated >> 36 & 31) + 1


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
            begun = None
            if at in markers:
                _finish(parts)
                begun = Part(base + at, size, data[at : at + 42], True)
            elif parts and (frame := read_header(data[at : at + 32])):
                begun = parts[-1].add(frame, base + at)
            if begun is not None and len(parts) < MOST_PARTS:
                if parts:
                    parts[-1].stop = begun.start
                parts.append(begun)
    _finish(parts)
    return parts


def _finish(parts: list[Part]) -> None:
    begun = parts[-1].finish() if parts else None
    if begun is not None and len(parts) < MOST_PARTS:
        parts.append(begun)


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
    return Frame(number, data[1] == 0xF8, num_samples, rate, channels, _BITS[data[3] >> 1 & 7])


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
