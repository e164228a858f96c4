"""Log-probabilities of given continuations of a prompt that is in memory already.

Continuations stand behind the prompt one after the other, each seeing the prompt and itself, so that many short ones
are one pass.

Shape legend: P prompt tokens, n tokens of a group of continuations, H decoder width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from auricle.models.qwen_decoder import Pass, Segment

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

_LOGIT_ROWS = 128  # places whose logits are in memory at once: 80 MB with a vocabulary of 152,064


def group_continuations(continuations: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Indices of continuations that are read together: at most ``max_tokens`` tokens, or a single one."""
    group: list[int] = []
    filled = 0
    for index, ids in enumerate(continuations):
        if group and filled + len(ids) > max_tokens:
            yield group
            group, filled = [], 0
        group.append(index)
        filled += len(ids)
    if group:
        yield group


@torch.inference_mode()
def score_group(
    decoder: Qwen2ForCausalLM,
    run: Pass,
    logits: Callable[[Tensor], Tensor],
    prompt: tuple[Tensor, int, Tensor],
    continuations: Sequence[Sequence[int]],
) -> list[list[float]]:
    """Log-probability of each token of continuations that are read together, nats.

    Args:
        decoder: in evaluation mode.
        run: its forward.
        logits: hidden states (M, H) → logits (M, V).
        prompt: memory with room for the continuations behind the prompt, P, and the prompt's last hidden state (H,).
        continuations: token ids; may be empty.
    """
    memory, length, last = prompt
    # The last token of a continuation is followed by nothing that is asked for.
    inner = [list(ids[:-1]) for ids in continuations]
    hidden = last[None]
    if any(inner):
        hidden = torch.cat([hidden, _read_inner(decoder, run, memory, length, inner)])
    places: list[int] = []
    wanted: list[int] = []
    start = 1
    for ids, read in zip(continuations, inner, strict=True):
        if ids:
            places += [0, *range(start, start + len(read))]
            wanted += ids
        start += len(read)
    found: list[float] = []
    for begin in range(0, len(places), _LOGIT_ROWS):
        rows = logits(hidden[places[begin : begin + _LOGIT_ROWS]])
        chosen = torch.tensor(wanted[begin : begin + _LOGIT_ROWS], device=rows.device)
        found += (rows.gather(1, chosen[:, None])[:, 0] - rows.logsumexp(-1)).tolist()
    each = iter(found)
    return [[next(each) for _ in ids] for ids in continuations]


def _read_inner(
    decoder: Qwen2ForCausalLM, run: Pass, memory: Tensor, length: int, inner: Sequence[Sequence[int]]
) -> Tensor:
    """Hidden states (n, H) of tokens that follow the prompt, each continuation as if alone."""
    device = memory.device
    ids = torch.tensor([token for each in inner for token in each], device=device)
    owner = torch.tensor([index for index, each in enumerate(inner) for _ in each], device=device)
    positions = torch.tensor([length + place for each in inner for place in range(len(each))], device=device)
    seen = (owner[:, None] == owner[None]) & (positions[:, None] >= positions[None])
    mask = torch.zeros(len(ids), length + len(ids), dtype=memory.dtype, device=device)
    mask[:, length:].masked_fill_(~seen, -torch.inf)
    embeddings = decoder.get_input_embeddings()(ids[None])
    keys = length + len(ids)
    (hidden,) = run([Segment(embeddings, positions[None], memory, length, keys, mask[None, None])])
    return hidden[0]
