"""How many runs of words (BLEU) or characters (chrF) a text shares with its references.

`sentence_bleu` is MECAT's rule: one sentence at a time, lower case, words between spaces, nothing smoothed.
`corpus_bleu` and `corpus_chrf` are those of sacrebleu 2.6, signatures `BLEU_SIGNATURE` and `CHRF_SIGNATURE`, in [0, 1].
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from auricle.metrics.intervals import Score
from auricle.metrics.resampling import ROUNDS, Array, bootstrap_sums

BLEU_SIGNATURE = "case:lc|eff:no|tok:13a|smooth:exp"
CHRF_SIGNATURE = "case:mixed|eff:yes|nc:6|nw:0|space:no"
_ORDER = 4  # words in the longest run
_CHARACTERS = 6  # in the longest run
_BETA2 = 4.0  # chrF2: recall counts twice as much as precision


def sentence_bleu(candidate: str, references: Sequence[str]) -> list[float]:
    """BLEU-1 to BLEU-4 of one sentence; 0 where no run of a length is shared.

    Source: `PyTorchBleuScorer` of github.com/xiaomi-research/mecat.
    """
    words, others = candidate.lower().split(), [reference.lower().split() for reference in references]
    if not words or not others:
        return [0.0] * _ORDER
    length = min((len(other) for other in others), key=lambda each: abs(each - len(words)))
    penalty = 1.0 if len(words) > length else math.exp(1 - length / len(words)) if length else 0.0
    scores, logs = [], 0.0
    for order in range(1, _ORDER + 1):
        shared, total = _shared(words, others, order)
        logs += math.log(shared / total) if shared else -math.inf
        scores.append(penalty * math.exp(logs / order))
    return scores


def corpus_bleu(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """BLEU-4 of a corpus with its interval over resampled rows, or ``groups`` of them."""
    rows = [_bleu_counts(*pair) for pair in zip(candidates, references, strict=True)]
    return bootstrap_sums(rows, _bleu, groups=groups, rounds=rounds, seed=seed)


def corpus_chrf(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """chrF2 of a corpus with its interval; of several references the one that fits best counts."""
    rows = [_chrf_counts(*pair) for pair in zip(candidates, references, strict=True)]
    return bootstrap_sums(rows, _chrf, groups=groups, rounds=rounds, seed=seed)


def sentence_chrf(candidate: str, references: Sequence[str]) -> float:
    """chrF2 of one sentence."""
    return float(_chrf(np.array([_chrf_counts(candidate, references)], np.float64))[0])


def _runs(items: Sequence[str], length: int) -> "Counter[tuple[str, ...]]":
    return Counter(tuple(items[at : at + length]) for at in range(len(items) - length + 1))


def _shared(words: Sequence[str], others: Sequence[Sequence[str]], order: int) -> tuple[int, int]:
    """Runs of a length that some reference has as often, and all of them."""
    own, most = _runs(words, order), Counter[tuple[str, ...]]()
    for other in others:
        most |= _runs(other, order)
    return sum((own & most).values()), sum(own.values())


def _bleu_counts(candidate: str, references: Sequence[str]) -> list[int]:
    words, others = tokenise(candidate.lower()), [tokenise(reference.lower()) for reference in references]
    # The nearest length, and of two the shorter.
    length = min((len(other) for other in others), key=lambda each: (abs(each - len(words)), each))
    pairs = [_shared(words, others, order) for order in range(1, _ORDER + 1)]
    return [len(words), length, *(shared for shared, _ in pairs), *(total for _, total in pairs)]


def _bleu(sums: Array) -> Array:
    """Of column sums (r, 10): words, words of references, shared and all runs of each length."""
    found = np.zeros(len(sums))
    for at, row in enumerate(sums):
        shared, total = row[2:6], row[6:10]
        if not shared[0] or not all(total):
            continue
        logs, halves = 0.0, 1.0
        for hits, runs in zip(shared, total, strict=True):
            halves *= 1.0 if hits else 2.0  # exponential smoothing: each empty order counts half of the one before
            logs += math.log(hits / runs if hits else 1.0 / (halves * runs))
        penalty = 1.0 if row[0] >= row[1] else math.exp(1 - row[1] / row[0])
        found[at] = penalty * math.exp(logs / _ORDER)
    return found


def tokenise(text: str) -> list[str]:
    """Words and marks as mteval-v13a cuts them, the tokenisation ``13a``."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(name, sign)
    text = re.sub(r"([!-&(-+/:-@\[-`{-~])", r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", text).split()


def _chrf_counts(candidate: str, references: Sequence[str]) -> list[int]:
    own = [_runs("".join(candidate.split()), length) for length in range(1, _CHARACTERS + 1)]
    best: tuple[float, list[int]] = (-1.0, [])
    for reference in references:
        bare, row = "".join(reference.split()), []
        for length, runs in enumerate(own, 1):
            others = _runs(bare, length)
            # Where a reference is too short for any run, the candidate's do not count either, as in sacrebleu.
            row += [sum(runs.values()) if others else 0, sum(others.values()), sum((runs & others).values())]
        score = float(_chrf(np.array([row], np.float64))[0])
        best = max(best, (score, row), key=lambda each: each[0])
    return best[1]


def _chrf(sums: Array) -> Array:
    """Of column sums (r, 18): runs of the candidate, of the reference, and shared, for each length."""
    counts = sums.reshape(len(sums), _CHARACTERS, 3)
    own, other, shared = counts[..., 0], counts[..., 1], counts[..., 2]
    used = (own > 0) & (other > 0)  # lengths that both have
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(used, shared / own, 0.0).sum(1) / used.sum(1)
        recall = np.where(used, shared / other, 0.0).sum(1) / used.sum(1)
        score = (1 + _BETA2) * precision * recall / (_BETA2 * precision + recall)
    found: Array = np.nan_to_num(score, nan=0.0)
    return found
