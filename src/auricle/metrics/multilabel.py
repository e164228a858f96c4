"""Scores of several labels an item, where an answer names labels and ranks none.

The counts of each item are summed, so a thousand resamples of the bootstrap are one matrix product. Legend: n items,
C labels, r resamples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from auricle.errors import DataError
from auricle.metrics.intervals import ROUNDS, Array, Score, bootstrap_statistics


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScores:
    """Scores of answers that name several labels, in [0, 1]."""

    mAP: Score
    micro_f1: Score
    macro_f1: Score
    average_precision: Mapping[str, float]  # by label
    f1: tuple[float, ...]  # of each row
    unknown: int  # labels named that are in no reference


def multilabel_scores(
    references: Sequence[Iterable[str]],
    answers: Sequence[Iterable[str]],
    *,
    unknown: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> LabelScores:
    """Average precision of 0/1 answers and F1, over the labels that references have, with 95 % intervals.

    An answer ranks nothing, so the average precision of a label is that of two thresholds: P·R + (1 − R)·prevalence.
    It cannot be compared with one of ranked scores. F1 = 2·hits / (answered + wanted), macro over labels, or micro.

    Args:
        references: labels of each row.
        answers: labels of each row; those that no reference has are dropped, as released.
        unknown: further wrong labels of each row, which count in micro F1 only.
        groups: (n,) names; rows of one name are resampled together.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        DataError: no rows, rows that do not fit, or a row without labels in its reference.

    >>> scores = multilabel_scores([["dog"], ["cat"]], [["dog"], ["dog"]], rounds=10)
    >>> scores.micro_f1.value, scores.average_precision
    (0.5, {'cat': 0.5, 'dog': 0.5})

    Source: scikit-learn `average_precision_score` and `f1_score` of 0/1 tables, which `compute_map.py` of
    github.com/xiaomi-research/dasheng-lm calls.
    """
    expected, found = [set(row) for row in references], [set(row) for row in answers]
    if not expected or len(expected) != len(found) or not all(expected):
        raise DataError(
            f"{len(expected)} references, {sum(not row for row in expected)} of them without labels, and {len(found)} "
            "answers; expected one answer for each reference, and a label in each"
        )
    names = sorted(set().union(*expected))
    truth, answered = _table(expected, names), _table(found, names)
    extra = np.array([len(row - set(names)) for row in found], np.float64) if unknown is None else np.array(unknown)
    columns = np.concatenate([truth * answered, answered, truth, extra[:, None], np.ones((len(truth), 1))], 1)
    classes = len(names)

    scores = bootstrap_statistics(
        columns,
        {
            "mAP": lambda each: _macro(_average_precision, _Counts.of(each, classes)),
            "micro_f1": lambda each: _micro_f1(_Counts.of(each, classes)),
            "macro_f1": lambda each: _macro(_f1, _Counts.of(each, classes)),
        },
        groups=groups,
        rounds=rounds,
        seed=seed,
    )
    whole = _Counts.of(columns.sum(0, keepdims=True), classes)
    return LabelScores(
        **scores,
        average_precision=dict(zip(names, _average_precision(whole)[0].tolist(), strict=True)),
        f1=tuple(_micro_f1(_Counts.of(columns, classes)).tolist()),
        unknown=int(extra.sum()),
    )


class _Counts(NamedTuple):
    """Sums over the rows of each resample."""

    hits: Array  # (r, C)
    answered: Array  # (r, C)
    truth: Array  # (r, C)
    extra: Array  # (r,)
    rows: Array  # (r,)

    @classmethod
    def of(cls, sums: Array, classes: int) -> "_Counts":
        hits, answered, truth = (sums[:, at * classes : (at + 1) * classes] for at in range(3))
        return cls(hits, answered, truth, sums[:, -2], sums[:, -1])


def _table(rows: Sequence[set[str]], names: Sequence[str]) -> Array:
    places = {name: at for at, name in enumerate(names)}
    table = np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows):
        table[number, [places[name] for name in row if name in places]] = 1
    return table


def _average_precision(counts: _Counts) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(counts.answered > 0, counts.hits / counts.answered, 0.0)
        recall = counts.hits / counts.truth
    found: Array = precision * recall + (1 - recall) * counts.truth / counts.rows[:, None]
    return found


def _f1(counts: _Counts) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = 2 * counts.hits / (counts.answered + counts.truth)
    return found


def _micro_f1(counts: _Counts) -> Array:
    size = counts.answered.sum(1) + counts.truth.sum(1) + counts.extra
    found: Array = 2 * counts.hits.sum(1) / size
    return found


def _macro(of_label: Callable[[_Counts], Array], counts: _Counts) -> Array:
    """Mean over the labels that occur in a resample."""
    has = counts.truth > 0
    found: Array = np.where(has, of_label(counts), 0.0).sum(1) / has.sum(1)
    return found
