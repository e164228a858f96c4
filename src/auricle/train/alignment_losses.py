"""Contrastive losses of clips and captions.

The strict rule (`sigmoid_loss`, `softmax_loss`) learns the logarithm of the temperature, which so stays positive, and
receives which pairs of a batch are *no* negatives: a caption that another clip has, too, or captions of one clip. Such
pairs are left out rather than counted as positives. The same caption gives the same logit, so a second vote would only
weigh a clip by how common its caption is, and "Music plays." would rule the batch; and another crop of a clip need not
hold what the caption names.

The released rule (`compat_*`) is GLAP's own, pitfalls included: see each function.

Every loss is computed in float32, whatever the embeddings are; these are unit vectors, but nothing depends on it.

Shape legend: B pairs of this process, N of all processes, D width, K keys of a pair. A key is a number >= 0 that equal
things share (clip, caption, …), negative where there is none.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sigmoid_loss(
    audio: Tensor,
    text: Tensor,
    log_temperature: Tensor,
    bias: Tensor,
    keys: Tensor,
    *,
    chunk: int = 0,
    gather: bool = False,
) -> Tensor:
    """SigLIP loss () of the own clips with all captions, over B: each pair is classified alone, true or not.

    Args:
        audio: (B, D) embeddings of clips.
        text: (B, D) embeddings of their captions.
        log_temperature: () logarithm of what cosines are divided by.
        bias: () added to every logit.
        keys: (B, K) int64; two pairs that share a key are no negatives of each other.
        chunk: clips whose logits are held at once; 0 = all. Memory is O(chunk · B).
        gather: let the captions of all processes go around as negatives, one block at a time. Every process must then
            take part, and differentiate the same multiple of its sum over clips.

    Source: arXiv 2303.15343, section 3 and the block exchange of section 3.3.
    """
    with torch.autocast(audio.device.type, enabled=False):
        total = _SigmoidSum.apply(  # type: ignore[no-untyped-call]
            audio.float(), text.float(), (-log_temperature.float()).exp(), bias.float(), keys, chunk, gather
        )
        return total / len(audio)


def softmax_loss(
    audio: Tensor, text: Tensor, log_temperature: Tensor, keys: Tensor, *, chunk: int = 0, gather: bool = False
) -> Tensor:
    """CLIP loss (): which caption is the clip's and which clip the caption's, averaged over the own B pairs.

    Pairs that share a key are in no denominator. Arguments as for `sigmoid_loss`; with ``gather`` the
    embeddings of all processes, (N, D) each, are held at once, but never more than ``chunk`` rows of logits.

    Source: arXiv 2103.00020, section 2.3.
    """
    with torch.autocast(audio.device.type, enabled=False):
        own = (audio.float(), text.float())
        scale = (-log_temperature.float()).exp()
        sizes = _sizes(len(audio), audio.device) if _world(gather) > 1 else [len(audio)]
        first = sum(sizes[: dist.get_rank()]) if len(sizes) > 1 else 0
        everyone = own
        if len(sizes) > 1:
            everyone = tuple(_Gather.apply(part, sizes) for part in own)  # type: ignore[no-untyped-call]
        all_keys = keys if len(sizes) == 1 else _all_gather(keys, sizes)
        total = audio.new_zeros((), dtype=torch.float32)
        for rows, columns in zip(own, reversed(everyone), strict=True):
            for start in range(0, len(rows), chunk or len(rows)):
                some = slice(start, start + (chunk or len(rows)))
                # Recomputed in the backward pass, so that the logits of one chunk are all there is.
                total = total + checkpoint(
                    _cross_entropy, rows[some], columns, scale, keys[some], all_keys, first + start, use_reentrant=False
                )
        return total / (2 * len(audio))


def compat_sigmoid_loss(
    audio: Tensor, text: Tensor, temperature: Tensor, bias: Tensor | None, *, regularise: bool = True, chunk: int = 0
) -> Tensor:
    """GLAP's default (): SigLIP with the temperature itself learned, as a divisor that may cross 0.

    Captions that are equal are negatives of each other, and so are crops of one clip.

    Args:
        audio: (B, D) embeddings of clips.
        text: (B, D) embeddings of their captions.
        temperature: () divisor of cosines, 0.07 at the start.
        bias: () added to every logit, -10 at the start; None = 0.
        regularise: add `embedding_spread` of both; on unit vectors it hardly moves.
        chunk: as for `sigmoid_loss`.
    """
    with torch.autocast(audio.device.type, enabled=False):
        audio, text, temperature = audio.float(), text.float(), temperature.float()
        offset = torch.zeros_like(temperature) if bias is None else bias.float()
        nothing = torch.full((len(audio), 1), -1, device=audio.device)
        total = _SigmoidSum.apply(  # type: ignore[no-untyped-call]
            audio, text, 1.0 / temperature, offset, nothing, chunk, False
        )
        return total / len(audio) + _spread(audio, text, regularise)


def compat_bce_loss(
    audio: Tensor, text: Tensor, temperature: Tensor, counts: Tensor | None = None, *, regularise: bool = True
) -> Tensor:
    """GLAP's variant (): binary cross-entropy averaged over all B² pairs, without a bias.

    A pair whose clip has n captions in the batch has the target probability 1 / n, its neighbours still for 0.

    Args:
        audio: (B, D) embeddings of clips.
        text: (B, D) embeddings of their captions.
        temperature: () divisor of cosines.
        counts: (B,) captions of the same clip in the batch, itself included; None = 1 each.
        regularise: as for `compat_sigmoid_loss`.
    """
    with torch.autocast(audio.device.type, enabled=False):
        audio, text = audio.float(), text.float()
        wanted = torch.diag(_vote(counts, audio))
        loss = F.binary_cross_entropy_with_logits(audio @ text.T / temperature.float(), wanted)
        return loss + _spread(audio, text, regularise)


def compat_softmax_loss(
    audio: Tensor, text: Tensor, log_scale: Tensor, counts: Tensor | None = None, *, regularise: bool = True
) -> Tensor:
    """GLAP's variant (): symmetric CLIP loss whose rows weigh 1 / n for a clip with n captions in the batch.

    The weights are not normalised, and the clip's other captions are negatives. ``log_scale`` () is the logarithm of
    what cosines are multiplied with, log(1 / 0.07) at the start; other arguments as for `compat_bce_loss`.
    """
    with torch.autocast(audio.device.type, enabled=False):
        audio, text = audio.float(), text.float()
        logits = audio @ text.T * log_scale.float().exp()
        places, vote = torch.arange(len(audio), device=audio.device), _vote(counts, audio)
        both = [(F.cross_entropy(each, places, reduction="none") * vote).mean() for each in (logits, logits.T)]
        return (both[0] + both[1]) / 2 + _spread(audio, text, regularise)


def embedding_spread(embedding: Tensor) -> Tensor:
    """GLAP's regulariser of (B, D) embeddings: mean magnitude over the Frobenius norm, ()."""
    return embedding.abs().mean() / embedding.norm()


def shares_key(keys: Tensor, others: Tensor) -> Tensor:
    """Which pairs of (B, K) and (N, K) have a key in common, (B, N)."""
    common = torch.zeros(len(keys), len(others), dtype=torch.bool, device=keys.device)
    for own, other in zip(keys.T, others.T, strict=True):
        common |= (own[:, None] == other[None]) & (own[:, None] >= 0)
    return common


class _SigmoidSum(torch.autograd.Function):
    """Sum of the pair losses of own clips and all captions, with its gradients.

    These are found along with the sum: a block of captions goes around the processes together with the gradient it has
    gathered so far, and after the last step each block is home again. The backward pass then only scales.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, audio: Tensor, text: Tensor, scale: Tensor, bias: Tensor, keys: Tensor, chunk: int, gather: bool
    ) -> Tensor:
        world = _world(gather)
        sizes = _sizes(len(text), text.device) if world > 1 else [len(text)]
        grads = [torch.zeros_like(value) for value in (audio, scale, bias)]
        total = torch.zeros_like(scale)
        block, block_keys = torch.stack([text, torch.zeros_like(text)]), keys
        for hop in range(world):
            for start in range(0, len(audio), chunk or len(audio)):
                some = slice(start, start + (chunk or len(audio)))
                similarity = audio[some] @ block[0].T
                sign = _signs(keys[some], block_keys, start if hop == 0 else None)
                logits = similarity * scale + bias
                total += (F.softplus(-sign * logits) * sign.abs()).sum()
                slope = -sign * torch.sigmoid(-sign * logits)
                grads[1] += (slope * similarity).sum()
                grads[2] += slope.sum()
                slope *= scale
                grads[0][some] += slope @ block[0]
                block[1] += slope.T @ audio[some]
            if world > 1:
                coming = sizes[(dist.get_rank() - hop - 1) % world]
                block = _pass_on(block.contiguous(), (2, coming, text.shape[1]))
                block_keys = _pass_on(block_keys.contiguous(), (coming, keys.shape[1]))
        ctx.save_for_backward(grads[0], block[1], grads[1], grads[2])
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None


class _Gather(torch.autograd.Function):
    """Rows (B, D) of every process laid end to end, (N, D); gradients of all are summed in the rows' own."""

    @staticmethod
    def forward(ctx, rows: Tensor, sizes: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.sizes = sizes
        return _all_gather(rows, sizes)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.split(ctx.sizes)[dist.get_rank()], None


def _signs(keys: Tensor, others: Tensor, first: int | None) -> Tensor:
    """(B, N) float: 1 true pair, -1 false pair, 0 neither; row i is true with column ``first`` + i, if at all."""
    signs = shares_key(keys, others).float() - 1.0
    if first is not None:
        signs.diagonal(first).fill_(1.0)
    return signs


def _cross_entropy(rows: Tensor, columns: Tensor, scale: Tensor, keys: Tensor, all_keys: Tensor, first: int) -> Tensor:
    """Sum over rows of the negative log-probability of column ``first`` + row."""
    excluded = shares_key(keys, all_keys)
    excluded.diagonal(first)[: len(rows)] = False
    logits = (rows @ columns.T * scale).masked_fill(excluded, float("-inf"))
    places = torch.arange(first, first + len(rows), device=rows.device)
    return F.cross_entropy(logits, places, reduction="sum")


def _vote(counts: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like[:, 0]) if counts is None else 1.0 / counts.to(like)


def _spread(audio: Tensor, text: Tensor, wanted: bool) -> Tensor:
    return embedding_spread(audio) + embedding_spread(text) if wanted else audio.new_zeros(())


def _world(gather: bool) -> int:
    return dist.get_world_size() if gather and dist.is_available() and dist.is_initialized() else 1


def _sizes(own: int, device: torch.device) -> list[int]:
    """Pairs of each process."""
    found = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(found, torch.tensor([own], device=device))
    return [int(size) for size in found]


def _all_gather(rows: Tensor, sizes: list[int]) -> Tensor:
    longest = max(sizes)
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])


def _pass_on(block: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Hand a block to the next process and take one of ``shape`` from the one before."""
    rank, world = dist.get_rank(), dist.get_world_size()
    received = block.new_empty(shape)
    going = dist.P2POp(dist.isend, block, (rank + 1) % world)
    coming = dist.P2POp(dist.irecv, received, (rank - 1) % world)
    for request in dist.batch_isend_irecv([going, coming]):
        request.wait()
    return received
