"""Causal language models that `transformers` ships, with what the engine asks of a decoder.

For frozen language models of benchmarks that are neither Qwen2 nor Qwen3; those are `auricle.models.qwen`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from auricle.errors import ConfigError, MissingExtra
from auricle.models.qwen import QwenForCausalLM
from auricle.models.qwen_attention import Segment, Window, empty_cache, mask_of, within, write


class StockDecoder(nn.Module):
    """A language model of `transformers` behind the names of `QwenForCausalLM`."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a model that keeps its layers in ``model`` and its output head in ``lm_head``.

        Raises:
            ConfigError: it keeps them elsewhere.
            MissingExtra: transformers is not installed.
        """
        super().__init__()
        if not hasattr(network, "model") or not hasattr(network, "lm_head"):
            raise ConfigError(f"{type(network).__name__} keeps its layers elsewhere; give a Qwen2, Llama or alike")
        self.network: Any = network
        self._cache_class = _cache_class()
        core: Any = network.model
        forward = inspect.signature(core.forward).parameters
        self._keyword = "cache" if "cache" in forward else "past_key_values"  # transformers 5.24 renamed it
        layer_types = set(getattr(self.config, "layer_types", None) or ())
        size = self.config.sliding_window if "sliding_attention" in layer_types else None
        self._window = None if size is None else Window(size, 0)  # which layers it is for, they know themselves

    @property
    def config(self) -> Any:
        """Its configuration in transformers."""
        return self.network.config

    @property
    def lm_head(self) -> nn.Module:
        """Hidden states (M, H) → logits (M, V)."""
        return cast(nn.Module, self.network.lm_head)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.network.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings, hidden states and cache."""
        return cast(torch.dtype, self.network.dtype)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding table: ids (…) → (…, H)."""
        return cast(nn.Module, self.network.get_input_embeddings())

    def new_cache(self, batch: int, room: int) -> Tensor:
        """An empty key–value cache (layers, 2, batch, K, room, C)."""
        config = self.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        weight = cast(Tensor, self.get_input_embeddings().weight)
        return empty_cache(config.num_hidden_layers, batch, config.num_key_value_heads, room, width, weight)

    def decode(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Inputs (B, L, H) and their mask (B, L), 1 = token, padded on the right → last hidden states (B, L, H)."""
        mask = None if attention_mask is None else attention_mask.long()
        return cast(
            Tensor,
            self.network.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state,
        )

    def read(self, segments: Sequence[Segment]) -> list[Tensor]:
        """New tokens of each segment → their last hidden states (B, n, H); one call a segment, caches are filled."""
        hidden = []
        for segment in segments:
            masks: Any = mask_of(segment, always=True)
            if self._window is not None:
                masks = {"full_attention": masks, "sliding_attention": within(segment, self._window.size)}
            output = self.network.model(
                inputs_embeds=segment.embeddings,
                attention_mask=masks,
                position_ids=segment.positions,
                use_cache=True,
                **{self._keyword: self._cache_class(segment)},
            )
            hidden.append(output.last_hidden_state)
        return hidden


Decoder: TypeAlias = QwenForCausalLM | StockDecoder


def _cache_class() -> type[Any]:
    """A class of transformers' that shows a segment's cache to attention layers."""
    try:
        from transformers import Cache
    except ImportError:
        raise MissingExtra("a language model of transformers", "transformers") from None

    class SegmentCache(Cache):
        def __init__(self, segment: Segment) -> None:
            super().__init__(layers=[])
            self.segment = segment
            self.rows = torch.arange(len(segment.embeddings), device=segment.embeddings.device)

        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            cache, s = self.segment.cache[layer_idx], self.segment
            key, value = key_states.transpose(1, 2).flatten(0, 1), value_states.transpose(1, 2).flatten(0, 1)
            write(s, cache, key, value, self.rows)
            return cache[0, :, :, : s.keys], cache[1, :, :, : s.keys]

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return self.segment.keys - self.segment.positions.shape[1]

    return SegmentCache
