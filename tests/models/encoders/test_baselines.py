"""Encoders without weights, against numbers made by hand."""

import math

import pytest
import torch

from auricle.audio.logmel import LogMel
from auricle.models.encoders.baselines import LogMelFrames, MfccFrames, dct_matrix, deltas


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def test_log_mel_is_the_front_end() -> None:
    clips = [noise(16_000), noise(5_000, 1)]
    frames = LogMelFrames().frames(clips)
    front_end = LogMel().eval()
    for clip, found in zip(clips, frames, strict=True):
        assert found.shape == (1 + len(clip) // 160, 64)
        assert torch.equal(found, front_end(clip)[0].t())


@pytest.mark.parametrize("num_coefficients", [20, 40])
def test_mfcc_holds_the_level_the_shape_and_the_slopes(num_coefficients: int) -> None:
    clip = noise(16_000)
    (mel,), (mfcc,) = LogMelFrames().frames([clip]), MfccFrames(num_coefficients).frames([clip])
    assert mfcc.shape == (101, 2 * num_coefficients)
    assert torch.allclose(mfcc[:, 0], mel.mean(1) * 8, atol=1e-3)  # sqrt(64) times the mean, of an orthonormal DCT
    k = num_coefficients - 1
    basis = torch.cos(math.pi * k * (2 * torch.arange(64) + 1) / 128)
    assert torch.allclose(mfcc[:, k], (mel * basis).sum(1) * math.sqrt(2 / 64), atol=1e-3)
    assert torch.allclose(mfcc[:, num_coefficients:], deltas(mfcc[:, :num_coefficients]), atol=1e-5)


def test_the_dct_is_orthonormal() -> None:
    full = dct_matrix(64, 64)
    assert torch.allclose(full @ full.t(), torch.eye(64), atol=1e-5)
    assert torch.equal(dct_matrix(20, 64), full[:20])


def test_the_delta_of_a_line_is_its_slope() -> None:
    line = 3.0 * torch.arange(10.0)[:, None] + torch.tensor([[0.0, 5.0]])
    slopes = deltas(line)
    assert torch.allclose(slopes[2:-2], torch.tensor(3.0)) and slopes.shape == line.shape
    # At the edge the first frame is repeated: (1 · 3 + 2 · 6) / 10.
    assert torch.allclose(slopes[0], torch.tensor(1.5))
    assert torch.equal(deltas(torch.ones(1, 4)), torch.zeros(1, 4))
