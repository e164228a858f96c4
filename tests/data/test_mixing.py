import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.data import mixing


def tone(seconds: float = 1.0, hertz: float = 440.0, level: float = 0.1) -> np.ndarray:
    time = np.arange(int(seconds * mixing.SAMPLE_RATE)) / mixing.SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def peak_hertz(waveform: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(waveform))) * mixing.SAMPLE_RATE / waveform.size)


def test_active_rms_ignores_pauses() -> None:
    assert mixing.active_rms(tone()) == pytest.approx(0.1 / np.sqrt(2), rel=1e-3)
    padded = mixing.place(tone(), 16_000, 64_000)
    assert mixing.active_rms(padded) == pytest.approx(mixing.active_rms(tone()), rel=1e-3)
    assert mixing.active_rms(np.zeros(0, np.float32)) == 0.0


@given(snr_db=st.floats(-20, 30), seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_mix_reaches_the_ratio(snr_db: float, seed: int) -> None:
    front = tone()
    back = mixing.noise(9_000, np.random.default_rng(seed))
    mixed = mixing.mix(front, back, snr_db)
    assert mixed.dtype == np.float32 and mixed.shape == front.shape
    ratio = 20 * np.log10(mixing.active_rms(front) / mixing.active_rms(mixed - front))
    assert ratio == pytest.approx(snr_db, abs=0.1)


def test_mix_with_silence_changes_nothing() -> None:
    assert np.array_equal(mixing.mix(tone(), np.zeros(100, np.float32), 0.0), tone())


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.25])
def test_speed_moves_length_and_pitch(factor: float) -> None:
    changed = mixing.change_speed(tone(2.0), factor)
    assert changed.dtype == np.float32
    assert changed.size == pytest.approx(32_000 / factor, abs=2)
    assert peak_hertz(changed) == pytest.approx(440 * factor, abs=1.5)


def test_level_gain_and_peak() -> None:
    assert 20 * np.log10(mixing.active_rms(mixing.to_level(tone(), -30.0))) == pytest.approx(-30, abs=0.01)
    assert np.allclose(mixing.gain(tone(), 20.0), tone() * 10, rtol=1e-5)
    assert np.abs(mixing.limit_peak(tone(level=3.0))).max() == pytest.approx(0.99)
    assert np.array_equal(mixing.limit_peak(tone()), tone())
    assert not mixing.to_level(np.zeros(800, np.float32), -20.0).any()


def test_crop_keeps_what_sounds() -> None:
    clip = mixing.place(tone(0.5), 40_000, 80_000)
    kept = [mixing.crop_energetic(clip, np.random.default_rng(seed), 24_000) for seed in range(40)]
    assert all(crop.size == 24_000 for crop in kept)
    assert np.mean([crop.any() for crop in kept]) > 0.8
    assert np.array_equal(mixing.crop_energetic(clip, np.random.default_rng(0), 90_000), clip)


def test_place_loop_join_fade() -> None:
    ones = np.ones(10, np.float32)
    assert np.flatnonzero(mixing.place(ones, 5, 12)).tolist() == list(range(5, 12))
    assert mixing.loop(np.array([1, 2, 3], np.float32), 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert mixing.join([ones, ones], [4]).size == 24
    faded = mixing.fade(np.ones(1000, np.float32))
    assert faded[0] == faded[-1] == 0 and faded[500] == 1


def test_pink_noise_falls_by_three_decibels_an_octave() -> None:
    power = np.abs(np.fft.rfft(mixing.noise(65_536, np.random.default_rng(0), 1.0))) ** 2
    hertz = np.fft.rfftfreq(65_536, 1 / mixing.SAMPLE_RATE)
    low, high = (power[(hertz > f) & (hertz < 2 * f)].mean() for f in (250, 2000))
    assert 10 * np.log10(low / high) == pytest.approx(9, abs=1.0)


def test_noise_floor_lies_at_its_level() -> None:
    noisy = mixing.add_noise_floor(tone(), np.random.default_rng(1), 20.0)
    below = 20 * np.log10(mixing.active_rms(tone()) / np.sqrt(np.mean((noisy - tone()) ** 2)))
    assert below == pytest.approx(20, abs=1.5)


def test_bands_and_tilt_have_their_gains() -> None:
    for hertz, db in ((1000, 0.0), (2000, 6.0), (4000, 12.0)):
        tilted = mixing.colour(tone(1.0, hertz), db_per_octave=6.0)
        gained = 20 * np.log10(mixing.active_rms(tilted[2000:-2000]) / mixing.active_rms(tone()))
        assert gained == pytest.approx(db, abs=0.2)
    telephone = mixing.colour(tone(1.0, 6000), band_hz=(300.0, 3400.0))
    assert mixing.active_rms(telephone[2000:-2000]) < 0.15 * mixing.active_rms(tone())


def test_a_curve_passes_through_its_gains() -> None:
    gains = mixing.curve_response(4097, (6.0, -6.0, 0.0))
    hertz = np.linspace(0, 8000, 4097)
    middle = np.argmin(np.abs(hertz - np.sqrt(60 * 8000)))
    assert 20 * np.log10(gains[[0, middle, -1]]) == pytest.approx([6.0, -6.0, 0.0], abs=0.1)


def test_room_adds_a_decaying_tail_and_keeps_the_direct_sound() -> None:
    impulse = np.zeros(16_000, np.float32)
    impulse[100] = 0.5
    reverberant = mixing.colour(impulse, room=mixing.room_response(np.random.default_rng(0), 0.3))
    assert np.argmax(np.abs(reverberant)) == 100 and reverberant.size == impulse.size
    early, late = (np.sum(reverberant[a:b] ** 2) for a, b in ((300, 1500), (3700, 4900)))
    assert early > 30 * late > 0


@given(seed=st.integers(0, 500), num_samples=st.integers(1, 40_000))
@settings(max_examples=30)
def test_recolour_is_finite_pure_and_repeatable(seed: int, num_samples: int) -> None:
    waveform = mixing.noise(num_samples, np.random.default_rng(seed)) * np.float32(0.1)
    before = waveform.copy()
    one, two = (mixing.recolour(waveform, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, two) and np.array_equal(waveform, before)
    assert one.dtype == np.float32 and one.size == num_samples and np.isfinite(one).all()


def test_tones_have_their_pitch_and_odd_harmonics() -> None:
    sine, rich = (mixing.tone(16_000, np.random.default_rng(0), 500.0, harmonics) for harmonics in (1, 20))
    assert peak_hertz(sine) == peak_hertz(rich) == 500.0
    spectrum = np.abs(np.fft.rfft(rich)) / 8000
    assert spectrum[[500, 1000, 1500, 2500]] == pytest.approx([1, 0, 1 / 3, 1 / 5], abs=1e-3)
    assert spectrum[7501:].max() < 1e-3


@given(count=st.integers(0, 6), gap=st.integers(1600, 8000), length=st.integers(400, 3000))
def test_bursts_are_counted(count: int, gap: int, length: int) -> None:
    burst = mixing.noise(length, np.random.default_rng(0)) * np.float32(0.1)
    silence = np.zeros(2000, np.float32)
    assert mixing.count_bursts(mixing.join([silence, *[burst] * count, silence], [gap] * (count + 1))) == count
