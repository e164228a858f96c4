"""One pass over one source: blocks are checked, cleaned, mixed down and resampled, and the facts are collected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from auricle.audio.downmix import DownMix
from auricle.audio.facts import Block, Facts, Samples, SampleStats
from auricle.audio.isolated import IsolatedReading, open_isolated
from auricle.audio.limits import MAX_S, Limits
from auricle.audio.readers import Reader, open_reader
from auricle.audio.resample import resample_blocks
from auricle.audio.sources import Source, open_source
from auricle.errors import BrokenAudio, ClipTooShort, ConfigError, UnsupportedFormat, check_number

_EIGHT_BIT = ("PCM_S8", "PCM_U8", "pcm_u8", "pcm_s8")


class Reading:
    """A range of an opened source, converted to 16 kHz mono."""

    def __init__(self, name: str, reader: Reader, start_s: float, stop_s: float | None, limits: Limits) -> None:
        """Check the range against what the header declares and against ``limits``."""
        self._name, self._reader, self._limits = name, reader, limits
        rate = reader.sample_rate
        self._start = round(start_s * rate)
        self._stop = None if stop_s is None else round(stop_s * rate)
        self._stats = SampleStats(eight_bit=reader.codec in _EIGHT_BIT)
        self._down_mix = DownMix()
        self._decoded = 0.0  # samples per channel so far, at the rate of the reader
        self._ended = False
        if reader.frames is not None and 0 < reader.frames <= self._start:
            raise self._too_late()
        limits.check_frames(name, self._declared() or 0, rate, reader.channels)

    def waveforms(self) -> Iterator[Samples]:
        """Yield float32 mono 16 kHz blocks of varying length.

        Raises:
            BrokenAudio: there is no sample, or none that is a finite number.
            ClipTooShort: the range starts behind the end, or has no sample at 16 kHz.
            LimitExceeded: more was decoded than the limits allow.
        """
        count = 0
        for rate, blocks in groupby(self._checked(), key=attrgetter("sample_rate")):
            for waveform in resample_blocks(self._mono(blocks, rate), rate):
                count += len(waveform)
                yield self._stats.measure(waveform)
        self._end(count)

    @property
    def layout(self) -> tuple[int, int]:
        """Sample rate, Hz, and channels of the source."""
        return self._reader.sample_rate, self._reader.channels

    def channel_blocks(self) -> Iterator[Samples]:
        """Yield float32 blocks (frames, channels) of varying length, at the rate of the source.

        Raises: as `waveforms`, and
            UnsupportedFormat: rate or channels change within the source.
        """
        for block in self._checked():
            if (block.sample_rate, block.samples.shape[1]) != self.layout:
                rate, channels = self.layout
                raise UnsupportedFormat(
                    f"{self._name}: changes from {channels} channels at {rate:,} Hz to {block.samples.shape[1]} at "
                    f"{block.sample_rate:,} Hz; expected one layout. Split it there"
                )
            self._stats.measure(block.samples)
            yield block.samples
        self._end(self._stats.frames)

    def _end(self, count: int) -> None:
        """Note that all is read, and refuse a range that gave ``count`` = 0 samples, or none that is a number."""
        self._ended = True
        if not count:
            raise self._nothing()
        if self._stats.all_unusable:
            raise BrokenAudio(
                f"{self._name}: all {self._stats.non_finite:,} samples are NaN or infinite; expected numbers in "
                "[-1, 1]. Write it again from its source"
            )

    def facts(self) -> Facts:
        """Facts of the source and of the samples read so far."""
        stats, rate = self._stats, self._reader.sample_rate
        found = header_facts(self._name, self._reader)
        notes = found.notes
        if self._down_mix.cancelled_s:
            notes = (*notes, f"channels cancel each other for {self._down_mix.cancelled_s:.1f} s: the loudest was used")
        return replace(
            found,
            duration_s=self._duration(),
            start_s=self._start / rate,
            stop_s=(self._start + self._decoded) / rate,
            truncated=self._reader.truncated or self._fell_short(),
            non_finite=stats.non_finite,
            clipped=stats.clipped,
            peak=stats.peak,
            silent=stats.silent,
            notes=notes,
        )

    def _checked(self) -> Iterator[Block]:
        """Blocks without unusable samples, counted."""
        layout = self._reader.sample_rate, self._reader.channels
        for block in self._reader.blocks(self._start, self._stop):
            rate, channels = block.sample_rate, block.samples.shape[1]
            if (rate, channels) != layout:
                layout = rate, channels
                self._limits.check_layout(self._name, rate, channels)
            clean = self._stats.clean(block.samples)
            self._decoded += len(clean) * self._reader.sample_rate / rate
            self._limits.check_frames(self._name, round(self._decoded), self._reader.sample_rate, self._reader.channels)
            yield Block(rate, clean)

    def _mono(self, blocks: Iterator[Block], rate: int) -> Iterator[Samples]:
        for block in blocks:
            yield self._down_mix.add(block.samples, rate)
        yield self._down_mix.rest(rate)

    def _declared(self) -> int | None:
        """Samples per channel that the range should hold; None: unknown."""
        ends = [end for end in (self._stop, self._reader.frames) if end is not None]
        return min(ends) - self._start if ends else None

    def _fell_short(self) -> bool:
        declared = self._declared() if self._reader.frames is not None else None
        return self._ended and declared is not None and self._decoded + self._reader.slack < declared

    def _duration(self) -> float | None:
        """Seconds of the source: as decoded if all was, or nothing is declared, or that is more; else as declared."""
        rate, declared = self._reader.sample_rate, self._reader.frames
        decoded = self._start + self._decoded
        reached_end = self._ended and (self._stop is None or decoded < self._stop)
        if declared is None:
            return decoded / rate if reached_end else None
        is_whole = reached_end and not self._reader.truncated and not self._fell_short()
        return (decoded if is_whole else max(declared, decoded)) / rate

    def _too_late(self) -> ClipTooShort:
        frames, rate = self._reader.frames, self._reader.sample_rate
        lasts = f"lasts {frames / rate:.3f} s" if frames is not None else "ends earlier"
        return ClipTooShort(f"{self._name}: {lasts}; the range starts at {self._start / rate:.3f} s. Start it earlier")

    def _nothing(self) -> BrokenAudio | ClipTooShort:
        if self._stats.frames:
            return ClipTooShort(
                f"{self._name}: {self._stats.frames} samples at {self._reader.sample_rate} Hz make none at 16 kHz; "
                "give a longer clip or range"
            )
        if self._stop is not None and self._stop <= self._start:
            at, rate = self._start / self._reader.sample_rate, self._reader.sample_rate
            return ClipTooShort(
                f"{self._name}: the range at {at:.3f} s holds no sample at {rate} Hz; give a longer range"
            )
        if self._start:
            return self._too_late()
        return BrokenAudio(
            f"{self._name}: is {self._reader.container} without one readable sample; expected audio. "
            "Record, export or download it again"
        )


def header_facts(name: str, reader: Reader) -> Facts:
    """The facts that need no decoding."""
    return Facts(
        name=name,
        container=reader.container,
        codec=reader.codec,
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        duration_s=None if reader.frames is None else reader.frames / reader.sample_rate,
        start_s=0.0,
        stop_s=0.0,
        truncated=reader.truncated,
        damaged=reader.damaged,
        notes=tuple(reader.notes),
    )


def check_range(start_s: float, stop_s: float | None) -> None:
    """Raise `ConfigError` where ``start_s`` to ``stop_s`` is no range of time."""
    check_number("start_s", start_s, least=0, most=MAX_S)
    if stop_s is not None:
        check_number("stop_s", stop_s, least=-MAX_S, most=MAX_S)
    if stop_s is not None and not stop_s > start_s:
        raise ConfigError(f"the range {start_s} s to {stop_s} s is empty; expected 0 <= start_s < stop_s")


@contextmanager
def open_reading(
    source: Source, start_s: float, stop_s: float | None, limits: Limits
) -> Iterator[Reading | IsolatedReading]:
    """Open ``source`` and give the pass over its range."""
    check_range(start_s, stop_s)
    with open_source(source, limits) as opened:
        if limits.isolate:
            with open_isolated(opened, start_s, stop_s, limits) as isolated:
                yield isolated
            return
        with open_reader(opened, limits) as reader:
            yield Reading(opened.name, reader, start_s, stop_s, limits)
