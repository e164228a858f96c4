"""Procedural sounds of everyday devices: tones, noises and pulses from a few lines of arithmetic each."""

import math
import random
from collections.abc import Callable

import numpy as np

SAMPLE_RATE = 16_000
Array = np.ndarray


def _generator(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(32))


def _tone(frequency: Array | float, num_samples: int, rng: random.Random, harmonics: int = 1) -> Array:
    """A tone of fixed or moving frequency in Hz; harmonics fall as 1 / n and stop below 7.5 kHz."""
    moving = np.broadcast_to(np.asarray(frequency, dtype=np.float64), (num_samples,))
    phase = 2 * math.pi * np.cumsum(moving) / SAMPLE_RATE + rng.uniform(0, 2 * math.pi)
    usable = [n for n in range(1, harmonics + 1) if n * moving.max() < 7500]
    return sum((np.sin(n * phase) / n for n in usable), np.zeros(num_samples))


def _filtered(noise: Array, low_hz: float, high_hz: float) -> Array:
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(noise.size, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * ((frequencies >= low_hz) & (frequencies <= high_hz)), noise.size)


def _gate(num_samples: int, on_s: float, off_s: float) -> Array:
    """1 while on and 0 while off, with 5 ms slopes."""
    cycle = np.arange(num_samples) / SAMPLE_RATE % (on_s + off_s)
    return np.clip(np.minimum(cycle, on_s - cycle) / 0.005, 0, 1)


def _beep(n: int, rng: random.Random) -> Array:
    on, off = rng.uniform(0.08, 0.4), rng.uniform(0.1, 0.8)
    return _tone(rng.uniform(600, 2800), n, rng, rng.choice((1, 1, 3))) * _gate(n, on, off)


def _siren(n: int, rng: random.Random) -> Array:
    time = np.arange(n) / SAMPLE_RATE
    low, high, rate = rng.uniform(400, 700), rng.uniform(1000, 1600), rng.uniform(0.25, 2.5)
    swing = 0.5 + 0.5 * np.sin(2 * math.pi * rate * time + rng.uniform(0, 6))
    if rng.random() < 0.3:
        swing = np.round(swing)
    return _tone(low + (high - low) * swing, n, rng, rng.choice((2, 4, 6)))


def _noise(n: int, rng: random.Random) -> Array:
    white = _generator(rng).standard_normal(n)
    return white if rng.random() < 0.5 else _filtered(white, rng.uniform(0, 1500), rng.uniform(3500, 8000))


def _hum(n: int, rng: random.Random) -> Array:
    base = rng.choice((50.0, 60.0, rng.uniform(80, 140)))
    return _tone(base, n, rng, rng.randint(4, 12)) + 0.02 * _generator(rng).standard_normal(n)


def _alarm(n: int, rng: random.Random) -> Array:
    """Fast bursts: three or four quick beeps and a pause, or two alternating tones."""
    frequency = rng.uniform(1800, 3500)
    if rng.random() < 0.5:
        return _tone(frequency, n, rng, 2) * _gate(n, 0.07, 0.06) * _gate(n, 0.13 * rng.choice((3, 4)), 0.45)
    switch = np.arange(n) / SAMPLE_RATE * rng.uniform(2, 6) % 1 < 0.5
    return _tone(np.where(switch, frequency, frequency * 0.75), n, rng, 3)


def _pulses(n: int, rng: random.Random, rate: tuple[float, float], decay_s: float) -> tuple[Array, Array]:
    """Decaying envelopes at nearly regular times, and the time since the last pulse."""
    since, last, period = np.full(n, 10.0), 0.0, 1 / rng.uniform(*rate)
    while last < n / SAMPLE_RATE:
        start = int(last * SAMPLE_RATE)
        since[start:] = np.arange(n - start) / SAMPLE_RATE
        last += period * rng.uniform(0.7, 1.4)
    return np.exp(-since / decay_s), since


def _click(n: int, rng: random.Random) -> Array:
    envelope, _ = _pulses(n, rng, (0.7, 4), 0.002)
    return _filtered(_generator(rng).standard_normal(n) * envelope, rng.uniform(800, 2500), 7900)


def _knock(n: int, rng: random.Random) -> Array:
    envelope, since = _pulses(n, rng, (2, 4.5), rng.uniform(0.02, 0.04))
    body = np.sin(2 * math.pi * rng.uniform(120, 320) * since) + 0.3 * _generator(rng).standard_normal(n)
    return _filtered(body * envelope, 60, 1500)


def _steady(n: int, rng: random.Random) -> Array:
    """A tone that does not change: a sine, or a square or sawtooth of any pitch."""
    return _tone(np.exp(rng.uniform(np.log(60), np.log(6000))), n, rng, rng.choice((1, 1, 1, 3, 9)))


def _sweep(n: int, rng: random.Random) -> Array:
    low, high = rng.uniform(100, 500), rng.uniform(2500, 7000)
    ends = (low, high) if rng.random() < 0.5 else (high, low)
    return _tone(np.geomspace(*ends, n), n, rng)


def _telephone(n: int, rng: random.Random) -> Array:
    """A ringing telephone (two tones broken 20 times a second) or dialled DTMF keys."""
    if rng.random() < 0.5:
        warble = 0.5 + 0.5 * np.sign(np.sin(2 * math.pi * 20 * np.arange(n) / SAMPLE_RATE))
        pair = _tone(rng.uniform(900, 1200), n, rng, 3) + _tone(rng.uniform(1300, 1700), n, rng, 3)
        return pair * warble * _gate(n, rng.uniform(0.8, 1.5), rng.uniform(0.4, 1.0))
    key = int(0.2 * SAMPLE_RATE)
    keys = [
        _tone(rng.choice((697, 770, 852, 941)), key, rng) + _tone(rng.choice((1209, 1336, 1477)), key, rng)
        for _ in range(n // key + 1)
    ]
    return np.concatenate(keys)[:n] * _gate(n, 0.13, 0.07)


def _buzzer(n: int, rng: random.Random) -> Array:
    wave = np.sign(_tone(rng.uniform(90, 240), n, rng)) * _gate(n, rng.uniform(0.3, 1.2), rng.uniform(0.1, 0.6))
    return _filtered(wave, 60, 6000)


def _whistle(n: int, rng: random.Random) -> Array:
    time = np.arange(n) / SAMPLE_RATE
    frequency = rng.uniform(1800, 3200) * (1 + rng.uniform(0.01, 0.04) * np.sign(np.sin(2 * math.pi * 35 * time)))
    breath = _filtered(_generator(rng).standard_normal(n), 1500, 5000)
    return (_tone(frequency, n, rng) + 0.25 * breath) * _gate(n, rng.uniform(0.4, 1.5), rng.uniform(0.2, 0.8))


def _engine(n: int, rng: random.Random) -> Array:
    time = np.arange(n) / SAMPLE_RATE
    rate = rng.uniform(18, 45) * (1 + 0.15 * np.sin(2 * math.pi * rng.uniform(0.1, 0.6) * time))
    firing = 1 + 0.8 * _tone(rate, n, rng, 3)
    rumble = _filtered(_generator(rng).standard_normal(n), 30, rng.uniform(300, 900))
    return rumble * firing + 0.1 * _tone(rate * 2, n, rng, 8)


EVENTS: dict[str, Callable[[int, random.Random], Array]] = {
    "beep": _beep,
    "siren": _siren,
    "noise": _noise,
    "hum": _hum,
    "alarm": _alarm,
    "click": _click,
    "knock": _knock,
    "sweep": _sweep,
    "tone": _steady,
    "telephone": _telephone,
    "buzzer": _buzzer,
    "whistle": _whistle,
    "engine": _engine,
}


def synthesize(rng: random.Random, event: str | None = None) -> tuple[Array, str]:
    """A sound of 2 to 5 s (float64, 16 kHz, any level) and its event, sampled evenly unless given."""
    event = rng.choice(tuple(EVENTS)) if event is None else event
    num_samples = int(rng.uniform(2.0, 5.0) * SAMPLE_RATE)
    waveform = EVENTS[event](num_samples, rng)
    ramp = np.linspace(0, 1, 320)
    waveform[:320] *= ramp
    waveform[-320:] *= ramp[::-1]
    floor = 10 ** (rng.uniform(-70, -35) / 20) * float(np.abs(waveform).max())
    return waveform + floor * _generator(rng).standard_normal(num_samples), event
