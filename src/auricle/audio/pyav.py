"""FFmpeg's decoders through PyAV (extra ``media``): m4a, mp4, aac, webm, mkv, wma and rarer codecs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from auricle.audio.containers import Container
from auricle.audio.facts import Samples
from auricle.errors import BrokenAudio, UnsupportedFormat

_PREROLL_S = 0.2  # decoded and discarded before a range: Opus needs 80 ms (RFC 7845 §4.6), AAC one frame
_SLACK_S = 0.25  # containers round, and count priming samples that decoders drop
_BATCH = 1 << 16  # frames of a few ms are gathered to blocks of this many samples
_UNSAFE_PLANES = 8  # AV_NUM_DATA_POINTERS of FFmpeg
_ERRORS = (av.FFmpegError, ValueError, RuntimeError, OSError, EOFError, IndexError)


class AvReader:
    """One audio stream of a container that FFmpeg opens; the demuxer is given, never detected.

    A detected demuxer could be that of a playlist, which opens other files and addresses.
    """

    def __init__(self, file: BinaryIO, container: Container, name: str) -> None:
        """Open ``file`` with the demuxer of ``container`` and choose its best audio stream."""
        self._name = name
        self.container = container.name
        self.truncated = False
        self.damaged = 0
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
        seconds = None
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif self._input.duration:
            seconds = self._input.duration / 1e6
        self.frames = round(seconds * self.sample_rate) if seconds and seconds > 0 else None

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Yield float32 (frames, channels) from sample ``start`` to ``stop`` or to the end."""
        position, parts, held = start, [], 0
        for part in self._from(start):
            part = part if stop is None else part[: stop - position]
            position += len(part)
            parts.append(part)
            held += len(part)
            if held >= _BATCH:
                yield np.concatenate(parts)
                parts, held = [], 0
            if stop is not None and position >= stop:
                break
        if held:
            yield np.concatenate(parts)

    def _from(self, start: int) -> Iterator[Samples]:
        """Decoded frames from sample ``start`` on."""
        at = self._seek(start) if start else 0
        for frame in self._frames():
            samples = self._samples(frame)
            if at is None:
                at = self._position(frame)
            if at >= start:
                yield samples
            elif at + len(samples) > start:
                yield samples[start - at :]
            at += len(samples)

    def _seek(self, start: int) -> int | None:
        """Go to a packet before ``start``; None: the first frame's time stamp says where, 0: the seek failed."""
        base = self._stream.time_base
        if base is None:
            return 0
        seconds = max(start / self.sample_rate - _PREROLL_S, 0.0)
        try:
            self._input.seek(int(seconds / base) + (self._stream.start_time or 0), stream=self._stream)
        except _ERRORS:
            return 0
        return None

    def _position(self, frame: Any) -> int:
        """Samples from the start of the stream to ``frame``, by its time stamp."""
        if frame.pts is None or frame.time_base is None:
            raise BrokenAudio(f"{self._name}: has no time stamps to find a range by; read it from its start")
        offset = (self._stream.start_time or 0) * self._stream.time_base
        return round(float(frame.pts * frame.time_base - offset) * self.sample_rate)

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
            for frame in frames:
                self._check(frame)
                yield frame

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

    def _check(self, frame: Any) -> None:
        if frame.sample_rate != self.sample_rate or frame.layout.nb_channels != self.channels:
            channels = frame.layout.nb_channels
            raise BrokenAudio(
                f"{self._name}: changes midway from {self.sample_rate} Hz, {self.channels} channels "
                f"to {frame.sample_rate} Hz, {channels} channels; expected one layout. Convert it to flac"
            )

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
