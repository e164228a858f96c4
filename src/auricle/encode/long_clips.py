"""Sounds of any length in constant memory: the log-mel chunks of one embedding, and windows of equal length.

Both give what the whole sound, held in memory, would give: mel frames at the seams see the samples on either side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from auricle.audio.facts import Samples
from auricle.audio.logmel import LogMel
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.segments import segments
from auricle.models.glap import MelChunk, cut_chunks


def mel_chunks(blocks: Iterable[Samples], front_end: LogMel, length: int) -> Iterator[MelChunk]:
    """Log-mel chunks of ``length`` frames, the last one shorter, before the dB floor is known.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths.
        front_end: in evaluation mode; its floor is left out, see `loudest` and `floored`.
        length: mel frames of a chunk.

    Yields:
        Chunks on the front end's device.

    Raises:
        ClipTooShort: all of it is shorter than the front end needs.
    """
    mel_of, spec = _floorless(front_end), front_end.spec
    # Whole hops around a chunk, so that none of its frames sees an edge that is not the sound's own.
    context = math.ceil((spec.n_fft // 2) / spec.hop_length) * spec.hop_length
    step, start, held = length * spec.hop_length, 0, Held()
    for block in blocks:
        held.append(block)
        while held.stop >= start + step + context:
            begin = max(0, start - context)
            mel = _mel(mel_of, held.between(begin, start + step + context))
            skipped = (start - begin) // spec.hop_length
            yield MelChunk(mel[:, skipped : skipped + length], held.stop - start, False)
            start += step
            held.drop(start - context)
    begin = max(0, start - context)
    mel = _mel(mel_of, held.between(begin, held.stop))[:, (start - begin) // spec.hop_length :]
    for chunk in cut_chunks(mel, held.stop - start, length):
        yield chunk._replace(is_rest=chunk.is_rest or (start > 0 and chunk.mel.shape[-1] < length))


def loudest(chunks: Iterable[MelChunk]) -> float:
    """The loudest value, dB, that the dB floor of a sound hangs from."""
    return max(float(chunk.mel.amax()) for chunk in chunks)


def floored(chunk: MelChunk, loudest_db: float, top_db: float) -> MelChunk:
    """A chunk with the dB floor of its sound."""
    return chunk._replace(mel=chunk.mel.clamp(min=loudest_db - top_db))


def stream_windows(
    blocks: Iterable[Samples], *, length_s: float, hop_s: float, min_s: float = 0.0
) -> Iterator[tuple[int, Samples]]:
    """The windows of `auricle.audio.segments.segments`, each as soon as it is certain.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths.
        length_s: length of a window, s.
        hop_s: distance of the windows' begins, s, at most ``length_s``.
        min_s: shortest last window worth having, s.

    Yields:
        First sample of a window, and its samples.

    Raises:
        ConfigError: lengths that are not positive, or a hop that would skip samples.
    """
    check_windows(length_s, hop_s, min_s)
    length, hop, rest = (round(seconds * SAMPLE_RATE) for seconds in (length_s, hop_s, min_s))
    # Behind a window so much more has come that the one after it cannot be merged into it.
    certain = min(rest, hop + 1)
    start, stop, held = 0, 0, Held()
    for block in blocks:
        held.append(block)
        while held.stop >= start + length + certain:
            stop = start + length
            yield start, held.between(start, stop).copy()  # a view would keep its neighbours in memory
            start += hop
            held.drop(start)
    if held.stop > stop:
        for begin, end in segments(held.stop - start, length_s=length_s, hop_s=hop_s, min_s=min_s):
            yield start + begin, held.between(start + begin, start + end).copy()


def check_windows(length_s: float, hop_s: float, min_s: float = 0.0) -> None:
    """Refuse windows that nothing could be cut into.

    Raises:
        ConfigError: lengths that are not positive, or a hop that would skip samples.
    """
    segments(0, length_s=length_s, hop_s=hop_s, min_s=min_s)


class Held:
    """The samples of a stream that are still needed."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._begin = 0
        self._parts: list[Samples] = []
        self.stop = 0  # samples that have come

    def append(self, block: Samples) -> None:
        """Put a block (n,) behind those that have come."""
        self._parts.append(block)
        self.stop += len(block)

    def between(self, begin: int, end: int) -> Samples:
        """Samples ``begin … end`` of the stream, as far as they have come."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)]
        return self._parts[0][begin - self._begin : end - self._begin]

    def drop(self, begin: int) -> None:
        """Forget what lies before ``begin``."""
        kept = self.between(max(begin, self._begin), self.stop)
        self._parts, self._begin = [kept.copy()], max(begin, self._begin)


def _floorless(front_end: LogMel) -> LogMel:
    without = LogMel(replace(front_end.spec, top_db=math.inf)).eval()
    without.window, without.filterbank = front_end.window, front_end.filterbank
    return without


def _mel(front_end: LogMel, samples: Samples) -> Tensor:
    return front_end(torch.from_numpy(np.array(samples)).to(front_end.window.device))[0]
