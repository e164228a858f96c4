"""Which tokens of a causal decoder attend to which: sequences laid end to end, and new tokens over a key–value cache.

The decoder runs on one matrix of tokens. Every layer but attention treats its rows alike; attention is one of the
callables of this file, made for a batch. None of them needs padding:

* `RowAttention`: sequences of one length.
* `PackedAttention`: sequences of any lengths. They are padded for attention alone, a few groups of similar length at a
  time, on the right: causal attention never reaches the padding, so no mask is needed and the fast kernels apply.
* `CachedAttention`: new tokens of many sequences, each over the keys and values that its cache holds so far.

Shape legend: B sequences, n new tokens of each, M tokens of all, S sequences of a group, L the longest of them, N query
heads, K key–value heads, C width of a head, R room of a cache, T keys attended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_SIMILAR = 0.75  # shortest sequence of a group over its longest: at most a quarter of a group's attention is padding


class Attend(Protocol):
    """Attention of one layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries (M, N, C), keys and values (M, K, C) of layer number ``layer`` → (M, N · C)."""


class Window(NamedTuple):
    """Sliding-window attention of the upper layers (Qwen2's ``sliding_window`` and ``max_window_layers``)."""

    size: int  # tokens that are attended to, the own one included
    first_layer: int


class Layout(NamedTuple):
    """Where the tokens of packed sequences are; plain tensors, so that they can be moved to a device."""

    positions: Tensor  # (1, M) of each token in its sequence
    groups: list[Tensor]  # of (S, L) row numbers; padding repeats the last row of its sequence
    back: Tensor  # (M,) place of each token among those of all groups, laid end to end

    def to(self, device: torch.device) -> Layout:
        """The same layout on another device."""
        return Layout(self.positions.to(device), [rows.to(device) for rows in self.groups], self.back.to(device))


def plan(lengths: Sequence[int]) -> Layout:
    """The layout of sequences of ``lengths`` tokens, in that order."""
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] >= _SIMILAR * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    places, back, filled = [], torch.empty(starts[-1], dtype=torch.long), 0
    for group in groups:
        longest = lengths[group[0]]
        inside = torch.arange(longest)
        for row, i in enumerate(group):
            first = filled + row * longest
            back[starts[i] : starts[i + 1]] = torch.arange(first, first + lengths[i])
        counts = torch.tensor([lengths[i] for i in group])[:, None]
        firsts = torch.tensor([starts[i] for i in group])[:, None]
        places.append(firsts + torch.minimum(inside, counts - 1))
        filled += len(group) * longest
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return Layout(positions, places, back)


class RowAttention:
    """Causal attention within B sequences of L tokens, laid end to end."""

    def __init__(self, batch: int, window: Window | None, dropout: float) -> None:
        """``dropout``: share of the attention weights that is dropped."""
        self._batch, self._window, self._dropout = batch, window, dropout

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        q, k, v = (head.unflatten(0, (self._batch, -1)) for head in (query, key, value))
        return _attend_causally(q, k, v, _size_of(self._window, layer), self._dropout).flatten(0, 1).flatten(1)


class PackedAttention:
    """Causal attention within sequences of any lengths, laid end to end."""

    def __init__(self, layout: Layout, window: Window | None, dropout: float) -> None:
        """``dropout``: share of the attention weights that is dropped."""
        self._layout, self._window, self._dropout = layout, window, dropout

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        size, parts = _size_of(self._window, layer), []
        for places in self._layout.groups:
            rows = places.flatten()
            q, k, v = (head.index_select(0, rows).unflatten(0, places.shape) for head in (query, key, value))
            parts.append(_attend_causally(q, k, v, size, self._dropout).flatten(0, 1))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
        return mixed.index_select(0, self._layout.back).flatten(1)


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, window: int | None, dropout: float) -> Tensor:
    """(S, L, heads, C) each → (S, L, N, C)."""
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    mask = None
    if window is not None and window < q.shape[2]:
        place = torch.arange(q.shape[2], device=q.device)
        back = place[:, None] - place
        mask = (back >= 0) & (back < window)
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed.transpose(1, 2)


def _size_of(window: Window | None, layer: int) -> int | None:
    return window.size if window is not None and layer >= window.first_layer else None


class Segment(NamedTuple):
    """New tokens of sequences that have equally many: n of one sequence, or one each of B sequences."""

    embeddings: Tensor  # (B, n, H)
    positions: Tensor  # (B, n) int64, for the rotary angles; below ``keys``
    cache: Tensor  # (layers, 2, B, K, R, C): keys and values so far; the new ones are written into it
    slots: Tensor | int  # where the new keys go: (B,) int64 where n is 1, or the first of n neighbouring slots
    keys: int  # T: the first T slots are attended to
    mask: Tensor | None = None  # (B, 1, n, T), added to the scores; None: every token sees all slots up to its own


def empty_cache(layers: int, batch: int, heads: int, room: int, width: int, like: Tensor) -> Tensor:
    """A key–value cache (layers, 2, batch, heads, room, width), of the type and on the device of ``like``.

    Zeros, because a slot that a mask hides still enters the sum with weight 0, and 0 · NaN is NaN.
    """
    return torch.zeros(layers, 2, batch, heads, room, width, dtype=like.dtype, device=like.device)


class CachedAttention:
    """Attention of the new tokens of segments over their caches, which take up the new keys and values."""

    def __init__(self, segments: Sequence[Segment], window: Window | None) -> None:
        """Make the masks, once for all layers."""
        self._window = window
        self._parts = []
        start = 0
        for segment in segments:
            stop = start + segment.positions.numel()
            rows = torch.arange(len(segment.embeddings), device=segment.embeddings.device)
            near = None if window is None else within(segment, window.size)
            self._parts.append((segment, slice(start, stop), rows, mask_of(segment), near))
            start = stop

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        is_near = _size_of(self._window, layer) is not None
        mixed = []
        for segment, part, rows, mask, near in self._parts:
            cache = segment.cache[layer]
            write(segment, cache, key[part], value[part], rows)
            mixed.append(_attend_cache(segment, cache, query[part], near if is_near else mask))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _attend_cache(segment: Segment, cache: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
    """Queries (B · n, N, C) over a layer's cache (2, B, K, R, C) → (B · n, N · C)."""
    key, value = cache[0, :, :, : segment.keys], cache[1, :, :, : segment.keys]
    batch, count = segment.positions.shape
    if count == 1:
        # The query heads of a group are the queries of one head: its keys are read once and never repeated.
        grouped = query.view(batch, key.shape[1], -1, key.shape[3])
        return F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask).flatten(1)
    query = query.transpose(0, 1)[None]
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed[0].transpose(0, 1).flatten(1)


def write(segment: Segment, cache: Tensor, key: Tensor, value: Tensor, rows: Tensor) -> None:
    """Put new keys and values (B · n, K, C) into the cache (2, B, K, R, C) of a layer; ``rows``: 0 … B - 1."""
    if isinstance(segment.slots, int):
        stop = segment.slots + len(key)
        cache[0, 0, :, segment.slots : stop] = key.transpose(0, 1)
        cache[1, 0, :, segment.slots : stop] = value.transpose(0, 1)
    else:
        cache[0][rows, :, segment.slots] = key
        cache[1][rows, :, segment.slots] = value


def mask_of(segment: Segment, *, always: bool = False) -> Tensor | None:
    """The segment's mask (B, 1, n, T); None where attention needs none, unless ``always``."""
    count = segment.positions.shape[1]
    if segment.mask is not None or (not always and count in (1, segment.keys)):
        return segment.mask
    # A token sees all slots up to its own, and the new ones are the last.
    own = torch.arange(segment.keys - count, segment.keys, device=segment.embeddings.device)
    ahead = torch.arange(segment.keys, device=own.device)[None] > own[:, None]
    mask = torch.zeros(ahead.shape, dtype=segment.embeddings.dtype, device=own.device)
    return mask.masked_fill(ahead, -torch.inf)[None, None].expand(len(segment.embeddings), 1, -1, -1)


def within(segment: Segment, window: int) -> Tensor:
    """The segment's mask, with -inf on slots ``window`` or more before a token; slots are positions here."""
    mask = mask_of(segment, always=True)
    assert mask is not None
    far = segment.positions[:, :, None] - torch.arange(segment.keys, device=mask.device) >= window
    return mask.masked_fill(far[:, None], -torch.inf)
