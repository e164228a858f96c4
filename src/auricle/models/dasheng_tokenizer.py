"""DashengTokenizer: continuous tokens that keep what is heard and how it sounds (arXiv 2602.23765).

Waveform → Dasheng with an acoustic branch → tokens at 25 Hz → up-sampling to 50 Hz → ConvNeXt backbone and inverse STFT
(Vocos) → waveform. Source: remote code of mispeech/dashengtokenizer.

Shape legend: B clips, N samples, T tokens at 25 Hz, D width of the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.dasheng import MIN_SAMPLES, SAMPLES_PER_TOKEN, Dasheng, DashengConfig
from auricle.models.denoiser import Backbone, SpectrumHead

UPSAMPLE = 2  # frames of the backbone for a token
_HOP = SAMPLES_PER_TOKEN // UPSAMPLE
_RELEASED = DashengConfig(embed_dim=1280, depth=32, num_heads=16, acoustic=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class DashengTokenizerConfig:
    """Geometry; the defaults are those of the release's configuration class (mispeech/dashengtokenizer)."""

    encoder: DashengConfig = _RELEASED
    decoder_dim: int = 1280  # of the backbone
    decoder_hidden_dim: int = 5120  # within a ConvNeXt block
    decoder_layers: int = 12
    n_fft: int = 1280  # samples of a frame of the inverse STFT

    def __post_init__(self) -> None:
        if not self.encoder.acoustic:
            raise ConfigError("DashengTokenizer needs an encoder with acoustic=True")
        if min(self.decoder_dim, self.decoder_hidden_dim, self.decoder_layers) < 1:
            raise ConfigError(f"a decoder needs sizes of at least 1, got {self}")
        if self.n_fft < _HOP or self.n_fft % _HOP or self.n_fft % 2:
            raise ConfigError(f"n_fft is {self.n_fft}, expected an even multiple of {_HOP} samples")


class DashengTokenizer(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: DashengTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Dasheng(config.encoder)
        width = config.encoder.embed_dim
        self.upsampler = nn.ConvTranspose1d(width, width, UPSAMPLE, stride=UPSAMPLE)
        self.backbone = Backbone(width, config.decoder_dim, config.decoder_hidden_dim, config.decoder_layers)
        self.head = SpectrumHead(config.decoder_dim, config.n_fft, _HOP)

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Ragged clips (N_i,) 16 kHz in [-1, 1] → tokens (T_i, D); each clip independent of the others.

        Raises:
            ClipTooShort: a clip gives no token (under 480 samples, 30 ms).
        """
        return self.encoder.encode(waveforms)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of equally long clips (B, T, D) → waveforms (B, 640 · T) float32 at 16 kHz."""
        frames = self.upsampler(tokens.transpose(1, 2)).transpose(1, 2)
        return cast(Tensor, self.head(self.backbone(frames)))

    @torch.no_grad()
    def reconstruct(self, waveform: Tensor) -> Tensor:
        """A clip (N,) 16 kHz in [-1, 1] → what its tokens keep of it, (N,) float32.

        Differs from: the reference, which loses up to 640 samples at the end: here zeros follow the clip.
        """
        length = len(waveform)
        padded = F.pad(waveform, (0, max(-length % SAMPLES_PER_TOKEN, MIN_SAMPLES - length)))
        return self.decode(self.encode([padded])[0][None])[0, :length]
