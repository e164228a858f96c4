"""Discriminators of a vocoder: what tells a recorded waveform from a made one, in Vocos's shapes.

Each judges a batch of waveforms (B, N) and gives scores, above 0 for recorded, and its hidden layers, by which features
are matched. Sources: HiFi-GAN (arXiv 2010.05646), discriminators over periods; Vocos (arXiv 2306.00814), discriminators
over resolutions in bands, after UnivNet and the Descript codec.
"""

from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)  # samples; HiFi-GAN
WINDOWS = (2048, 1024, 512)  # samples of a spectrum; Vocos
_BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # ends, in shares of a spectrum; Vocos
_SLOPE = 0.1  # of the leaky rectifier; HiFi-GAN
_PEAK = 0.8  # of the waveform whose spectrum is taken; Vocos
MIN_SAMPLES = WINDOWS[0] // 2 + 1  # that the longest window can be centred on


class Judgement(NamedTuple):
    """Of one discriminator on a batch."""

    scores: Tensor  # (B, any number)
    layers: list[Tensor]  # hidden activations behind all but the first convolution, and the scores


class PeriodDiscriminator(nn.Module):
    """Looks at the samples that are one period apart, as columns of a picture."""

    def __init__(self, period: int, channels: int = 32) -> None:
        """``channels``: of the first layer; the published network has 32, and 32 times as many at its end."""
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
        strides = (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), (2, 0)))
            for (before, after), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, waveform: Tensor) -> Judgement:
        """(B, N) → scores (B, S)."""
        x = F.pad(waveform[:, None], (0, -waveform.shape[1] % self.period), mode="reflect")
        x = x.unflatten(2, (-1, self.period))
        layers = []
        for number, conv in enumerate(self.convs):
            x = F.leaky_relu(conv(x), _SLOPE)
            if number:
                layers.append(x)
        x = self.last(x)
        return Judgement(x.flatten(1), [*layers, x])


class ResolutionDiscriminator(nn.Module):
    """Looks at the complex spectrum of one window length, each band by convolutions of its own."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int = 32) -> None:
        """``channels``: of every layer; the published network has 32."""
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        edges = [int(share * (n_fft // 2 + 1)) for share in _BANDS]
        self.bands = list(pairwise(edges))
        self.stacks = nn.ModuleList(self._stack(channels) for _ in self.bands)
        self.last = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    @staticmethod
    def _stack(channels: int) -> nn.ModuleList:
        layers = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        layers += [nn.Conv2d(channels, channels, 3, padding=1)]
        return nn.ModuleList(map(weight_norm, layers))

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """(B, N) → real and imaginary parts (B, 2, T, n_fft // 2 + 1), of a waveform without offset and of peak 0.8."""
        with torch.autocast(waveform.device.type, enabled=False):
            centred = waveform.float() - waveform.float().mean(1, keepdim=True)
            centred = _PEAK * centred / (centred.abs().amax(1, keepdim=True) + 1e-9)
            hop = self.n_fft // 4
            found = torch.stft(centred, self.n_fft, hop, window=self.window, return_complex=True)
            return torch.view_as_real(found).permute(0, 3, 2, 1)

    def forward(self, waveform: Tensor) -> Judgement:
        """(B, N) of at least `MIN_SAMPLES` → scores (B, S)."""
        spectrum = self._spectrum(waveform)
        layers, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = spectrum[..., low:high]
            for number, conv in enumerate(cast(nn.ModuleList, stack)):
                x = F.leaky_relu(conv(x), _SLOPE)
                if number:
                    layers.append(x)
            ends.append(x)
        scores = self.last(torch.cat(ends, -1))
        return Judgement(scores.flatten(1), [*layers, scores])


class Discriminators(nn.Module):
    """One for each period and each window length."""

    def __init__(self, channels: int = 32) -> None:
        """``channels``: see the two kinds."""
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, channels) for period in PERIODS)
        self.resolutions = nn.ModuleList(ResolutionDiscriminator(n_fft, channels) for n_fft in WINDOWS)

    def forward(self, waveform: Tensor) -> tuple[list[Judgement], list[Judgement]]:
        """(B, N) → what the discriminators over periods find, and those over resolutions."""
        return [each(waveform) for each in self.periods], [each(waveform) for each in self.resolutions]
