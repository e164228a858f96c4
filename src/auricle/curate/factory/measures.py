"""What signal processing says of a clip: loudness, noise, bandwidth, reverberation, tempo and key.

All of float32 (N,) at 16 kHz.
"""

import numpy as np
import numpy.typing as npt

from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE

Array = npt.NDArray[np.float64]

# Block length, overlap and gates of ITU-R BS.1770-4, as in EBU R 128.
_BLOCK_S, _HOP_S = 0.4, 0.1
_ABSOLUTE_LUFS, _RELATIVE_LU = -70.0, -10.0
_OFFSET = -0.691  # dB; makes a 997 Hz sine of full scale read -3.01
# Shelf and high pass of BS.1770's K-weighting in analogue form (B. De Man, AES 2014): Hz, gain in dB, Q.
_SHELF_HZ, _SHELF_DB, _SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.5003270373238773

_N_FFT, _HOP = 512, 160  # 32 ms and 10 ms
_QUIET_SHARE = 0.1  # of the smoothed powers of a band, the value that is taken for its noise
_SMOOTH_FRAMES, _SMOOTH_BANDS = 11, 5  # 110 ms and 156 Hz: what is steady hardly varies then
_QUIET_BIAS = 0.72  # that quantile of steady noise over its mean, measured on white noise
_BAND_FFT = 2048  # of the bandwidth: bins of 8 Hz, so that leakage adds less than 50 Hz
_SMALLEST = 1e-12  # power; -120 dB of full scale
_BAND_DB = 60.0  # below the loudest part of the spectrum: outside the band
_DECAY_DB = (5.0, 25.0)  # part of a decay that is fitted, below its start; ISO 3382-1, T20
_LEAST_DECAY_S = 0.06
_LEAST_FIT = 0.9  # R² of a decay that is counted
_FULL_SCALE = 1 - 2.0**-15


NOTES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

_ONSET_FFT = 1024  # onsets: 64 ms, every 10 ms
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


def loudness(waveform: Samples) -> float | None:
    """Integrated loudness in LUFS by ITU-R BS.1770-4 with its two gates; None where all is below -70.

    A clip shorter than a block of 0.4 s is one block. The filters are applied to the spectrum, with their response at
    16 kHz.
    """
    weighted = _filtered(waveform)
    block, hop = int(_BLOCK_S * SAMPLE_RATE), int(_HOP_S * SAMPLE_RATE)
    if len(weighted) <= block:
        powers = np.asarray([np.mean(weighted**2)])
    else:
        total = np.concatenate([[0.0], np.cumsum(weighted**2)])
        starts = np.arange(0, len(weighted) - block + 1, hop)
        powers = (total[starts + block] - total[starts]) / block
    levels = _OFFSET + 10 * np.log10(np.maximum(powers, _SMALLEST))
    loud = powers[levels > _ABSOLUTE_LUFS]
    if not len(loud):
        return None
    gate = _OFFSET + 10 * np.log10(loud.mean()) + _RELATIVE_LU
    return float(_OFFSET + 10 * np.log10(powers[levels > max(gate, _ABSOLUTE_LUFS)].mean()))


def peak_db(waveform: Samples) -> float:
    """The largest sample, dB of full scale; -120 for zeros."""
    return float(20 * np.log10(max(float(np.abs(waveform).max(initial=0.0)), 1e-6)))


def clipped_share(waveform: Samples) -> float:
    """Share of samples at full scale, 0 to 1."""
    return float(np.mean(np.abs(waveform) >= _FULL_SCALE)) if len(waveform) else 0.0


def signal_to_noise(waveform: Samples) -> float | None:
    """What changes over what is steady, dB, -20 to 60; None for less than 0.5 s or digital silence.

    Of each band the quietest tenth of the smoothed powers gives the power of the steady noise, corrected by the mean
    that a noise with such a tenth has. A steady sound, such as an engine, counts as noise.

    Source: minimum statistics, R. Martin, IEEE Trans. SAP 9(5), 2001, with a quantile in the place of the minimum.
    """
    if len(waveform) < SAMPLE_RATE // 2:
        return None
    power = _spectrogram(waveform, _N_FFT)
    total = float(power.sum(1).mean())
    if total <= _SMALLEST * _N_FFT:
        return None
    smooth = _smoothed(_smoothed(power, _SMOOTH_FRAMES, 0), _SMOOTH_BANDS, 1)
    noise = float(np.quantile(smooth, _QUIET_SHARE, axis=0).sum()) / _QUIET_BIAS
    ratio = max(total - noise, 1e-2 * total) / max(noise, _SMALLEST)
    return float(np.clip(10 * np.log10(ratio), -20, 60))


def bandwidth(waveform: Samples) -> float | None:
    """The highest frequency in Hz, up to 8000, less than 60 dB below the loudest part of the long-term spectrum.

    None for digital silence.
    """
    density = _spectrogram(waveform, _BAND_FFT).mean(0)
    if density.max(initial=0.0) <= _SMALLEST:
        return None
    smooth = np.convolve(np.pad(density, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    above = np.flatnonzero(smooth > smooth.max() * 10 ** (-_BAND_DB / 10))
    return float(min(above[-1] * SAMPLE_RATE / _BAND_FFT, SAMPLE_RATE / 2))


def reverberation(waveform: Samples) -> tuple[float, float] | None:
    """Time in s in which sound decays by 60 dB, of the clip's own decays, and their mean R²; None where it has none.

    A decay is a stretch in which the level of 10 ms frames falls by at least 25 dB; 5 to 25 dB below its start a
    straight line is fitted. The lower quartile counts, as a sound that fades by itself makes a decay longer.

    Source: T20 of ISO 3382-1 on free decays, as in blind estimates (R. Ratnam et al., JASA 114, 2003).
    """
    levels = 10 * np.log10(np.maximum(_frame_power(waveform), _SMALLEST))
    levels = np.convolve(np.pad(levels, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    found = [fit for start, stop in _decays(levels) if (fit := _fit(levels[start:stop])) is not None]
    if not found:
        return None
    times, fits = np.asarray(found).T
    return float(np.quantile(times, 0.25)), float(fits.mean())


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


def _filtered(waveform: Samples) -> Array:
    """K-weighted, of the same length."""
    size = 1 << int(np.ceil(np.log2(max(len(waveform), 2) + SAMPLE_RATE // 4)))
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.ones(len(z), complex)
    for numerator, denominator in (_shelf(), _high_pass()):
        response *= np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z)
    spectrum = np.fft.rfft(waveform.astype(np.float64), size)
    return np.asarray(np.fft.irfft(spectrum * response, size)[: len(waveform)])


def _shelf() -> tuple[Array, Array]:
    k = np.tan(np.pi * _SHELF_HZ / SAMPLE_RATE)
    high = 10 ** (_SHELF_DB / 20)
    middle = high**0.4996667741545416
    norm = 1 + k / _SHELF_Q + k * k
    numerator = [high + middle * k / _SHELF_Q + k * k, 2 * (k * k - high), high - middle * k / _SHELF_Q + k * k]
    return np.asarray(numerator) / norm, np.asarray([norm, 2 * (k * k - 1), 1 - k / _SHELF_Q + k * k]) / norm


def _high_pass() -> tuple[Array, Array]:
    k = np.tan(np.pi * _PASS_HZ / SAMPLE_RATE)
    norm = 1 + k / _PASS_Q + k * k
    return np.asarray([1.0, -2.0, 1.0]), np.asarray([norm, 2 * (k * k - 1), 1 - k / _PASS_Q + k * k]) / norm


def _spectrogram(waveform: Samples, n_fft: int) -> Array:
    """Power of each frame and frequency, (frames, n_fft // 2 + 1); a short clip is padded to a frame."""
    padded = np.pad(waveform.astype(np.float64), (0, max(0, n_fft - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::_HOP]
    window = np.hanning(n_fft + 1)[:-1]
    return np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 * (2 / (n_fft * float((window**2).sum())))


def _smoothed(power: Array, width: int, axis: int) -> Array:
    """The mean of neighbours along an axis, where all of them are there."""
    width = min(width, power.shape[axis])
    total = np.cumsum(np.insert(power, 0, 0.0, axis=axis), axis=axis)
    count = power.shape[axis] - width + 1
    return np.asarray((np.take(total, range(width, width + count), axis) - np.take(total, range(count), axis)) / width)


def _frame_power(waveform: Samples) -> Array:
    whole = len(waveform) // _HOP
    if not whole:
        return np.zeros(1)
    return np.asarray((waveform[: whole * _HOP].astype(np.float64).reshape(whole, _HOP) ** 2).mean(1))


def _decays(levels: Array) -> list[tuple[int, int]]:
    """Stretches of falling levels; a rise of less than 1 dB does not end one."""
    found, start = [], 0
    lowest = levels[0]
    for i in range(1, len(levels)):
        if levels[i] < lowest:
            lowest = levels[i]
        elif levels[i] > lowest + 1:
            found.append((start, i))
            start, lowest = i, levels[i]
        if levels[i] >= levels[start]:
            start, lowest = i, levels[i]
    return [*found, (start, len(levels))]


def _fit(levels: Array) -> tuple[float, float] | None:
    """Time of 60 dB and R² of one decay; None where it does not fall far, or not along a line."""
    below = levels[0] - levels
    low, high = _DECAY_DB
    inside = np.flatnonzero((below >= low) & (below <= high))
    if below.max() < high or len(inside) < _LEAST_DECAY_S * SAMPLE_RATE / _HOP:
        return None
    time, level = inside * _HOP / SAMPLE_RATE, levels[inside]
    slope, _ = np.polyfit(time, level, 1)
    fit = float(np.corrcoef(time, level)[0, 1] ** 2)
    return (float(-60 / slope), fit) if slope < 0 and fit >= _LEAST_FIT else None


def _onsets(waveform: Samples) -> Array:
    """How much louder each frame is than the one before, over all frequencies, in logarithmic power."""
    padded = np.pad(waveform.astype(np.float64), _ONSET_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _ONSET_FFT)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_ONSET_FFT), axis=1)) ** 2
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
