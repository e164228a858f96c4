"""BEATs (arXiv 2212.09058) and OpenBEATs (arXiv 2507.14129): one network, two rules for short clips.

* Kaldi filter bank, 128 mels; patches of 16 × 16, time-major, 8 at a time; no class token.
* Positions come from a convolution over the patch sequence and from a bucketed relative bias, shared by all blocks and
  gated by each query.
* Post-norm blocks whose residual is scaled up (deep norm); no norm at the end.

Shape legend: N samples, T filter bank frames, P patches, M patches of all pieces, D width, H heads, C width of a head.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.fbank import BEATS_FBANK, HOP_SAMPLES, kaldi_fbank, num_fbank_frames
from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.blocks import Linear, Spans, linear, linear_gelu
from auricle.models.encoders.pieces import Family, Parts, Piece, PieceNetwork, cut, depth_of, strip, to_patches

PATCH, BANDS = 16, 8  # frames and mels of a patch; patches of one time
_MIN_SAMPLES = 2_800  # give the 16 filter bank frames of one time patch
_REPEAT_BELOW = 3_200  # samples: OpenBEATs repeats shorter clips until they are longer
_EPS = 1e-5  # of every LayerNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class BeatsConfig:
    """Geometry; the defaults are the released BEATs models (``cfg`` of their checkpoints)."""

    patch_dim: int = 512  # width of the patch embedding
    embed_dim: int = 768  # width D
    depth: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    conv_pos: int = 128  # patches that the positional convolution spans
    conv_pos_groups: int = 16
    num_buckets: int = 320  # of the relative bias
    max_distance: int = 800  # patches; all larger distances share a bucket
    residual_gain: float = 24**0.25  # (2 · depth)^(1/4) with deep norm, 1 without
    fbank_mean: float = 15.41663
    fbank_std: float = 6.55582
    repeat_short: bool = False  # OpenBEATs: repeat clips under 0.2 s
    window_frames: int | None = 1024  # filter bank frames that attend to each other, 10.24 s; None: all
    compat: bool = False  # pad a batch and mask it as microsoft/unilm does, which blurs the ends of clips

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.embed_dim % self.conv_pos_groups:
            raise ConfigError(
                f"embed_dim {self.embed_dim} is no multiple of {self.num_heads} heads and {self.conv_pos_groups} groups"
            )
        if self.window_frames is not None and (self.window_frames < PATCH or self.window_frames % PATCH):
            raise ConfigError(f"window_frames is {self.window_frames}, expected a multiple of {PATCH}")


class Beats(PieceNetwork):
    """The encoder; parameter names are the official ones without ``encoder.``, the convolution without weight norm."""

    family = "beats"
    num_bands = BANDS
    hop_samples = PATCH * HOP_SAMPLES

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.min_samples = 1 if config.repeat_short else _MIN_SAMPLES
        self.window_samples = config.window_frames and config.window_frames * HOP_SAMPLES
        self.patch_embedding = nn.Conv2d(1, config.patch_dim, PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(config.patch_dim, eps=_EPS)
        self.post_extract_proj: nn.Module = nn.Identity()
        if config.patch_dim != config.embed_dim:
            self.post_extract_proj = Linear(config.patch_dim, config.embed_dim)
        half = config.conv_pos // 2
        self.pos_conv = nn.Conv1d(
            config.embed_dim, config.embed_dim, config.conv_pos, padding=half, groups=config.conv_pos_groups
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=_EPS)
        self.relative_attention_bias = nn.Embedding(config.num_buckets, config.num_heads)
        self.blocks = nn.ModuleList(BeatsBlock(config) for _ in range(config.depth))

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: the whole time patches of each clip, cut every ``window_frames``."""
        if self.config.compat:
            return self._padded_pieces(waveforms)
        return [self._pieces(waveform) for waveform in waveforms]

    def patches(self, features: Tensor) -> Tensor:
        """Normalised filter bank (T, 128) → embedded patches (P, patch_dim), before any norm."""
        weight = self.patch_embedding.weight
        return linear(to_patches(features).to(weight.dtype), weight.flatten(1))

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`: what may not be attended to is zero for the convolution too."""
        tokens = self.post_extract_proj(self.layer_norm(self.patches(piece.features)))
        if piece.keys is not None:
            tokens = torch.cat([tokens[: piece.keys], torch.zeros_like(tokens[piece.keys :])])
        # An even kernel gives one position too many.
        places = self.pos_conv(tokens.t()[None])[0, :, : len(tokens)].t()
        return self.norm(tokens + F.gelu(places))

    def relative_bias(self, length: int) -> Tensor:
        """Bias of the attention logits before the gate, (H, length, length), query first."""
        places = torch.arange(length, device=self.relative_attention_bias.weight.device)
        buckets = relative_buckets(places - places[:, None], self.config.num_buckets, self.config.max_distance)
        return self.relative_attention_bias(buckets).permute(2, 0, 1)

    def states(self, tokens: Tensor, spans: Sequence[Spans]) -> Iterator[Tensor]:
        """See `PieceNetwork`."""
        biases = [self.relative_bias(span.length) for span in spans]
        for block in self.blocks:
            tokens = block(tokens, spans, biases)
            yield tokens
        yield tokens

    def _fbank(self, waveform: Tensor) -> Tensor:
        if self.config.repeat_short and len(waveform) < _REPEAT_BELOW:
            waveform = waveform.repeat(_REPEAT_BELOW // len(waveform) + 1)
        fbank = kaldi_fbank(waveform, BEATS_FBANK)
        return (fbank - self.config.fbank_mean) / (2 * self.config.fbank_std)

    def _pieces(self, waveform: Tensor) -> list[Piece]:
        fbank = self._fbank(waveform)
        pieces = cut(fbank, self.config.window_frames, len(fbank) // PATCH)
        if len(waveform) < _REPEAT_BELOW:  # frames of a repetition belong to no time
            pieces = [piece._replace(frames=1) for piece in pieces]
        return pieces

    def _padded_pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        longest = max(len(waveform) for waveform in waveforms)
        found = []
        for waveform in waveforms:
            fbank = self._fbank(F.pad(waveform, (0, longest - len(waveform))))
            rows = max(1, num_fbank_frames(len(waveform)) // PATCH)
            keys = reference_patches(len(waveform), longest, len(fbank))
            found.append([Piece(fbank, rows, keys)])
        return found


class BeatsBlock(nn.Module):
    """Post-norm block with separate projections and a gated relative bias."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.residual_gain = config.residual_gain
        self.self_attn = GatedAttention(config.embed_dim, config.num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.embed_dim, eps=_EPS)
        self.fc1 = Linear(config.embed_dim, config.ffn_dim)
        self.fc2 = Linear(config.ffn_dim, config.embed_dim)
        self.final_layer_norm = nn.LayerNorm(config.embed_dim, eps=_EPS)

    def forward(self, x: Tensor, spans: Sequence[Spans], biases: Sequence[Tensor]) -> Tensor:
        """(M, D) → (M, D); one bias (H, length, length) for each group of spans."""
        x = self.self_attn_layer_norm(self.residual_gain * x + self.self_attn(x, spans, biases))
        hidden = self.fc2(linear_gelu(x, self.fc1.weight, self.fc1.bias))
        return self.final_layer_norm(self.residual_gain * x + hidden)


class GatedAttention(nn.Module):
    """Attention inside each span whose relative bias is scaled by a gate of the query."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Width must be a multiple of ``num_heads``."""
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (Linear(width, width) for _ in range(3))
        self.out_proj = Linear(width, width)
        self.grep_linear = nn.Linear(width // num_heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, num_heads, 1, 1))

    def forward(self, x: Tensor, spans: Sequence[Spans], biases: Sequence[Tensor]) -> Tensor:
        """(M, D) → (M, D)."""
        projected = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=1)
        parts = projected.split([span.repeats * span.length for span in spans])
        mixed = [self._attend(*each) for each in zip(parts, spans, biases, strict=True)]
        return self.out_proj(torch.cat(mixed))

    def _attend(self, part: Tensor, span: Spans, bias: Tensor) -> Tensor:
        query, key, value = part.view(span.repeats, span.length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        keys = span.keys
        gated = self._gate(query) * bias[..., :keys]
        mixed = F.scaled_dot_product_attention(query, key[:, :, :keys], value[:, :, :keys], attn_mask=gated)
        return mixed.transpose(1, 2).reshape(len(part), -1)

    def _gate(self, query: Tensor) -> Tensor:
        """Queries (B, H, P, C), not scaled → factors of the bias (B, H, P, 1)."""
        gates = torch.sigmoid(self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1))
        outer, inner = gates.chunk(2, dim=-1)
        return outer * (inner * self.grep_a - 1.0) + 2.0


def relative_buckets(distances: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Key minus query in patches → bucket of the bias, as T5's bidirectional attention counts them.

    Half of the buckets for keys behind the query; of each half the first half for exact distances, the rest
    logarithmic up to ``max_distance``.
    """
    half = num_buckets // 2
    exact = half // 2
    sizes = distances.abs()
    ratio = torch.log(sizes.float().clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return (distances > 0) * half + torch.where(sizes < exact, sizes, far)


def reference_patches(num_samples: int, padded_samples: int, num_frames: int) -> int:
    """Patches of a padded clip that microsoft/unilm does not mask.

    It divides samples, then frames, evenly, whatever the front end does, so that the border drifts: 2 s in a batch of
    5 s keep 100 patches instead of 96, among them single frequency bands of a time behind the end.
    """
    patches = num_frames // PATCH * BANDS
    frames = -(-num_samples // (padded_samples // num_frames))
    return min(patches, -(-frames // (num_frames // patches)))


_PREFIXES = ("", "encoder.")  # plain, and inside ESPnet's whole models
_MARK = "encoder.layers.0.self_attn.grep_linear.weight"
# Of pre-training, of OpenBEATs' masks, of a head.
_UNUSED = ("predictor.", "decoder.", "patch_embedding_pad.", "raw2fbank_pad.", "mask_emb")
# Settings of a configuration that all released models share; others are refused.
_FIXED = {"input_patch_size": PATCH, "layer_norm_first": False, "activation_fn": "gelu", "gru_rel_pos": True}


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """``{"cfg", "model"}`` of microsoft/unilm and of OpenBEATs, or an ESPnet model with that cfg beside it."""
    own = strip(tensors, next(prefix for prefix in _PREFIXES if prefix + _MARK in tensors))
    state: dict[str, Tensor] = {}
    for key, tensor in own.items():
        name = key.removeprefix("encoder.")
        if key.startswith(_UNUSED) or name.startswith("pos_conv."):
            continue
        if "relative_attention_bias" in name:  # every block has a copy of the first one's
            if name.startswith("layers.0."):
                state["relative_attention_bias.weight"] = tensor
        elif key.startswith("encoder."):
            state[re.sub("^layer_norm", "norm", re.sub("^layers", "blocks", name))] = tensor
        else:
            state[key] = tensor
    state |= _plain_convolution(strip(own, "encoder.pos_conv.0."), source)
    return Parts(_config(state, settings, is_open="raw2fbank_pad.weight" in own, source=source), state)


def _plain_convolution(found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The positional convolution with its weight norm, over all but the last axis, multiplied out."""
    gain = found.get("weight_g", found.get("parametrizations.weight.original0"))
    direction = found.get("weight_v", found.get("parametrizations.weight.original1"))
    if gain is None or direction is None or "bias" not in found:
        raise LayoutMismatch(f"{source}: encoder.pos_conv.0 needs weight_g, weight_v and bias; download it again")
    norm = direction.float().square().sum((0, 1), keepdim=True).sqrt()
    return {"pos_conv.weight": (gain.float() * direction.float() / norm), "pos_conv.bias": found["bias"]}


def _config(state: Mapping[str, Tensor], settings: Mapping[str, Any], *, is_open: bool, source: str) -> BeatsConfig:
    if "encoder_attention_heads" not in settings or "deep_norm" not in settings:
        raise ConfigError(
            f"{source}: the authors' configuration (cfg) is absent, without which heads and residual gain are unknown; "
            "put the cfg of the base model into a config.json beside the weights"
        )
    for key, expected in _FIXED.items():
        if settings.get(key, expected) != expected:
            raise LayoutMismatch(f"{source}: {key} is {settings[key]!r}, BEATs' is {expected!r}: another network")
    depth, buckets = depth_of(state), state["relative_attention_bias.weight"]
    convolution = state["pos_conv.weight"]
    return BeatsConfig(
        patch_dim=len(state["patch_embedding.weight"]),
        embed_dim=len(convolution),
        depth=depth,
        num_heads=int(settings["encoder_attention_heads"]),
        ffn_dim=len(state["blocks.0.fc1.weight"]),
        conv_pos=convolution.shape[2],
        conv_pos_groups=len(convolution) // convolution.shape[1],
        num_buckets=len(buckets),
        max_distance=int(settings.get("max_distance", 800)),
        residual_gain=(2 * int(settings.get("encoder_layers", depth))) ** 0.25 if settings["deep_norm"] else 1.0,
        repeat_short=is_open,
        fbank_mean=float(settings.get("fbank_mean", BeatsConfig().fbank_mean)),
        fbank_std=float(settings.get("fbank_std", BeatsConfig().fbank_std)),
    )


FAMILY = Family("beats", Beats, BeatsConfig, lambda own: any(prefix + _MARK in own for prefix in _PREFIXES), _read)
