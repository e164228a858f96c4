"""Tempo and key of music by signal processing; of float32 (N,) at 16 kHz."""

import numpy as np
import numpy.typing as npt

from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE

Array = npt.NDArray[np.float64]

NOTES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

_HOP, _N_FFT = 160, 1024  # onsets: 10 ms, 64 ms
_SLOWEST, _FASTEST = 40.0, 220.0  # beats per minute
_USUAL, _OCTAVES = 120.0, 1.0  # preferred tempo and width of the preference; D. Ellis, J. New Music Research 36, 2007
_LEAST_S = 2.0  # of a clip, for two beats of the slowest
_LEAST_PULSE = 0.1  # of the autocorrelation at the beat; below it there is none
_KEY_FFT, _KEY_HOP = 8192, 4096  # 0.5 s: bins of 2 Hz, a quarter of a semitone at 130 Hz
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 2000.0
# Probe-tone ratings of the degrees, C. Krumhansl and E. Kessler, Psychological Review 89, 1982.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_LEAST_FIT = 0.4  # correlation with the best profile; below it there is no key


def tempo(waveform: Samples) -> tuple[float, float] | None:
    """Beats per minute, 40 to 220, and the strength of the pulse, 0 to 1; None without one, or below 2 s.

    The autocorrelation of the onset strength, weighted for tempi around 120, at its highest peak.
    """
    if len(waveform) < _LEAST_S * SAMPLE_RATE:
        return None
    onsets = _onsets(waveform)
    onsets -= onsets.mean()
    size = 1 << int(np.ceil(np.log2(2 * len(onsets))))
    power = np.abs(np.fft.rfft(onsets, size)) ** 2
    correlation = np.fft.irfft(power)[: len(onsets)]
    if correlation[0] <= 1e-9:
        return None
    correlation /= correlation[0] * (1 - np.arange(len(onsets)) / len(onsets))
    rate = SAMPLE_RATE / _HOP
    lags = np.arange(int(rate * 60 / _FASTEST), min(int(rate * 60 / _SLOWEST) + 1, len(onsets) // 2 + 1))
    weighted = correlation[lags] * np.exp(-0.5 * (np.log2(60 * rate / lags / _USUAL) / _OCTAVES) ** 2)
    best = int(weighted.argmax())
    lag = lags[best] + _between(correlation[lags[best] - 1 : lags[best] + 2])
    strength = float(np.clip(correlation[lags[best]], 0, 1))
    return (float(60 * rate / lag), strength) if strength >= _LEAST_PULSE else None


def key(waveform: Samples) -> tuple[str, str, float] | None:
    """Tonic (see `NOTES`), ``major`` or ``minor``, and the correlation with its profile; None where none fits.

    Power by pitch class against the profiles of 24 keys.
    """
    chroma = _chroma(waveform)
    if chroma is None:
        return None
    fits = {
        (NOTES[tonic], mode): float(np.corrcoef(chroma, np.roll(profile, tonic))[0, 1])
        for mode, profile in (("major", _MAJOR), ("minor", _MINOR))
        for tonic in range(12)
    }
    (tonic, mode), fit = max(fits.items(), key=lambda each: each[1])
    return (tonic, mode, fit) if fit >= _LEAST_FIT else None


def _onsets(waveform: Samples) -> Array:
    """How much louder each frame is than the one before, over all frequencies, in logarithmic power."""
    padded = np.pad(waveform.astype(np.float64), _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_N_FFT), axis=1)) ** 2
    bands = np.add.reduceat(power, np.unique(np.geomspace(1, power.shape[1] - 1, 25).astype(int)), axis=1)
    level = np.log1p(1e3 * bands / max(float(bands.max()), 1e-12))
    return np.asarray(np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0).sum(1))


def _between(three: Array) -> float:
    """Place of the peak of a parabola through three values, relative to the middle one."""
    if len(three) < 3:
        return 0.0
    left, middle, right = three
    bend = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _chroma(waveform: Samples) -> Array | None:
    padded = np.pad(waveform.astype(np.float64), (0, max(0, _KEY_FFT - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _KEY_FFT)[::_KEY_HOP]
    amplitude = np.abs(np.fft.rfft(frames * np.hanning(_KEY_FFT), axis=1)).mean(0)
    hertz = np.fft.rfftfreq(_KEY_FFT, 1 / SAMPLE_RATE)
    inside = (hertz >= _LOWEST_HZ) & (hertz <= _HIGHEST_HZ)
    if amplitude[inside].max(initial=0.0) <= 1e-6:
        return None
    # Only peaks: the sides of a strong partial fall into the semitones beside it.
    is_peak = (amplitude >= np.roll(amplitude, 1)) & (amplitude >= np.roll(amplitude, -1)) & inside
    classes = np.round(12 * np.log2(np.maximum(hertz, 1) / 261.6256)).astype(int) % 12
    chroma = np.bincount(classes[is_peak], weights=amplitude[is_peak], minlength=12)
    return chroma.astype(np.float64) if chroma.std() > 1e-9 * chroma.max() else None
