"""Qwen2 and Qwen3: the causal decoder of an audio language model (arXiv 2407.10671, arXiv 2505.09388).

Pre-norm blocks of grouped-query attention with rotary positions and a gated MLP. Parameter names are those of the
published checkpoints (``model.layers.N.self_attn.q_proj.weight``, ``lm_head.weight``), so adapters of PEFT fit by their
usual target names. Qwen2 has biases on queries, keys and values; Qwen3 normalises queries and keys instead and states
the width of its heads.

Inputs are embeddings; tokens never need padding (see `auricle.models.qwen_attention`):

* `QwenForCausalLM.decode`: equal or padded sequences, the padding left out; with gradients.
* `QwenForCausalLM.decode_packed`: sequences laid end to end; with gradients.
* `QwenForCausalLM.read`: new tokens over a key–value cache, for generation.

Shape legend: B sequences, L tokens of a sequence, M tokens of all sequences, H width, I inner width of the MLP, N query
heads, K key–value heads, C width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from auricle.errors import ConfigError
from auricle.models.blocks import linear
from auricle.models.qwen_attention import (
    Attend,
    CachedAttention,
    Layout,
    PackedAttention,
    RowAttention,
    Segment,
    Window,
    empty_cache,
    plan,
)

_LARGE = 1 << 20  # weights; smaller products are faster on torch's default path (256 × 512: 2 ×, measured on a CPU)
_FIRST_POSITIONS = 256  # of the table of rotary angles, which doubles as it must


@dataclass(frozen=True, kw_only=True, slots=True)
class QwenConfig:
    """Geometry. Sources: ``config.json`` of Qwen/Qwen2.5-7B and Qwen/Qwen3-0.6B; names and defaults of transformers."""

    vocab_size: int  # V
    hidden_size: int  # H
    intermediate_size: int  # I
    num_hidden_layers: int
    num_attention_heads: int  # N
    num_key_value_heads: int  # K, a divisor of N
    head_dim: int = 0  # C; 0: H / N, which Qwen2 leaves unsaid
    max_position_embeddings: int = 32_768  # tokens of the context
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6  # base of the rotary angles
    qkv_bias: bool = True  # Qwen2 yes, Qwen3 no
    qk_norm: bool = False  # Qwen3: RMSNorm over each head of queries and keys, before the rotation
    tie_word_embeddings: bool = False  # the output head is the embedding table
    sliding_window: int | None = None  # tokens that the layers from max_window_layers on attend to; no release uses it
    max_window_layers: int = 0
    attention_dropout: float = 0.0  # in training
    initializer_range: float = 0.02  # standard deviation of new weights

    def __post_init__(self) -> None:
        """Fill in the width of a head; reject impossible geometries."""
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.hidden_size // max(1, self.num_attention_heads))
        sizes = (self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers)
        if min(*sizes, self.num_attention_heads, self.num_key_value_heads, self.head_dim) < 1:
            raise ConfigError(f"a decoder needs sizes of at least 1, got {self}")
        numbers = {name: getattr(self, name) for name in ("rms_norm_eps", "rope_theta", "initializer_range")}
        if wrong := [f"{name} {value}" for name, value in numbers.items() if not 0 < value < float("inf")]:
            raise ConfigError(f"{wrong[0]} is no number above 0")
        if not 0 <= self.attention_dropout < 1:
            raise ConfigError(f"attention_dropout {self.attention_dropout} is not in [0, 1)")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even width")

    @property
    def window(self) -> Window | None:
        """The sliding window, None where every layer attends to all tokens."""
        return None if self.sliding_window is None else Window(self.sliding_window, self.max_window_layers)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose large float32 products on a CPU go through oneDNN; not initialised on its own."""

    def reset_parameters(self) -> None:
        """Nothing: `QwenForCausalLM` samples all weights, once."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, D_in) → (M, D_out)."""
        if self.weight.numel() >= _LARGE:
            return linear(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`torch.nn.Embedding`, not initialised on its own."""

    def reset_parameters(self) -> None:
        """Nothing: `QwenForCausalLM` samples all weights, once."""


class Rotary:
    """Rotary position angles (arXiv 2104.09864): a table of cosines and signed sines that grows with the context."""

    def __init__(self, head_dim: int, theta: float) -> None:
        self._head_dim, self._theta = head_dim, theta
        self._length, self._kind = 0, (torch.device("meta"), torch.float32)
        self._table: tuple[Tensor, Tensor]

    def __call__(self, positions: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (M, 1, C) of positions (M,) below ``length``."""
        if self._length < length or self._kind != (positions.device, dtype):
            room = max(_FIRST_POSITIONS, 1 << (length - 1).bit_length())
            self._table = self._make(room, positions.device, dtype)
            self._length, self._kind = room, (positions.device, dtype)
        cosine, signed_sine = self._table
        return cosine[positions], signed_sine[positions]

    @torch.inference_mode(False)  # a table made while answering also serves training
    def _make(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        even = torch.arange(0, self._head_dim, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / self._theta ** (even / self._head_dim)
        angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
        cosine, sine = angles.cos(), angles.sin()
        # The sign of the rotation by halves is in the table, so that rotating is a roll.
        pair = torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)
        return pair[0].to(dtype)[:, None], pair[1].to(dtype)[:, None]


def rotate(heads: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    """Rotate (M, heads, C) by the angles of (M, 1, C)."""
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, -1), signed_sine)


class QwenAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: QwenConfig, layer: int) -> None:
        """``layer``: its number in the stack."""
        super().__init__()
        width, head = config.hidden_size, config.head_dim
        self.layer, self.head_dim = layer, head
        self.q_proj = Linear(width, config.num_attention_heads * head, bias=config.qkv_bias)
        self.k_proj = Linear(width, config.num_key_value_heads * head, bias=config.qkv_bias)
        self.v_proj = Linear(width, config.num_key_value_heads * head, bias=config.qkv_bias)
        self.o_proj = Linear(config.num_attention_heads * head, width, bias=False)
        self.q_norm = nn.RMSNorm(head, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(head, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """Tokens (M, H), the angles of their positions, and who attends to whom → (M, H)."""
        count = len(x)
        query = self.q_proj(x).view(count, -1, self.head_dim)
        key = self.k_proj(x).view(count, -1, self.head_dim)
        value = self.v_proj(x).view(count, -1, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            # Under autocast the projections are bfloat16, the gains are not.
            query, key = self.q_norm(query.to(x.dtype)), self.k_norm(key.to(x.dtype))
        return self.o_proj(attend(self.layer, rotate(query, *angles), rotate(key, *angles), value))


class QwenMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(M, H) → (M, H)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class QwenLayer(nn.Module):
    """Pre-norm block: attention, then MLP, each added to what comes in."""

    def __init__(self, config: QwenConfig, layer: int) -> None:
        """``layer``: its number in the stack."""
        super().__init__()
        self.self_attn = QwenAttention(config, layer)
        self.mlp = QwenMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """(M, H) → (M, H)."""
        x = x + self.self_attn(self.input_layernorm(x), angles, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class QwenModel(nn.Module):
    """Embedding table, blocks and final norm."""

    def __init__(self, config: QwenConfig) -> None:
        """Uninitialised; see `QwenForCausalLM`."""
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(QwenLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_dim, config.rope_theta)
        self.gradient_checkpointing = False  # blocks are computed again in the backward pass instead of being kept

    def forward(self, x: Tensor, positions: Tensor, length: int, attend: Attend) -> Tensor:
        """Tokens (M, H) at positions (M,) below ``length`` → last hidden states (M, H), normalised."""
        angles = self.rotary(positions, length, x.dtype)
        is_kept = not (self.gradient_checkpointing and torch.is_grad_enabled())
        for layer in self.layers:
            x = layer(x, angles, attend) if is_kept else checkpoint(layer, x, angles, attend, use_reentrant=False)
        return self.norm(x)


class QwenForCausalLM(nn.Module):
    """The decoder with its output head."""

    def __init__(self, config: QwenConfig) -> None:
        """New weights from torch's random state, sampled once: N(0, initializer_range), biases 0, gains 1."""
        super().__init__()
        self.config = config
        self.model = QwenModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()
        sampled = [module for module in self.modules() if isinstance(module, (Linear, Embedding))]
        for module in sampled[:-1] if config.tie_word_embeddings else sampled:
            nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings, hidden states and cache."""
        return self.model.embed_tokens.weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding table: ids (…) → (…, H)."""
        return self.model.embed_tokens

    def tie_weights(self) -> None:
        """Make the output head the embedding table again, where the configuration says so; as after loading."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def gradient_checkpointing_enable(self) -> None:
        """Keep only what goes into each block for the backward pass; see `QwenModel`."""
        self.model.gradient_checkpointing = True

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L) and their mask (B, L), 1 = token → logits (B, L, V)."""
        return self.lm_head(self.decode(self.model.embed_tokens(input_ids), attention_mask))

    def decode(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Inputs (B, L, H) and their mask (B, L), 1 = token → last hidden states (B, L, H).

        Padding, wherever it is, is left out of all computation: 0 comes out.
        """
        batch, length, _ = embeddings.shape
        rows = embeddings.flatten(0, 1)
        is_token = None if attention_mask is None else attention_mask != 0
        if is_token is None or bool(is_token.all()):
            positions = torch.arange(length, device=rows.device).repeat(batch)
            return self.model(rows, positions, length, RowAttention(batch, *self._how())).view(batch, length, -1)
        kept = is_token.flatten().nonzero()[:, 0]
        if not len(kept):
            return torch.zeros_like(embeddings)
        layout = plan(is_token.sum(1).tolist()).to(rows.device)
        hidden = self.decode_packed(rows.index_select(0, kept)[None], layout)[0]
        return hidden.new_zeros(rows.shape).index_copy(0, kept, hidden).view(batch, length, -1)

    def decode_packed(self, embeddings: Tensor, layout: Layout) -> Tensor:
        """Inputs (1, M, H) of sequences laid end to end → last hidden states (1, M, H), each sequence as if alone."""
        longest = max((places.shape[1] for places in layout.groups), default=0)
        attend = PackedAttention(layout, *self._how())
        return self.model(embeddings[0], layout.positions[0], longest, attend)[None]

    def new_cache(self, batch: int, room: int) -> Tensor:
        """An empty key–value cache (layers, 2, batch, K, room, C)."""
        config, weight = self.config, self.model.embed_tokens.weight
        heads, width = config.num_key_value_heads, config.head_dim
        return empty_cache(config.num_hidden_layers, batch, heads, room, width, weight)

    def read(self, segments: Sequence[Segment]) -> list[Tensor]:
        """New tokens of all segments → their last hidden states (B, n, H); their caches are filled."""
        parts = [segment.embeddings.flatten(0, 1) for segment in segments]
        places = [segment.positions.flatten() for segment in segments]
        is_one = len(segments) == 1
        hidden = self.model(
            parts[0] if is_one else torch.cat(parts),
            places[0] if is_one else torch.cat(places),
            max(segment.keys for segment in segments),
            CachedAttention(segments, self.config.window),
        )
        split = hidden.split([len(part) for part in parts])
        return [part.view(*s.positions.shape, -1) for part, s in zip(split, segments, strict=True)]

    def _how(self) -> tuple[Window | None, float]:
        """Window and dropout of attention."""
        return self.config.window, self.config.attention_dropout if self.training else 0.0
