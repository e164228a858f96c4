"""MPEG audio (layers I to III) and AAC in ADTS, walked frame by frame.

Headers state no length, or one that is not true of joined files: decoders stop at what the first part states, or at a
change of rate or channels. The walk finds every frame, whatever lies between: tags, zeros, junk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, NamedTuple

# kbit/s by bit-rate index 0-14; ISO 11172-3 §2.4.2.3 and ISO 13818-3 §2.4.2.3. Keys: (is MPEG-1, layer).
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)  # Hz of MPEG-1; half for MPEG-2, a quarter for MPEG-2.5
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_HEADER = 6  # bytes that state the length of a frame of either kind
_INFO, _INFO_HEAD = (b"Xing", b"Info"), 48  # names of frames without audio, and the bytes that hold them
_CHUNK = 1 << 20  # bytes read at once
_LINKS = 3  # frames in a row that show a start within junk to be no accident
_MOST_FRAMES = 8_000_000  # of one file; 12 hours of the shortest frames are fewer
_MOST_RUNS = 4096  # of different layouts
_MOST_STARTS = 200_000  # tried within junk, all together; a hostile file has one at every byte
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"\0\0\0\0")
# Sync words with legal fields behind them, so that a run of 0xFF is passed quickly.
_LEGAL = bytes(third for third in range(0x10, 0xF0) if third & 0x0C != 0x0C)
_LEGAL_AAC = bytes(third for third in range(256) if third >> 2 & 15 < len(_AAC_RATES))
_SYNC = re.compile(
    rb"\xff(?:[\xe2-\xe7\xf2-\xf7\xfa-\xff][%b]|[\xf0\xf1\xf8\xf9][%b])" % (re.escape(_LEGAL), re.escape(_LEGAL_AAC))
)


class Header(NamedTuple):
    """What the header of one frame states."""

    length: int  # bytes of the frame
    num_samples: int  # per channel
    sample_rate: int  # Hz
    layout: tuple[int, ...]  # decoders cannot go on where it changes

    @property
    def is_aac(self) -> bool:
        """Whether it is a frame of AAC in ADTS."""
        return self.layout[1] == 4


@dataclass(slots=True)
class Run:
    """Consecutive frames of one layout."""

    first: Header
    header: bytes  # of its first frame
    info: bytes = b""  # Info frame before it
    spans: list[tuple[int, int]] = field(default_factory=list)  # bytes that hold them; tags and junk lie between
    frames: int = 0
    num_samples: int = 0  # per channel


@dataclass(slots=True)
class Walk:
    """All frames of a file."""

    runs: list[Run] = field(default_factory=list)
    skipped: int = 0  # bytes between and behind frames that are neither frames nor tags
    ends_inside: bool = False  # the last frame is incomplete
    is_whole: bool = True  # False: given up within junk, or after too many frames

    @property
    def seconds(self) -> float:
        """Seconds of all frames, encoder delay and padding included."""
        return sum(run.num_samples / run.first.sample_rate for run in self.runs)

    @property
    def stated(self) -> int | None:
        """Frames that the Info frame before the first run counts, 0 if it does not; None: there is no such frame."""
        info = self.runs[0].info if self.runs else b""
        at = _info_at(info)
        if at < 0:
            return int.from_bytes(info[50:54], "big") if info else None
        return int.from_bytes(info[at + 8 : at + 12], "big") if info[at + 7] & 1 else 0

    @property
    def is_cut(self) -> bool:
        """Whether the file ends too early: by its Info frame, or, without one or behind what it counts, in a frame."""
        frames = sum(run.frames for run in self.runs)
        if self.stated is None or frames > self.stated + 1:
            return self.ends_inside
        return frames < self.stated - 1


@lru_cache(maxsize=4096)
def read_header(data: bytes) -> Header | None:
    """The header at the start of a frame, `_HEADER` bytes; None: there is none, or it states no length."""
    if len(data) < 4 or data[0] != 0xFF or data[1] < 0xE0:
        return None
    version, layer, index = data[1] >> 3 & 3, 4 - (data[1] >> 1 & 3), data[2] >> 4
    if layer == 4:
        return _read_adts(data)
    rate_index = data[2] >> 2 & 3
    if version == 1 or index in (0, 15) or rate_index == 3:
        return None
    is_mpeg1 = version == 3
    bits = _KBITS[is_mpeg1, layer][index] * 1000
    rate = _RATES[rate_index] >> (0 if is_mpeg1 else 1 if version == 2 else 2)
    padding = data[2] >> 1 & 1
    if layer == 1:
        length, num_samples = (12 * bits // rate + padding) * 4, 384
    else:
        short = layer == 3 and not is_mpeg1
        length, num_samples = (72 if short else 144) * bits // rate + padding, 576 if short else 1152
    channels = 1 if data[3] >> 6 == 3 else 2
    return Header(length, num_samples, rate, (version, layer, rate, channels))


def _read_adts(data: bytes) -> Header | None:
    """AAC in ADTS (ISO 14496-3 §1.A.2.2)."""
    if len(data) < _HEADER or data[1] & 0xF6 != 0xF0 or data[2] >> 2 & 15 >= len(_AAC_RATES):
        return None
    length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    rate, channels = _AAC_RATES[data[2] >> 2 & 15], (data[2] & 1) << 2 | data[3] >> 6
    return Header(length, 1024, rate, (0, 4, rate, channels)) if length > 7 else None


class _Window:
    """Bytes of a file around a position, read in chunks."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self.data, self.base = b"", 0

    def header(self, at: int) -> Header | None:
        """The header at byte ``at``."""
        return read_header(self.bytes(at, _HEADER))

    def bytes(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from byte ``at`` on."""
        offset = at - self.base
        if offset < 0 or offset + size > len(self.data):
            self._file.seek(at)
            self.base, self.data, offset = at, self._file.read(_CHUNK), 0
        return self.data[offset : offset + size]

    def syncs(self, at: int, stop: int) -> Iterator[int]:
        """Places in ``at … stop`` where a header could start."""
        while at < stop:
            self.bytes(at, 3)
            data, base = self.data, self.base
            for match in _SYNC.finditer(data, at - base):
                if base + match.start() >= stop:
                    return
                yield base + match.start()
            at = max(at + 1, base + len(data) - 2)


def first_frame(file: BinaryIO, size: int, start: int, most: int) -> tuple[int, Header] | None:
    """The first frame within ``most`` bytes from ``start`` on that others follow, and its header."""
    window = _Window(file, size)
    for count, at in enumerate(window.syncs(start, min(size, start + most))):
        if count > _MOST_STARTS:
            return None
        if found := _linked(window, at):
            return at, found
    return None


def walk(file: BinaryIO, size: int) -> Walk:
    """Find all frames of ``size`` bytes, from the first one on; the file position is undefined afterwards."""
    found, window = Walk(), _Window(file, size)
    at = tried = frames = 0
    layout: tuple[int, ...] | None = None
    info = b""
    while at < size:
        header = window.header(at)
        if header is not None and _is_info(window, at, header):
            info = window.bytes(at, header.length)
            at += header.length
            continue
        if header is not None and header.layout != layout:
            header = _linked(window, at)
        if header is None:
            at, tried = _resync(window, at, found, tried)
            continue
        if at + header.length > size:
            found.ends_inside = True
            break
        if header.layout != layout:
            if len(found.runs) >= _MOST_RUNS:
                found.is_whole = False
                break
            layout = header.layout
            found.runs.append(Run(header, window.bytes(at, 4), info))
        info = b""
        _add(found.runs[-1], at, header)
        at += header.length
        frames += 1
        if frames >= _MOST_FRAMES:
            found.is_whole = False
            break
    return found


def _add(run: Run, at: int, header: Header) -> None:
    if run.spans and run.spans[-1][1] == at:
        run.spans[-1] = run.spans[-1][0], at + header.length
    else:
        run.spans.append((at, at + header.length))
    run.frames += 1
    run.num_samples += header.num_samples


def _linked(window: _Window, at: int) -> Header | None:
    """The header at ``at`` if frames of the same kind follow it, up to the end or to a tag.

    One that states a frame beyond the end has nothing behind it that shows it to be no accident.
    """
    first = header = window.header(at)
    for link in range(_LINKS - 1):
        if header is None or first is None or header.layout != first.layout:
            return None
        at += header.length
        if at > window.size and link == 0:
            return None
        follower = window.bytes(at, 12)
        if at >= window.size - 3 or follower.startswith(_TAGS):
            return first
        header = read_header(follower[:_HEADER])
    return first if header is not None and first is not None and header.layout == first.layout else None


def _resync(window: _Window, at: int, found: Walk, tried: int) -> tuple[int, int]:
    """The next frame behind what is no frame, or the end; counts what is skipped and the places tried."""
    is_tag = window.bytes(at, 12).startswith(_TAGS)
    for start in window.syncs(at + 1, window.size):
        tried += 1
        if tried > _MOST_STARTS:
            found.is_whole = False
            break
        if _linked(window, start):
            found.skipped += 0 if is_tag else start - at
            return start, tried
    rest = window.bytes(at, _HEADER)
    found.ends_inside = len(rest) < 4 and rest[:1] == b"\xff"
    found.skipped += 0 if is_tag or not found.runs else window.size - at
    return window.size, tried


def _is_info(window: _Window, at: int, header: Header) -> bool:
    """Whether a frame holds facts about a file, and no audio."""
    version, layer, _, channels = header.layout
    if layer != 3:
        return False
    start = window.bytes(at, _INFO_HEAD)
    side_info = (17 if channels == 1 else 32) if version == 3 else (9 if channels == 1 else 17)
    return start[4 + side_info : 8 + side_info] in _INFO or start[36:40] == b"VBRI"


def _info_at(info: bytes) -> int:
    """Where the name of an Info frame is; -1: it is of the other kind, or no such frame."""
    return max(info.find(name, 4, _INFO_HEAD) for name in _INFO)


def info_frame(run: Run) -> bytes:
    """An Info frame that states the frames of a run, with the encoder delay of the one before it if there is one.

    It is empty where the layer has no such frame.
    """
    if run.header[1] >> 1 & 3 != 1:
        return b""
    info, at = run.info, _info_at(run.info)
    if at >= 0 and info[at + 7] & 3 == 3:
        num_bytes = len(info) + sum(stop - start for start, stop in run.spans)
        return info[: at + 8] + run.frames.to_bytes(4, "big") + num_bytes.to_bytes(4, "big") + info[at + 16 :]
    header = bytes((0xFF, run.header[1] | 1, run.header[2] & 0x0C | 0xE0, run.header[3]))
    is_mono, is_mpeg1 = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    side_info = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    tag = header + bytes(side_info) + b"Info" + (1).to_bytes(4, "big") + run.frames.to_bytes(4, "big")
    stated = read_header(header[:4])
    return tag.ljust(stated.length if stated else 0, b"\0")
