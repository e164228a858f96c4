"""Sounds in which nothing changes, found by measuring: tones and noise have no event in them to name."""

from __future__ import annotations

import numpy as np

from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE

CONSTANT_DB = 0.3  # no recording varies less: its room and its microphone are noise
STEADY_DB = 2.0  # random noise varies this much by chance, rain and engines little more
CONSTANT = f"nothing in it changes: its bands vary by less than {CONSTANT_DB:g} dB, as of a generated tone"
STEADY = f"hardly anything in it changes: its bands vary by less than {STEADY_DB:g} dB, as of steady noise"
_FRAME = SAMPLE_RATE // 4
_LEAST = 4  # frames
_EDGES_HZ = (0, 100, 200, 400, 800, 1600, 3200, 6400, SAMPLE_RATE)  # of bands, octaves
_HEARD_DB = 15.0  # bands that are softer than the loudest by more do not count


def change_db(waveform: Samples) -> float | None:
    """How much a sound (N,) at 16 kHz changes: the standard deviation over time of its most variable band.

    Of levels of octave bands in frames of 0.25 s, dB; bands far below the loudest are left out. None: under 1 s.
    """
    count = len(waveform) // _FRAME
    if count < _LEAST:
        return None
    frames = waveform[: count * _FRAME].reshape(count, _FRAME).astype(np.float64) * np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2
    hertz = np.fft.rfftfreq(_FRAME, 1 / SAMPLE_RATE)
    starts = np.searchsorted(hertz, _EDGES_HZ[:-1])
    levels = 10 * np.log10(np.add.reduceat(power, starts, axis=1) + 1e-12)
    means = levels.mean(0)
    return float(levels[:, means >= means.max() - _HEARD_DB].std(0).max())


def remark(waveform: Samples) -> str:
    """What a receipt says of a sound in which little changes; empty: it changes, or is too short to tell."""
    change = change_db(waveform)
    if change is None or change >= STEADY_DB:
        return ""
    return CONSTANT if change < CONSTANT_DB else STEADY
