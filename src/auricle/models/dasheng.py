"""Dasheng: a frame-level masked-autoencoder audio encoder (arXiv 2406.06992).

* 64-band log-mel at 100 Hz; one patch = all bands × 4 frames = one token of 40 ms (25 Hz); no CLS token.
* Clips are packed: a ragged batch is one token matrix without padding, so a clip's result depends on the clip alone.
* Clips over 10.08 s are cut into chunks of 252 tokens that restart at position 0 and do not see each other.

Shape legend: B clips, N samples, T mel frames, P tokens of one clip, M tokens of all clips, D width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.data.batches import grouped
from auricle.errors import ClipTooShort, ConfigError
from auricle.models.acoustic import AcousticBranch
from auricle.models.blocks import Block, PatchEmbed, Spans, plan_spans

PATCH_FRAMES = 4  # mel frames of a patch; all 64 bands are one patch high
SAMPLES_PER_TOKEN = PATCH_FRAMES * DASHENG_MEL.hop_length  # 640 samples = 40 ms
HOP_MS = 1000 * SAMPLES_PER_TOKEN / DASHENG_MEL.sample_rate
MIN_SAMPLES = (PATCH_FRAMES - 1) * DASHENG_MEL.hop_length  # 480 samples give the 4 frames of one token


@dataclass(frozen=True, kw_only=True, slots=True)
class DashengConfig:
    """Geometry of the encoder. Sources: released checkpoints (zenodo 11511780); MiDashengLM's ``DashengConfig``."""

    embed_dim: int = 768  # width D
    depth: int = 12  # blocks
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    init_values: float | None = None  # LayerScale, off in every release
    target_length: int = 1008  # mel frames of a chunk, 10.08 s; a quarter of it are the learned positions
    outputdim: int | None = None  # classes of the optional tagging head
    long_clips: Literal["v009", "v004"] = "v009"  # v004: last chunk zero-padded to a whole one, padding visible
    attend: Literal["all", "whole"] = "all"  # whole: only tokens wholly inside the samples (N // 640), as MiDashengLM
    acoustic: bool = False  # DashengTokenizer's encoder: a second branch is added to the frames

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.depth, self.num_heads, self.target_length) < 1 or self.mlp_ratio <= 0:
            raise ConfigError(f"an encoder needs sizes of at least 1, got {self}")
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if self.target_length % PATCH_FRAMES:
            raise ConfigError(f"target_length {self.target_length} is not a multiple of {PATCH_FRAMES} frames")

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a whole chunk, 252 in every release."""
        return self.target_length // PATCH_FRAMES


# Released geometries; 0.6b is the released one (1280/32/16), not the 1536/24/24 of the training source.
SIZES: dict[str, DashengConfig] = {
    "tiny": DashengConfig(embed_dim=256, depth=6, num_heads=4),  # our own
    "base": DashengConfig(embed_dim=768, depth=12, num_heads=12),
    "0.6b": DashengConfig(embed_dim=1280, depth=32, num_heads=16),
    "1.2b": DashengConfig(embed_dim=1536, depth=40, num_heads=24),
}


def num_tokens(num_samples: int) -> int:
    """25 Hz tokens of a clip: ``(1 + N // 160) // 4``."""
    return DASHENG_MEL.num_frames(num_samples) // PATCH_FRAMES


def to_patches(mel: Tensor) -> Tensor:
    """(B, 64, T) → (B, T // 4, 256), element index mel × 4 + frame; the T mod 4 last frames are dropped."""
    batch, bands, frames = mel.shape
    count = frames // PATCH_FRAMES
    cut = mel[:, :, : count * PATCH_FRAMES].reshape(batch, bands, count, PATCH_FRAMES)
    return cut.transpose(1, 2).reshape(batch, count, bands * PATCH_FRAMES)


class Dasheng(nn.Module):
    """The encoder. Parameter names are those of the official checkpoints, save ``init_bn.1.`` → ``init_bn.``."""

    def __init__(self, config: DashengConfig) -> None:
        """Random weights, initialised as the reference does (xavier linears, N(0, 0.02) positions)."""
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.front_end = LogMel()
        self.init_bn = nn.BatchNorm1d(DASHENG_MEL.num_mels, momentum=0.01)
        self.patch_embed = PatchEmbed(width, (DASHENG_MEL.num_mels, PATCH_FRAMES))
        self.time_pos_embed = nn.Parameter(nn.init.normal_(torch.empty(1, width, 1, config.chunk_tokens), std=0.02))
        self.freq_pos_embed = nn.Parameter(nn.init.normal_(torch.empty(1, width, 1, 1), std=0.02))
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                layer_scale=config.init_values,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.acoustic = AcousticBranch(width) if config.acoustic else None
        self.outputlayer: nn.Sequential | None = None
        if config.outputdim is not None:
            self.outputlayer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.outputdim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def mel(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) → log-mel (64, T_i) in dB, each with its own floor.

        Raises:
            ClipTooShort: a clip gives no token (under 480 samples, 30 ms).
        """
        shortest = min((w.shape[-1] for w in waveforms), default=MIN_SAMPLES)
        if shortest < MIN_SAMPLES:
            raise ClipTooShort(
                f"clip has {shortest} samples; one token needs {MIN_SAMPLES} (30 ms at 16 kHz): pad it with zeros"
            )
        return [self.front_end(waveform)[0] for waveform in waveforms]

    def positions(self) -> Tensor:
        """Learned positions of a chunk, (252, D)."""
        return (self.time_pos_embed + self.freq_pos_embed)[0, :, 0].t()

    def embed(self, mel: Tensor) -> Tensor:
        """Log-mel dB (B, 64, T ≤ target_length) → tokens with positions (B, T // 4, D)."""
        patches = to_patches(self.init_bn(mel))
        tokens = self.patch_embed(patches.flatten(0, 1)).view(*patches.shape[:2], -1)
        return tokens + self.positions()[: tokens.shape[1]]

    def run_blocks(self, tokens: Tensor, spans: Sequence[Spans]) -> Tensor:
        """Packed tokens (M, D) → final, normalised hidden states (M, D)."""
        for block in self.blocks:
            tokens = block(tokens, spans)
        return self.norm(tokens)

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Ragged clips (N_i,) 16 kHz in [-1, 1] → frames (P_i, D) at 25 Hz; each clip independent of the others.

        Raises:
            ClipTooShort: a clip gives no token.
        """
        frames = self._encode_mels(self.mel(waveforms), self._keys([w.shape[-1] for w in waveforms]), ())[-1]
        return self._with_acoustic(frames, waveforms)

    def encode_layers(self, waveforms: Sequence[Tensor], layers: Sequence[int]) -> list[list[Tensor]]:
        """As `encode`, after the hidden states behind the blocks in ``layers`` (0 = first), not normalised."""
        states = self._encode_mels(self.mel(waveforms), self._keys([w.shape[-1] for w in waveforms]), layers)
        return [*states[:-1], self._with_acoustic(states[-1], waveforms)]

    def encode_mels(
        self, mels: Sequence[Tensor], num_samples: Sequence[int], layers: Sequence[int] = ()
    ) -> list[list[Tensor]]:
        """As `encode_layers`, from log-mels (64, T_i) in dB of clips of ``num_samples`` samples.

        Raises:
            ConfigError: the acoustic branch needs the clips themselves.
        """
        if self.acoustic is not None:
            raise ConfigError("this encoder has an acoustic branch, which reads waveforms; give it clips, not log-mels")
        return self._encode_mels(mels, self._keys(num_samples), layers)

    def forward(self, waveform: Tensor, num_samples: Tensor | None = None, *, batch_floor: bool = False) -> Tensor:
        """Equally long (or zero-padded) clips (B, N) → frames (B, P, D), by the reference's own batch rule.

        Args:
            waveform: 16 kHz mono in [-1, 1].
            num_samples: (B,) true lengths; tokens behind ``num_samples // 640`` are not attended to, though the padding
                reaches the last mel frames (PyPI dasheng 0.0.9, ``x_length``). Prefer `encode`, which is exact.
            batch_floor: the reference's batch-wide dB floor.
        """
        mel = self.front_end(waveform, batch_floor=batch_floor)
        keys: list[int | None] = [None] * len(mel)
        if num_samples is not None:
            keys = [int(n) // SAMPLES_PER_TOKEN for n in num_samples]
        elif self.config.attend == "whole":
            keys = [waveform.shape[-1] // SAMPLES_PER_TOKEN] * len(mel)
        return torch.stack(self._with_acoustic(self._encode_mels(list(mel), keys, ())[-1], list(waveform)))

    def logits(self, frames: Sequence[Tensor]) -> Tensor:
        """Frames of each clip → tagging logits (B, outputdim): mean over tokens, LayerNorm, Linear."""
        if self.outputlayer is None:
            raise ConfigError("this encoder has no tagging head; load a checkpoint with `outputlayer.*` weights")
        return self.outputlayer(torch.stack([clip.mean(0) for clip in frames]))

    def _with_acoustic(self, frames: list[Tensor], waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Frames of each clip, plus those of the acoustic branch where there is one."""
        if self.acoustic is None:
            return frames
        return [semantic + fine for semantic, fine in zip(frames, self.acoustic(waveforms), strict=True)]

    def _keys(self, num_samples: Sequence[int]) -> list[int | None]:
        """Tokens of each clip that may be attended to; None: all."""
        return [n // SAMPLES_PER_TOKEN if self.config.attend == "whole" else None for n in num_samples]

    def _encode_mels(
        self, mels: Sequence[Tensor], keys: Sequence[int | None], layers: Sequence[int]
    ) -> list[list[Tensor]]:
        chunk = self.config.chunk_tokens
        patches, lengths, valid, owners = [], [], [], []
        for clip, (mel, limit) in enumerate(zip(mels, keys, strict=True)):
            own = to_patches(self.init_bn(mel[None]))[0]
            if self.config.long_clips == "v004" and len(own) > chunk:
                own = self._pad_last_chunk(mel)
            for start in range(0, len(own), chunk):
                piece = own[start : start + chunk]
                patches.append(piece)
                lengths.append(len(piece))
                valid.append(len(piece) if limit is None else min(max(limit - start, 0), len(piece)))
                owners.append(clip)
        order, _ = plan_spans(lengths, valid)
        positions = self.positions()
        last = len(self.blocks)
        kept: dict[int, list[Tensor]] = {index: [] for index in range(last + 1) if index in (*layers, last)}
        # A group should stay in a CPU's cache: 500 tokens a thread are a fifth faster than all at once.
        most = 504 * torch.get_num_threads() if positions.device.type == "cpu" else math.inf
        for group in grouped(order, lengths.__getitem__, most):
            _, spans = plan_spans([lengths[i] for i in group], [valid[i] for i in group])
            tokens = self.patch_embed(torch.cat([patches[i] for i in group]))
            tokens = tokens + torch.cat([positions[: lengths[i]] for i in group])
            for index, block in enumerate(self.blocks):
                tokens = block(tokens, spans)
                if index in layers:
                    kept[index].append(tokens)
            kept[last].append(self.norm(tokens))
        counts = [mel.shape[-1] // PATCH_FRAMES for mel in mels]
        return [_unpack(torch.cat(state), order, lengths, owners, counts) for state in kept.values()]

    def _pad_last_chunk(self, mel: Tensor) -> Tensor:
        # The padding is zero after batch-norm, not silence: that is what the 0.0.4 reference encodes.
        normed = self.init_bn(mel[None])
        missing = -mel.shape[-1] % self.config.target_length
        return to_patches(nn.functional.pad(normed, (0, missing)))[0]


def _unpack(
    tokens: Tensor, order: Sequence[int], lengths: Sequence[int], owners: Sequence[int], counts: Sequence[int]
) -> list[Tensor]:
    """Packed (M, D) → one (P_i, D) per clip, chunks back in time order."""
    pieces: list[Tensor | None] = [None] * len(order)
    for index, piece in zip(order, tokens.split([lengths[i] for i in order]), strict=True):
        pieces[index] = piece
    clips: list[list[Tensor]] = [[] for _ in counts]
    for owner, piece in zip(owners, pieces, strict=True):
        assert piece is not None
        clips[owner].append(piece)
    return [(c[0] if len(c) == 1 else torch.cat(c))[:n] for c, n in zip(clips, counts, strict=True)]
