"""Networks whose enhancement is known, in place of trained ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.weights import load_denoiser

FIXTURE = Path(__file__).parents[1] / "fixtures" / "denoiser"


class Echo:
    """Frames are the samples themselves, so that the output is the input, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.lengths: list[int] = []

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        self.lengths += [len(waveform) for waveform in waveforms]
        return [waveform.reshape(-1, SAMPLES_PER_TOKEN) for waveform in waveforms]

    def denoise_frames(self, frames: Sequence[Tensor]) -> list[Tensor]:
        return [self.factor * clip for clip in frames]

    def vocode(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)


def random_denoiser():  # type: ignore[no-untyped-def]
    """The parity network: tiny, random weights."""
    return load_denoiser(FIXTURE).model


def noise(seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> Tensor:
    """(N, C) at a tenth of full scale."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * rate), channels, generator=generator)
