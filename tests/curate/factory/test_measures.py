"""Measures against signals whose truth is known."""

import numpy as np
import pytest

from auricle.curate.factory import measures

from .signals import RATE, noise, seconds, sine


@pytest.mark.parametrize("level_db", [0.0, -20.0, -45.0])
def test_loudness_of_a_sine_is_that_of_the_standard(level_db: float) -> None:
    # BS.1770: a 997 Hz sine at 0 dB of full scale in one channel reads -3.01; meters may err by 0.1.
    found = measures.loudness(sine(997, 5, 10 ** (level_db / 20)))
    assert found == pytest.approx(level_db - 3.01, abs=0.1)


def test_loudness_leaves_out_silence() -> None:
    loud = sine(997, 4, 0.5)
    padded = np.concatenate([loud, np.zeros(RATE * 12, np.float32)])
    assert measures.loudness(padded) == pytest.approx(measures.loudness(loud), abs=0.35)
    assert measures.loudness(np.zeros(RATE, np.float32)) is None
    assert measures.loudness(sine(997, 0.1, 0.5)) == pytest.approx(-9.03, abs=0.5)


def test_low_frequencies_count_less_and_high_ones_more() -> None:
    middle = measures.loudness(sine(997, 2))
    assert measures.loudness(sine(30, 2)) < middle - 6  # type: ignore[operator]
    assert measures.loudness(sine(5000, 2)) == pytest.approx(middle + 3.3, abs=0.5)  # type: ignore[operator]


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_signal_to_noise_is_found(snr_db: int, seed: int) -> None:
    bursts = (np.sin(2 * np.pi * 1.5 * seconds(8)) > 0.2) * noise(8, seed, 0.05)
    steady = noise(8, seed + 10, 1.0)
    steady *= np.sqrt(np.mean(bursts**2) / np.mean(steady**2) / 10 ** (snr_db / 10))
    assert measures.signal_to_noise((bursts + steady).astype(np.float32)) == pytest.approx(snr_db, abs=1.5)


def test_steady_noise_has_no_signal() -> None:
    assert measures.signal_to_noise(noise(8)) < -15  # type: ignore[operator]
    assert measures.signal_to_noise(np.zeros(RATE, np.float32)) is None
    assert measures.signal_to_noise(noise(0.2)) is None


@pytest.mark.parametrize("hertz", [1000, 3400, 4000, 6000])
def test_bandwidth_is_that_of_the_filter(hertz: int) -> None:
    spectrum = np.fft.rfft(noise(6))
    spectrum[np.fft.rfftfreq(6 * RATE, 1 / RATE) > hertz] = 0
    assert measures.bandwidth(np.fft.irfft(spectrum).astype(np.float32)) == pytest.approx(hertz, abs=60)


def test_bandwidth_of_all_and_of_nothing() -> None:
    assert measures.bandwidth(noise(3)) == 8000
    assert measures.bandwidth(np.zeros(RATE, np.float32)) is None


@pytest.mark.parametrize("time_s", [0.2, 0.4, 0.8, 1.2])
@pytest.mark.parametrize("burst_s", [0.05, 0.3])
def test_reverberation_is_that_of_the_response(time_s: float, burst_s: float) -> None:
    length = int(1.5 * time_s * RATE)
    response = noise(1.5 * time_s, 1, 1.0)[:length] * 10 ** (-3 * np.arange(length) / RATE / time_s)
    dry = np.zeros(8 * RATE)
    for start in range(0, 8, 2):
        dry[start * RATE : start * RATE + int(burst_s * RATE)] = noise(burst_s, start, 1.0)
    wet = np.fft.irfft(np.fft.rfft(dry, 1 << 18) * np.fft.rfft(response, 1 << 18))[: len(dry)]
    found = measures.reverberation((0.1 * wet / np.abs(wet).max() + noise(8, 3, 1e-5)).astype(np.float32))
    assert found is not None
    assert found[0] == pytest.approx(time_s, rel=0.1)
    assert found[1] > 0.95


def test_what_does_not_decay_has_no_reverberation() -> None:
    assert measures.reverberation(noise(4)) is None
    assert measures.reverberation(np.zeros(100, np.float32)) is None


def test_clipping_and_peaks() -> None:
    wave = np.clip(3 * sine(100, 1, 1.0), -1, 1)
    assert measures.clipped_share(wave) == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 3), abs=0.02)
    assert measures.clipped_share(sine(100)) == 0
    assert measures.peak_db(sine(100, 1, 0.1)) == pytest.approx(-20, abs=0.01)
    assert measures.peak_db(np.zeros(10, np.float32)) == -120


@pytest.mark.parametrize("bpm", [50, 60, 72, 90, 100, 120, 140, 150])
def test_tempo_of_clicks(bpm: int) -> None:
    wave, click = np.zeros(8 * RATE), noise(0.05, 0, 0.3) * np.exp(-np.arange(800) / 100)
    for beat in np.arange(0, 7.9, 60 / bpm):
        wave[int(beat * RATE) : int(beat * RATE) + 800] += click
    found = measures.tempo(wave.astype(np.float32))
    assert found is not None
    assert found[0] == pytest.approx(bpm, rel=0.01)
    assert found[1] > 0.8


def test_what_has_no_pulse_has_no_tempo() -> None:
    assert measures.tempo(noise(8)) is None
    assert measures.tempo(sine(440, 1)) is None
    assert measures.tempo(np.zeros(4 * RATE, np.float32)) is None


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_key_of_a_cadence(tonic: int, mode: str) -> None:
    third = 4 if mode == "major" else 3
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    parts = [
        sum(sine(130.81 * 2 ** ((tonic + step) / 12) * part, 1, 0.05 / part) for step in chord for part in (1, 2, 3, 4))
        for chord in chords
    ]
    found = measures.key(np.concatenate(parts))
    assert found is not None
    assert found[:2] == (measures.NOTES[tonic], mode)


def test_noise_has_no_key() -> None:
    assert measures.key(noise(4)) is None
    assert measures.key(np.zeros(RATE, np.float32)) is None
