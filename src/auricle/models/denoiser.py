"""Dasheng-Denoiser: speech enhancement in the space of an encoder's frames (arXiv 2506.11514).

Noisy waveform → frozen Dasheng → denoise encoder (a small ViT) → ConvNeXt backbone (Vocos) → inverse STFT. The
waveform is made anew from the clean frames; its phase is invented, not taken from the input.

Shape legend: B clips, N samples, T tokens at 25 Hz (40 ms), D width of the encoder, W width of the backbone, F = n_fft.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import Block, Linear, linear_gelu, plan_spans
from auricle.models.dasheng import SAMPLES_PER_TOKEN, Dasheng, DashengConfig
from auricle.models.glap import StoredLogMel

KERNEL = 7  # of every convolution of the backbone (Vocos)
MAX_MAGNITUDE = 100.0  # of a spectrum's cell (Vocos)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserConfig:
    """Geometry; the defaults are those of the released checkpoint (zenodo 15541088)."""

    encoder: DashengConfig = field(default_factory=DashengConfig)
    num_heads: int = 8  # of the denoise encoder, which is as wide as the encoder
    num_layers: int = 3  # of the denoise encoder
    mlp_ratio: float = 2.0  # of the denoise encoder
    backbone_dim: int = 768  # W
    backbone_hidden_dim: int = 1152  # between the two linear layers of a ConvNeXt block
    backbone_layers: int = 8
    n_fft: int = 1280  # F, samples of a frame of the inverse STFT: 80 ms
    stored_front_end: bool = False  # window and mel filters of the encoder are weights of the checkpoint

    def __post_init__(self) -> None:
        sizes = (self.num_heads, self.num_layers, self.backbone_dim, self.backbone_hidden_dim, self.backbone_layers)
        if min(sizes) < 1 or self.mlp_ratio <= 0:
            raise ConfigError(f"a denoiser needs sizes of at least 1, got {self}")
        if self.encoder.embed_dim % self.num_heads:
            raise ConfigError(f"width {self.encoder.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if self.n_fft < 2 * SAMPLES_PER_TOKEN or self.n_fft % (2 * SAMPLES_PER_TOKEN):
            raise ConfigError(f"n_fft is {self.n_fft}, expected a multiple of {2 * SAMPLES_PER_TOKEN} samples")

    @property
    def context_tokens(self) -> int:
        """Tokens on either side that a sample of the waveform depends on, behind the denoise encoder."""
        return (KERNEL // 2) * (1 + self.backbone_layers) + self.n_fft // (2 * SAMPLES_PER_TOKEN)


class DenoiseEncoder(nn.Module):
    """Noisy frames → clean frames: ViT blocks with LayerNorm eps 1e-5, no positions."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Random weights, torch's own initialisation."""
        super().__init__()
        width = config.encoder.embed_dim
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, mlp_ratio=config.mlp_ratio, eps=1e-5) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Frames of each clip (T_i, D) → clean frames (T_i, D); every token of a clip attends to all of it."""
        lengths = [len(clip) for clip in frames]
        order, spans = plan_spans(lengths)
        tokens = torch.cat([frames[i] for i in order])
        for block in self.blocks:
            tokens = block(tokens, spans)
        clean: list[Tensor] = [tokens] * len(frames)
        for i, clip in zip(order, self.norm(tokens).split([lengths[i] for i in order]), strict=True):
            clean[i] = clip
        return clean


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, LayerNorm, two linear layers and a gain, beside a shortcut (Vocos)."""

    def __init__(self, width: int, hidden: int, gain: float) -> None:
        """``gain``: initial value of every channel's gain."""
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = Linear(width, hidden)
        self.pwconv2 = Linear(hidden, width)
        self.gamma = nn.Parameter(gain * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) → (B, T, W)."""
        mixed = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        hidden = linear_gelu(mixed.flatten(0, 1), self.pwconv1.weight, self.pwconv1.bias)
        return x + self.gamma * self.pwconv2(hidden).view_as(x)


class Backbone(nn.Module):
    """Frames → hidden states of the vocoder (Vocos)."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Weights as Vocos starts them: N(0, 0.02) cut at 2, biases 0, gains 1 / layers."""
        super().__init__()
        width = config.backbone_dim
        self.embed = nn.Conv1d(config.encoder.embed_dim, width, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        gain = 1 / config.backbone_layers
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(width, config.backbone_hidden_dim, gain) for _ in range(config.backbone_layers)
        )
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) → (B, T, W)."""
        x = self.norm(self.embed(frames.transpose(1, 2)).transpose(1, 2))
        for block in self.convnext:
            x = block(x)
        return cast(Tensor, self.final_layer_norm(x))


class InverseSTFT(nn.Module):
    """Spectra → waveform by a product with sines and cosines and overlap-add; float32, without complex numbers.

    Differs from: `torch.istft`, which refuses a Hann window without centring; and from the FFT by rounding alone. The
    product can be exported to any runtime, and takes a hundredth of the time of the networks before it.
    """

    window: Tensor
    basis: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        """``n_fft`` is a multiple of ``hop_length``; the periodic Hann window is as long, and kept in checkpoints."""
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft, periodic=True, dtype=torch.float32))
        self.register_buffer("basis", irfft_basis(n_fft), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InverseSTFT":
        # A cast of the whole model must round neither of them: follow the device, keep float32.
        kept = self.window, self.basis
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.window, self.basis = (tensor.to(self.window.device) for tensor in kept)
        return self

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Half spectra (B, T, F // 2 + 1), twice → (B, hop_length · T): half a frame less a hop is cut at both ends."""
        with torch.autocast(real.device.type, enabled=False):
            frames = torch.cat([real, imaginary], -1).float() @ self.basis * self.window
            trim = (self.n_fft - self.hop_length) // 2
            count = self.hop_length * frames.shape[1]
            waveform = self._overlap_add(frames)[:, trim : trim + count]
            weight = self._overlap_add(self.window.square().expand(1, frames.shape[1], -1))[:, trim : trim + count]
            return waveform / weight

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, hop_length · (T - 1) + F)."""
        batch, count, _ = frames.shape
        parts = self.n_fft // self.hop_length
        cut = frames.reshape(batch, count, parts, self.hop_length)
        moved = [F.pad(cut[:, :, i], (0, 0, i, parts - 1 - i)) for i in range(parts)]
        return torch.stack(moved).sum(0).reshape(batch, -1)


class SpectrumHead(nn.Module):
    """Hidden states → log magnitude and phase → waveform (Vocos's ISTFT head)."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Torch's own initialisation, as Vocos."""
        super().__init__()
        self.out = Linear(config.backbone_dim, config.n_fft + 2)
        self.istft = InverseSTFT(config.n_fft, SAMPLES_PER_TOKEN)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, W) → (B, 640 · T) float32."""
        magnitude, phase = self.out(hidden).float().chunk(2, dim=-1)
        magnitude = magnitude.exp().clamp(max=MAX_MAGNITUDE)
        return cast(Tensor, self.istft(magnitude * phase.cos(), magnitude * phase.sin()))


class Denoiser(nn.Module):
    """All parts. Names of parameters are the official ones, save ``encoder`` and ``denoise_encoder``."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Dasheng(config.encoder)
        if config.stored_front_end:
            self.encoder.front_end = StoredLogMel()
        self.denoise_encoder = DenoiseEncoder(config)
        self.backbone = Backbone(config)
        self.head = SpectrumHead(config)

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Ragged clips (N_i,) 16 kHz in [-1, 1] → noisy frames (T_i, D), without gradients: the encoder is frozen.

        Raises:
            ClipTooShort: a clip gives no token (under 480 samples, 30 ms).
        """
        with torch.no_grad():
            return self.encoder.encode(waveforms)

    def denoise_frames(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Noisy frames of each clip (T_i, D) → clean frames (T_i, D); each clip independent of the others."""
        return cast(list[Tensor], self.denoise_encoder(frames))

    def vocode(self, frames: Tensor) -> Tensor:
        """Clean frames of equally long clips (B, T, D) → waveforms (B, 640 · T) float32 at 16 kHz."""
        return cast(Tensor, self.head(self.backbone(frames)))

    def forward(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Ragged noisy clips (N_i,) → clean waveforms (640 · T_i,) float32; each clip independent of the others.

        As in the reference, attention of the denoise encoder spans the whole clip, so that memory grows with the
        square of its length, and the length is that of whole tokens. `auricle.denoise` has neither limit.

        Raises:
            ClipTooShort: a clip gives no token (under 480 samples, 30 ms).
        """
        clean = self.denoise_frames(self.encode(waveforms))
        alike: dict[int, list[int]] = defaultdict(list)  # convolutions must not see the padding of a batch
        for i, clip in enumerate(clean):
            alike[len(clip)].append(i)
        outputs: list[Tensor] = [clean[0]] * len(clean)
        for places in alike.values():
            for i, waveform in zip(places, self.vocode(torch.stack([clean[i] for i in places])), strict=True):
                outputs[i] = waveform
        return outputs


def irfft_basis(n_fft: int) -> Tensor:
    """The inverse real FFT as a matrix (2 · (n_fft // 2 + 1), n_fft) float32: rows of real, then of imaginary parts."""
    bins = n_fft // 2 + 1
    angles = 2 * math.pi / n_fft * (torch.outer(torch.arange(bins), torch.arange(n_fft)) % n_fft).double()
    weight = torch.full((bins, 1), 2.0 / n_fft, dtype=torch.float64)
    weight[0] = weight[-1] = 1.0 / n_fft  # these two have no mirror image
    return torch.cat([weight * angles.cos(), -weight * angles.sin()]).float()
