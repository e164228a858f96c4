"""Retrieval."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics import (
    retrieval,
)

from .metric_tester import FLOATS, Arguments, MetricCase, embeddings, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Generator = np.random.Generator
EMPTY = torch.zeros(0, 3)


# References


def _cosine(one: Tensor, other: Tensor) -> float:
    norms = max(float(one.norm()), 1e-12) * max(float(other.norm()), 1e-12)
    return float(one @ other) / norms


def _ranks(query: Tensor, candidates: Tensor, relevant: Sequence[int]) -> list[int]:
    """Ranks of the relevant candidates; of equally near ones the others come first."""
    near = [round(_cosine(query.double(), each.double()), 9) for each in candidates]
    order = sorted(range(len(near)), key=lambda at: (-near[at], at in relevant))
    return [rank for rank, at in enumerate(order, 1) if at in relevant]


def reference_rank_candidates(queries: Tensor, candidates: Tensor, relevant: Sequence[Tensor]) -> Any:
    ranks = [_ranks(query, candidates, own.tolist()) for query, own in zip(queries, relevant, strict=True)]
    precision = [sum(j / rank for j, rank in enumerate(own, 1) if rank <= 10) / min(len(own), 10) for own in ranks]
    return [own[0] for own in ranks], precision


def reference_caption_ranks(audio: Tensor, text: Tensor, owners: Tensor) -> Any:
    captions = [(owners == clip).nonzero()[:, 0].tolist() for clip in range(len(audio))]
    ranks = [_ranks(clip, text, own) for clip, own in zip(audio, captions, strict=True)]
    precision = [sum(j / rank for j, rank in enumerate(own, 1) if rank <= 10) / len(own) for own in ranks]
    of_clips = [_ranks(caption, audio, [int(clip)])[0] for caption, clip in zip(text, owners, strict=True)]
    return [own[0] for own in ranks], precision, of_clips


def _summary(ranks: Sequence[int], precision: Sequence[float]) -> list[float]:
    recalls = [sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)]
    return [*recalls, sum(ranks) / len(ranks), math.floor(np.median(ranks)), sum(precision) / len(precision)]


def reference_retrieval_scores(audio: Tensor, text: Tensor, owners: Tensor) -> Any:
    of_captions, precision, of_clips = reference_caption_ranks(audio, text, owners)
    return _summary(of_captions, precision), _summary(of_clips, [1 / rank if rank <= 10 else 0 for rank in of_clips])


def reference_summarise_ranks(ranks: Any) -> Any:
    of_clips = ranks.of_clips.tolist()
    reciprocal = [1 / rank if rank <= 10 else 0 for rank in of_clips]
    return _summary(ranks.of_captions.tolist(), ranks.precision.tolist()), _summary(of_clips, reciprocal)


def reference_recall_at_1(audio: Tensor, text: Tensor) -> float:
    owners = torch.arange(len(audio)) // 5
    to_text, to_audio = reference_retrieval_scores(audio[::5], text, owners)
    return (to_text[0] + to_audio[0]) / 2


def reference_retrieval_estimates(audio: Tensor, text: Tensor, pairs: Tensor) -> Any:
    """The values; of captions of one clip each those of `retrieval_scores`."""
    to_text, to_audio = reference_retrieval_scores(audio, text, pairs[:, 0])
    names = ("r1", "r5", "r10", "mean_rank", "median_rank", "map10")
    both = [dict(zip(names, own, strict=True)) for own in (to_text, to_audio)]
    return (to_text[0] + to_audio[0]) / 2, *both


def reference_chance_scores(num_relevant: Tensor, num_candidates: int) -> dict[str, float]:
    """The mean over all orders of the candidates."""
    rows, first = [], []
    for relevant in num_relevant.tolist():
        for order in itertools.permutations(range(num_candidates)):
            ranks = [rank for rank, candidate in enumerate(order, 1) if candidate < relevant]
            first.append(ranks[0])
            precision = sum(j / rank for j, rank in enumerate(ranks, 1) if rank <= 10) / min(relevant, 10)
            rows.append([*(ranks[0] <= k for k in (1, 5, 10)), ranks[0], precision])
    means = np.mean(np.array(rows, np.float64), axis=0)
    # The lowest rank up to which half of the queries of all orders find something.
    median = sorted(first)[math.ceil(len(first) / 2) - 1]
    return dict(zip(("r1", "r5", "r10", "mean_rank", "map10", "median_rank"), [*means, median], strict=True))


# Inputs


def owned(rng: Generator, n: int) -> Arguments:
    owners = torch.from_numpy(np.concatenate([np.arange(n), rng.integers(n, size=2 * n)]))
    return embeddings(rng, n), embeddings(rng, len(owners)), owners


def owned_pairs(rng: Generator, n: int) -> Arguments:
    audio, text, owners = owned(rng, n)
    return audio, text, torch.stack([owners, torch.arange(len(owners))], 1)


def ranked(rng: Generator, n: int) -> Arguments:
    """Queries with few relevant candidates, or with up to all of them."""
    candidates = 2 * n + 2
    most = candidates if rng.random() < 0.5 else 3
    relevant = [torch.from_numpy(rng.permutation(candidates)[: rng.integers(1, most + 1)].copy()) for _ in range(n)]
    return embeddings(rng, n), embeddings(rng, candidates), relevant


# Cases

RETRIEVAL = [
    MetricCase(
        metric=retrieval.rank_candidates,
        reference=reference_rank_candidates,
        inputs=seeded(ranked, large=40),
        bounds=(0, math.inf),
        items=(0, 2),
        per_item=True,
        dtypes=FLOATS,
        tolerance=1e-9,
        degenerate={
            "collapsed": ((torch.ones(1, 2), torch.ones(3, 2), [torch.tensor([0])]), [3, 1 / 3]),
            "beyond ten": ((torch.ones(1, 2), torch.ones(12, 2), [torch.tensor([0])]), [12, 0.0]),
        },
    ),
    MetricCase(
        metric=retrieval.caption_ranks,
        reference=reference_caption_ranks,
        inputs=seeded(owned, large=30),
        dtypes=FLOATS,
        tolerance=1e-9,
        degenerate={
            "no caption": ((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), DataError),
            "empty": ((EMPTY, EMPTY, torch.zeros(0, dtype=torch.int64)), DataError),
        },
    ),
    MetricCase(
        metric=retrieval.retrieval_scores,
        reference=reference_retrieval_scores,
        inputs=seeded(owned, large=30),
        items=(1, 2),
        dtypes=FLOATS,
        tolerance=1e-9,
        degenerate={"collapsed": ((torch.ones(2, 3), torch.ones(2, 3), torch.arange(2)), [0, 1, 1, 2, 2, 0.5] * 2)},
    ),
    MetricCase(
        metric=retrieval.summarise_ranks,
        reference=reference_summarise_ranks,
        inputs=seeded(lambda rng, n: (retrieval.caption_ranks(*owned(rng, n)),)),
    ),
    MetricCase(
        metric=retrieval.recall_at_1,
        reference=reference_recall_at_1,
        inputs=seeded(lambda rng, n: (embeddings(rng, n).repeat_interleave(5, 0), embeddings(rng, 5 * n)), large=20),
        bounds=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "no whole clips": ((torch.zeros(7, 3), torch.zeros(7, 3)), DataError),
            "empty": ((EMPTY, EMPTY), DataError),
        },
    ),
    MetricCase(
        metric=retrieval.retrieval_estimates,
        options={"rounds": 3},
        select=lambda found: (
            found.recall.value,
            *({name: each.value for name, each in way.items()} for way in found[1:3]),
        ),
        reference=reference_retrieval_estimates,
        inputs=seeded(owned_pairs, large=30),
        dtypes=FLOATS,
        tolerance=1e-9,
        degenerate={
            "no partner": ((torch.ones(2, 3), torch.ones(2, 3), torch.tensor([[0, 0], [0, 1]])), DataError),
            "misfit": ((torch.ones(2, 3), torch.ones(2, 4), torch.tensor([[0, 0], [1, 1]])), DataError),
        },
    ),
    MetricCase(
        metric=retrieval.chance_scores,
        reference=reference_chance_scores,
        inputs=st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(torch.tensor), st.integers(3, 6)),
        tolerance=1e-9,
        degenerate={
            "only candidate": (
                (torch.tensor([1]), 1),
                {"map10": 1, "mean_rank": 1, "median_rank": 1, "r1": 1, "r10": 1, "r5": 1},
            )
        },
    ),
]
