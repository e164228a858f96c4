"""Kaldi's log filter bank, the front end of AST, BEATs, EAT and AudioMAE: 16 kHz waveform → log-mel at 100 Hz.

Shape legend: B clips, N samples, T frames, M mel bands.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from auricle.errors import ClipTooShort

# Kaldi's `compute-fbank-feats` at 16 kHz with 25 ms frames every 10 ms.
FRAME_SAMPLES = 400
HOP_SAMPLES = 160
_N_FFT = 512  # the next power of two
_PRE_EMPHASIS = 0.97
_F_MIN, _F_MAX = 20.0, 8_000.0  # Hz
_FLOOR = torch.finfo(torch.float32).eps  # of the energies, before the logarithm


@dataclass(frozen=True, kw_only=True, slots=True)
class FbankSpec:
    """Settings in which the encoders with Kaldi's filter bank differ."""

    window: Literal["hann", "povey"] = "hann"  # both symmetric; povey is hann to the power 0.85
    num_mels: int = 128
    scale: float = 1.0  # samples are multiplied by this first
    remove_mean: bool = False  # of the whole clip; each frame's own mean is always removed


# Sources: ASTFeatureExtractor of transformers; BEATs of microsoft/unilm; EAT of cwx-worst-one and AudioMAE of
# facebookresearch, which agree. What is subtracted and divided by afterwards belongs to each checkpoint.
AST_FBANK = FbankSpec()
BEATS_FBANK = FbankSpec(window="povey", scale=2.0**15)
EAT_FBANK = FbankSpec(remove_mean=True)


def num_fbank_frames(num_samples: int) -> int:
    """Frames of a clip: only whole ones count, ``1 + (N - 400) // 160``; 0 below 400 samples."""
    return max(0, 1 + (num_samples - FRAME_SAMPLES) // HOP_SAMPLES)


def kaldi_fbank(waveform: Tensor, spec: FbankSpec = AST_FBANK) -> Tensor:
    """Natural logarithm of mel energies, without dither, energy column or normalisation.

    Args:
        waveform: (N,) or (B, N) at 16 kHz in [-1, 1], N at least 400.
        spec: window and scaling.

    Returns:
        (T, M) or (B, T, M) float32; digital silence is log(1.19e-7) = -15.94.

    Raises:
        ClipTooShort: under 400 samples.

    Source: Kaldi `feature-window.cc`, `mel-computations.cc`, as torchaudio's compliance module follows them.
    Differs from: `auricle.audio.logmel` (HTK triangles linear in Hz, dB, centred frames).
    """
    if waveform.shape[-1] < FRAME_SAMPLES:
        raise ClipTooShort(
            f"clip has {waveform.shape[-1]} samples; one frame needs {FRAME_SAMPLES} (25 ms at 16 kHz): "
            "pad it with zeros"
        )
    # float64: quiet bands beside loud ones must not depend on the FFT library.
    samples = waveform.double()
    if spec.remove_mean:
        samples = samples - samples.mean(-1, keepdim=True)
    frames = (spec.scale * samples).unfold(-1, FRAME_SAMPLES, HOP_SAMPLES)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample repeats
    windowed = (frames - _PRE_EMPHASIS * before) * _window(spec.window).to(frames.device)
    power = torch.fft.rfft(windowed, n=_N_FFT).abs().square()
    energies = power[..., :-1] @ _filterbank(spec.num_mels).to(frames.device)
    return energies.clamp(min=_FLOOR).log().float()


@lru_cache
def _window(name: str) -> Tensor:
    hann = torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64)
    return hann if name == "hann" else hann**0.85


@lru_cache
def _filterbank(num_mels: int) -> Tensor:
    """Triangles that are linear in mel, (256, M) float64; the Nyquist bin has no weight and is left out."""

    def to_mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = (1127.0 * math.log1p(edge / 700.0) for edge in (_F_MIN, _F_MAX))
    points = torch.linspace(low, high, num_mels + 2, dtype=torch.float64)
    bins = to_mel(torch.arange(_N_FFT // 2, dtype=torch.float64) * (16_000 / _N_FFT))[:, None]
    step = points[1] - points[0]
    return torch.minimum((bins - points[:-2]) / step, (points[2:] - bins) / step).clamp(min=0.0)
