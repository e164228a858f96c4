"""One pass of a causal decoder over many sequences at once, each with key-value memory of its own.

Two ways to the same hidden states: `PackedPass` is a lean forward over the weights of a Qwen2 (all new tokens of all
sequences go through the linear layers as one matrix; only attention looks at sequences), and `stock_pass` runs the
network's own forward, segment by segment, for whatever the first does not know. `choose_pass` tells which.

Shape legend: B sequences of a segment, n new tokens of each, M new tokens of all segments, H width, K key-value heads,
G query heads per key-value head, C width of one head, R room of the memory, S keys looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.models.blocks import linear

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM


class Segment(NamedTuple):
    """Sequences that take up equally many new tokens: n each of one sequence, or one each of B sequences."""

    embeddings: Tensor  # (B, n, H)
    positions: Tensor  # (B, n) int64, for the rotary angles; below ``keys``
    memory: Tensor  # (layers, 2, B, K, R, C): keys and values so far; the new ones are written into it
    places: Tensor | int  # where the new keys go: (B,) int64 where n is 1, or the first of n neighbouring places
    keys: int  # S: the first S places are looked at
    mask: Tensor | None = None  # (B, 1, n, S), added to the scores; None: every token sees all places up to its own


_LARGE = 1 << 20  # weights; smaller products are faster on torch's default path (256 × 512: 2 ×, measured on a CPU)

Pass = Callable[[Sequence[Segment]], list[Tensor]]  # last hidden states (B, n, H) of each segment, normalised


def new_memory(decoder: Qwen2ForCausalLM, batch: int, room: int) -> Tensor:
    """Memory (layers, 2, batch, K, room, C) in the decoder's dtype and on its device.

    Zeros, because a place that a mask hides still enters the sum with weight 0, and 0 · NaN is NaN.
    """
    config: Any = decoder.config
    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    like: Any = decoder.get_input_embeddings().weight
    return torch.zeros(config.num_hidden_layers, 2, batch, heads, room, width, dtype=like.dtype, device=like.device)


def choose_pass(decoder: Qwen2ForCausalLM) -> Pass:
    """The lean forward where it is exact for this decoder, else the decoder's own."""
    return PackedPass(decoder) if is_plain_qwen2(decoder) else stock_pass(decoder)


def is_plain_qwen2(decoder: nn.Module) -> bool:
    """Whether `PackedPass` knows every part: a Qwen2 with full attention, SiLU gates and unscaled rotary positions.

    Linear layers may be of any class, such as quantised or adapted ones: they are called.
    """
    from transformers.models.qwen2 import modeling_qwen2 as qwen2

    core = getattr(decoder, "model", None)
    if type(core) is not qwen2.Qwen2Model or core.rotary_emb.rope_type != "default":
        return False
    config = core.config
    return (
        config.hidden_act == "silu"
        and not core.has_sliding_layers
        and all(
            type(layer) is qwen2.Qwen2DecoderLayer
            and type(layer.self_attn) is qwen2.Qwen2Attention
            and type(layer.mlp) is qwen2.Qwen2MLP
            and type(layer.input_layernorm) is type(layer.post_attention_layernorm) is qwen2.Qwen2RMSNorm
            for layer in core.layers
        )
        and type(core.norm) is qwen2.Qwen2RMSNorm
    )


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer (M, D_in) → (M, D_out), plain ones on the fastest exact path."""
    if type(layer) is nn.Linear and layer.weight.numel() >= _LARGE:
        return linear(x, layer.weight, layer.bias)
    return layer(x)


class PackedPass:
    """The lean forward of one Qwen2.

    On a CPU it equals the stock forward within 1e-5 in float32; in bfloat16 the norms round once instead of twice.
    On a GPU it is valid but unmeasured.
    """

    def __init__(self, decoder: Qwen2ForCausalLM) -> None:
        """Read the geometry; the weights stay the decoder's own."""
        config: Any = decoder.config
        self._core: Any = decoder.model
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._table: tuple[Tensor, Tensor] | None = None

    def __call__(self, segments: Sequence[Segment]) -> list[Tensor]:
        """New tokens of all segments → their last hidden states (B, n, H)."""
        x = _pack([segment.embeddings.flatten(0, 1) for segment in segments])
        positions = _pack([segment.positions.flatten() for segment in segments])
        cosine, sine = self._rotary(positions, max(segment.keys for segment in segments))
        masks = [_mask(segment) for segment in segments]
        rows = [torch.arange(len(segment.embeddings), device=x.device) for segment in segments]
        for index, layer in enumerate(self._core.layers):
            attention = layer.self_attn
            normed = _rms_norm(layer.input_layernorm, x)
            query = _turn(apply_linear(attention.q_proj, normed).view(len(x), self._heads, -1), cosine, sine)
            key = _turn(apply_linear(attention.k_proj, normed).view(len(x), self._groups, -1), cosine, sine)
            value = apply_linear(attention.v_proj, normed).view(len(x), self._groups, -1)
            mixed, start = [], 0
            for segment, mask, own in zip(segments, masks, rows, strict=True):
                stop = start + segment.positions.numel()
                memory = segment.memory[index]
                _remember(segment, memory, key[start:stop], value[start:stop], own)
                mixed.append(self._attend(segment, memory, query[start:stop], mask))
                start = stop
            x = x + apply_linear(attention.o_proj, _pack(mixed))
            normed = _rms_norm(layer.post_attention_layernorm, x)
            gate = F.silu(apply_linear(layer.mlp.gate_proj, normed))
            x = x + apply_linear(layer.mlp.down_proj, gate * apply_linear(layer.mlp.up_proj, normed))
        x = _rms_norm(self._core.norm, x)
        parts = x.split([segment.positions.numel() for segment in segments])
        return [part.view(*s.positions.shape, -1) for part, s in zip(parts, segments, strict=True)]

    def _rotary(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (M, 1, C) of positions below ``length``, from a table that grows."""
        like = self._core.embed_tokens.weight
        if self._table is None or len(self._table[0]) < length or self._table[0].device != like.device:
            places = torch.arange(max(256, 1 << length.bit_length()), device=like.device)
            cosine, sine = self._core.rotary_emb(like, places[None])
            half = self._width // 2
            # The sign of the rotation by halves goes into the table, so that turning is a roll.
            signed = torch.cat([-sine[0, :, :half], sine[0, :, half:]], dim=-1)
            self._table = cosine[0][:, None], signed[:, None]
        return self._table[0][positions], self._table[1][positions]

    def _attend(self, segment: Segment, memory: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (B · n, heads, C) over the memory (2, B, K, R, C) → (B · n, heads · C)."""
        key, value = memory[0, :, :, : segment.keys], memory[1, :, :, : segment.keys]
        batch, count = segment.positions.shape
        if count == 1:
            # The query heads of a group stand as queries of one head: its keys are read once and never repeated.
            grouped = query.view(batch, self._groups, -1, self._width)
            return F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask).flatten(1)
        query = query.transpose(0, 1)[None]
        causal = mask is None
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return mixed[0].transpose(0, 1).flatten(1)


def stock_pass(decoder: Qwen2ForCausalLM) -> Pass:
    """The decoder's own forward, one call a segment, on the same memory.

    Differs from: `PackedPass` in nothing but speed. Sliding windows are honoured.
    """
    from transformers import Cache

    class Memory(Cache):
        """Shows a segment's memory to attention layers."""

        def __init__(self, segment: Segment) -> None:
            super().__init__(layers=[])
            self.segment = segment
            self.rows = torch.arange(len(segment.embeddings), device=segment.embeddings.device)

        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            memory, s = self.segment.memory[layer_idx], self.segment
            key, value = key_states.transpose(1, 2).flatten(0, 1), value_states.transpose(1, 2).flatten(0, 1)
            _remember(s, memory, key, value, self.rows)
            return memory[0, :, :, : s.keys], memory[1, :, :, : s.keys]

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return self.segment.keys - self.segment.positions.shape[1]

    core: Any = decoder.model
    # transformers 5.24 renamed it.
    keyword = "cache" if "cache" in inspect.signature(core.forward).parameters else "past_key_values"
    layer_types = set(getattr(core.config, "layer_types", None) or ())
    window = core.config.sliding_window if "sliding_attention" in layer_types else None

    def forward(segments: Sequence[Segment]) -> list[Tensor]:
        hidden = []
        for segment in segments:
            mask = _mask(segment, always=True)
            masks: Any = mask
            if window is not None and mask is not None:
                masks = {"full_attention": mask, "sliding_attention": mask + _outside(segment, window).to(mask.dtype)}
            output = core(
                inputs_embeds=segment.embeddings,
                attention_mask=masks,
                position_ids=segment.positions,
                use_cache=True,
                **{keyword: Memory(segment)},
            )
            hidden.append(output.last_hidden_state)
        return hidden

    return forward


def _pack(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mask(segment: Segment, *, always: bool = False) -> Tensor | None:
    """The segment's mask (B, 1, n, S); None where attention needs none, unless ``always``."""
    count = segment.positions.shape[1]
    if segment.mask is not None or (not always and count in (1, segment.keys)):
        return segment.mask
    # A token sees all places up to its own, and the new ones are the last.
    own = torch.arange(segment.keys - count, segment.keys, device=segment.embeddings.device)
    ahead = torch.arange(segment.keys, device=own.device)[None] > own[:, None]
    mask = torch.zeros(ahead.shape, dtype=segment.embeddings.dtype, device=own.device)
    return mask.masked_fill(ahead, -torch.inf)[None, None].expand(len(segment.embeddings), 1, -1, -1)


def _outside(segment: Segment, window: int) -> Tensor:
    """-inf (B, 1, n, S) on places ``window`` or more before a token; places are positions here."""
    far = segment.positions[:, :, None] - torch.arange(segment.keys, device=segment.positions.device) >= window
    return torch.zeros(far.shape, device=far.device).masked_fill(far, -torch.inf)[:, None]


def _remember(segment: Segment, memory: Tensor, key: Tensor, value: Tensor, rows: Tensor) -> None:
    """Write new keys and values (B · n, K, C) into the memory (2, B, K, R, C) of a layer."""
    if isinstance(segment.places, int):
        stop = segment.places + len(key)
        memory[0, 0, :, segment.places : stop] = key.transpose(0, 1)
        memory[1, 0, :, segment.places : stop] = value.transpose(0, 1)
    else:
        memory[0][rows, :, segment.places] = key
        memory[1][rows, :, segment.places] = value


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _turn(heads: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    """Rotate (M, heads, C) by the angles of (M, 1, C)."""
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, -1), signed_sine)
