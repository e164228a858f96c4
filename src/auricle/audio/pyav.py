"""FFmpeg's decoders through PyAV (extra ``media``): m4a, mp4, aac, webm, mkv, wma and rarer codecs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from auricle.audio.containers import Container
from auricle.audio.facts import Block, Samples, block_frames
from auricle.errors import BrokenAudio, UnsupportedFormat

_PREROLL_S = 0.2  # decoded and discarded before a range: Opus needs 80 ms (RFC 7845 §4.6), AAC one frame
_SLACK_S = 0.25  # containers round, and count priming samples that decoders drop
_HOLE_S = 0.05  # shorter steps of time stamps are rounding
_LONGEST_HOLE_S = 3600.0  # in a file that does not state its length
_LATE_S = 0.02  # the same for the first one
# With the length of each stream.
_DECLARING = frozenset(("mp4", "flac", "wavpack", "ape", "tta", "musepack", "aiff", "caf"))
_SEEKABLE = frozenset(("mp4", "matroska"))  # by time stamps that are exact; others are read from their start
_STAMPED = frozenset(("mp4", "matroska", "flv", "asf", "mpegts"))  # packets have the time at which they were captured
_BATCH = 1 << 16  # frames of a few ms are gathered to blocks of this many samples
_UNSAFE_PLANES = 8  # AV_NUM_DATA_POINTERS of FFmpeg
_ERRORS = (av.FFmpegError, ValueError, RuntimeError, OSError, EOFError, IndexError)


class AvReader:
    """One audio stream of a container that FFmpeg opens; the demuxer is given, never detected.

    A detected demuxer could be that of a playlist, which opens other files and addresses.
    """

    truncated = False

    def __init__(self, file: BinaryIO, container: Container, name: str) -> None:
        """Open ``file`` with the demuxer of ``container`` and choose its best audio stream."""
        self._name = name
        self.container = container.name
        self.damaged = 0
        self.notes: list[str] = []
        self._holes_s = 0.0
        file.seek(0)
        try:
            self._input: Any = av.open(file, format=container.demuxer, metadata_errors="ignore")
        except _ERRORS as error:
            raise BrokenAudio(
                f"{name}: looks like {container.name}, but its header cannot be used ({_reason(error)}); "
                "expected a complete file. Download or export it again"
            ) from None
        try:
            self._use_best_stream()
        except BaseException:
            self.close()
            raise

    def _use_best_stream(self) -> None:
        stream = self._input.streams.best("audio")
        if stream is None:
            raise UnsupportedFormat(f"{self._name}: {self.container} without an audio track; give a file with audio")
        context = stream.codec_context
        if context is None or not context.sample_rate or not context.channels:
            raise BrokenAudio(
                f"{self._name}: {self.container} whose audio track has no decoder, rate or channels; convert it to flac"
            )
        self._stream = stream
        self.codec = str(context.name)
        self.sample_rate, self.channels = int(context.sample_rate), int(context.channels)
        self.slack = int(_SLACK_S * self.sample_rate)
        # Other containers state the length of the longest stream, or FFmpeg estimates it from a bit rate.
        stated = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
        self.frames = round(stated * self.sample_rate) if stated > 0 and self.container in _DECLARING else None
        others = len(self._input.streams.audio) - 1
        if others > 0:
            tracks = "another audio track" if others == 1 else f"{others} other audio tracks"
            self.notes.append(f"read audio track {self._place() + 1} of {others + 1}: {tracks} in the file")
        self._note_late_start()

    def _place(self) -> int:
        return [stream.index for stream in self._input.streams.audio].index(self._stream.index)

    def _note_late_start(self) -> None:
        """Say where on the clock of the container the audio starts: times count from there."""
        if self._stream.start_time is None or self._stream.time_base is None or self.container not in _STAMPED:
            return
        clock = 0.0 if self.container in _SEEKABLE else (self._input.start_time or 0) / 1e6
        late = float(self._stream.start_time * self._stream.time_base) - clock
        if late > _LATE_S:
            self.notes.append(f"the audio starts {late:.3f} s after the start of the file; times count from there")

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield the samples from ``start`` to ``stop`` or to the end, gathered to larger blocks."""
        parts: list[Samples] = []
        held, layout = 0, (0, 0)
        for rate, part in self._between(start, stop):
            if layout not in ((0, 0), (rate, part.shape[1])):
                self._note_once("the layout changes", f"to {rate} Hz, {part.shape[1]} ch")
                if parts:
                    yield Block(layout[0], np.concatenate(parts))
                parts, held = [], 0
            layout = rate, part.shape[1]
            parts.append(part)
            held += len(part)
            if held >= min(_BATCH, block_frames(*layout)):
                yield Block(rate, np.concatenate(parts))
                parts, held = [], 0
        if held:
            yield Block(layout[0], np.concatenate(parts))

    def _between(self, start: int, stop: int | None) -> Iterator[Block]:
        """Cut what `_timed` gives to a range, whose ends count samples at the first rate."""
        for at, (rate, samples) in self._timed(start):
            scale = rate / self.sample_rate
            first = max(0, round((start - at) * scale))
            last = len(samples) if stop is None else round((stop - at) * scale)
            if last <= 0:
                return
            if first < len(samples):
                yield Block(rate, samples[first:last])

    def _timed(self, start: int) -> Iterator[tuple[float, Block]]:
        """Decoded frames from near ``start`` on, each with its place, and zeros where time stamps leave a hole."""
        at: float | None = None if start and self._seek(start) else 0.0
        due: float | None = None  # time stamp of the next frame, s
        for frame in self._frames():
            samples, rate = self._samples(frame), int(frame.sample_rate)
            stamp = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None
            if at is None:
                at = self._position(stamp)
            if due is not None and stamp is not None and stamp - due > _HOLE_S and self.container in _STAMPED:
                for zeros in self._hole(due, stamp - due, rate, samples.shape[1]):
                    yield at, Block(rate, zeros)
                    at += len(zeros) * self.sample_rate / rate
            yield at, Block(rate, samples)
            at += len(samples) * self.sample_rate / rate
            due = None if stamp is None else stamp + len(samples) / rate

    def _hole(self, due: float, seconds: float, rate: int, channels: int) -> Iterator[Samples]:
        """Zeros for a hole in the time stamps, unless it reaches beyond the file: then the clock was set."""
        at = due - float((self._stream.start_time or 0) * self._stream.time_base)
        longest = self._input.duration / 1e6 + 1 - at if self._input.duration else _LONGEST_HOLE_S
        if seconds > longest:
            self._note_once("time stamps jump", f"by {seconds:.3f} s at {at:.3f} s: nothing was inserted")
            return
        self._holes_s += seconds
        self._note_once(
            "no audio", f"from {at:.3f} s to {at + seconds:.3f} s: filled with zeros, {self._holes_s:.3f} s in all"
        )
        left, most = round(seconds * rate), block_frames(rate, channels)
        while left > 0:
            yield np.zeros((min(left, most), channels), np.float32)
            left -= most

    def _note_once(self, what: str, where: str) -> None:
        """Keep the last of all notes that begin with ``what``: a damaged file may have thousands."""
        self.notes[:] = [note for note in self.notes if not note.startswith(what)]
        self.notes.append(f"{what} {where}")

    def _seek(self, start: int) -> bool:
        """Go to a packet before ``start``; the time stamp of the first frame then says where."""
        base = self._stream.time_base
        if base is None or self.container not in _SEEKABLE:
            return False
        seconds = max(start / self.sample_rate - _PREROLL_S, 0.0)
        try:
            self._input.seek(int(seconds / base) + (self._stream.start_time or 0), stream=self._stream)
        except _ERRORS:
            return False
        return True

    def _position(self, stamp: float | None) -> float:
        """Samples from the start of the stream to a time stamp, s."""
        if stamp is None:
            raise BrokenAudio(f"{self._name}: has no time stamps to find a range by; read it from its start")
        return round((stamp - float((self._stream.start_time or 0) * self._stream.time_base)) * self.sample_rate)

    def _frames(self) -> Iterator[Any]:
        packets = self._input.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _ERRORS:
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except _ERRORS:
                self.damaged += 1
                continue
            yield from frames

    def _samples(self, frame: Any) -> Samples:
        """A decoded frame of any sample format as float32 (frames, channels), full scale 1.

        PyAV reads the pointers of planar channels up to a null that FFmpeg omits from 8 channels on, and would read
        beyond them: such frames are interleaved by FFmpeg first.
        """
        channels = frame.layout.nb_channels
        if not frame.format.is_planar:
            return _to_float(frame.to_ndarray().reshape(-1, channels))
        if channels < _UNSAFE_PLANES:
            return _to_float(frame.to_ndarray().T)
        try:
            packed = av.AudioResampler(format="flt").resample(frame)
        except _ERRORS as error:
            raise BrokenAudio(
                f"{self._name}: {channels} channels of {self.codec} cannot be interleaved ({_reason(error)}); "
                "convert it to flac or wav"
            ) from None
        return np.concatenate([_to_float(part.to_ndarray().reshape(-1, channels)) for part in packed])

    def close(self) -> None:
        """Free the decoder."""
        self._input.close()


def _to_float(data: npt.NDArray[Any]) -> Samples:
    """PCM of any type as float32, full scale 1."""
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128.0) / 128.0
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(-float(np.iinfo(data.dtype).min))
    return data.astype(np.float32)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
