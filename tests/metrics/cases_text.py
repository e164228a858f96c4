"""Transcripts, captions and labels."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics import (
    fense,
    multilabel,
    ngrams,
    word_errors,
)
from auricle.metrics.word_errors import TranscriptPair

from .metric_tester import FLOATS, Arguments, MetricCase, embeddings, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Generator = np.random.Generator
SCIKIT_LEARN, SACREBLEU = ("sklearn", "bench"), ("sacrebleu", "evaluate")
WORDS = ("a", "dog", "barks", "loud", "cat", "Rain,", "falls.", "two-tone")
FEW = st.lists(st.sampled_from("abc"), max_size=70)


# References


def reference_edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    return int(pytest.importorskip("rapidfuzz.distance.Levenshtein").distance(reference, hypothesis))


def reference_count_word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    jiwer = pytest.importorskip("jiwer")
    output = jiwer.process_words(" ".join(reference.lower().split()), " ".join(hypothesis.lower().split()))
    return output.substitutions + output.deletions + output.insertions, len(output.references[0])


def reference_word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    return float(
        pytest.importorskip("jiwer").wer(*([text.lower() for text in own] for own in (references, hypotheses)))
    )


def reference_wer_inv(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    return max(0.0, 1.0 - reference_word_error_rate(references, hypotheses))


def reference_count_errors(transcript: Any) -> list[int]:
    errors, length = reference_count_word_errors(transcript.reference, transcript.hypothesis)
    return [errors, length, len(transcript.hypothesis.split()), True]


def reference_error_rates(transcripts: Sequence[Any]) -> float:
    return reference_word_error_rate(
        [each.reference for each in transcripts], [each.hypothesis for each in transcripts]
    )


def reference_sentence_bleu(candidate: str, references: Sequence[str]) -> list[float]:
    metrics = pytest.importorskip("sacrebleu.metrics")
    settings = {"lowercase": True, "tokenize": "none", "smooth_method": "none", "force": True}
    scores = []
    for order in range(1, 5):
        metric = metrics.BLEU(**settings, max_ngram_order=order)
        scores.append(metric.corpus_score([candidate], [[text] for text in references]).score / 100)
    return scores


def reference_corpus_bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    metric = pytest.importorskip("sacrebleu.metrics").BLEU(lowercase=True)
    return float(metric.corpus_score(candidates, _streams(references)).score) / 100


def reference_corpus_chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    metric = pytest.importorskip("sacrebleu.metrics").CHRF()
    return float(metric.corpus_score(candidates, _streams(references)).score) / 100


def _streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """As sacrebleu takes them: the first references of all rows, then the second ones …"""
    return [list(row) for row in itertools.zip_longest(*references)]


def reference_sentence_chrf(candidate: str, references: Sequence[str]) -> float:
    """By the definition, of the best reference."""

    def score(reference: str) -> float:
        texts = ["".join(text.split()) for text in (candidate, reference)]
        precisions, recalls = [], []
        for length in range(1, 7):
            own, other = (Counter(text[at : at + length] for at in range(len(text) - length + 1)) for text in texts)
            if own and other:
                shared = sum((own & other).values())
                precisions.append(shared / sum(own.values()))
                recalls.append(shared / sum(other.values()))
        precision, recall = (sum(each) / len(each) if each else 0.0 for each in (precisions, recalls))
        return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0

    return max(map(score, references))


def reference_multilabel_scores(references: Sequence[set[str]], answers: Sequence[set[str]]) -> Any:
    """mAP, micro F1, macro F1 over the labels of the references; other labels are further false positives."""
    sklearn = pytest.importorskip("sklearn.metrics")
    names = sorted(set().union(*references))
    truth, found = (np.array([[name in row for name in names] for row in rows], int) for rows in (references, answers))
    unknown = sum(len(row - set(names)) for row in answers)
    precision = [sklearn.average_precision_score(truth[:, at], found[:, at]) for at in range(len(names))]
    f1 = [sklearn.f1_score(truth[:, at], found[:, at], zero_division=0) for at in range(len(names))]
    micro = 2 * (truth * found).sum() / (truth.sum() + found.sum() + unknown)
    return float(np.mean(precision)), float(micro), float(np.mean(f1))


def reference_mean_cosine_similarity(candidates: Tensor, references: Tensor, owners: Tensor) -> list[float]:
    return [
        float(np.mean([float(candidate.double() @ references[at].double()) for at in (owners == row).nonzero()[:, 0]]))
        for row, candidate in enumerate(candidates)
    ]


def reference_error_penalties(probabilities: Array) -> list[float]:
    return [1.0 - 0.9 if probability > 0.9 else 1.0 for probability in probabilities]


def reference_fense_scores(similarity: Array, probabilities: Array) -> list[float]:
    return [value * factor for value, factor in zip(similarity, reference_error_penalties(probabilities), strict=True)]


# Inputs


def text(rng: Generator, most: int = 8, least: int = 1) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(least, most + 1)))


def transcripts(rng: Generator, n: int) -> Arguments:
    return [text(rng) for _ in range(n)], [text(rng, least=0) for _ in range(n)]


def transcript_pairs(rng: Generator, n: int) -> Arguments:
    plain = ("satu", "dua", "tiga", "empat")
    return (
        [
            TranscriptPair(*(" ".join(rng.choice(plain, rng.integers(least, 7))) for least in (1, 0)), "id")
            for _ in range(n)
        ],
    )


def captions(rng: Generator, n: int) -> Arguments:
    return [text(rng, least=0) for _ in range(n)], [[text(rng) for _ in range(rng.integers(1, 4))] for _ in range(n)]


def one_caption(rng: Generator, n: int) -> Arguments:
    """References whose lengths differ from the candidate's by different numbers, as the rules for ties differ."""
    length = int(rng.integers(1, n + 1))
    lengths = rng.permutation([length + step for step in (0, 1, -2, 3) if length + step > 0])[: rng.integers(1, 4)]
    return " ".join(rng.choice(WORDS, length)), [" ".join(rng.choice(WORDS, each)) for each in lengths]


def sentence_embeddings(rng: Generator, n: int) -> Arguments:
    owners = torch.from_numpy(np.concatenate([np.arange(n), rng.integers(n, size=n)]))
    return embeddings(rng, n), embeddings(rng, len(owners)), owners


def label_sets(rng: Generator, n: int) -> Arguments:
    def some(least: int, names: str) -> set[str]:
        return set(rng.choice(list(names), rng.integers(least, 4)).tolist())

    return [some(1, "abcd") for _ in range(n)], [some(0, "abcdxy") for _ in range(n)]


def value(score: Any) -> Any:
    return score.value


# Cases

TEXTS = [
    MetricCase(
        metric=word_errors.edit_distance,
        reference=reference_edit_distance,
        inputs=st.tuples(FEW, FEW),
        bounds=(0, 70),
        degenerate={"empty": (([], []), 0), "deleted": ((["a", "b"], []), 2), "inserted": (([], ["a"]), 1)},
    ),
    MetricCase(
        metric=word_errors.count_word_errors,
        reference=reference_count_word_errors,
        inputs=seeded(lambda rng, n: (text(rng, n), text(rng, n, least=0))),
        degenerate={"empty": (("", "a b"), (2, 0)), "case": (("A", "a"), (0, 1))},
    ),
    *(
        MetricCase(
            metric=metric,
            reference=reference,
            inputs=seeded(transcripts),
            bounds=(0, most),
            items=(0, 1),
            degenerate={
                "no words": (([" "], ["a"]), DataError),
                "misfit": ((["a"], []), DataError),
                "empty": (([], []), DataError),
                "insertions": ((["a"], ["a b c"]), saturated),
            },
        )
        for metric, reference, most, saturated in (
            (word_errors.word_error_rate, reference_word_error_rate, math.inf, 2.0),
            (word_errors.wer_inv, reference_wer_inv, 1, 0.0),
        )
    ),
    MetricCase(
        metric=word_errors.count_errors,
        reference=reference_count_errors,
        inputs=seeded(lambda rng, n: tuple(transcript_pairs(rng, 1)[0])),
        degenerate={"no language": ((TranscriptPair("a", "a", ""),), DataError)},
    ),
    MetricCase(
        metric=word_errors.error_rates,
        options={"rounds": 3},
        select=lambda rates: rates.total.value,
        reference=reference_error_rates,
        inputs=seeded(transcript_pairs),
        bounds=(0, math.inf),
        items=(0,),
        degenerate={"no words": (([TranscriptPair("", "a", "id")],), DataError), "empty": (([],), DataError)},
    ),
    MetricCase(
        metric=ngrams.sentence_bleu,
        reference=reference_sentence_bleu,
        inputs=seeded(one_caption),
        bounds=(0, 1),
        items=(1,),
        tolerance=1e-9,
        degenerate={"empty": (("", ["a"]), [0.0] * 4), "no reference": (("a", []), [0.0] * 4)},
    ),
    *(
        MetricCase(
            metric=metric,
            options={"rounds": 3},
            select=value,
            reference=reference,
            inputs=seeded(captions),
            bounds=(0, 1),
            items=(0, 1),
            tolerance=1e-9,
            degenerate={"empty": (([], []), NAN), "nothing shared": ((["x"], [["y"]]), 0.0)},
            needs=SACREBLEU,
        )
        for metric, reference in (
            (ngrams.corpus_bleu, reference_corpus_bleu),
            (ngrams.corpus_chrf, reference_corpus_chrf),
        )
    ),
    MetricCase(
        metric=ngrams.sentence_chrf,
        reference=reference_sentence_chrf,
        inputs=seeded(lambda rng, n: tuple(each[0] for each in captions(rng, 1))),
        bounds=(0, 1),
        items=(1,),
        tolerance=1e-9,
        degenerate={"empty": (("", ["a"]), 0.0), "equal": (("a dog", ["cat", "a dog"]), 1.0)},
        needs=SACREBLEU,
    ),
    MetricCase(
        metric=multilabel.multilabel_scores,
        options={"rounds": 3},
        select=lambda scores: (scores.mAP.value, scores.micro_f1.value, scores.macro_f1.value),
        reference=reference_multilabel_scores,
        inputs=seeded(label_sets),
        bounds=(0, 1),
        items=(0, 1),
        degenerate={
            "empty": (([], []), DataError),
            "misfit": (([["a"]], []), DataError),
            "no label": (([[]], [["a"]]), DataError),
            "no answer": (([["a"], ["a"]], [[], []]), (1.0, 0.0, 0.0)),
        },
    ),
    MetricCase(
        metric=fense.mean_cosine_similarity,
        reference=reference_mean_cosine_similarity,
        inputs=seeded(sentence_embeddings),
        items=(1, 2),
        dtypes=FLOATS,
        degenerate={"opposite": ((torch.eye(1), -torch.eye(1), torch.tensor([0])), -1.0)},
    ),
    MetricCase(
        metric=fense.error_penalties,
        reference=reference_error_penalties,
        inputs=seeded(lambda rng, n: (rng.random(n),)),
        bounds=(0.1, 1),
        items=(0,),
        per_item=True,
        degenerate={"empty": (([],), []), "at the threshold": (([0.9],), 1.0), "not a number": (([NAN],), 1.0)},
    ),
    MetricCase(
        metric=fense.fense_scores,
        reference=reference_fense_scores,
        inputs=seeded(lambda rng, n: (rng.uniform(-1, 1, n), rng.random(n))),
        bounds=(-1, 1),
        items=(0, 1),
        per_item=True,
        degenerate={"empty": (([], []), [])},
    ),
]
