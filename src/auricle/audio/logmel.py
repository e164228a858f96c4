"""The exact log-mel front end: 16 kHz waveform → 64 mel bands in dB at 100 Hz."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.errors import ClipTooShort, ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MelSpec:
    """Numbers of a log-mel spectrogram; the defaults are Dasheng's (XiaoMi/dasheng, front end of the encoder)."""

    sample_rate: int = 16_000  # Hz
    n_fft: int = 512  # samples; the periodic Hann window is as long
    hop_length: int = 160  # samples: 10 ms, 100 frames a second
    num_mels: int = 64  # HTK triangles without area normalisation
    f_min: float = 0.0  # Hz
    f_max: float = 8_000.0  # Hz
    amin: float = 1e-10  # power floor, -100 dB
    top_db: float = 120.0  # dB below the loudest bin of the clip

    def __post_init__(self) -> None:
        """Reject settings no spectrogram can have."""
        if not 0.0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ConfigError(
                f"mel range [{self.f_min}, {self.f_max}] Hz does not fit 0 … {self.sample_rate / 2} Hz, "
                "half the sample rate"
            )

    @property
    def min_samples(self) -> int:
        """Shortest clip that reflect padding accepts."""
        return self.n_fft // 2 + 1

    def num_frames(self, num_samples: int) -> int:
        """Mel frames of a clip of ``num_samples`` (centred frames: ``1 + N // hop``)."""
        return 1 + num_samples // self.hop_length


DASHENG_MEL = MelSpec()


def mel_filterbank(spec: MelSpec = DASHENG_MEL) -> Tensor:
    """HTK triangles without area normalisation, (n_fft // 2 + 1, num_mels) float32.

    Differs from: librosa, whose default is the Slaney scale with area normalisation.
    """

    def to_mel(hz: float) -> float:
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    freqs = torch.linspace(0, spec.sample_rate // 2, spec.n_fft // 2 + 1, dtype=torch.float32)
    points = torch.linspace(to_mel(spec.f_min), to_mel(spec.f_max), spec.num_mels + 2, dtype=torch.float32)
    points = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    width = points[1:] - points[:-1]
    slopes = points[None, :] - freqs[:, None]
    down = -slopes[:, :-2] / width[:-1]
    up = slopes[:, 2:] / width[1:]
    return torch.clamp(torch.minimum(down, up), min=0.0)


class LogMel(nn.Module):
    """Log-mel power spectrogram in dB; always float32 (or better), whatever the autocast or the model's dtype.

    Source: XiaoMi/dasheng front end (MelSpectrogram power 2 + AmplitudeToDB, top_db 120).
    Differs from: the reference in one point: the dB floor belongs to each clip alone; the reference takes it from the
    loudest bin of the whole batch (``batch_floor=True`` reproduces that).
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, spec: MelSpec = DASHENG_MEL) -> None:
        """Build the window and the filter bank; neither is stored in checkpoints."""
        super().__init__()
        self.spec = spec
        self.register_buffer(
            "window", torch.hann_window(spec.n_fft, periodic=True, dtype=torch.float32), persistent=False
        )
        self.register_buffer("filterbank", mel_filterbank(spec), persistent=False)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        # A dtype cast of the whole model must not round the window or the filter bank (bf16 costs up to 4 dB):
        # follow the device, keep float32.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.window.dtype != torch.float32:
            device = self.window.device
            self.window = torch.hann_window(self.spec.n_fft, periodic=True, dtype=torch.float32, device=device)
            self.filterbank = mel_filterbank(self.spec).to(device)
        return self

    def forward(self, waveform: Tensor, *, batch_floor: bool = False) -> Tensor:
        """(B, N) or (N,) samples in [-1, 1] → (B, num_mels, 1 + N // hop) float32 dB.

        Args:
            waveform: 16 kHz mono, at least ``spec.min_samples`` samples.
            batch_floor: compatibility switch, the dB floor of the batch instead of each clip's own.

        Raises:
            ClipTooShort: fewer samples than reflect padding needs.
        """
        if waveform.ndim == 1:
            waveform = waveform[None]
        if waveform.shape[-1] < self.spec.min_samples:
            raise ClipTooShort(
                f"clip has {waveform.shape[-1]} samples; the log-mel front end needs at least {self.spec.min_samples} "
                f"({1000 * self.spec.min_samples / self.spec.sample_rate:.0f} ms): pad it with zeros"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            mel = self._power(waveform) @ self.filterbank.repeat_interleave(2, dim=0)
            decibel = 10.0 * torch.log10(mel.transpose(1, 2).clamp(min=self.spec.amin))
            loudest = decibel.amax() if batch_floor else decibel.amax(dim=(1, 2), keepdim=True)
            return torch.maximum(decibel, loudest - self.spec.top_db)

    def _power(self, waveform: Tensor) -> Tensor:
        """(B, N) → squared real and imaginary parts side by side, (B, T, 2 · (n_fft // 2 + 1)) float32."""
        # float64 in the transform: quiet bands beside loud ones then do not depend on the FFT library. Training can
        # do with float32, which is twice as fast.
        dtype = torch.float32 if self.training else torch.float64
        half = self.spec.n_fft // 2
        padded = torch.nn.functional.pad(waveform.to(dtype)[:, None], (half, half), mode="reflect")[:, 0]
        frames = padded.unfold(1, self.spec.n_fft, self.spec.hop_length) * self.window.to(dtype)
        return torch.view_as_real(torch.fft.rfft(frames)).float().square_().flatten(-2)
