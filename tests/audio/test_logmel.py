import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.logmel import DASHENG_MEL, LogMel, MelSpec, mel_filterbank
from auricle.errors import ClipTooShort, ConfigError


def triangle(hz: float, low: float, centre: float, high: float) -> float:
    if low < hz <= centre:
        return (hz - low) / (centre - low)
    return (high - hz) / (high - centre) if centre < hz < high else 0.0


def test_the_filterbank_is_htks() -> None:
    """Each band rises from its left neighbour's centre to its own and falls to its right neighbour's, in Hz."""
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = [700 * (10 ** (top * i / 65 / 2595) - 1) for i in range(66)]
    wanted = np.array([[triangle(k * 31.25, *edges[m : m + 3]) for m in range(64)] for k in range(257)])
    found = mel_filterbank().double().numpy()
    assert found.shape == (257, 64) and np.abs(found - wanted).max() < 2e-5
    assert found.max() <= 1.0 and (found[:, 20:].sum(0) > 0).all()


def by_the_book(waveform: np.ndarray) -> np.ndarray:
    """float64, a frame at a time."""
    padded = np.pad(waveform.astype(np.float64), 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [padded[160 * t : 160 * t + 512] * window for t in range(1 + len(waveform) // 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2 @ mel_filterbank().double().numpy()
    decibel = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(decibel, decibel.max() - 120).T


@settings(max_examples=20)
@given(st.integers(257, 8000), st.integers(0, 100), st.floats(1e-5, 1.0))
def test_the_spectrogram_is_that_of_the_book(num_samples: int, seed: int, level: float) -> None:
    waveform = (level * np.random.default_rng(seed).uniform(-1, 1, num_samples)).astype(np.float32)
    found = LogMel().eval()(torch.from_numpy(waveform))[0].numpy()
    assert found.shape == (64, DASHENG_MEL.num_frames(num_samples)) and found.dtype == np.float32
    assert np.abs(found - by_the_book(waveform)).max() < 1e-3


def test_each_clip_has_its_own_floor() -> None:
    front_end = LogMel().eval()
    loud = torch.sin(torch.arange(16_000) * 0.4)
    quiet = 1e-4 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    quiet[:8000] = 0
    batch = torch.stack([loud, quiet])
    together = front_end(batch)
    for row, alone in zip(together, (loud, quiet), strict=True):
        assert torch.equal(row, front_end(alone)[0])
    assert together[0].amin() >= together[0].amax() - 120 and together[1].amin() == pytest.approx(-100)
    shared = front_end(batch, batch_floor=True)
    assert torch.equal(shared[0], together[0])
    assert shared[1].amin().item() == pytest.approx(max(-100.0, together[0].amax().item() - 120))
    assert not torch.equal(shared[1], together[1])


@pytest.fixture
def waveform() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, 16_000, generator=generator) * torch.linspace(0, 1, 16_000) ** 3


def test_it_stays_float32(waveform: torch.Tensor) -> None:
    wanted = LogMel().eval()(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LogMel().eval()(waveform), wanted)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        cast = torch.nn.Sequential(LogMel(), torch.nn.Linear(2, 2)).eval().to(dtype)
        front_end = cast[0]
        assert front_end.window.dtype == front_end.filterbank.dtype == torch.float32
        found = front_end(waveform)
        assert found.dtype == torch.float32 and torch.equal(found, wanted)


def test_training_differs_by_float32_alone(waveform: torch.Tensor) -> None:
    front_end = LogMel()
    difference = (front_end.train()(waveform) - front_end.eval()(waveform)).abs().max().item()
    assert 0 < difference < 2e-3


def test_nothing_of_it_is_stored() -> None:
    assert not LogMel().state_dict()


def test_errors_say_what_is_needed() -> None:
    with pytest.raises(ClipTooShort, match=r"clip has 256 samples; .* needs at least 257 \(16 ms\)"):
        LogMel()(torch.zeros(256))
    with pytest.raises(ConfigError, match=r"0 … 8000\.0 Hz"):
        MelSpec(f_max=9000.0)
