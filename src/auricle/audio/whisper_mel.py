"""Whisper's front end: 16 kHz waveform → log-mel at 100 Hz, rescaled around zero.

Shape legend: B clips, N samples, M mel bands.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from auricle.audio.resample import SAMPLE_RATE

N_FFT = 400  # samples, 25 ms; the periodic Hann window is as long
HOP_SAMPLES = 160  # 10 ms
_AMIN = 1e-10  # power floor
_RANGE = 8.0  # powers of ten below the loudest bin of the clip; what is lower is raised to it
_KNEE_HZ, _KNEE_MEL = 1_000.0, 15.0  # Slaney's scale is linear below, logarithmic above
_LOG_STEP = math.log(6.4) / 27.0


def whisper_log_mel(waveforms: Tensor, num_mels: int = 80) -> Tensor:
    """Log-mel of equally long clips, each with its own floor.

    Args:
        waveforms: (B, N) float32 at 16 kHz, already padded to the model's 30 s.
        num_mels: 80, or 128 for large-v3.

    Returns:
        (B, M, N // 160) float32.

    Source: openai/whisper `audio.py`.
    Differs from: `auricle.audio.logmel` (HTK scale without area norm, dB, floor 120 dB below the loudest bin).
    """
    window = torch.hann_window(N_FFT, dtype=torch.float32, device=waveforms.device)
    spectrum = torch.stft(waveforms.float(), N_FFT, HOP_SAMPLES, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()  # the last frame is behind the end
    mel = slaney_filterbank(num_mels).to(power.device) @ power
    logarithm = mel.clamp(min=_AMIN).log10()
    floor = logarithm.amax(dim=(1, 2), keepdim=True) - _RANGE
    return (torch.maximum(logarithm, floor) + 4.0) / 4.0


@lru_cache
def slaney_filterbank(num_mels: int) -> Tensor:
    """Triangles of equal area on Slaney's mel scale from 0 to 8 kHz, (M, 201) float32."""
    top = _KNEE_MEL + math.log(SAMPLE_RATE / 2 / _KNEE_HZ) / _LOG_STEP
    mels = torch.linspace(0.0, top, num_mels + 2, dtype=torch.float64)
    linear = mels * (_KNEE_HZ / _KNEE_MEL)
    points = torch.where(mels < _KNEE_MEL, linear, _KNEE_HZ * torch.exp(_LOG_STEP * (mels - _KNEE_MEL)))
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    width = points.diff()[:, None]
    up = (bins - points[:-2, None]) / width[:-1]
    down = (points[2:, None] - bins) / width[1:]
    area = 2.0 / (points[2:] - points[:-2])[:, None]
    return (torch.minimum(up, down).clamp(min=0.0) * area).float()
