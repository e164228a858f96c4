"""Cross-modal retrieval: ranks by cosine, recalls, mean and median rank, mAP at 10, intervals, and chance level.

The data says which pairs of clip and caption are relevant; a clip may have several captions, and a caption several
clips. Of equally similar candidates those that are not relevant come first, so that embeddings collapsed to a point
find nothing. Legend: q queries, N candidates, n clips, m captions, D dimensions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics.intervals import QUANTILES, ROUNDS, Array, resampled_counts

TOP = 10  # ranks that count for mAP at 10
CAPTIONS = 5  # of a clip in Clotho, hence in X-ARES
_RECALLS = (1, 5, 10)
_BLOCK = 256  # queries compared with all candidates at once
_FEW = 16  # relevant candidates of a query


class RetrievalScores(NamedTuple):
    """How well queries find their relevant candidates; recalls and mAP at 10 in [0, 1], ranks from 1."""

    r1: float
    r5: float
    r10: float
    mean_rank: float
    median_rank: float
    map10: float


METRICS = RetrievalScores._fields


class QueryRanks(NamedTuple):
    """Where each query finds its relevant candidates."""

    first: Tensor  # (q,) int64, rank of the first relevant candidate, from 1
    average_precision: Tensor  # (q,) float64, over the first `TOP` ranks


class CaptionRanks(NamedTuple):
    """Ranks of both directions, where each caption has one clip."""

    of_captions: Tensor  # (n,) int64: of the first own caption, for each clip
    precision: Tensor  # (n,) float64, average precision over the first `TOP` ranks for each clip
    of_clips: Tensor  # (m,) int64: of the own clip, for each caption


class Estimate(NamedTuple):
    """A score with its 95 % interval and its chance level."""

    value: float
    low: float
    high: float
    chance: float


class RetrievalEstimates(NamedTuple):
    """Both directions, by the names in `METRICS`."""

    recall: Estimate  # at rank 1, the mean of both directions
    audio_to_text: Mapping[str, Estimate]
    text_to_audio: Mapping[str, Estimate]
    clips: Tensor  # (n,) float64: what each clip contributes to `recall`


def rank_candidates(queries: Tensor, candidates: Tensor, relevant: Sequence[Tensor]) -> QueryRanks:
    """Rank all candidates of each query by cosine.

    AP at 10 = Σ over relevant candidates of j / rank_j (0 beyond rank 10) / min(number of relevant, 10), the j-th
    relevant candidate having rank_j.

    Args:
        queries: (q, D).
        candidates: (N, D), on the same device.
        relevant: of each query the numbers of its relevant candidates, (r,) int64, each once, at least one.

    Source: GLAP's evaluation. Differs from: it, where similarities are equal.
    """
    queries, candidates = F.normalize(queries.double(), dim=1), F.normalize(candidates.double(), dim=1)
    first, precision = [], []
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ candidates.t()
        numbers = torch.nn.utils.rnn.pad_sequence(list(relevant[start : start + _BLOCK]), batch_first=True)
        counts = torch.tensor([len(own) for own in relevant[start : start + _BLOCK]], device=similarity.device)
        order = torch.arange(1, numbers.shape[1] + 1, device=similarity.device)
        is_pad = order > counts[:, None]
        found = similarity.gather(1, numbers).masked_fill(is_pad, -math.inf).sort(dim=1, descending=True).values
        # All that are at least as similar; of those the irrelevant ones, and the relevant ones up to this one.
        ranks = _at_least(similarity, found) - _at_least(found, found) + order
        first.append(ranks[:, 0])
        share = (order.double() / ranks).masked_fill((ranks > TOP) | is_pad, 0.0)
        precision.append(share.sum(1) / counts.clamp(max=TOP))
    return QueryRanks(torch.cat(first), torch.cat(precision))


def caption_ranks(audio: Tensor, text: Tensor, owners: Tensor) -> CaptionRanks:
    """Rank the captions of each clip and the clip of each caption by cosine.

    Args:
        audio: (n, D), one row a clip.
        text: (m, D), one row a caption, on the same device.
        owners: (m,) int64, the clip of each caption; every clip has at least one.

    Raises:
        DataError: shapes that do not fit, or a clip without captions.
    """
    counts = torch.bincount(owners, minlength=len(audio)) if len(owners) else torch.zeros(1)
    if audio.shape[1:] != text.shape[1:] or len(text) != len(owners) or len(counts) != len(audio) or counts.min() < 1:
        raise DataError(
            f"audio {tuple(audio.shape)}, text {tuple(text.shape)} and {len(owners)} owners do not fit; expected "
            "(n, D), (m, D) and m clip numbers that name each of the n clips"
        )
    to_text = rank_candidates(audio, text, owners.argsort(stable=True).split(counts.tolist()))
    to_audio = rank_candidates(text, audio, owners[:, None].unbind())
    # X-ARES divides by all captions of a clip, also where more than `TOP` cannot be among the first.
    precision = to_text.average_precision * counts.clamp(max=TOP) / counts
    return CaptionRanks(to_text.first, precision, to_audio.first)


def summarise_ranks(ranks: CaptionRanks) -> tuple[RetrievalScores, RetrievalScores]:
    """Scores of the ranks: audio to text, and text to audio."""
    of_clips = ranks.of_clips
    reciprocal = 1.0 / of_clips.double() * (of_clips <= TOP)
    return _summary(ranks.of_captions, ranks.precision), _summary(of_clips, reciprocal)


def retrieval_scores(audio: Tensor, text: Tensor, owners: Tensor) -> tuple[RetrievalScores, RetrievalScores]:
    """Scores of clips that retrieve captions, and of captions that retrieve clips.

    The best of a clip's captions counts; the median of an even number of ranks is rounded down. Arguments and errors as
    in `caption_ranks`.

    >>> clips, owners = torch.eye(3), torch.tensor([0, 1, 2, 2])
    >>> retrieval_scores(clips, clips[owners], owners)[0]
    RetrievalScores(r1=1.0, r5=1.0, r10=1.0, mean_rank=1.0, median_rank=1.0, map10=1.0)

    Source: X-ARES `metrics.py`. Differs from: it, where similarities are equal.
    """
    return summarise_ranks(caption_ranks(audio, text, owners))


def recall_at_1(audio: Tensor, text: Tensor, *, captions: int = CAPTIONS) -> float:
    """Recall at rank 1, the mean of both directions, of clips repeated for each of their captions; in [0, 1].

    Args:
        audio: (n · captions, D); the rows of a clip are neighbours, and the first of them is the query.
        text: (n · captions, D), the captions of the same rows.
        captions: of each clip.

    Raises:
        DataError: the rows are no whole number of clips, or shapes do not fit.

    Source: X-ARES `recallatk_r1`.
    """
    if len(audio) != len(text) or len(audio) % captions or not len(audio):
        raise DataError(
            f"{len(audio)} clips and {len(text)} captions; expected as many of both, {captions} for each clip"
        )
    owners = torch.arange(len(audio) // captions, device=audio.device).repeat_interleave(captions)
    to_text, to_audio = retrieval_scores(audio[::captions], text, owners)
    return (to_text.r1 + to_audio.r1) / 2


def retrieval_estimates(
    audio: Tensor, text: Tensor, pairs: Tensor, *, rounds: int = ROUNDS, seed: int = 0
) -> RetrievalEstimates:
    """Scores of both directions with 95 % intervals and chance levels.

    A bootstrap resamples clips; a caption counts as often as its clips were sampled (their mean, where it has several).
    The ranks stay those among all candidates.

    Args:
        audio: (n, D) on the CPU.
        text: (m, D) on the CPU.
        pairs: (p, 2) int64, each once: a clip and a caption relevant to it. Every clip and every caption has one.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        DataError: shapes that do not fit, or a clip or caption without partner.
    """
    _check(audio, text, pairs)
    owners, captions = pairs.t()
    per_clip, per_caption = torch.bincount(owners), torch.bincount(captions)
    to_text = rank_candidates(audio, text, captions[owners.argsort(stable=True)].split(per_clip.tolist()))
    to_audio = rank_candidates(text, audio, owners[captions.argsort(stable=True)].split(per_caption.tolist()))
    tables = _intervals(to_text, to_audio, pairs, rounds=rounds, seed=seed)
    by_chance = chance_scores(per_clip, len(text)), chance_scores(per_caption, len(audio))
    both = [
        {
            name: Estimate(float(value), float(low), float(high), known[name])
            for name, (value, low, high) in zip(METRICS, table, strict=True)
        }
        for table, known in zip(tables[:2], by_chance, strict=True)
    ]
    chance = (by_chance[0]["r1"] + by_chance[1]["r1"]) / 2
    hits = torch.zeros(len(audio), dtype=torch.float64).index_add_(0, owners, (to_audio.first == 1)[captions].double())
    clips = ((to_text.first == 1).double() + hits / per_clip) / 2
    value, low, high = (float(number) for number in tables[2][0])
    return RetrievalEstimates(Estimate(value, low, high, chance), both[0], both[1], clips)


def chance_scores(num_relevant: Tensor, num_candidates: int) -> dict[str, float]:
    """Expected scores of a random order of the candidates, by the names in `METRICS`.

    Args:
        num_relevant: (q,) int64, relevant candidates of each query, at least 1.
        num_candidates: N.

    >>> chance_scores(torch.tensor([1]), 4)["r1"], chance_scores(torch.tensor([1]), 4)["mean_rank"]
    (0.25, 2.5)
    """
    counts, times = num_relevant.unique(return_counts=True)
    rows = [_chance(int(relevant), num_candidates) for relevant in counts]
    means = dict(zip(METRICS, np.average(rows, axis=0, weights=times.numpy()).tolist(), strict=True))
    # Half of all queries find something up to here, each with its number of relevant candidates.
    reached = np.average(
        [_reached(int(relevant), num_candidates) for relevant in counts], axis=0, weights=times.numpy()
    )
    return {**means, "median_rank": float(np.searchsorted(reached, 0.5 - 1e-12) + 1)}


def _chance(relevant: int, candidates: int) -> list[float]:
    """As `chance_scores`, of one query; the median rank is computed of all queries together."""
    reached = _reached(relevant, candidates)
    recalls = [float(reached[min(k, candidates) - 1]) for k in _RECALLS]
    # The candidate at rank p is relevant with probability relevant / N; so are those before it, given that one.
    before = (relevant - 1) / max(1, candidates - 1)
    precision = sum(relevant / candidates * (1 + (p - 1) * before) / p for p in range(1, min(TOP, candidates) + 1))
    return [*recalls, (candidates + 1) / (relevant + 1), 0.0, precision / min(relevant, TOP)]


def _reached(relevant: int, candidates: int) -> Array:
    """Probability that a relevant candidate is among the first 1, 2, … N of a random order."""
    ranks = np.arange(candidates)
    missed = np.clip(1.0 - relevant / (candidates - ranks), 0.0, 1.0)
    return np.asarray(1.0 - np.cumprod(missed), np.float64)


class _Direction:
    """The ranks of one direction, ready to be summarised for many resamples."""

    def __init__(self, ranks: QueryRanks) -> None:
        self.first = ranks.first.double().cpu().numpy()
        hits = [self.first <= k for k in _RECALLS]
        self.columns = np.stack([*hits, self.first, ranks.average_precision.cpu().numpy()], 1).astype(np.float64)
        self.order = np.argsort(self.first, kind="stable")

    def summary(self, weights: Array) -> Array:
        """Values in the order of `METRICS`, of queries that count ``weights`` (q,) times."""
        r1, r5, r10, mean, precision = weights @ self.columns / weights.sum()
        reached = np.cumsum(weights[self.order])
        half = reached[-1] / 2
        # Of an even number the mean of the two in the middle, rounded down as released.
        middle = [np.searchsorted(reached, half * (1 - 1e-12)), np.searchsorted(reached, half * (1 + 1e-12))]
        ends = [self.first[self.order[min(int(place), len(reached) - 1)]] for place in middle]
        return np.array([r1, r5, r10, mean, math.floor(sum(ends) / 2), precision])


def _intervals(to_text: QueryRanks, to_audio: QueryRanks, pairs: Tensor, *, rounds: int, seed: int) -> Array:
    """Value, low and high of each metric of both directions, and of their mean: (3, k, 3)."""
    owners, captions = pairs.t().numpy()
    share: Array = 1.0 / np.bincount(captions)[captions]
    directions = _Direction(to_text), _Direction(to_audio)

    def summaries(times: Array) -> Array:
        of_captions = np.bincount(captions, weights=times[owners] * share)
        both = [directions[0].summary(times), directions[1].summary(np.asarray(of_captions, np.float64))]
        return np.stack([*both, (both[0] + both[1]) / 2])

    count = len(to_text.first)
    values = [summaries(times) for block in resampled_counts(count, rounds, seed) for times in block]
    low, high = np.quantile(np.array(values), QUANTILES, axis=0)
    return np.stack([summaries(np.ones(count)), low, high], -1)


def _summary(ranks: Tensor, precision: Tensor) -> RetrievalScores:
    r1, r5, r10 = (float((ranks <= k).double().mean()) for k in _RECALLS)
    median = float(np.floor(np.median(ranks.double().cpu().numpy())))
    return RetrievalScores(r1, r5, r10, float(ranks.double().mean()), median, float(precision.mean()))


def _at_least(values: Tensor, limits: Tensor) -> Tensor:
    """How many values (b, N) reach each limit (b, r); for few limits without sorting the values."""
    if limits.shape[1] < _FEW:
        return torch.stack([(values >= limit[:, None]).sum(1) for limit in limits.unbind(1)], 1)
    return values.shape[1] - torch.searchsorted(values.sort(dim=1).values, limits)


def _check(audio: Tensor, text: Tensor, pairs: Tensor) -> None:
    sizes = f"audio {tuple(audio.shape)}, text {tuple(text.shape)} and pairs {tuple(pairs.shape)}"
    if audio.ndim != 2 or audio.shape[1:] != text.shape[1:] or pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"{sizes} do not fit; expected (n, D), (m, D) and (p, 2)")
    for kind, rows, column in (("clip", audio, pairs[:, 0]), ("caption", text, pairs[:, 1])):
        if not torch.equal(column.unique(), torch.arange(len(rows))):
            raise DataError(f"{sizes}: not every {kind} has a partner, or one is named that does not exist")
