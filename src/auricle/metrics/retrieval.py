"""How well sounds and captions find each other: ranks, their summary with intervals, and what chance would give.

A pair of sound and caption is right where the data says so, and several captions of a sound, as well as several sounds
of a caption, may be right. Legend: q queries, N candidates, n sounds, m captions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics.classification import Retrieval

TOP = 10  # ranks that count for mAP10
METRICS = Retrieval._fields
ROUNDS = 1000  # of the bootstrap
_RECALLS = (1, 5, 10)
_BLOCK = 256  # queries compared with all candidates at once
_Array = npt.NDArray[Any]  # of float64


class Found(NamedTuple):
    """Where each query finds what is right for it."""

    ranks: Tensor  # (q,) int64, of the first right candidate, from 1
    precision: Tensor  # (q,) float64, average precision over the first `TOP`


class Estimate(NamedTuple):
    """A metric with its 95 % interval, and what a model that knows nothing would reach."""

    value: float
    low: float
    high: float
    chance: float


class Rankings(NamedTuple):
    """Both directions, by the names in `METRICS`."""

    recall: Estimate  # at rank 1, the mean of both directions
    audio_to_text: Mapping[str, Estimate]
    text_to_audio: Mapping[str, Estimate]
    sounds: Tensor  # (n,) float64: what each contributes to `recall`


def find(queries: Tensor, candidates: Tensor, right: Sequence[Tensor]) -> Found:
    """Rank the candidates of each query by cosine; of equally near ones the wrong come first.

    The average precision is the mean over the right candidates of j / rank of the j-th, 0 beyond rank 10; more than
    ten right ones count as ten, since more cannot be there.

    Args:
        queries: (q, D).
        candidates: (N, D).
        right: of each query the numbers of the right candidates, (r,) int64, each once, at least one.

    Source: GLAP's evaluation. Differs from: it, where similarities are equal.
    """
    queries, candidates = F.normalize(queries.double(), dim=1), F.normalize(candidates.double(), dim=1)
    best, precision = torch.zeros(len(queries), dtype=torch.int64), torch.zeros(len(queries), dtype=torch.float64)
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ candidates.t()
        for query, row in enumerate(similarity, start):
            found = row[right[query]].sort(descending=True).values
            order = torch.arange(1, len(found) + 1)
            # All that are at least as near, of them the wrong ones, and the right ones up to this.
            ranks = _at_least(row, found) - _at_least(found, found) + order
            best[query] = ranks[0]
            precision[query] = (order.double() / ranks * (ranks <= TOP)).sum() / min(len(found), TOP)
    return Found(best, precision)


def rank_both(audio: Tensor, text: Tensor, pairs: Tensor, *, rounds: int = ROUNDS, seed: int = 0) -> Rankings:
    """Sounds look for their captions, and captions for their sounds, by cosine.

    Intervals are over sounds: each resample draws as many as there are, and a caption counts as often as its sounds
    (their mean, where it has several) were drawn. The ranks stay those among all.

    Args:
        audio: (n, D) on the CPU.
        text: (m, D) on the CPU.
        pairs: (p, 2) int64, each once: a sound and a caption that is right for it. Every sound and every caption has
            one.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        DataError: shapes that do not fit, or a sound or caption without partner.
    """
    _check(audio, text, pairs)
    owners, captions = pairs.t()
    of_sound, of_caption = torch.bincount(owners), torch.bincount(captions)
    to_text = find(audio, text, captions[owners.argsort(stable=True)].split(of_sound.tolist()))
    to_audio = find(text, audio, owners[captions.argsort(stable=True)].split(of_caption.tolist()))
    tables = _estimate(to_text, to_audio, pairs, rounds=rounds, seed=seed)
    by_chance = chance(of_sound, len(text)), chance(of_caption, len(audio))
    both = [
        {
            name: Estimate(float(value), float(low), float(high), known[name])
            for name, (value, low, high) in zip(METRICS, table, strict=True)
        }
        for table, known in zip(tables[:2], by_chance, strict=True)
    ]
    guessed = (by_chance[0]["r1"] + by_chance[1]["r1"]) / 2
    hits = torch.zeros(len(audio), dtype=torch.float64).index_add_(0, owners, (to_audio.ranks == 1)[captions].double())
    sounds = ((to_text.ranks == 1).double() + hits / of_sound) / 2
    value, low, high = (float(number) for number in tables[2][0])
    return Rankings(Estimate(value, low, high, guessed), both[0], both[1], sounds)


def chance(num_right: Tensor, candidates: int) -> dict[str, float]:
    """What a random order of the candidates gives, by the names in `METRICS`.

    Args:
        num_right: (q,) right candidates of each query, at least 1.
        candidates: N.
    """
    counts, times = num_right.unique(return_counts=True)
    rows = [_chance(int(right), candidates) for right in counts]
    found = dict(zip(METRICS, np.average(rows, axis=0, weights=times.numpy()).tolist(), strict=True))
    # Half of all queries find something up to here, each with its own number of right candidates.
    reached = np.average([_reached(int(right), candidates) for right in counts], axis=0, weights=times.numpy())
    return {**found, "median_rank": float(np.searchsorted(reached, 0.5 - 1e-12) + 1)}


def _chance(right: int, candidates: int) -> list[float]:
    """As `chance`, of one query; its median rank is left for all of them together."""
    reached = _reached(right, candidates)
    recalls = [float(reached[min(k, candidates) - 1]) for k in _RECALLS]
    # At place p a right one stands with probability right / N, and the mean of those before it is as random.
    before = (right - 1) / max(1, candidates - 1)
    precision = sum(right / candidates * (1 + (p - 1) * before) / p for p in range(1, min(TOP, candidates) + 1))
    return [*recalls, (candidates + 1) / (right + 1), 0.0, precision / min(right, TOP)]


def _reached(right: int, candidates: int) -> _Array:
    """Probability that a right candidate is among the first 1, 2, … N of a random order."""
    places = np.arange(candidates)
    missed = np.clip(1.0 - right / (candidates - places), 0.0, 1.0)
    return 1.0 - np.cumprod(missed)


class _Direction:
    """The ranks of one direction, ready to be summarised again and again."""

    def __init__(self, found: Found) -> None:
        self.ranks = found.ranks.double().cpu().numpy()
        hits = [self.ranks <= k for k in _RECALLS]
        self.columns = np.stack([*hits, self.ranks, found.precision.cpu().numpy()], 1).astype(np.float64)
        self.order = np.argsort(self.ranks, kind="stable")

    def summary(self, weights: _Array) -> _Array:
        """Values in the order of `METRICS`, of queries that count ``weights`` (q,) times."""
        r1, r5, r10, mean, precision = weights @ self.columns / weights.sum()
        reached = np.cumsum(weights[self.order])
        half = reached[-1] / 2
        # Of an even number the mean of both in the middle, rounded down as released.
        middle = [np.searchsorted(reached, half * (1 - 1e-12)), np.searchsorted(reached, half * (1 + 1e-12))]
        ends = [self.ranks[self.order[min(int(place), len(reached) - 1)]] for place in middle]
        return np.array([r1, r5, r10, mean, math.floor(sum(ends) / 2), precision])


def _estimate(to_text: Found, to_audio: Found, pairs: Tensor, *, rounds: int, seed: int) -> _Array:
    """Value, low and high of each metric of both directions, and of their mean: (3, k, 3)."""
    owners, captions = pairs.t().numpy()
    share = 1.0 / np.bincount(captions)[captions]
    directions = _Direction(to_text), _Direction(to_audio)

    def summaries(times: _Array) -> _Array:
        of_captions = np.bincount(captions, weights=times[owners] * share)
        both = [part.summary(own) for part, own in zip(directions, (times, of_captions), strict=True)]
        return np.stack([*both, (both[0] + both[1]) / 2])

    count = len(to_text.ranks)
    rng = np.random.default_rng(seed)
    drawn = [
        summaries(np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64))
        for _ in range(rounds)
    ]
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    return np.stack([summaries(np.ones(count)), low, high], -1)


def _at_least(values: Tensor, limits: Tensor) -> Tensor:
    """How many values reach each limit."""
    return len(values) - torch.searchsorted(values.sort().values, limits)


def _check(audio: Tensor, text: Tensor, pairs: Tensor) -> None:
    sizes = f"audio {tuple(audio.shape)}, text {tuple(text.shape)} and pairs {tuple(pairs.shape)}"
    if audio.ndim != 2 or audio.shape[1:] != text.shape[1:] or pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"{sizes} do not fit; expected (n, D), (m, D) and (p, 2)")
    for kind, rows, column in (("sound", audio, pairs[:, 0]), ("caption", text, pairs[:, 1])):
        if not torch.equal(column.unique(), torch.arange(len(rows))):
            raise DataError(f"{sizes}: not every {kind} has a partner, or one is named that is not there")
