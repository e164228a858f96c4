"""Log-probabilities of given continuations of a prompt whose keys and values are in a cache.

Continuations follow the prompt one after the other, each attending to the prompt and itself, so that many short ones
are one pass.

Shape legend: P prompt tokens, n tokens of a group of continuations, H decoder width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from auricle.data.batches import grouped
from auricle.errors import WeightsError
from auricle.models.frame_model import NOT_FINITE
from auricle.models.inference import inference
from auricle.models.qwen_attention import Segment

if TYPE_CHECKING:
    from auricle.models.stock_decoder import Decoder

_LOGIT_ROWS = 128  # positions whose logits are in memory at once: 80 MB with a vocabulary of 152,064


def group_continuations(continuations: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Indices of continuations that are read together: at most ``max_tokens`` tokens, or a single one."""
    return grouped(range(len(continuations)), lambda index: len(continuations[index]), max_tokens)


@inference()
def score_group(
    decoder: Decoder, prompt: tuple[Tensor, int, Tensor], continuations: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of each token of continuations that are read together, nats.

    Args:
        decoder: in evaluation mode.
        prompt: key–value cache with room for the continuations behind the prompt, P, and the prompt's last hidden state
            (H,).
        continuations: token ids; may be empty.
    """
    cache, length, last = prompt
    # What follows the last token of a continuation is of no interest.
    inner = [list(ids[:-1]) for ids in continuations]
    hidden = last[None]
    if any(inner):
        hidden = torch.cat([hidden, _read_inner(decoder, cache, length, inner)])
    rows: list[int] = []  # of ``hidden``, before each token that is scored
    targets: list[int] = []
    start = 1
    for ids, read in zip(continuations, inner, strict=True):
        if ids:
            rows += [0, *range(start, start + len(read))]
            targets += ids
        start += len(read)
    found: list[float] = []
    for first in range(0, len(rows), _LOGIT_ROWS):
        logits = decoder.lm_head(hidden[rows[first : first + _LOGIT_ROWS]]).float()
        chosen = torch.tensor(targets[first : first + _LOGIT_ROWS], device=logits.device)
        found += (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
    if not all(map(math.isfinite, found)):
        raise WeightsError(NOT_FINITE)
    each = iter(found)
    return [[next(each) for _ in ids] for ids in continuations]


def _read_inner(decoder: Decoder, cache: Tensor, length: int, inner: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states (n, H) of tokens that follow the prompt, each continuation as if alone."""
    device = cache.device
    ids = torch.tensor([token for each in inner for token in each], device=device)
    owner = torch.tensor([index for index, each in enumerate(inner) for _ in each], device=device)
    positions = torch.tensor([length + place for each in inner for place in range(len(each))], device=device)
    seen = (owner[:, None] == owner[None]) & (positions[:, None] >= positions[None])
    mask = torch.zeros(len(ids), length + len(ids), dtype=cache.dtype, device=device)
    mask[:, length:].masked_fill_(~seen, -torch.inf)
    embeddings = decoder.get_input_embeddings()(ids[None])
    keys = length + len(ids)
    (hidden,) = decoder.read([Segment(embeddings, positions[None], cache, length, keys, mask[None, None])])
    return hidden[0]
