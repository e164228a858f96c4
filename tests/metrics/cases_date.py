"""DATE."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics import date, soft_tfidf
from auricle.metrics.date import DateScores

from .metric_tester import Arguments, MetricCase, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Generator = np.random.Generator


# References


def reference_date_scores(
    candidates: Tensor, references: Tensor, delta: float, factors: Array, same: Array | None, scoring_rule: str
) -> list[list[float]]:
    """Similarity, discrimination, DATE and share of confused clips, by loops over all pairs."""
    number = len(candidates)
    plain = [[float(own @ other) for other in references] for own in candidates]
    penalised = [[value * factor for value in row] for row, factor in zip(plain, factors, strict=True)]
    rows = []
    for i in range(number):
        if scoring_rule == "compat":
            near = sum(value >= penalised[i][i] - delta / 2 for value in penalised[i])
            similarity, discrimination, confused = penalised[i][i], 1 - near / number, (near - 1) / max(1, number - 1)
        else:
            others = [j for j in range(number) if j != i and (same is None or same[j] != same[i])]
            near = sum(plain[i][j] >= plain[i][i] - delta / 2 for j in others)
            confused = near / len(others) if others else 0.0
            similarity, discrimination = max(0.0, penalised[i][i]), 1 - confused
        total = similarity + discrimination
        rows.append([similarity, discrimination, 2 * similarity * discrimination / total if total else 0.0, confused])
    return [list(column) for column in zip(*rows, strict=True)]


def reference_date_of_matrix(scores: Tensor, delta: float) -> list[list[float]]:
    eye = torch.eye(len(scores), dtype=scores.dtype)
    return reference_date_scores(scores, eye, delta, np.ones(len(scores)), None, "compat")


def reference_expected_date(scores: DateScores, size: int) -> float:
    dates = []
    for similarity, confused in zip(scores.similarity, scores.confused, strict=True):
        discrimination = 1 - (confused * (size - 1) + 1) / size
        total = similarity + discrimination
        dates.append(2 * similarity * discrimination / total if total else 0.0)
    return float(np.mean(dates))


def reference_date_ceiling(number: int) -> float:
    eye = torch.eye(number)
    return float(np.mean(reference_date_scores(eye, eye, 0.1, np.ones(number), None, "compat")[2]))


def reference_mean_references(vectors: Tensor, counts: Sequence[int]) -> Array:
    return np.stack([part.numpy().mean(0) for part in vectors.split(list(counts))])


def reference_soft_tfidf(documents: Sequence[Sequence[int]], table: Tensor) -> list[list[float]]:
    """By the formulas, with 0 as the opening and 1 as the closing token."""
    units = torch.nn.functional.normalize(table.double(), dim=1)
    contents = [[token for token in ids if token > 1] for ids in documents]

    def tf(word: int, content: list[int]) -> float:
        return sum(float(units[word] @ units[other]) ** 2 for other in content)

    found = []
    for ids, content in zip(documents, contents, strict=True):
        idf = {
            word: math.log((len(documents) + 1) / (sum(min(1.0, tf(word, each)) for each in contents) + 1)) + 1
            for word in content
        }
        own = [tf(word, content) * idf[word] for word in content]
        own = [value / float(np.mean(own)) for value in own]
        heavy, light = (max(1.0, *own), min(1.0, *own)) if own else (1.0, 1.0)
        rest = iter(own)
        found.append([heavy if token == 0 else light if token == 1 else next(rest) for token in ids])
    return found


# Inputs


def unit(rng: Generator, rows: int, width: int = 6) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(rows, width))), dim=1)


def dated(rng: Generator, n: int) -> Arguments:
    """Captions that are more or less near to their references, some penalised, some with equal references."""
    same = rng.integers(max(2, n // 2), size=n)
    own = unit(rng, n)[torch.from_numpy(same)]
    near = torch.nn.functional.normalize(own + torch.from_numpy(rng.normal(size=own.shape)), dim=1)
    scoring_rule = "strict" if rng.random() < 0.5 else "compat"
    return near, own, 0.2, np.where(rng.random(n) < 0.3, 0.1, 1.0), same, scoring_rule


def date_matrix(rng: Generator, n: int) -> Arguments:
    return torch.from_numpy(rng.uniform(-1, 1, (n, n))), 0.2


def date_facts(rng: Generator, n: int) -> Arguments:
    similarity, confused = rng.random(n), rng.random(n)
    return DateScores(similarity, 1 - confused, similarity, confused), int(rng.integers(2, 1000))


def documents(rng: Generator, n: int) -> Arguments:
    table = torch.from_numpy(rng.normal(size=(12, 4)))
    return [[0, *rng.integers(2, 12, rng.integers(0, 6)).tolist(), 1] for _ in range(n)], table


# Cases

DATE = [
    MetricCase(
        metric=date.date_scores,
        keywords=("delta", "factors", "same", "scoring_rule"),
        reference=reference_date_scores,
        inputs=seeded(dated, least=2),
        items=(0, 1, 3, 4),
        per_item=True,
        tolerance=1e-6,
        degenerate={
            "misfit": ((torch.eye(3), torch.eye(4), 0.1, np.ones(3), None, "compat"), DataError),
            "one clip": ((torch.eye(1), torch.eye(1), 0.1, np.ones(1), None, "strict"), DataError),
            "one clip, released": ((torch.eye(1), torch.eye(1), 0.1, np.ones(1), None, "compat"), [1, 0, 0, 0]),
        },
    ),
    MetricCase(
        metric=date.date_of_matrix,
        reference=reference_date_of_matrix,
        inputs=seeded(date_matrix),
        degenerate={"zeros": ((torch.zeros(2, 2), 0.1), [0, 0, 0, 0, 0, 0, 1, 1])},
    ),
    MetricCase(metric=date.expected_date, reference=reference_expected_date, inputs=seeded(date_facts), bounds=(0, 1)),
    MetricCase(
        metric=date.date_ceiling,
        reference=reference_date_ceiling,
        inputs=st.tuples(st.integers(1, 40)),
        bounds=(0, 1),
        tolerance=1e-6,
    ),
    MetricCase(
        metric=date.mean_references,
        reference=reference_mean_references,
        inputs=seeded(
            lambda rng, n: (lambda counts: (torch.from_numpy(rng.random((sum(counts), 4)).astype(np.float32)), counts))(
                rng.integers(1, 4, n).tolist()
            )
        ),
        tolerance=1e-6,
    ),
    MetricCase(
        metric=soft_tfidf.soft_tfidf,
        options={"opening": 0, "closing": 1},
        reference=reference_soft_tfidf,
        inputs=seeded(documents, large=20),
        bounds=(0, math.inf),
        tolerance=1e-5,
        degenerate={"no content": (([[0, 1]], torch.eye(4)), [1.0, 1.0])},
    ),
]
