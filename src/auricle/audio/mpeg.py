"""The length of an mp3, counted frame by frame.

libsndfile takes the length from the Info frame or, without one, estimates it from the bit rate of the first frame, and
stops there: a variable-rate mp3 without an Info frame, or two concatenated mp3 files, would lose audio silently.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

from auricle.audio.containers import id3_size

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
_CHUNK = 1 << 20  # bytes read at once
_TAIL_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")


@dataclass(frozen=True, slots=True)
class MpegFrames:
    """All frames of a file."""

    frames: int  # audio frames, the Info frame not counted
    samples_per_frame: int
    start: int  # byte of the first frame with audio
    header: bytes  # 4 bytes of the first frame
    is_cut: bool  # the last frame is incomplete, or the Info frame counts more bytes than there are

    @property
    def num_samples(self) -> int:
        """Samples per channel, encoder delay and padding included."""
        return self.frames * self.samples_per_frame


def frame_length(header: bytes) -> int:
    """Bytes of the frame that starts with these 4 bytes; 0 where they are no header or state no length."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer, index = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 4
    rate_index = header[2] >> 2 & 3
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return 0
    bits = _KBITS[version == 3, layer][index] * 1000
    rate = _RATES[rate_index] >> (0 if version == 3 else 1 if version == 2 else 2)
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (144 if layer == 2 or version == 3 else 72) * bits // rate + padding


def _samples_per_frame(header: bytes) -> int:
    layer, is_mpeg1 = 4 - (header[1] >> 1 & 3), header[1] >> 3 & 3 == 3
    return 384 if layer == 1 else 1152 if layer == 2 or is_mpeg1 else 576


def count_frames(file: BinaryIO, size: int) -> MpegFrames | None:
    """Count the frames of an mp3 of ``size`` bytes; None: no frame. The file position is undefined afterwards."""
    file.seek(0)
    start = _first_frame(file, id3_size(file.read(10)))
    if start is None:
        return None
    file.seek(start)
    first = file.read(4096)
    header, length = first[:4], frame_length(first)
    stated_bytes = _info_bytes(first[:length])
    if stated_bytes is not None:
        is_cut = stated_bytes > size - start
        start += length
    frames, ends_inside = _count(file, start, size, header)
    is_cut = ends_inside if stated_bytes is None else is_cut
    return MpegFrames(frames, _samples_per_frame(header), start, header, is_cut)


def _first_frame(file: BinaryIO, at: int) -> int | None:
    file.seek(at)
    data = file.read(_CHUNK)
    found = _next_frame(data, 0, None)
    return None if found is None else at + found


def _next_frame(data: bytes, at: int, like: bytes | None) -> int | None:
    """Offset of the next header, of the same kind as ``like`` if given, that another header or the end follows."""
    while (at := data.find(b"\xff", at)) >= 0:
        length = frame_length(data[at : at + 4])
        follower = data[at + length : at + length + 4]
        if (
            length
            and (like is None or _alike(data[at : at + 4], like))
            and (len(follower) < 4 or frame_length(follower))
        ):
            return at
        at += 1
    return None


def _alike(header: bytes, like: bytes) -> bool:
    """Same version, layer and sample rate."""
    return header[1] & 0xFE == like[1] & 0xFE and header[2] & 0x0C == like[2] & 0x0C


def _info_bytes(frame: bytes) -> int | None:
    """Bytes of the whole stream as an Info frame states, 0 if it does not, None for a frame of audio."""
    at = max(frame.find(b"Xing", 4, 48), frame.find(b"Info", 4, 48))
    if at >= 0:
        flags = int.from_bytes(frame[at + 4 : at + 8], "big")
        skip = 12 if flags & 1 else 8
        return int.from_bytes(frame[at + skip : at + skip + 4], "big") if flags & 2 else 0
    return int.from_bytes(frame[46:50], "big") if frame[36:40] == b"VBRI" else None


def _count(file: BinaryIO, start: int, size: int, like: bytes) -> tuple[int, bool]:
    """Frames from byte ``start`` on, and whether the last one is incomplete."""
    frames, at, base, data = 0, start, 0, b""
    while at < size:
        if at + 4 > base + len(data) or at < base:
            file.seek(at)
            base, data = at, file.read(_CHUNK)
        offset = at - base
        header = data[offset : offset + 4]
        length = frame_length(header)
        if length and _alike(header, like):
            if at + length > size:
                return frames, True
            frames += 1
            at += length
            continue
        if len(header) < 4 or data[offset:].startswith(_TAIL_TAGS[:3]):
            return frames, 0 < len(header) < 4 and header[0] == 0xFF
        found = _next_frame(data, offset + 1, like)
        at = base + (len(data) if found is None else found)
    return frames, False


def with_info_frame(file: BinaryIO, found: MpegFrames) -> BinaryIO | None:
    """The mp3 in memory behind an Info frame that states the counted length; None where the layer has no such frame."""
    if found.header[1] >> 1 & 3 != 1:
        return None
    header = bytes((0xFF, found.header[1] | 1, found.header[2] & 0x0C | 0xE0, found.header[3]))
    is_mono, is_mpeg1 = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    side_info = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    tag = header + bytes(side_info) + b"Info" + (1).to_bytes(4, "big") + found.frames.to_bytes(4, "big")
    file.seek(found.start)
    return io.BytesIO(tag.ljust(frame_length(header), b"\0") + file.read())
