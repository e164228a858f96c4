"""Long digital silence in a stream gets windows of its own: what sounds is then heard as if it came alone."""

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


def stream_sounding_windows(blocks: Iterable[Samples], max_samples: int, overlap_samples: int = 0) -> Iterator[Window]:
    """Cut a sound as `stream_quiet_windows` does, its long silences apart.

    Silent is what does not exceed -90 dB of full scale. What sounds ends on a whole audio token behind its last sample,
    so that none of it is dropped.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths; where they are cut does not matter.
        max_samples: most samples heard at once, at least 0.4 s; a silence of a third of it, or of 0.4 s, is long.
        overlap_samples: heard in both windows around a cut into sound.

    Yields:
        Windows as soon as they are certain; one without samples for an empty sound.

    Raises:
        ConfigError: settings that leave no window.
    """
    is_empty = True
    pieces = _pieces(blocks, max(max_samples // _SHARE, _LEAST))
    for begin, own in groupby(pieces, key=itemgetter(0)):
        for window in stream_quiet_windows((piece for _, piece in own), max_samples, overlap_samples):
            is_empty = False
            yield replace(window, start=begin + window.start, stop=begin + window.stop)
    if is_empty:
        yield from stream_quiet_windows([], max_samples, overlap_samples)


def _pieces(blocks: Iterable[Samples], at_least: int) -> Iterator[tuple[int, Samples]]:
    """The stream again, each piece with the first sample of the stretch it belongs to."""
    begin = stop = 0  # of the stretch under way
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
                rest = -(stop - begin) % MIN_CLIP_SAMPLES
                if rest:
                    yield begin, silence[:rest]
                begin = stop = stop + rest
                in_silence, piece = True, silence[rest:]
            elif not is_silent:
                if in_silence:
                    begin, in_silence = stop, False
                for held in waiting:
                    yield begin, held
                    stop += len(held)
                waiting.clear()
            yield begin, piece
            stop += len(piece)
    for held in waiting:
        yield begin, held


def _runs(block: Samples, at_least: int) -> Iterator[tuple[bool, Samples]]:
    """Silent and other stretches of a block in turn; silence too short to matter is left in what sounds."""
    silent = np.abs(block) <= SILENCE
    edges = np.diff(silent.astype(np.int8), prepend=0, append=0)
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    matters = (begins == 0) | (ends == len(block)) | (ends - begins >= at_least)
    done = 0
    for begin, end in zip(begins[matters].tolist(), ends[matters].tolist(), strict=True):
        if done < begin:
            yield False, block[done:begin]
        yield True, block[begin:end]
        done = end
    if done < len(block):
        yield False, block[done:]
