"""Any audio → a float32 mono 16 kHz waveform with its facts: all of it, a range, or a stream in constant memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import numpy as np

from auricle.audio.arrays import ArrayReader
from auricle.audio.facts import Clip, Facts, Samples
from auricle.audio.isolated import IsolatedReading, open_isolated
from auricle.audio.limits import DEFAULT_LIMITS, MAX_S, Limits
from auricle.audio.readers import open_reader
from auricle.audio.reading import Reading, check_range, header_facts, open_reading
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, Source, find_waveform, open_source
from auricle.errors import ConfigError, check_number

__all__ = ["SAMPLE_RATE", "Clip", "Facts", "Source", "Stream", "as_clip", "decode", "open_channels", "probe", "stream"]


def decode(
    source: Source, *, start_s: float = 0.0, stop_s: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Clip:
    """Read a source, or a range of it, as a mono 16 kHz waveform.

    The container is recognised by content. Channels are averaged, or the loudest is taken where they cancel each other,
    and soxr HQ resamples. Of a truncated or damaged source all usable samples are read, and `Clip.facts` says so. Calls
    run in parallel on threads.

    Args:
        source: path, ``file:`` or ``data:`` URL, bytes, binary file object (read from its first byte), or a mapping
            with ``bytes`` or ``path``; wav, flac, ogg, opus, mp3, aiff and, with the extra ``media``, m4a, mp4, aac,
            webm, wma and more.
        start_s: start of the range, s.
        stop_s: end of the range, s; None, or later than the end: to the end.
        limits: see `Limits`.

    Returns:
        The clip: float32 (num_samples,), and facts.

    Raises:
        UnsupportedFormat: the bytes are no audio this installation can decode.
        BrokenAudio: empty, without samples, or too damaged to read.
        LimitExceeded: one of ``limits`` is exceeded.
        ClipTooShort: the range starts behind the end, or has no sample at 16 kHz.
        ConfigError: the range is empty.
        MissingExtra: the format needs PyAV, which is not installed.
        AudioError: the source cannot be opened or read.
    """
    with open_reading(source, start_s, stop_s, limits) as reading:
        return _collect(reading)


def probe(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> Facts:
    """Read the facts in headers and container structure, without decoding.

    The range is empty (``start_s == stop_s == 0``), and what depends on samples is None. Raises as `decode`, except
    that the limits of time and decoded bytes do not apply.
    """
    with open_source(source, limits) as opened:
        if limits.isolate:
            with open_isolated(opened, 0.0, None, limits, decode=False) as reading:
                return reading.facts()
        with open_reader(opened, limits) as reader:
            return header_facts(opened.name, reader)


def stream(
    source: Source,
    *,
    block_s: float = 10.0,
    start_s: float = 0.0,
    stop_s: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Stream:
    """Read a source of any length in constant memory, block by block.

    Args:
        source: as for `decode`; a file object must stay open while the stream is read.
        block_s: length of the blocks, s; the last one may be shorter.
        start_s: start of the range, s.
        stop_s: end of the range, s.
        limits: see `Limits`.

    Returns:
        An iterator over float32 (num_samples,) blocks, mono at 16 kHz, which joined equal `decode`'s waveform. Its
        `Stream.facts` grow while it is read.

    Raises: as `decode`; what shows only while decoding is raised by the iteration.
    """
    check_number("block_s", block_s, least=1 / SAMPLE_RATE, most=MAX_S)
    stack = ExitStack()
    reading = stack.enter_context(open_reading(source, start_s, stop_s, limits))
    return Stream(reading, round(block_s * SAMPLE_RATE), stack)


@contextmanager
def open_channels(source: AudioSource, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Reading]:
    """Open a source to read it with all its channels at its own rate, in constant memory: `Reading.channel_blocks`.

    Args:
        source: as for `as_clip`.
        limits: see `Limits`; ``isolate`` is for mono audio at 16 kHz alone.

    Raises:
        ConfigError: ``limits.isolate``.
        Otherwise as `decode`; what shows only while decoding is raised by `Reading.channel_blocks`.
    """
    if limits.isolate:
        raise ConfigError("isolation gives mono audio at 16 kHz, and all channels are asked for; decode without it")
    held = (source.waveform, SAMPLE_RATE) if isinstance(source, Clip) else find_waveform(source)
    if held is not None:
        reader = ArrayReader(*held)
        limits.check_layout("<array>", reader.sample_rate, reader.channels)
        yield Reading("<array>", reader, 0.0, None, limits)
        return
    with open_reading(cast(Source, source), 0.0, None, limits) as reading:
        assert isinstance(reading, Reading)
        yield reading


def as_clip(
    source: AudioSource, *, start_s: float = 0.0, stop_s: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Clip:
    """Read one clip from what `decode` takes, a waveform, or a clip.

    Args:
        source: as for `decode`; or a numpy array or torch tensor at 16 kHz; or a pair of an array and a rate in either
            order, a mapping with ``array`` and ``sampling_rate``, an object with ``data`` and ``sample_rate``; or a
            `Clip`, which is returned. Arrays are (num_samples,), or two-dimensional, where the shorter axis holds the
            channels; floats have full scale 1, integers that of their type.
        start_s: start of the range, s (not for a `Clip`).
        stop_s: end of the range, s.
        limits: see `Limits`.

    Raises: as `decode`.
    """
    if isinstance(source, Clip):
        return source
    held = find_waveform(source)
    if held is None:
        return decode(cast(Source, source), start_s=start_s, stop_s=stop_s, limits=limits)
    check_range(start_s, stop_s)
    reader = ArrayReader(*held)
    limits.check_layout("<array>", reader.sample_rate, reader.channels)
    return _collect(Reading("<array>", reader, start_s, stop_s, limits))


def _collect(reading: Reading | IsolatedReading) -> Clip:
    """The whole waveform in one buffer, which grows in place: hours are not held twice."""
    waveform, used = np.empty(0, np.float32), 0
    for block in reading.waveforms():
        stop = used + len(block)
        if stop > len(waveform):
            waveform.resize(max(stop, len(waveform) * 5 // 4), refcheck=False)
        waveform[used:stop] = block
        used = stop
    waveform.resize(used, refcheck=False)
    return Clip(waveform, reading.facts())


class Stream:
    """Iterator over the 16 kHz blocks of one source; close it, or leave its ``with``, to stop early."""

    def __init__(self, reading: Reading | IsolatedReading, block_samples: int, stack: ExitStack) -> None:
        """Take over an open reading and the stack that closes it."""
        self._reading, self._stack = reading, stack
        self._blocks = _reblock(reading.waveforms(), block_samples)

    @property
    def facts(self) -> Facts:
        """Facts of what has been read so far; final after the last block."""
        return self._reading.facts()

    def __iter__(self) -> Iterator[Samples]:
        """Iterate over the remaining blocks."""
        return self

    def __next__(self) -> Samples:
        """Return the next block, float32 (num_samples,)."""
        try:
            return next(self._blocks)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stream:
        """Use as a context that closes the source."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """Close the source; there are no more blocks, and the facts stay."""
        self._blocks.close()
        self._stack.close()


def _reblock(waveforms: Iterator[Samples], size: int) -> Generator[Samples, None, None]:
    """Cut and join consecutive blocks to ``size`` samples each, the last one shorter."""
    held: list[Samples] = []
    num_held = 0
    for waveform in waveforms:
        held.append(waveform)
        num_held += len(waveform)
        if num_held < size:
            continue
        joined = held[0] if len(held) == 1 else np.concatenate(held)
        whole = num_held - num_held % size
        for at in range(0, whole, size):
            yield np.ascontiguousarray(joined[at : at + size])
        held, num_held = [joined[whole:]], num_held - whole
    if num_held:
        yield np.concatenate(held)
