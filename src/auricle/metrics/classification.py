"""The numbers benchmarks report: of classes, targets, transcripts, rankings and whole suites.

Higher is better unless the name says error or rate. Those of events in time are in `auricle.metrics.events`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import DataError

CAPTIONS = 5  # of a clip in Clotho, hence in X-ARES
_TOP = 10  # ranks that count for mAP10

_NOT_WORD = re.compile(r"[^\w' ]+")
_Counts = npt.NDArray[np.int64]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return _NOT_WORD.sub(" ", text.lower()).split()


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein)."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != found))
    return row[-1]


def wer_inv(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """max(0, 1 - word error rate), errors and words counted over the whole corpus, in lower case.

    Words are what stands between spaces, punctuation included. Source: X-ARES `metrics.py`, whose WER is that of jiwer.

    Raises:
        DataError: the lists differ in length, or the references have no words.
    """
    if len(references) != len(hypotheses):
        raise DataError(f"{len(references)} references and {len(hypotheses)} hypotheses; expected one for each")
    counts = [word_errors(reference, found) for reference, found in zip(references, hypotheses, strict=True)]
    total = sum(words for _, words in counts)
    if not total:
        raise DataError("the reference transcripts have no words, so no error rate exists; check the field of the text")
    return max(0.0, 1.0 - sum(errors for errors, _ in counts) / total)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Errors and words of one transcript, in lower case; words are what stands between spaces."""
    expected = reference.lower().split()
    return edit_distance(expected, hypothesis.lower().split()), len(expected)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of items whose largest output (n, C) is their class (n,); of equal outputs the first counts.

    Raises:
        DataError: shapes that do not fit, or no items.
    """
    _check_classes(logits, labels)
    return float((logits.argmax(1) == labels).double().mean())


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Average precision of each class, averaged over classes (macro); a class without positives counts as 0.

    Args:
        scores: (n, C) of any monotone scale; equal scores share one threshold.
        targets: (n, C) of 0 and 1.

    Raises:
        DataError: shapes that do not fit, no items, or scores that are not finite.

    Source: scikit-learn `average_precision_score`, which X-ARES and HEAR call.
    """
    return float(np.mean([_average_precision(*_counts(each, hits)) for each, hits in _columns(scores, targets)]))


def frame_mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """`mean_average_precision` of frames (B, T, C), all of them items on their own."""
    if scores.ndim != 3 or scores.shape != targets.shape:
        raise DataError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)}; expected both (B, T, C)")
    return mean_average_precision(scores.flatten(0, 1), targets.flatten(0, 1))


def auc_roc(scores: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve of each class, averaged; nan where a class has no positives or no negatives.

    Shapes and errors as in `mean_average_precision`. Source: HEAR `score.py`, aucroc.
    """
    return float(np.mean([_area(*_counts(each, hits)) for each, hits in _columns(scores, targets)]))


def d_prime(scores: Tensor, targets: Tensor) -> float:
    """Sensitivity index: √2 · Φ⁻¹(area under the ROC curve) of each class, averaged; inf where a class is perfect.

    Shapes and errors as in `mean_average_precision`. Source: HEAR `score.py`, d_prime.
    """
    areas = [_area(*_counts(each, hits)) for each, hits in _columns(scores, targets)]
    return float(torch.special.ndtri(torch.tensor(areas, dtype=torch.float64)).mean()) * math.sqrt(2.0)


def equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """Mean of false positive and false negative rate where they are closest; lower is better.

    Args:
        scores: (n,), high for label 1.
        labels: (n,) of 0 and 1.

    Raises:
        DataError: shapes that do not fit, scores that are not finite, or only one of the two labels.

    Source: X-ARES `metrics.py` with positive label 1 (as released it raises a TypeError). Like there, only the corners
    of the ROC curve are candidates, and of equally close ones that with the highest threshold.
    """
    ((column, hits),) = _columns(scores[:, None], labels[:, None])
    true, false = _counts(column, hits)
    if not true[-1] or not false[-1]:
        raise DataError(f"an equal error rate needs both labels; found {true[-1]} of 1 and {false[-1]} of 0")
    true, false = np.r_[0, true], np.r_[0, false]
    is_corner = np.r_[True, (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0), True]
    misses, alarms = 1 - true[is_corner] / true[-1], false[is_corner] / false[-1]
    closest = int(np.abs(misses - alarms).argmin())
    return float(misses[closest] + alarms[closest]) / 2


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> float:
    """Absolute errors (n, K), summed over outputs and averaged over items; lower is better.

    Source: ignite `MeanAbsoluteError`, which X-ARES uses. Differs from: scikit-learn, which averages over outputs too.
    """
    return float(_errors(outputs, targets).abs().sum() / len(outputs))


def mean_squared_error(outputs: Tensor, targets: Tensor) -> float:
    """Squared errors (n, K), summed over outputs and averaged over items; otherwise as `mean_absolute_error`."""
    return float(_errors(outputs, targets).square().sum() / len(outputs))


class Retrieval(NamedTuple):
    """How well one modality finds the other; recalls and mAP10 in [0, 1], ranks from 1."""

    r1: float
    r5: float
    r10: float
    mean_rank: float
    median_rank: float
    map10: float


def retrieval(audio: Tensor, text: Tensor, owners: Tensor) -> tuple[Retrieval, Retrieval]:
    """Rankings by cosine, from clips to captions (the best of a clip's captions counts) and from captions to clips.

    Args:
        audio: (n, D), one row a clip.
        text: (m, D), one row a caption.
        owners: (m,) int64, the clip of each caption; every clip has at least one.

    Returns:
        Audio to text, and text to audio.

    Raises:
        DataError: shapes that do not fit, or a clip without captions.

    Source: X-ARES `metrics.py`. Differs from: it, where similarities are equal; here a wrong match then comes first, so
    that vectors collapsed to a point find nothing.
    """
    return summarise(retrieval_ranks(audio, text, owners))


class Ranks(NamedTuple):
    """Where each query finds what it looks for, from 1."""

    of_captions: Tensor  # (n,) int64: of the first own caption, for each clip
    precision: Tensor  # (n,) float64, mean precision of a clip's captions among the first ten
    of_clips: Tensor  # (m,) int64: of the own clip, for each caption


def retrieval_ranks(audio: Tensor, text: Tensor, owners: Tensor) -> Ranks:
    """The ranks behind `retrieval`; arguments and errors as there."""
    counts = torch.bincount(owners, minlength=len(audio)) if len(owners) else torch.zeros(1)
    if audio.shape[1:] != text.shape[1:] or len(text) != len(owners) or len(counts) != len(audio) or counts.min() < 1:
        raise DataError(
            f"audio {tuple(audio.shape)}, text {tuple(text.shape)} and {len(owners)} owners do not fit; expected "
            "(n, D), (m, D) and m clip numbers that name each of the n clips"
        )
    similarity = F.normalize(audio.double(), dim=1) @ F.normalize(text.double(), dim=1).t()
    own = owners[None, :] == torch.arange(len(audio), device=owners.device)[:, None]
    best, precision = [], []
    for row, mine in zip(similarity, own, strict=True):
        found = row[mine].sort(descending=True).values
        # Rank from 1: wrong captions at least as close, and the clip's own ones up to this.
        order = torch.arange(1, len(found) + 1, device=row.device)
        ranks = (row[~mine][None, :] >= found[:, None]).sum(1) + order
        best.append(ranks.min())
        precision.append((order.double() / ranks * (ranks <= _TOP)).mean())
    truth = similarity.gather(0, owners[None, :])
    return Ranks(torch.stack(best), torch.stack(precision), ((similarity >= truth) & ~own).sum(0) + 1)


def summarise(ranks: Ranks) -> tuple[Retrieval, Retrieval]:
    """Audio to text, and text to audio."""
    clips = ranks.of_clips
    return (
        _summary(ranks.of_captions, ranks.precision),
        _summary(clips, 1.0 / clips.double() * (clips <= _TOP)),
    )


def recall_at_1(audio: Tensor, text: Tensor, *, captions: int = CAPTIONS) -> float:
    """Recall at rank 1, the mean of both directions, of clips repeated for each of their captions.

    Args:
        audio: (n · captions, D); the rows of a clip stand together and the first of them is the query.
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
    to_text, to_audio = retrieval(audio[::captions], text, owners)
    return (to_text.r1 + to_audio.r1) / 2


def weighted_average(scores: Iterable[tuple[float, float]]) -> float:
    """Σ value · weight / Σ weight of (value, weight) pairs; 0 where the weights add up to 0, as X-ARES has it.

    Source: X-ARES `metrics.py`; a task without a judge contributes (0, 0).
    """
    pairs = list(scores)
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else 0.0


def _counts(scores: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> tuple[_Counts, _Counts]:
    """True and false positives at every distinct threshold, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    true = np.cumsum(hits[order], dtype=np.int64)[last]
    return true, last + 1 - true


def _average_precision(true: _Counts, false: _Counts) -> float:
    if not true[-1]:
        return 0.0
    return float(np.sum(np.diff(true, prepend=0) / true[-1] * true / (true + false)))


def _area(true: _Counts, false: _Counts) -> float:
    if not true[-1] or not false[-1]:
        return math.nan
    heights = np.r_[0, true[:-1]] + true  # twice the mean of both ends of a step
    return float(np.sum(np.diff(false, prepend=0) * heights)) / (2.0 * float(true[-1]) * float(false[-1]))


def _columns(scores: Tensor, targets: Tensor) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    if scores.ndim != 2 or scores.shape != targets.shape or not scores.numel():
        raise DataError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)}; expected both (n, C), n > 0")
    if not bool(torch.isfinite(scores).all()):
        raise DataError("some scores are not finite, so items have no order; look at the features and the training")
    values, hits = scores.detach().cpu().double().numpy(), targets.detach().cpu().numpy() > 0
    return [(values[:, c], hits[:, c]) for c in range(values.shape[1])]


def _errors(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.shape != targets.shape or not outputs.numel():
        raise DataError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}; expected the same, not empty"
        )
    return outputs.double() - targets.double()


def _check_classes(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"outputs {tuple(logits.shape)} and labels {tuple(labels.shape)}; expected (n, C) and (n,), n > 0"
        )


def _summary(ranks: Tensor, precision: Tensor) -> Retrieval:
    places = ranks.double()
    r1, r5, r10 = (float((ranks <= k).double().mean()) for k in (1, 5, 10))
    median = float(np.floor(np.median(places.cpu().numpy())))
    return Retrieval(r1, r5, r10, float(places.mean()), median, float(precision.double().mean()))
