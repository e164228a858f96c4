"""A clip is known again after what formats and players do to it, and is told from others."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.decode import decode
from auricle.data.acoustic_fingerprint import (
    BYTES,
    MAX_DIFFERENT_BITS,
    acoustic_fingerprint,
    as_rows,
    different_bits,
)

RATE = 16_000


def clip(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Bursts of coloured noise: the level and colour change each 50 to 200 ms, with pauses."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * RATE:
        noise = rng.standard_normal(int(rng.uniform(0.05, 0.2) * RATE))
        spectrum = np.fft.rfft(noise)
        hz = np.fft.rfftfreq(len(noise), 1 / RATE)
        spectrum *= np.exp(-(((hz - rng.uniform(300, 3000)) / rng.uniform(200, 1500)) ** 2))
        coloured = np.fft.irfft(spectrum, len(noise))
        parts += [coloured / np.abs(coloured).max() * rng.uniform(0.05, 0.9)]
        parts += [np.zeros(int(rng.uniform(0, 0.1) * RATE))]
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    found = [acoustic_fingerprint(one), acoustic_fingerprint(other)]
    assert None not in found
    return int(different_bits(as_rows([found[0]]), as_rows([found[1]]))[0, 0])  # type: ignore[list-item]


def coded(waveform: np.ndarray, **codec: object) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, **codec)
    return decode(file.getvalue()).waveform


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.01, 1.0),
    before=st.integers(0, 8000),
    behind=st.integers(0, 32_000),
)
def test_level_and_silence_around_a_clip_do_not_matter(seed: int, gain: float, before: int, behind: int) -> None:
    waveform = clip(seed)
    changed = np.pad(np.float32(gain) * waveform, (before, behind))
    assert distance(waveform, changed) <= MAX_DIFFERENT_BITS // 2


@pytest.mark.parametrize(
    "codec",
    [
        {"format": "MP3", "subtype": "MPEG_LAYER_III"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "OGG", "subtype": "OPUS"},
        {"format": "WAV", "subtype": "ULAW"},
        {"format": "WAV", "subtype": "PCM_U8"},
    ],
    ids=lambda codec: codec["subtype"],
)
def test_codecs_keep_it(codec: dict[str, str]) -> None:
    for seed in range(5):
        waveform = clip(seed)
        assert distance(waveform, coded(waveform, **codec)) <= MAX_DIFFERENT_BITS


def test_different_clips_have_different_fingerprints() -> None:
    rows = as_rows([found for seed in range(120) if (found := acoustic_fingerprint(clip(seed)))])
    bits = different_bits(rows, rows)[np.triu_indices(len(rows), 1)]
    assert len(rows) == 120
    assert bits.min() > MAX_DIFFERENT_BITS + 20
    assert abs(np.median(bits) - 4 * BYTES) < 8


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(RATE, np.float32),
        np.zeros(1, np.float32),
        np.full(RATE, 0.5, np.float32),
        np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE).astype(np.float32),
    ],
    ids=["silence", "one sample", "constant", "tone"],
)
def test_what_has_no_features_has_no_fingerprint_that_another_clip_could_have(waveform: np.ndarray) -> None:
    found = acoustic_fingerprint(waveform)
    if found is not None:
        others = as_rows([fingerprint for seed in range(50) if (fingerprint := acoustic_fingerprint(clip(seed)))])
        assert different_bits(as_rows([found]), others).min() > MAX_DIFFERENT_BITS


def test_silence_has_none() -> None:
    assert acoustic_fingerprint(np.zeros(RATE, np.float32)) is None


def test_a_long_clip_is_read_in_blocks() -> None:
    """Each 10 ms frame is the same in whatever block it is, so a long clip has the fingerprint of its definition."""
    waveform = clip(3, 130.0)
    assert distance(waveform, np.pad(waveform, (0, 70 * RATE))) <= 2
