"""Masked auto-encoding pre-training of Dasheng: hide 75 % of the tokens, rebuild their log-mel patches.

Shape legend: B clips, L tokens of a clip, K kept tokens, D width, 256 = 64 bands × 4 frames of a patch.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import Block, Linear, Spans
from auricle.models.dasheng import Dasheng, to_patches

PATCH_VALUES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MAEConfig:
    """The part of pre-training that is not exported. Source: Dasheng base's training configuration."""

    embed_dim: int = 512  # decoder width
    depth: int = 8  # decoder blocks
    num_heads: int = 16
    mask_ratio: float = 0.75  # share of tokens hidden
    mask_group: int = 2  # neighbouring tokens hidden together
    target: Literal["patch", "global", "none"] = "patch"  # how the dB target is normalised

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio must be in (0, 1), got {self.mask_ratio}")
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"decoder width {self.embed_dim} is not a multiple of num_heads {self.num_heads}")


class Mask(NamedTuple):
    """Which tokens the encoder sees."""

    kept: Tensor  # (B, K) int64, token ids in the (shuffled) order the encoder sees them
    hidden: Tensor  # (B, L) float32, 1 = hidden, in time order
    restore: Tensor  # (B, L) int64, place of each token in the shuffled order


def sample_mask(noise: Tensor, length: int, *, ratio: float, group: int) -> Mask:
    """Hide groups of ``group`` neighbouring tokens; the ``int(length × (1 - ratio))`` first of the shuffle are kept.

    Args:
        noise: (B, length // group) uniform noise; its sort is the shuffle.
        length: tokens of a clip, a multiple of ``group``.
        ratio: share hidden.
        group: tokens hidden together.

    Raises:
        ConfigError: ``length`` is not a multiple of ``group``.
    """
    if length % group:
        raise ConfigError(
            f"{length} tokens cannot be masked in groups of {group}: use crops of a whole number of groups"
        )
    groups = noise.argsort(dim=1)
    shuffled = (groups[:, :, None] * group + torch.arange(group, device=noise.device)).flatten(1)
    restore = shuffled.argsort(dim=1)
    keep = int(length * (1 - ratio))
    return Mask(shuffled[:, :keep], (restore >= keep).float(), restore)


class MAEDecoder(nn.Module):
    """Small transformer that rebuilds all patches from the visible tokens."""

    def __init__(self, encoder_dim: int, num_positions: int, config: MAEConfig) -> None:
        """``num_positions``: tokens of the longest crop."""
        super().__init__()
        width = config.embed_dim
        self.input_proj = Linear(encoder_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions + 1, width))
        self.blocks = nn.ModuleList(Block(width, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.outputlayer = Linear(width, PATCH_VALUES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Visible tokens (B, K, D) and their places (B, L) → patches (B, L, 256)."""
        batch, length = restore.shape
        x = self.input_proj(latent.flatten(0, 1)).view(batch, latent.shape[1], -1)
        hidden = self.mask_token.to(x.dtype).expand(batch, length - x.shape[1], -1)
        x = torch.cat([x, hidden], dim=1)
        x = x.gather(1, restore[:, :, None].expand(-1, -1, x.shape[2])) + self.pos_embed[:, :length]
        x = x.flatten(0, 1)
        spans = [Spans(batch, length, length)]
        for block in self.blocks:
            x = block(x, spans)
        return self.outputlayer(self.norm(x)).view(batch, length, -1)


class MAEOutput(NamedTuple):
    """Result of a forward pass."""

    loss: Tensor  # () float32, mean squared error over hidden patches
    prediction: Tensor  # (B, L, 256)
    target: Tensor  # (B, L, 256) dB, not normalised
    latent: Tensor  # (B, K, D) encoder output
    mask: Mask


class MaskedAutoencoder(nn.Module):
    """Dasheng plus its pre-training decoder."""

    def __init__(self, encoder: Dasheng, config: MAEConfig) -> None:
        """Wrap ``encoder``; it is trained in place."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = MAEDecoder(encoder.config.embed_dim, encoder.config.chunk_tokens, config)

    def forward(self, waveform: Tensor, noise: Tensor | None = None) -> MAEOutput:
        """Equal crops (B, N ≤ 10.08 s) → loss and everything it came from.

        Args:
            waveform: 16 kHz mono in [-1, 1].
            noise: (B, L // mask_group) uniform; sampled when absent. The reference's batch-wide dB floor is not used:
                each clip keeps its own.
        """
        mel = self.encoder.front_end(waveform)
        length = mel.shape[-1] // 4
        group = self.config.mask_group
        if length > self.encoder.config.chunk_tokens:
            raise ConfigError(
                f"crop has {length} tokens, the encoder {self.encoder.config.chunk_tokens} positions: crop to 10.08 s"
            )
        if noise is None:
            noise = torch.rand(len(mel), length // group, device=mel.device)
        mask = sample_mask(noise, length, ratio=self.config.mask_ratio, group=group)
        tokens = self.encoder.embed(mel)
        visible = tokens.gather(1, mask.kept[:, :, None].expand(-1, -1, tokens.shape[2]))
        batch, kept, _ = visible.shape
        latent = self.encoder.run_blocks(visible.flatten(0, 1), [Spans(batch, kept, kept)]).view(batch, kept, -1)
        prediction = self.decoder(latent, mask.restore)
        target = to_patches(mel)
        return MAEOutput(self._loss(prediction, target, mask.hidden), prediction, target, latent, mask)

    def _loss(self, prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        if self.config.target == "patch":
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        elif self.config.target == "global":
            target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
        error = (prediction.float() - target).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()
