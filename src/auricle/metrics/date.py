"""DATE: how similar a caption is to its references, and how well it discriminates its clip from the others.

    M[i, j]          = p(i) · mean over references k of clip j of cos(caption i, reference jk)
    similarity S     = M[i, i]
    discrimination D = 1 − share of clips j with M[i, j] ≥ M[i, i] − δ/2
    DATE             = 2 · S · D / (S + D)

=========  ==========================================================================================================
compat     as released: a clip counts among its own distractors, so D stays below 1 − 1/N and grows with N; a penalised
           caption has all scores within δ and gets D near 0
strict     over the N − 1 others without those of equal references, which cannot be discriminated; D is of the scores
           before the penalty; a similarity below 0 makes a DATE of 0
=========  ==========================================================================================================

The mean over references is taken first, so that N captions cost N · D numbers and a block of rows, never N².
Source: `DATE.py` of github.com/xiaomi-research/mecat. Legend: N clips, D dimensions, b rows of a block.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.soft_tfidf import soft_tfidf

Array = npt.NDArray[np.float64]

SIZES = (10, 100, 1000, 10_000)  # numbers of clips for which `expected_date` is reported
_CELLS = 2**24  # of one block of scores: 64 MB


class DateScores(NamedTuple):
    """Scores of each clip, (N,) float64."""

    similarity: Array
    discrimination: Array
    date: Array
    confused: Array  # share of the other clips that are not discriminated


def date_scores(
    candidates: Tensor,
    references: Tensor,
    *,
    delta: float,
    factors: npt.ArrayLike | None = None,
    same: npt.ArrayLike | None = None,
    scoring_rule: ScoringRule = "compat",
) -> DateScores:
    """DATE of each clip, in [0, 1] by the strict rule.

    Args:
        candidates: (N, D) of unit length.
        references: (N, D), the mean of each clip's references of unit length, itself not scaled.
        delta: δ; scores within δ/2 are taken as equal.
        factors: (N,) of `fense.error_penalties`; None: 1.
        same: (N,) numbers, equal for clips with equal references; used by ``strict``.
        scoring_rule: see above.

    Raises:
        DataError: shapes that do not fit, or too few clips to discriminate.

    >>> scores = date_scores(torch.eye(4), torch.eye(4), delta=0.1)
    >>> scores.similarity.tolist(), scores.discrimination.tolist()
    ([1.0, 1.0, 1.0, 1.0], [0.75, 0.75, 0.75, 0.75])
    """
    number = len(candidates)
    if candidates.ndim != 2 or candidates.shape != references.shape or number < (1 if scoring_rule == "compat" else 2):
        raise DataError(
            f"captions {tuple(candidates.shape)} and references {tuple(references.shape)}; expected the same (N, D), "
            "with two clips or more, as a single clip has no others"
        )
    scale = torch.ones(number) if factors is None else torch.as_tensor(np.asarray(factors, np.float32))
    step = max(1, _CELLS // number)
    raw, counts = [], []
    for top in range(0, number, step):
        block = candidates[top : top + step] @ references.t()
        if scoring_rule == "compat":
            block = block * scale[top : top + step, None]
        own = block.diagonal(top)
        raw.append(own.clone())
        counts.append(_reaching(block, own, delta))
    scored, reached = torch.cat(raw), torch.cat(counts).double().numpy() - 1.0  # without the clip itself
    if scoring_rule == "strict":
        scored = scored * scale
    return _combined(scored.double().numpy(), reached, None if same is None else np.asarray(same), scoring_rule)


def date_of_matrix(scores: Tensor, delta: float) -> DateScores:
    """DATE of each clip from M itself, (N, N) with penalties applied, by the released rule."""
    own = scores.diagonal()
    return _combined(own.double().numpy(), _reaching(scores, own, delta).double().numpy() - 1.0, None, "compat")


def expected_date(scores: DateScores, size: int) -> float:
    """Expected mean DATE by the released rule if each clip were among ``size`` − 1 of its distractors.

    The released score grows with the number of clips; this makes scores of two sets comparable.
    """
    kept = (1.0 - scores.confused) * (size - 1) / size
    return float(np.mean(_harmonic(scores.similarity, kept)))


def date_ceiling(number: int) -> float:
    """The highest DATE among ``number`` clips by the released rule, that of perfect captions.

    >>> [round(date_ceiling(number), 3) for number in (1, 2, 5, 50)]
    [0.0, 0.667, 0.889, 0.99]
    """
    best = 1.0 - 1.0 / number
    return 2 * best / (1 + best)


class WordEncoder(Protocol):
    """What `weighted_embeddings` needs of a sentence encoder, as `auricle.weights.sentence_encoders` loads them."""

    @property
    def special(self) -> tuple[int, int]:
        """The tokens before and after every text."""

    @property
    def word_table(self) -> Tensor:
        """Input embeddings of word pieces (V, W)."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included."""

    def encode_tokens(self, token_ids: Sequence[Sequence[int]], weights: Sequence[Tensor] | None = None) -> Tensor:
        """Embeddings (n, D) of unit length; input embeddings are multiplied by the weights of each text (tokens,)."""


def weighted_embeddings(encoder: WordEncoder, texts: Sequence[str]) -> Tensor:
    """Embeddings (n, D) of sentences whose words are weighted by `soft_tfidf` over these texts.

    Repeated texts are encoded once.
    """
    unique = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(unique)}
    ids = dict(zip(unique, encoder.token_ids(unique), strict=True))
    opening, closing = encoder.special
    weights = soft_tfidf([ids[text] for text in texts], encoder.word_table, opening=opening, closing=closing)
    weights_of = dict(zip(texts, weights, strict=True))
    embeddings = encoder.encode_tokens([ids[text] for text in unique], [weights_of[text] for text in unique])
    return embeddings[[row_of[text] for text in texts]]


def mean_references(vectors: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean of each clip's references (N, D).

    Args:
        vectors: (m, D), those of the first clip first.
        counts: references of each clip, at least 1.
    """
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sums = torch.zeros(len(counts), vectors.shape[1]).index_add_(0, owners, vectors)
    return sums / torch.tensor(counts)[:, None]


def _reaching(block: Tensor, own: Tensor, delta: float) -> Tensor:
    """How many clips of each row (b, N) score within δ/2 of the own one (b,), or above."""
    return (block >= own[:, None] - delta / 2).sum(1)


def _combined(
    similarity: Array, reached: Array, same: npt.NDArray[np.int64] | None, scoring_rule: ScoringRule
) -> DateScores:
    number = len(similarity)
    if scoring_rule == "compat":
        discrimination = 1.0 - (reached + 1.0) / number
        confused = reached / max(1, number - 1)
    else:
        equal = np.zeros(number) if same is None else np.bincount(same)[same] - 1.0
        others = number - 1 - equal
        confused = np.divide(reached - equal, others, out=np.zeros(number), where=others > 0)
        discrimination = 1.0 - confused
        similarity = np.maximum(similarity, 0.0)
    return DateScores(similarity, discrimination, _harmonic(similarity, discrimination), confused)


def _harmonic(one: Array, other: Array) -> Array:
    total = one + other
    return np.divide(2 * one * other, total, out=np.zeros(len(total)), where=total != 0)
