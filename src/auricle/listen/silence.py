"""Long digital silence in a stream gets windows of its own: the audio between two of them is as if it were alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import numpy as np

from auricle.audio.facts import SILENCE, Samples
from auricle.listen.windows import Window, stream_quiet_windows
from auricle.models.midashenglm import MIN_CLIP_SAMPLES

_SHARE = 3  # of the longest window: a silence this part of it is worth a window of its own
_LEAST = 2 * MIN_CLIP_SAMPLES  # samples of a silence, whatever the window


def stream_split_at_silence(blocks: Iterable[Samples], max_samples: int, overlap_samples: int = 0) -> Iterator[Window]:
    """Cut a stream as `stream_quiet_windows` does, long silences apart.

    Silent is what does not exceed -90 dB of full scale. A span with sound ends on a whole audio token behind its last
    sample, so that no sample is dropped.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths; where they are cut does not matter.
        max_samples: longest waveform of a window, at least 0.4 s; a silence of a third of it, or of 0.4 s, is long.
        overlap_samples: in both windows around a cut outside a pause.

    Yields:
        Windows as soon as they are certain; one without samples for an empty stream.

    Raises:
        ConfigError: settings that leave no window.
    """
    is_empty = True
    pieces = _pieces(blocks, max(max_samples // _SHARE, _LEAST))
    for start, own in groupby(pieces, key=itemgetter(0)):
        for window in stream_quiet_windows((piece for _, piece in own), max_samples, overlap_samples):
            is_empty = False
            yield replace(window, start=start + window.start, stop=start + window.stop)
    if is_empty:
        yield from stream_quiet_windows([], max_samples, overlap_samples)


def _pieces(blocks: Iterable[Samples], at_least: int) -> Iterator[tuple[int, Samples]]:
    """The stream again, each piece with the first sample of the span it belongs to."""
    start = stop = 0  # of the current span
    in_silence = False
    waiting: list[Samples] = []  # silence that is not long yet
    for block in blocks:
        for is_silent, piece in _runs(block, at_least):
            if is_silent and not in_silence:
                waiting.append(piece)
                if sum(map(len, waiting)) < at_least:
                    continue
                silence = np.concatenate(waiting)
                waiting.clear()
                if rest := -(stop - start) % MIN_CLIP_SAMPLES:
                    yield start, silence[:rest]
                start = stop = stop + rest
                in_silence, piece = True, silence[rest:]
            elif not is_silent:
                if in_silence:
                    start, in_silence = stop, False
                for held in waiting:
                    yield start, held
                    stop += len(held)
                waiting.clear()
            yield start, piece
            stop += len(piece)
    for held in waiting:
        yield start, held


def _runs(block: Samples, at_least: int) -> Iterator[tuple[bool, Samples]]:
    """Silent and other spans of a block in turn; silence within it that is not long is left in the others."""
    silent = np.abs(block) <= SILENCE
    edges = np.diff(silent.astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    matters = (starts == 0) | (stops == len(block)) | (stops - starts >= at_least)
    done = 0
    for start, stop in zip(starts[matters].tolist(), stops[matters].tolist(), strict=True):
        if done < start:
            yield False, block[done:start]
        yield True, block[start:stop]
        done = stop
    if done < len(block):
        yield False, block[done:]
