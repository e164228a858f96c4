"""FENSE: similarity of sentence embeddings, cut to a tenth where a detector finds that a caption is not fluent.

    SBERT = mean over references of cos(candidate, reference)
    FENSE = SBERT · (1 − `PENALTY` where the probability of an error is above `THRESHOLD`)

Source: `fense/evaluator.py` in github.com/xiaomi-research/dasheng-lm and github.com/xiaomi-research/mecat. The numbers
that the former publishes as FENSE are the similarity without the penalty, here called SBERT.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

THRESHOLD = 0.9  # of the probability of an error
PENALTY = 0.9  # share of its similarity that a penalised caption loses
# What a result states about the rule, next to the identity of the detector.
PENALTY_RULE: Mapping[str, float] = {"threshold": THRESHOLD, "penalty": PENALTY}


def error_penalties(error_probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Factors (n,) of similarities: 1, or 1 − `PENALTY` where the probability of an error is above `THRESHOLD`."""
    return np.where(np.asarray(error_probability, np.float64) > THRESHOLD, 1.0 - PENALTY, 1.0)


def mean_cosine_similarity(candidates: Tensor, references: Tensor, owners: Tensor) -> Tensor:
    """Mean over its references of a candidate's cosine with each: (n,) float64.

    Args:
        candidates: (n, D) of unit length.
        references: (m, D) of unit length.
        owners: (m,) int64, the candidate of each reference; each candidate has at least one.
    """
    cosines = (candidates[owners].double() * references.double()).sum(1)
    sums = torch.zeros(len(candidates), dtype=torch.float64).index_add_(0, owners, cosines)
    return sums / owners.bincount(minlength=len(candidates))


def fense_scores(similarity: npt.ArrayLike, error_probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """FENSE of each candidate (n,): its mean cosine similarity, penalised by `error_penalties`.

    >>> fense_scores([0.8, 0.8], [0.1, 0.95]).round(2).tolist()
    [0.8, 0.08]
    """
    return np.asarray(similarity, np.float64) * error_penalties(error_probability)
