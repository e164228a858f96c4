"""Sources of an encoder: short clips in memory, long ones read as a stream, twice, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from auricle.audio.decode import Stream, as_clip, stream
from auricle.audio.facts import Clip, Facts, Samples
from auricle.audio.limits import Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import is_in_memory, open_source
from auricle.encode.long_clips import floored, loudest, mel_chunks
from auricle.models.dasheng import Dasheng
from auricle.models.glap import MelChunk

BATCH_SECONDS = 120.0  # of audio in one packed batch; more brings no speed and costs memory
LONG_SECONDS = 120.0  # a longer clip is embedded in pieces
_BLOCK_S = 10.0  # of a clip that is read as a stream


class LongClip(NamedTuple):
    """A clip that is read block by block, each time it is opened."""

    open: Callable[[], Stream | _ClipStream]


class _ClipStream:
    """A clip in memory, read like a `Stream`."""

    def __init__(self, clip: Clip) -> None:
        self._clip, self.facts = clip, clip.facts

    def __iter__(self) -> Iterator[Samples]:
        step = round(_BLOCK_S * SAMPLE_RATE)
        return (self._clip.waveform[at : at + step] for at in range(0, len(self._clip.waveform), step))

    def __enter__(self) -> _ClipStream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def read_clip(source: Any, limits: Limits) -> Clip | LongClip:
    """A clip of up to `LONG_SECONDS` in memory, a longer one as a way to open it.

    Args:
        source: anything `auricle.audio.decode.as_clip` takes.
        limits: budgets.

    Raises:
        AudioError: it cannot be read.
    """
    if is_in_memory(source):
        clip = as_clip(source, limits=limits)
        return clip if len(clip.waveform) <= LONG_SECONDS * SAMPLE_RATE else open_clip(clip, limits)
    source = _rereadable(source, limits)
    parts, length = [], 0
    with stream(source, block_s=_BLOCK_S, limits=limits) as blocks:
        for block in blocks:
            parts.append(block)
            length += len(block)
            if length > LONG_SECONDS * SAMPLE_RATE:
                return open_clip(source, limits)
        return Clip(np.concatenate(parts), blocks.facts)


def open_clip(source: Any, limits: Limits) -> LongClip:
    """A clip that is read block by block, whatever its length."""
    if is_in_memory(source):
        clip = as_clip(source, limits=limits)
        return LongClip(lambda: _ClipStream(clip))
    source = _rereadable(source, limits)
    return LongClip(lambda: stream(source, block_s=_BLOCK_S, limits=limits))


def clip_seconds(clip: object) -> float:
    """Seconds of audio in memory: of a decoded clip; 0 for an error, or a clip that is read block by block."""
    return len(clip.waveform) / SAMPLE_RATE if isinstance(clip, Clip) else 0.0


def encode_long(clip: LongClip, encoder: Dasheng, use: Callable[[list[MelChunk]], None]) -> tuple[Facts, int]:
    """Give the log-mel chunks of a long clip to ``use``, in groups of about `BATCH_SECONDS`.

    The clip is read twice: its loudest moment sets the floor of all its frames.

    Returns:
        The facts of the clip, and the samples of its 16 kHz waveform.
    """
    front_end, length = encoder.front_end, encoder.config.target_length
    group_size = max(1, int(BATCH_SECONDS * 100 / length))
    with clip.open() as blocks:
        loudest_db = loudest(mel_chunks(blocks, front_end, length))
    with clip.open() as blocks:
        chunks = mel_chunks(blocks, front_end, length)
        while group := list(islice(chunks, group_size)):
            use([floored(chunk, loudest_db, front_end.spec.top_db) for chunk in group])
        facts = blocks.facts
    return facts, round((facts.stop_s - facts.start_s) * SAMPLE_RATE)


def _rereadable(source: Any, limits: Limits) -> Any:
    """A source that can be read twice: the bytes of a pipe, anything else unchanged."""
    if not callable(getattr(source, "read", None)) or getattr(source, "seekable", lambda: False)():
        return source
    with open_source(source, limits) as opened:
        return opened.file.read()
