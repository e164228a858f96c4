"""Overlap of n-grams with references: of words (BLEU) and of characters (chrF).

`sentence_bleu` is MECAT's rule: one sentence, lower case, words between spaces, no smoothing. The others are computed
by sacrebleu (extra ``evaluate``), signatures `BLEU_SIGNATURE` and `CHRF_SIGNATURE`, and scaled to [0, 1].
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from auricle.errors import MissingExtra
from auricle.metrics.intervals import ROUNDS, Array, Score, bootstrap_sums

BLEU_SIGNATURE = "case:lc|eff:no|tok:13a|smooth:exp"
CHRF_SIGNATURE = "case:mixed|eff:yes|nc:6|nw:0|space:no"
_ORDER = 4  # words of the longest n-gram


def sentence_bleu(candidate: str, references: Sequence[str]) -> list[float]:
    """BLEU-1 to BLEU-4 of one sentence, in [0, 1]; 0 where no n-gram of a length is shared.

    BLEU-k = min(1, exp(1 − r / c)) · (Π over n ≤ k of shared n-grams / n-grams of the candidate)^(1/k), with c words of
    the candidate and r of the reference nearest in length, of equally near ones the first.

    >>> [round(score, 3) for score in sentence_bleu("a dog barks", ["a dog barks at night"])]
    [0.513, 0.513, 0.513, 0.0]

    Source: `PyTorchBleuScorer` of github.com/xiaomi-research/mecat. Differs from: sacrebleu, where of two references
    equally near in length the shorter counts.
    """
    words, others = candidate.lower().split(), [reference.lower().split() for reference in references]
    if not words or not others:
        return [0.0] * _ORDER
    length = min((len(other) for other in others), key=lambda each: abs(each - len(words)))
    penalty = 1.0 if len(words) > length else math.exp(1 - length / len(words)) if length else 0.0
    scores, logs = [], 0.0
    for order in range(1, _ORDER + 1):
        own, most = _ngrams(words, order), Counter[tuple[str, ...]]()
        for other in others:
            most |= _ngrams(other, order)
        shared = sum((own & most).values())
        logs += math.log(shared / sum(own.values())) if shared else -math.inf
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
    """BLEU-4 of a corpus, in [0, 1], with its 95 % interval over resampled rows.

    Args:
        candidates: (n,) texts.
        references: of each candidate, one or more.
        groups: (n,) names; rows of one name are resampled together.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        MissingExtra: sacrebleu is not installed.

    >>> corpus_bleu(["a dog barks at night"], [["a dog barks at night"]], rounds=10).value
    1.0

    Source: Post 2018, "A Call for Clarity in Reporting BLEU Scores"; sacrebleu 2.
    """
    return _corpus_score(_metric("BLEU"), candidates, references, groups=groups, rounds=rounds, seed=seed)


def corpus_chrf(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Score:
    """chrF2 of a corpus, in [0, 1], with its 95 % interval; of several references the best counts.

    Arguments and errors as in `corpus_bleu`.

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; sacrebleu 2.
    """
    return _corpus_score(_metric("CHRF"), candidates, references, groups=groups, rounds=rounds, seed=seed)


def sentence_chrf(candidate: str, references: Sequence[str]) -> float:
    """chrF2 of one sentence, in [0, 1]; errors as in `corpus_bleu`.

    >>> sentence_chrf("dog", ["cat", "dog"])
    1.0
    """
    return min(1.0, float(_metric("CHRF").sentence_score(candidate, references).score) / 100)


def _ngrams(items: Sequence[str], length: int) -> "Counter[tuple[str, ...]]":
    return Counter(tuple(items[at : at + length]) for at in range(len(items) - length + 1))


def _corpus_score(
    metric: Any, candidates: Sequence[str], references: Sequence[Sequence[str]], **resampling: Any
) -> Score:
    """A score of sacrebleu, bootstrapped here, as its own bootstrap has no groups.

    The statistics of rows and the score of their sums are what sacrebleu's own bootstrap uses; neither is public.
    """

    def scores(sums: Array) -> Array:
        rows = sums.astype(np.int64).tolist()
        return np.array([min(1.0, metric._compute_score_from_stats(row).score / 100) for row in rows])

    columns = [
        metric._extract_corpus_statistics([candidate], [[reference] for reference in own])[0]
        for candidate, own in zip(candidates, references, strict=True)
    ]
    return bootstrap_sums(columns, scores, **resampling)


def _metric(name: Literal["BLEU", "CHRF"]) -> Any:
    """A metric of sacrebleu with the settings of its signature above."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingExtra(f"{name} (sacrebleu)", "evaluate") from None
    return BLEU(lowercase=True, tokenize="13a") if name == "BLEU" else CHRF()
