"""data2vec 2.0 for audio (arXiv 2212.07525): frames of 20 ms from the waveform itself.

* Clips are normalised over their own length; seven convolutions, five more for positions, whose sum is added.
* Attention falls off with distance by learned factors (ALiBi); post-norm blocks, no norm at the end.
* Clips over 30 s are cut into pieces that do not see each other; the pieces overlap by the reach of a frame, so frame i
  starts at sample 320 i whatever the length.

Not the data2vec-audio of `transformers` (version 1, `auricle.models.encoders.speech`).

Shape legend: N samples, T frames, M frames of all pieces, D width, H heads.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.blocks import Attention, Linear, Spans
from auricle.models.encoders.eat import PostNormBlock, model_settings
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    depth_of,
    geometry_of,
    strip,
)

_KERNELS, _STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of every release
_STRIDE = math.prod(_STRIDES)  # 320 samples, 20 ms
_REACH = 400  # samples that one frame depends on
_CHUNK = 30 * SAMPLE_RATE  # samples that attend to each other
_EPS = 1e-5  # of every LayerNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class Data2Vec2Config(TransformerConfig):
    """Geometry; the defaults are the released base model's (large: 1024 wide, 24 blocks, 16 heads)."""

    conv_dim: int = 512  # channels of the convolutions
    pos_depth: int = 5  # convolutions for positions
    pos_kernel: int = 19  # frames, odd
    pos_groups: int = 16
    normalize: bool = True  # the waveform, over each clip
    compat: bool = False  # pad a batch as fairseq: positions of the last frames depend on the padding

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.embed_dim % self.pos_groups:
            raise ConfigError(
                f"embed_dim {self.embed_dim} is no multiple of {self.num_heads} heads and {self.pos_groups} groups"
            )


class Data2Vec2(PieceNetwork):
    """The encoder."""

    family = "data2vec2"
    hop_samples = _STRIDE
    min_samples = _REACH
    window_samples = _CHUNK

    def __init__(self, config: Data2Vec2Config) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        width, kernel = config.embed_dim, config.pos_kernel
        channels = [1, *[config.conv_dim] * len(_KERNELS)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels[i], channels[i + 1], kernel, stride=_STRIDES[i], bias=False)
            for i, kernel in enumerate(_KERNELS)
        )
        self.conv_norms = nn.ModuleList(nn.LayerNorm(config.conv_dim, eps=_EPS) for _ in _KERNELS)
        self.feature_norm = nn.LayerNorm(config.conv_dim, eps=_EPS)
        self.feature_proj = Linear(config.conv_dim, width)
        self.pos_convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.pos_groups)
            for _ in range(config.pos_depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.alibi_scale = nn.Parameter(torch.ones(config.num_heads))
        self.blocks = nn.ModuleList(
            PostNormBlock(BiasedAttention(width, config.num_heads), width, config.mlp_ratio, eps=_EPS)
            for _ in range(config.depth)
        )

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: pieces of 30 s that overlap by the reach of a frame."""
        clips = [F.layer_norm(w, w.shape, eps=1e-5) if self.config.normalize else w for w in waveforms]
        if self.config.compat:
            longest = max(len(clip) for clip in clips)
            counts = [num_frames(len(clip)) for clip in clips]
            padded = [F.pad(clip, (0, longest - len(clip))) for clip in clips]
            return [[Piece(clip, count, count)] for clip, count in zip(padded, counts, strict=True)]
        return [self._cut(clip) for clip in clips]

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        tokens = self.feature_proj(self.feature_norm(self.features(piece)))
        return self.norm(tokens + self.positions(tokens))

    def features(self, piece: Piece) -> Tensor:
        """What the convolutions make of samples, (T, conv_dim)."""
        x = piece.features.to(self.feature_proj.weight.dtype)[None, None]
        for convolution, norm in zip(self.convolutions, self.conv_norms, strict=True):
            x = F.gelu(norm(convolution(x).transpose(1, 2))).transpose(1, 2)
        return x[0].t()

    def positions(self, tokens: Tensor) -> Tensor:
        """What the positional convolutions make of projected features, (T, D) → (T, D)."""
        x = tokens
        for convolution in self.pos_convolutions:
            x = convolution(x.t()[None])[0].t()
            x = F.gelu(F.layer_norm(x, (self.width,), eps=_EPS))
        return x

    def distance_bias(self, length: int) -> Tensor:
        """What is added to the attention logits, (H, length, length)."""
        places = torch.arange(length, device=self.alibi_scale.device)
        slopes = torch.tensor(alibi_slopes(len(self.alibi_scale)), device=places.device, dtype=self.alibi_scale.dtype)
        factors = slopes * self.alibi_scale.clamp(min=0)
        return -factors[:, None, None] * (places - places[:, None]).abs()

    def states(self, tokens: Tensor, spans: Sequence[Spans]) -> Iterator[Tensor]:
        """See `PieceNetwork`."""
        biases = [self.distance_bias(span.length) for span in spans]
        for block in self.blocks:
            tokens = block(tokens, spans, biases)
            yield tokens
        yield tokens

    def _cut(self, clip: Tensor) -> list[Piece]:
        total, step = num_frames(len(clip)), _CHUNK // _STRIDE
        found = []
        for start in range(0, total, step):
            piece = clip[start * _STRIDE :][: _CHUNK + _REACH - _STRIDE]
            found.append(Piece(piece, num_frames(len(piece))))
        return found


class BiasedAttention(Attention):
    """Self-attention inside each span with something added to its logits."""

    def forward(self, x: Tensor, spans: Sequence[Spans], biases: Sequence[Tensor] = ()) -> Tensor:
        """(M, D) → (M, D); one bias (H, length, length) for each group of spans."""
        parts = self.qkv(x).split([span.repeats * span.length for span in spans])
        mixed = [self._mix(*each) for each in zip(parts, spans, biases, strict=True)]
        return self.proj(torch.cat(mixed))

    def _mix(self, qkv: Tensor, span: Spans, bias: Tensor) -> Tensor:
        query, key, value = qkv.view(span.repeats, span.length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        keys = span.keys
        mask = bias[None, ..., :keys].expand(span.repeats, -1, -1, -1)
        mixed = F.scaled_dot_product_attention(query, key[:, :, :keys], value[:, :, :keys], attn_mask=mask)
        return mixed.transpose(1, 2).reshape(len(qkv), -1)


def num_frames(num_samples: int) -> int:
    """Frames of a clip of at least 400 samples: ``1 + (N - 400) // 320``."""
    return 1 + (num_samples - _REACH) // _STRIDE


def alibi_slopes(num_heads: int) -> list[float]:
    """How steeply each head's attention falls off (arXiv 2108.12409); other numbers than powers of 2 borrow."""
    power = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + alibi_slopes(2 * power)[::2][: num_heads - power] if power < num_heads else slopes


_PREFIXES = ("", "w2v_encoder.w2v_model.")  # pre-trained, fine-tuned for transcripts
_AUDIO = "modality_encoders.AUDIO."
_MARK = _AUDIO + "local_encoder.conv_layers.0.0.weight"
_UNUSED = ("decoder.", "_ema.", "alibi_scale")
_NAMES = (
    (r"local_encoder\.conv_layers\.(\d+)\.0\.", r"convolutions.\1."),
    (r"local_encoder\.conv_layers\.(\d+)\.2\.1\.", r"conv_norms.\1."),
    (r"project_features\.1\.", "feature_norm."),
    (r"project_features\.2\.", "feature_proj."),
    (r"context_encoder\.norm\.", "norm."),
)


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' fairseq files: the student of a pre-trained one, the encoder of a fine-tuned one."""
    own = strip(tensors, next(prefix for prefix in _PREFIXES if prefix + _MARK in tensors))
    prenet = depth_of(own, _AUDIO + "context_encoder.blocks.")
    state: dict[str, Tensor] = {}
    for key, tensor in own.items():
        if not key.startswith((_AUDIO, "blocks.")) or key.removeprefix(_AUDIO).startswith(_UNUSED):
            continue
        state[_our_name(key, prenet)] = tensor
    width, conv_dim = state["feature_proj.weight"].shape
    task = settings.get("task")
    geometry = geometry_of(state, model_settings(settings), source)
    heads = geometry["num_heads"]
    scale = own[_AUDIO + "alibi_scale"].flatten()
    if len(scale) not in (1, heads):
        raise LayoutMismatch(f"{source}: {len(scale)} ALiBi factors, expected one for all or each of {heads} heads")
    state["alibi_scale"] = scale.expand(heads).clone()
    kernel = state["pos_convolutions.0.weight"]
    config = Data2Vec2Config(
        **geometry,
        conv_dim=conv_dim,
        pos_depth=depth_of(state, "pos_convolutions."),
        pos_kernel=kernel.shape[2],
        pos_groups=width // kernel.shape[1],
        normalize=bool((task if isinstance(task, Mapping) else settings).get("normalize", True)),
    )
    return Parts(config, state)


def _our_name(key: str, prenet: int) -> str:
    if key.startswith("blocks."):
        return re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{int(found[1]) + prenet}", key)
    name = key.removeprefix(_AUDIO)
    name = re.sub(r"^context_encoder\.blocks\.", "blocks.", name)
    name = re.sub(
        r"^relative_positional_encoder\.(\d+)\.0\.", lambda found: f"pos_convolutions.{int(found[1]) - 1}.", name
    )
    for theirs, ours in _NAMES:
        name = re.sub("^" + theirs, ours, name)
    return name


FAMILY = Family(
    "data2vec2", Data2Vec2, Data2Vec2Config, lambda own: any(prefix + _MARK in own for prefix in _PREFIXES), _read
)
