"""256 bits that stay nearly the same when a clip is re-encoded, scaled, delayed or padded, and differ between clips.

A clip is cut into 16 segments that have equal shares of its amplitude, so that silence and level do not matter. Each
bit states whether the difference of the levels of two neighbouring bands grows from one segment to the next, as in
Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002), whose segments have equal durations.

Measured on ESC-10, the Free Spoken Digit Dataset and speechocean762: clips of different recordings differ in 60 bits or
more. The same clip differs in up to 30 bits as MP3, Vorbis or Opus of ordinary quality, in up to 65 at the lowest.
"""

import numpy as np
import numpy.typing as npt

from auricle.audio.facts import Samples

BYTES = 32
MAX_DIFFERENT_BITS = 50  # of the same recording, of 256

_SEGMENTS, _BANDS = 16, 17  # 16 differences of neighbouring bands
_BAND_HZ = (150.0, 3600.0)  # what 8 kHz recordings and codecs keep, in equal steps of mel
_N_FFT, _HOP, _RATE = 512, 160, 16_000
_BLOCK = 6000  # frames at once, a minute
_MIN_CHANGE = 1e-3  # of a level, natural logarithm; below it a bit is rounding noise
_MIN_BITS = 64  # that must be more than noise


def acoustic_fingerprint(waveform: Samples) -> bytes | None:
    """The fingerprint of a clip.

    Args:
        waveform: (num_samples,) float32, 16 kHz mono.

    Returns:
        `BYTES` bytes; None where too little changes in the clip to tell it from others: silence, or a steady tone.
    """
    energy = _band_energy(waveform)
    amplitude = np.cumsum(np.sqrt(energy.sum(1)))
    if not amplitude[-1] > 0:
        return None
    position = np.concatenate([[0.0], amplitude / amplitude[-1]])
    frames = np.arange(len(position), dtype=np.float64)
    # Strictly rising, so that silence takes no segment.
    ends = np.interp(np.linspace(0, 1, _SEGMENTS + 1), position + 1e-12 * frames, frames)
    total = np.concatenate([np.zeros((1, _BANDS)), np.cumsum(energy, axis=0)])
    parts = np.diff(np.stack([np.interp(ends, frames, band) for band in total.T], axis=1), axis=0)
    levels = np.log(np.maximum(parts, 0) / np.maximum(np.diff(ends), 1e-9)[:, None] + 1e-12 * energy.max())
    steps = levels[:, :-1] - levels[:, 1:]
    changes = steps - np.roll(steps, 1, axis=0)
    if int((np.abs(changes) > _MIN_CHANGE).sum()) < _MIN_BITS:
        return None
    return np.packbits(changes > 0).tobytes()


def different_bits(ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many bits of fingerprints (n, 32) and (m, 32) differ, (n, m)."""
    left, right = (np.unpackbits(rows, axis=1).astype(np.float32) * 2 - 1 for rows in (ours, theirs))
    return np.rint((8 * BYTES - left @ right.T) / 2).astype(np.int64)


def as_rows(fingerprints: list[bytes]) -> npt.NDArray[np.uint8]:
    """(n, 32) of n fingerprints."""
    return np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, BYTES)


def _band_energy(waveform: Samples) -> npt.NDArray[np.float64]:
    """(T, bands) energy of frames of 32 ms each 10 ms."""
    padded = np.pad(np.asarray(waveform, np.float64), (_N_FFT // 2, _N_FFT // 2 + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    window, weights = np.hanning(_N_FFT), _band_weights()
    blocks = (frames[start : start + _BLOCK] * window for start in range(0, len(frames), _BLOCK))
    return np.concatenate([np.abs(np.fft.rfft(block, axis=1)) ** 2 @ weights for block in blocks])


def _band_weights() -> npt.NDArray[np.float64]:
    """(bins, bands): the share of each bin of the transform that lies in each band."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in _BAND_HZ)
    edges = 700 * (10 ** (np.linspace(low, high, _BANDS + 1) / 2595) - 1) / _RATE * _N_FFT
    bins = np.arange(_N_FFT // 2 + 1)[:, None]
    return np.clip(np.minimum(bins + 0.5, edges[1:]) - np.maximum(bins - 0.5, edges[:-1]), 0, None)
