"""Encoders without weights: what a benchmark must beat.

Shape legend: T frames, M mel bands, K coefficients.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.audio.resample import SAMPLE_RATE
from auricle.models.frame_model import Identity

_REACH = 2  # frames on either side that a delta looks at (HTK's DELTAWINDOW)


class LogMelFrames:
    """The 64-band log-mel of `auricle.audio.logmel` in dB as frames, 100 a second."""

    sampling_rate = SAMPLE_RATE
    hop_size_in_ms = 1000 * DASHENG_MEL.hop_length / DASHENG_MEL.sample_rate
    min_samples = DASHENG_MEL.min_samples

    def __init__(self, device: str = "cpu") -> None:
        self._front_end = LogMel().to(device).eval()
        self.output_dim = DASHENG_MEL.num_mels

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) → (1 + N_i // 160, 64) dB."""
        device = self._front_end.window.device
        return [self._front_end(waveform.to(device, torch.float32))[0].t() for waveform in waveforms]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        return Identity({"kind": "log-mel", "spec": dataclasses.asdict(DASHENG_MEL)}, {})


class MfccFrames(LogMelFrames):
    """Cepstral coefficients of that log-mel, followed by their slopes over time, 100 frames a second."""

    def __init__(self, num_coefficients: int = 20, device: str = "cpu") -> None:
        """``num_coefficients``: the first K of the orthonormal DCT-II, the mean level among them; D is 2 K."""
        super().__init__(device)
        self.num_coefficients = num_coefficients
        self.output_dim = 2 * num_coefficients
        self._dct = dct_matrix(num_coefficients, DASHENG_MEL.num_mels).to(device)

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) → (1 + N_i // 160, 2 K)."""
        cepstra = [mel @ self._dct.t() for mel in super().frames(waveforms)]
        return [torch.cat([clip, deltas(clip)], dim=1) for clip in cepstra]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        settings = {**super().identity().settings, "kind": "mfcc", "coefficients": self.num_coefficients}
        return Identity(settings, {})


def dct_matrix(num_coefficients: int, num_mels: int) -> Tensor:
    """The first rows of the orthonormal DCT-II, (K, M) float32."""
    phase = (torch.arange(num_mels, dtype=torch.float64) + 0.5) * math.pi / num_mels
    rows = math.sqrt(2.0 / num_mels) * torch.cos(torch.arange(num_coefficients)[:, None] * phase)
    rows[0] /= math.sqrt(2.0)
    return rows.float()


def deltas(frames: Tensor) -> Tensor:
    """Slope of the regression line over five frames, (T, K) → (T, K); the edge frames are repeated beyond the ends."""
    padded = F.pad(frames.t()[None], (_REACH, _REACH), mode="replicate")[0].t()
    weights = range(-_REACH, _REACH + 1)
    total = sum((w * padded[_REACH + w : len(padded) - _REACH + w] for w in weights), torch.zeros_like(frames))
    return total / sum(w * w for w in weights)
