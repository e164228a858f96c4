"""Where to cut audio that is longer than a model was trained on."""

from __future__ import annotations

import math

import numpy as np

from auricle.audio.facts import Samples
from auricle.models.midashenglm import MIN_CLIP_SAMPLES

_SPREAD = 0.2  # a window may be this share shorter or longer than an even cut, so as to end where it is quiet


def quiet_windows(waveform: Samples, max_samples: int) -> list[tuple[int, int]]:
    """Cut a waveform (N,) into about equal windows that cover all of it and end where it is quiet.

    Cuts fall on whole audio tokens (0.2 s), so that none of the sound is dropped between windows.

    Args:
        waveform: 16 kHz.
        max_samples: longest window, at least 0.4 s.

    Returns:
        (start, stop) in samples, ascending; as few as fit.
    """
    step = MIN_CLIP_SAMPLES
    longest = max_samples // step * step
    windows, start = [], 0
    while len(waveform) - start > max_samples:
        left = len(waveform) - start
        pieces = math.ceil(left / longest)
        even = left / pieces
        # The rest must fit into one window less.
        first = math.ceil(max(even * (1 - _SPREAD), left - (pieces - 1) * longest, step) / step)
        last = max(first, math.floor(min(even * (1 + _SPREAD), longest) / step))
        cuts = range(start + step * first, start + step * last + 1, step)
        stop = min(cuts, key=lambda cut: _loudness(waveform, cut))
        windows.append((start, stop))
        start = stop
    return [*windows, (start, len(waveform))]


def _loudness(waveform: Samples, at: int) -> float:
    """Mean power of the 0.2 s around a sample."""
    half = MIN_CLIP_SAMPLES // 2
    around = waveform[max(0, at - half) : at + half].astype(np.float64)
    return float(np.mean(around**2))
