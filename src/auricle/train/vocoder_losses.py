"""Losses of a vocoder and of the discriminators it learns against (Vocos, arXiv 2306.00814).

Each is a mean over discriminators, as in the published code; sums over them would weigh periods more than resolutions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.logmel import MelSpec, mel_filterbank
from auricle.train.discriminators import Judgement

# Vocos has 100 bands up to 12 kHz, windows of 1024 and hops of 256 samples at 24 kHz. Here: the same numbers of samples
# (64 ms and 16 ms), and bands about as wide in mel up to 8 kHz, rounded to 80.
VOCODER_MEL = MelSpec(n_fft=1024, hop_length=256, num_mels=80)
_FLOOR = 1e-7  # of magnitudes before the logarithm; Vocos


def discriminator_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Hinge loss () of discriminators: ``mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x̂)))``, a mean over them."""
    losses = [
        F.relu(1 - true.scores.float()).mean() + F.relu(1 + false.scores.float()).mean()
        for true, false in zip(recorded, made, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(made: Sequence[Judgement]) -> Tensor:
    """Hinge loss () of the vocoder: ``mean(max(0, 1 - D(x̂)))``, a mean over discriminators."""
    return torch.stack([F.relu(1 - each.scores.float()).mean() for each in made]).mean()


def feature_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Feature matching (): mean absolute differences of hidden layers, summed over layers, a mean over discriminators.

    No gradients flow into what was found in recorded waveforms.
    """
    sums = [
        torch.stack([F.l1_loss(y.float(), x.detach().float()) for x, y in zip(true.layers, false.layers, strict=True)])
        for true, false in zip(recorded, made, strict=True)
    ]
    return torch.stack([each.sum() for each in sums]).mean()


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes (natural logarithm, HTK bands)."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: MelSpec = VOCODER_MEL) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.n_fft), persistent=False)
        self.register_buffer("filters", mel_filterbank(spec), persistent=False)

    def mel(self, waveform: Tensor) -> Tensor:
        """(B, N) → log-mel (B, T, num_mels) float32."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(), self.spec.n_fft, self.spec.hop_length, window=self.window, return_complex=True
            )
            # The gradient of a magnitude of exactly 0 is no number.
            magnitude = torch.view_as_real(spectrum).square().sum(-1).clamp(min=_FLOOR**2).sqrt()
            return (magnitude.transpose(1, 2) @ self.filters).clamp(min=_FLOOR).log()

    def forward(self, recorded: Tensor, made: Tensor) -> Tensor:
        """Waveforms (B, N), twice → loss ()."""
        return F.l1_loss(self.mel(made), self.mel(recorded))
