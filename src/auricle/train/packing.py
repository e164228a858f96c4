"""Examples of different lengths in one row without padding, and a loss without logits that nobody asks for.

A row holds the tokens of all examples end to end; positions start anew in each, and attention never leaves one
(block-diagonal). Every layer but attention is blind to the seams. Attention itself sees the examples as rows of their
own, padded on the right, a few groups of like length at a time: causal attention looks back only, so what pads a row is
never looked at and no mask is needed, which keeps the fast kernels.

Shape legend: M tokens of all examples, S examples of a group, L the longest of them, H heads, C width of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ATTENTION = "auricle_packed"  # name under which transformers knows `_attend`
_LIKE = 0.75  # shortest example of a group over its longest: at most a quarter of a group's attention is padding


class Layout(NamedTuple):
    """Where the tokens of packed examples lie; plain tensors, so that they can be moved to a device."""

    positions: Tensor  # (1, M) of each token in its example
    groups: list[Tensor]  # of (S, L) places in the row; what pads is any place
    back: Tensor  # (M,) place of each token among those of all groups, laid end to end


def plan(lengths: Sequence[int]) -> Layout:
    """The layout of examples of ``lengths`` tokens, in that order."""
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] >= _LIKE * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    places, back, filled = [], torch.empty(starts[-1], dtype=torch.long), 0
    for group in groups:
        longest = lengths[group[0]]
        inside = torch.arange(longest)
        for row, i in enumerate(group):
            begin = filled + row * longest
            back[starts[i] : starts[i + 1]] = torch.arange(begin, begin + lengths[i])
        counts = torch.tensor([lengths[i] for i in group])[:, None]
        first = torch.tensor([starts[i] for i in group])[:, None]
        places.append(first + torch.minimum(inside, counts - 1))
        filled += len(group) * longest
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return Layout(positions, places, back)


def decode_packed(decoder: Any, embeddings: Tensor, layout: Layout) -> Tensor:
    """Run a transformers decoder over packed examples.

    Args:
        decoder: a causal language model after `enable`.
        embeddings: (1, M, D) inputs.
        layout: of the examples, on the same device.

    Returns:
        (1, M, D) last hidden states, those of each example as if it were alone.
    """
    # A mask that is given, be it none, is not made: it would be (M, M).
    unmasked = {kind: None for kind in ("full_attention", "sliding_attention")}
    return decoder.model(
        inputs_embeds=embeddings, attention_mask=unmasked, position_ids=layout.positions, use_cache=False, layout=layout
    ).last_hidden_state


def enable(decoder: Any) -> None:
    """Teach a decoder `decode_packed`; everything else it does as before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    decoder.set_attn_implementation(ATTENTION)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    layout: Layout | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: (1, H, M, C) of packed examples → (1, M, H, C); else its own."""
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, mask, **how)
    shared = module.num_key_value_groups
    heads = [query[0], key[0].repeat_interleave(shared, 0), value[0].repeat_interleave(shared, 0)]
    parts = []
    for places in layout.groups:
        q, k, v = (head[:, places].transpose(0, 1) for head in heads)  # (S, H, L, C)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=how["dropout"], is_causal=True, scale=how["scaling"])
        parts.append(out.transpose(1, 2).flatten(0, 1))  # (S · L, H, C)
    return torch.cat(parts)[layout.back][None], None


def chunked_loss(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Mean cross-entropy () float32 of the positions that carry a label, ``chunk`` at a time.

    The logits of a chunk are made, used and forgotten, and made again for their gradients: memory is chunk × V, however
    long the batch.

    Args:
        head: hidden states (n, D) → logits (n, V).
        hidden: (n, D) states of the labelled positions alone.
        targets: (n,) the tokens that follow them.
        chunk: positions, >= 1.
    """
    total = hidden.new_zeros((), dtype=torch.float32)
    for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        total = total + checkpoint(_sum_of_losses, head, states, wanted, use_reentrant=False)
    return total / len(targets)


def _sum_of_losses(head: nn.Module, states: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(head(states).float(), wanted, reduction="sum")
