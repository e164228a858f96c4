"""Waveform augmentation: level, speed, spectrum, room, noise, placement.

Every function takes a mono float32 waveform at 16 kHz and returns a new one; nothing is changed in place. Random
numbers come from the `numpy.random.Generator` that is passed in, so the caller decides what they depend on (seed, step,
clip).
"""

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000
SILENCE_RMS = 1e-5  # -100 dBFS; below this a clip counts as digital silence
_FRAME = 320  # 20 ms, the frame of the level measurement
_ACTIVE_DB = 30.0  # frames this far below the loudest one do not count as active


def active_rms(waveform: Waveform) -> float:
    """Root mean square over the frames within 30 dB of the loudest 20 ms frame; pauses do not lower the level."""
    if waveform.size < _FRAME:
        return float(np.sqrt(np.mean(np.square(waveform)))) if waveform.size else 0.0
    frames = waveform[: waveform.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.einsum("ij,ij->i", frames, frames) / _FRAME
    loudest = float(power.max())
    if loudest <= SILENCE_RMS**2:
        return float(np.sqrt(loudest))
    return float(np.sqrt(power[power >= loudest * 10 ** (-_ACTIVE_DB / 10)].mean()))


def gain(waveform: Waveform, gain_db: float) -> Waveform:
    """Scale by `gain_db` decibels."""
    return waveform * np.float32(10 ** (gain_db / 20))


def to_level(waveform: Waveform, level_db: float) -> Waveform:
    """Scale so that the active level is `level_db` dBFS; digital silence is not changed."""
    rms = active_rms(waveform)
    return waveform.copy() if rms <= SILENCE_RMS else waveform * np.float32(10 ** (level_db / 20) / rms)


def limit_peak(waveform: Waveform, peak: float = 0.99) -> Waveform:
    """Scale down, if needed, so that no sample exceeds `peak`."""
    largest = float(np.abs(waveform).max(initial=0.0))
    return waveform * np.float32(peak / largest) if largest > peak else waveform


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play `factor` times as fast; pitch and formants change by the same factor."""
    if factor == 1.0 or waveform.size < 2:
        return waveform.copy()
    return soxr.resample(waveform, factor * SAMPLE_RATE, SAMPLE_RATE, quality="LQ").astype(np.float32, copy=False)


def crop(waveform: Waveform, start: int, num_samples: int) -> Waveform:
    """Samples `start` to `start + num_samples`, or fewer at the end."""
    return waveform[start : start + num_samples].copy()


def crop_energetic(waveform: Waveform, rng: np.random.Generator, num_samples: int, tries: int = 4) -> Waveform:
    """A random crop with signal: the most energetic of `tries` random positions."""
    if num_samples >= waveform.size:
        return waveform.copy()
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform), dtype=np.float64)])
    starts = rng.integers(0, waveform.size - num_samples + 1, size=tries)
    return crop(waveform, int(starts[np.argmax(energy[starts + num_samples] - energy[starts])]), num_samples)


def loop(waveform: Waveform, num_samples: int) -> Waveform:
    """Repeat from the start, or cut, to exactly `num_samples`."""
    if waveform.size == 0:
        return np.zeros(num_samples, np.float32)
    return np.resize(waveform, num_samples).astype(np.float32, copy=False)


def place(waveform: Waveform, start: int, num_samples: int) -> Waveform:
    """Put the waveform at `start` into `num_samples` of silence; what exceeds that is cut."""
    canvas = np.zeros(num_samples, np.float32)
    kept = waveform[: max(0, num_samples - start)]
    canvas[start : start + kept.size] = kept
    return canvas


def fade(waveform: Waveform, num_samples: int = 160) -> Waveform:
    """Linear fade in and out (10 ms by default), against clicks at cuts."""
    length = min(num_samples, waveform.size // 2)
    faded = waveform.copy()
    if length:
        ramp = np.linspace(0.0, 1.0, length, dtype=np.float32)
        faded[:length] *= ramp
        faded[-length:] *= ramp[::-1]
    return faded


def join(waveforms: list[Waveform], gaps: list[int]) -> Waveform:
    """Concatenate with `gaps[i]` silent samples after waveform i (one gap fewer than waveforms)."""
    pieces: list[Waveform] = []
    for index, waveform in enumerate(waveforms):
        pieces.append(waveform)
        if index < len(waveforms) - 1:
            pieces.append(np.zeros(gaps[index], np.float32))
    return np.concatenate(pieces)


def mix(foreground: Waveform, background: Waveform, snr_db: float) -> Waveform:
    """Add the background so that the active levels differ by `snr_db`; the background is looped or cut to fit.

    A silent foreground or background cannot be scaled to a ratio and is added unscaled.
    """
    background = loop(background, foreground.size)
    front, back = active_rms(foreground), active_rms(background)
    if front <= SILENCE_RMS or back <= SILENCE_RMS:
        return foreground + background
    return foreground + background * np.float32(front / back * 10 ** (-snr_db / 20))


def noise(num_samples: int, rng: np.random.Generator, exponent: float = 0.0) -> Waveform:
    """Unit-level noise whose power falls as 1 / f**exponent: 0 white, 1 pink, 2 brown.

    Coloured noise repeats after 32768 samples (2 s): much longer than a spectrogram's frame, and fast for any length.
    """
    if exponent == 0.0:
        return rng.standard_normal(num_samples, dtype=np.float32)
    period = 32_768
    bins = np.arange(1, period // 2 + 1, dtype=np.float32)
    phases = rng.random(bins.size, dtype=np.float32) * np.float32(2 * np.pi)
    spectrum = np.concatenate([[0.0], bins ** (-exponent / 2) * np.exp(1j * phases)])
    block = np.fft.irfft(spectrum, period)
    block = np.roll(block / np.sqrt(np.mean(np.square(block))), int(rng.integers(period)))
    return loop(block.astype(np.float32), num_samples)


def tone(num_samples: int, rng: np.random.Generator, hz: float, harmonics: int = 1) -> Waveform:
    """A steady tone at a random phase, with odd harmonics that fall as 1 / n, up to 7.5 kHz."""
    phase = 2 * np.pi * (hz / SAMPLE_RATE * np.arange(num_samples) + rng.random())
    usable = [n for n in range(1, 2 * harmonics, 2) if n == 1 or n * hz < 7500]
    return sum((np.sin(n * phase) / n for n in usable), np.zeros(num_samples)).astype(np.float32)


def _loud_frames(waveform: Waveform, below_db: float) -> NDArray[np.intp]:
    """Numbers of the 20 ms frames that are at most `below_db` below the loudest one; none of digital silence."""
    frames = waveform[: waveform.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.einsum("ij,ij->i", frames, frames)
    return np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-below_db / 10))


def count_bursts(waveform: Waveform) -> int:
    """Stretches within 25 dB of the loudest 20 ms frame, apart by at least 60 ms below that."""
    loud = _loud_frames(waveform, 25.0)
    return int(loud.size > 0) + int(np.sum(np.diff(loud) > 3))


def trim(waveform: Waveform) -> Waveform:
    """Without what is more than 40 dB below the loudest 20 ms frame at both ends."""
    loud = _loud_frames(waveform, 40.0)
    return waveform[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME].copy() if loud.size else waveform.copy()


def add_noise_floor(waveform: Waveform, rng: np.random.Generator, snr_db: float) -> Waveform:
    """Add steady noise of random colour (white to brown) `snr_db` below the active level."""
    rms = active_rms(waveform)
    if rms <= SILENCE_RMS:
        return waveform.copy()
    exponent = float(rng.choice([0.0, 0.5, 1.0, 1.5, 2.0]))
    return waveform + noise(waveform.size, rng, exponent) * np.float32(rms * 10 ** (-snr_db / 20))


def room_response(rng: np.random.Generator, rt60_s: float, direct: float = 1.0, wet: float = 0.4) -> Waveform:
    """A synthetic room: the direct sound, a short gap, then noise that decays by 60 dB in `rt60_s` seconds."""
    num_samples = max(2, int(rt60_s * SAMPLE_RATE))
    decay = np.exp(-6.9078 / num_samples * np.arange(num_samples, dtype=np.float32))  # ln(1000): 60 dB
    tail = rng.standard_normal(num_samples, dtype=np.float32) * decay
    gap = min(int(rng.integers(16, 160)), num_samples - 1)
    tail[:gap] = 0.0
    tail *= np.float32(wet / max(float(np.sqrt(np.sum(np.square(tail)))), 1e-9))
    tail[0] = direct
    return tail


def tilt_response(num_bins: int, db_per_octave: float) -> Waveform:
    """Gain at `num_bins` frequencies from 0 to 8 kHz, a straight slope per octave around 1 kHz."""
    frequencies = np.maximum(np.linspace(0.0, SAMPLE_RATE / 2, num_bins, dtype=np.float32), 60.0)
    return (frequencies / 1000.0) ** np.float32(db_per_octave / 6.0206)


def band_response(num_bins: int, low_hz: float, high_hz: float) -> Waveform:
    """Gain at `num_bins` frequencies of a band-pass with 4th-order Butterworth slopes; `low_hz` 0 is a low-pass."""
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, num_bins, dtype=np.float32)
    response = 1.0 / np.sqrt(1.0 + (frequencies / np.float32(high_hz)) ** 8)
    if low_hz > 0.0:
        response = response / np.sqrt(1.0 + (np.float32(low_hz) / np.maximum(frequencies, 1.0)) ** 8)
    return response.astype(np.float32)


def curve_response(num_bins: int, gains_db: Sequence[float]) -> Waveform:
    """Gain at `num_bins` frequencies, `gains_db` at points evenly spaced in pitch from 60 Hz to 8 kHz and between."""
    octaves = np.log2(np.maximum(np.linspace(0.0, SAMPLE_RATE / 2, num_bins, dtype=np.float32), 60.0) / 60.0)
    points = np.linspace(0.0, float(octaves[-1]), len(gains_db))
    return (10 ** (np.interp(octaves, points, gains_db) / 20)).astype(np.float32)


def colour(
    waveform: Waveform,
    *,
    db_per_octave: float = 0.0,
    curve_db: Sequence[float] = (),
    band_hz: tuple[float, float] | None = None,
    room: Waveform | None = None,
) -> Waveform:
    """Filter by a spectral tilt, a curve, a band and a room at once (one Fourier transform); the length is kept."""
    if waveform.size == 0:
        return waveform.copy()
    reach = waveform.size + (room.size if room is not None else SAMPLE_RATE // 20)
    num_fft = -(-reach // 4096) * 4096
    response: NDArray[np.floating] | NDArray[np.complexfloating] = tilt_response(num_fft // 2 + 1, db_per_octave)
    if len(curve_db):
        response = response * curve_response(num_fft // 2 + 1, curve_db)
    if band_hz is not None:
        response = response * band_response(num_fft // 2 + 1, *band_hz)
    if room is not None:
        response = response * np.fft.rfft(room, num_fft)
    return np.fft.irfft(np.fft.rfft(waveform, num_fft) * response, num_fft)[: waveform.size].astype(np.float32)


def recolour(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Simulate another microphone and room: random tilt, at times resonances, a telephone band or low-pass, reverb."""
    band = None
    chance = rng.random()
    if chance < 0.15:
        band = (float(rng.uniform(150, 400)), float(rng.uniform(3000, 3800)))
    elif chance < 0.35:
        band = (0.0, float(rng.uniform(3000, 7500)))
    room = room_response(rng, float(rng.uniform(0.05, 0.35)), wet=float(rng.uniform(0.1, 0.5)))
    return colour(
        waveform,
        db_per_octave=float(rng.uniform(-3, 3)),
        curve_db=rng.uniform(-6, 6, size=int(rng.integers(4, 9))).tolist() if rng.random() < 0.6 else (),
        band_hz=band,
        room=room if rng.random() < 0.4 else None,
    )
