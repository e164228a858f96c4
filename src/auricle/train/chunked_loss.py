"""Cross-entropy over a large vocabulary, without the logits of all tokens at once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


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


def _sum_of_losses(head: Callable[[Tensor], Tensor], states: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(head(states).float(), wanted, reduction="sum")
