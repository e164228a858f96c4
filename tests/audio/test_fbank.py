"""Kaldi's filter bank against the front ends of the authors' code, and its properties."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from auricle.audio.fbank import (
    AST_FBANK,
    BEATS_FBANK,
    EAT_FBANK,
    FbankSpec,
    kaldi_fbank,
    num_fbank_frames,
)
from auricle.errors import ClipTooShort

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "encoders" / "fbank.safetensors"
# Front end, mean and standard deviation of each model, and the samples of its case.
CASES: dict[str, tuple[FbankSpec, float, float, slice]] = {
    "beats.1s": (BEATS_FBANK, 15.41663, 6.55582, slice(0, 16_000)),
    "eat.1s": (EAT_FBANK, -4.268, 4.569, slice(0, 16_000)),
    "audiomae.0.5s": (EAT_FBANK, -4.2677393, 4.5689974, slice(3_000, 11_000)),
}


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> Tensor:
    return level * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FIXTURE)


@pytest.mark.parametrize("case", CASES)
def test_the_authors_front_ends(golden: dict[str, Tensor], case: str) -> None:
    spec, mean, std, samples = CASES[case]
    fbank = (kaldi_fbank(golden["wave"][samples], spec) - mean) / (2 * std)
    assert fbank.shape == golden[case].shape
    assert (fbank - golden[case]).abs().max() <= 1e-4


@pytest.mark.parametrize("case", CASES)
def test_the_other_window_would_be_seen(golden: dict[str, Tensor], case: str) -> None:
    spec, mean, std, samples = CASES[case]
    other = FbankSpec(window="hann" if spec.window == "povey" else "povey", scale=spec.scale)
    fbank = (kaldi_fbank(golden["wave"][samples], other) - mean) / (2 * std)
    assert (fbank - golden[case]).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:At least one mel filter:UserWarning")
def test_the_front_end_of_ast() -> None:
    from transformers import ASTFeatureExtractor

    waveform = noise(33_333)
    theirs = ASTFeatureExtractor(do_normalize=False, max_length=206)(waveform.numpy(), sampling_rate=16_000)
    assert np.abs(kaldi_fbank(waveform, AST_FBANK).numpy() - theirs["input_values"][0]).max() <= 1e-4


@given(num_samples=st.integers(400, 20_000))
@settings(max_examples=30)
def test_only_whole_frames_count(num_samples: int) -> None:
    fbank = kaldi_fbank(torch.zeros(num_samples))
    assert fbank.shape == (num_fbank_frames(num_samples), 128)
    assert (len(fbank) - 1) * 160 + 400 <= num_samples < len(fbank) * 160 + 400


@given(num_samples=st.integers(400, 8_000), padding=st.integers(0, 4_000), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_padding_changes_no_frame_of_the_clip(num_samples: int, padding: int, seed: int) -> None:
    clip = noise(num_samples, seed)
    alone = kaldi_fbank(clip, BEATS_FBANK)
    padded = kaldi_fbank(torch.nn.functional.pad(clip, (0, padding)), BEATS_FBANK)
    assert torch.allclose(padded[: len(alone)], alone, atol=1e-5)


def test_batches_are_rows() -> None:
    clips = torch.stack([noise(4_000, 1), noise(4_000, 2, 1e-4)])
    for spec in (AST_FBANK, BEATS_FBANK, EAT_FBANK):
        assert torch.allclose(kaldi_fbank(clips, spec)[1], kaldi_fbank(clips[1], spec), atol=1e-6)


def test_silence_scale_and_mean() -> None:
    assert torch.allclose(kaldi_fbank(torch.zeros(400)), torch.tensor(math.log(torch.finfo(torch.float32).eps)))
    clip = noise(8_000)
    plain, scaled = kaldi_fbank(clip), kaldi_fbank(clip, FbankSpec(scale=2.0**15))
    filled = plain > -15.9  # the narrowest low band is between two bins and empty
    assert filled[:, 5:].all()
    assert torch.allclose((scaled - plain)[filled], torch.tensor(15 * math.log(4)), atol=1e-4)
    # The rounding of float32 samples is all that is left of an offset.
    assert torch.allclose(kaldi_fbank(clip + 0.25, EAT_FBANK), kaldi_fbank(clip, EAT_FBANK), atol=1e-3)


def test_one_tone_is_in_its_band() -> None:
    tone = torch.sin(2 * math.pi * 1_000 * torch.arange(4_000) / 16_000)
    edges = [1127 * math.log1p(hz / 700) for hz in (20, 8_000)]
    expected = (1127 * math.log1p(1_000 / 700) - edges[0]) / (edges[1] - edges[0]) * 129 - 1
    assert abs(int(kaldi_fbank(tone).mean(0).argmax()) - expected) <= 1


def test_a_crumb_is_refused() -> None:
    assert num_fbank_frames(399) == 0
    with pytest.raises(ClipTooShort, match="399 samples"):
        kaldi_fbank(torch.zeros(399))
