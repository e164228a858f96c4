"""Clips of any length in constant memory: the log-mel chunks of one embedding, and windows of equal length.

Both equal those of the whole clip in memory: mel frames at the seams use the samples on either side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from auricle.audio.facts import Samples
from auricle.audio.limits import MAX_S
from auricle.audio.logmel import LogMel
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.segments import segments
from auricle.errors import check_number
from auricle.models.glap import MelChunk, cut_chunks


def mel_chunks(blocks: Iterable[Samples], front_end: LogMel, length: int) -> Iterator[MelChunk]:
    """Log-mel chunks of ``length`` frames, the last one shorter, before the dB floor is known.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths.
        front_end: in evaluation mode; its floor is not applied, see `loudest` and `floored`.
        length: mel frames of a chunk.

    Yields:
        Chunks on the front end's device.

    Raises:
        ClipTooShort: all of it is shorter than the front end needs.
    """
    mel_of, spec = _floorless(front_end), front_end.spec
    # Whole hops around a chunk, so that its frames only use edges of the clip.
    context = math.ceil((spec.n_fft // 2) / spec.hop_length) * spec.hop_length
    step, start, held = length * spec.hop_length, 0, Buffer()
    for block in blocks:
        held.append(block)
        while held.stop >= start + step + context:
            first = max(0, start - context)
            mel = _mel(mel_of, held.between(first, start + step + context))
            skipped = (start - first) // spec.hop_length
            yield MelChunk(mel[:, skipped : skipped + length], held.stop - start, False)
            start += step
            held.drop(start - context)
    first = max(0, start - context)
    mel = _mel(mel_of, held.between(first, held.stop))[:, (start - first) // spec.hop_length :]
    for chunk in cut_chunks(mel, held.stop - start, length):
        yield chunk._replace(is_rest=chunk.is_rest or (start > 0 and chunk.mel.shape[-1] < length))


def loudest(chunks: Iterable[MelChunk]) -> float:
    """The loudest value, dB, which sets the dB floor of a clip."""
    return max(float(chunk.mel.amax()) for chunk in chunks)


def floored(chunk: MelChunk, loudest_db: float, top_db: float) -> MelChunk:
    """A chunk with the dB floor of its clip."""
    return chunk._replace(mel=chunk.mel.clamp(min=loudest_db - top_db))


def stream_windows(
    blocks: Iterable[Samples], *, length_s: float, hop_s: float, min_s: float = 0.0
) -> Iterator[tuple[int, Samples]]:
    """The windows of `auricle.audio.segments.segments`, each as soon as it is certain.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths.
        length_s: length of a window, s.
        hop_s: distance of the windows' starts, s, at most ``length_s``.
        min_s: shortest last window, s.

    Yields:
        First sample of a window, and its samples.

    Raises:
        ConfigError: lengths that are not positive, or a hop that would skip samples.
    """
    check_windows(length_s, hop_s, min_s)
    length, hop, rest = (round(seconds * SAMPLE_RATE) for seconds in (length_s, hop_s, min_s))
    # With so many samples after a window, the next one cannot be merged into it.
    certain = min(rest, hop + 1)
    start, stop, held = 0, 0, Buffer()
    for block in blocks:
        held.append(block)
        while held.stop >= start + length + certain:
            stop = start + length
            yield start, held.between(start, stop).copy()  # a view would keep its neighbours in memory
            start += hop
            held.drop(start)
    if held.stop > stop:
        for first, end in segments(held.stop - start, length_s=length_s, hop_s=hop_s, min_s=min_s):
            yield start + first, held.between(start + first, start + end).copy()


def check_windows(length_s: float, hop_s: float, min_s: float = 0.0) -> None:
    """Refuse impossible windows.

    Raises:
        ConfigError: lengths that are not positive, or a hop that would skip samples.
    """
    check_number("window_s", length_s, most=MAX_S)
    check_number("hop_s", hop_s, least=1 / SAMPLE_RATE, most=MAX_S)
    segments(0, length_s=length_s, hop_s=hop_s, min_s=min_s)


class Buffer:
    """Samples of a stream that are still needed."""

    def __init__(self) -> None:
        self._start = 0
        self._parts: list[Samples] = []
        self.stop = 0  # samples received

    def append(self, block: Samples) -> None:
        """Add a block (n,)."""
        self._parts.append(block)
        self.stop += len(block)

    def between(self, start: int, end: int) -> Samples:
        """Samples ``start … end`` of the stream, as far as they were received."""
        if len(self._parts) != 1:
            self._parts = [np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)]
        return self._parts[0][start - self._start : end - self._start]

    def drop(self, start: int) -> None:
        """Drop the samples before ``start``."""
        kept = self.between(max(start, self._start), self.stop)
        self._parts, self._start = [kept.copy()], max(start, self._start)


def _floorless(front_end: LogMel) -> LogMel:
    without = LogMel(replace(front_end.spec, top_db=math.inf)).eval()
    without.window, without.filterbank = front_end.window, front_end.filterbank
    return without


def _mel(front_end: LogMel, samples: Samples) -> Tensor:
    return front_end(torch.from_numpy(np.array(samples)).to(front_end.window.device))[0]
