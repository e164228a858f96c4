"""Answers that name labels: one of a set, the speaker's gender, or several at once.

=========  ==================================================  =====================================================
           compat                                              strict
=========  ==================================================  =====================================================
one label  the label occurs anywhere in the answer, so cat is  whole words; the right label or a synonym of it is
           found in concatenate and male in female             named, and no other label
gender     male or female as a substring, the other one absent  whole words with man, woman, …; one of both named
several    split as the model's name asks; average precision   split at signs or by the known labels; the same, and
           of 0/1 answers over the labels of the file          F1, with unknown labels counted as wrong
=========  ==================================================  =====================================================

Source of compat: `compute_at_acc.py`, `compute_gender_acc.py`, `compute_map.py` of
github.com/xiaomi-research/dasheng-lm.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.errors import DataError
from auricle.metrics.intervals import Score
from auricle.metrics.resampling import ROUNDS, Array, bootstrap_each

GENDERS: Mapping[str, tuple[str, ...]] = {
    "male": ("male", "man", "masculine", "boy"),
    "female": ("female", "woman", "feminine", "girl"),
}
Synonyms = Mapping[str, Sequence[str]]  # label → other names for it


def plain(text: str) -> str:
    """Words in lower case with single spaces: NFKC, punctuation and symbols left out."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


class Naming:
    """Finds known labels in free text, by whole words, the longest name first."""

    def __init__(self, labels: Iterable[str], synonyms: Synonyms | None = None) -> None:
        """Labels that are known, each with its synonyms.

        Raises:
            DataError: a name would stand for two labels, or consists of no words.
        """
        self.names: dict[str, str] = {}
        for label in sorted(set(labels)):
            for name in (label, *(synonyms or {}).get(label, ())):
                words = plain(name)
                if not words:
                    raise DataError(f"label {label!r} is called {name!r}, expected words; correct label or synonyms")
                if self.names.setdefault(words, plain(label)) != plain(label):
                    raise DataError(
                        f"{name!r} stands for {self.names[words]!r} and for {label!r}; take it from one of them"
                    )
        # Lists within a label come with commas or with "and".
        self._joined = {_without_and(words): label for words, label in self.names.items()}
        longest = sorted(self.names, key=lambda name: (-len(name), name))
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)") if longest else None

    def find(self, text: str) -> list[str]:
        """Labels named in a text, as `plain` writes them, in order of appearance, each once."""
        if self._pattern is None:
            return []
        return list(dict.fromkeys(self.names[name] for name in self._pattern.findall(plain(text))))

    def exact(self, text: str) -> str | None:
        """The label that a whole text is, if it is one; "and" and commas are the same."""
        words = plain(text)
        return self.names.get(words) or self._joined.get(_without_and(words))


def _without_and(words: str) -> str:
    return " ".join(word for word in words.split() if word != "and")


def tag_is_right_compat(label: str, answer: str) -> bool:
    """The released rule: the label is part of the answer, letter by letter."""
    return label.lower().strip() in answer.lower().strip()


def tag_found(answer: str, naming: Naming) -> str | None:
    """The strict reading: the one label an answer names; None: none, or several."""
    found = naming.find(answer)
    return found[0] if len(found) == 1 else None


def gender_of_compat(answer: str) -> str:
    """The released reading: ``male``, ``female``, or the answer itself."""
    said = answer.lower().strip()
    if "female" in said:
        return said if "male" in said.replace("female", "") else "female"
    return "male" if "male" in said else said


@lru_cache(maxsize=1)
def genders() -> Naming:
    """What finds a gender in an answer."""
    return Naming(GENDERS, GENDERS)


def split_labels_compat(answer: str, *, dataset: str, model: str) -> list[str]:
    """The released splitting, which goes by the names of model and data set.

    Args:
        answer: of the model.
        dataset: ``FSD50K`` joins with "and" what it would write with commas.
        model: names with qwen or kimi separate by commas, all others by semicolons.
    """
    said, name = answer.lower(), model.lower()
    if "kimi" in name or ("qwen" in name and ";" not in said):
        parts = said.split(",")
    else:
        parts = said.split(";")
    parts = [part.strip() for part in parts]
    if "qwen" in name:
        joint = " and " if dataset == "FSD50K" else ", "
        return [part.replace("_", " ").replace(" - ", joint) for part in parts]
    if "kimi" in name:
        return [part.replace("_", " ") for part in parts]
    if dataset == "FSD50K":
        return [part.replace(", and ", " and ").replace(", ", " and ") for part in parts]
    return parts


class Labels(NamedTuple):
    """Of one answer."""

    known: frozenset[str]
    unknown: int  # parts that are no known label


def split_labels(answer: str, naming: Naming) -> Labels:
    """The strict splitting: at semicolons and line ends, then by comma where the whole part is no label.

    A comma may belong to a label ("Vehicle horn, car horn, honking"), so a part that is a label is never cut; in what
    is left, labels are found by their words.
    """
    known: set[str] = set()
    unknown = 0
    for part in re.split(r"[;\n|]+", answer):
        if (label := naming.exact(part)) is not None:
            known.add(label)
        elif plain(part):
            found = naming.find(part)
            known.update(found)
            unknown += sum(not naming.find(piece) for piece in part.split(",") if plain(piece))
    return Labels(frozenset(known), unknown)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScores:
    """Of answers that name several labels."""

    mAP: Score
    micro_f1: Score
    macro_f1: Score
    average_precision: Mapping[str, float]  # by label
    f1: tuple[float, ...]  # of each row
    unknown: int  # labels named that are in no reference


def score_labels(
    references: Sequence[Iterable[str]],
    answers: Sequence[Iterable[str]],
    *,
    unknown: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> LabelScores:
    """Average precision of 0/1 answers and F1, over the labels that references have.

    An answer ranks nothing, so the average precision of a label is that of two thresholds: P·R + (1 − R)·prevalence.
    It cannot be compared with one of ranked scores.

    Args:
        references: labels of each row.
        answers: labels of each row; those that no reference has are dropped, as released.
        unknown: further wrong labels of each row, which count in micro F1 only.
        groups: (n,) names; rows of one name are resampled together.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        DataError: no rows, rows that do not fit, or a row without labels in its reference.
    """
    expected, found = [set(row) for row in references], [set(row) for row in answers]
    if not expected or len(expected) != len(found) or not all(expected):
        raise DataError(
            f"{len(expected)} references, {sum(not row for row in expected)} of them without labels, and {len(found)} "
            "answers; expected one answer for each reference, and a label in each"
        )
    names = sorted(set().union(*expected))
    truth, said = _table(expected, names), _table(found, names)
    extra = np.array([len(row - set(names)) for row in found], np.float64) if unknown is None else np.array(unknown)
    sums = np.concatenate([truth * said, said, truth, extra[:, None], np.ones((len(truth), 1))], 1)
    classes = len(names)

    scores = bootstrap_each(
        sums,
        {
            "mAP": lambda each: _macro(_average_precision, _Counts.of(each, classes)),
            "micro_f1": lambda each: _micro_f1(_Counts.of(each, classes)),
            "macro_f1": lambda each: _macro(_f1, _Counts.of(each, classes)),
        },
        groups=groups,
        rounds=rounds,
        seed=seed,
    )
    whole = _Counts.of(sums.sum(0, keepdims=True), classes)
    hits, size = (truth * said).sum(1), truth.sum(1) + said.sum(1) + extra
    return LabelScores(
        **scores,
        average_precision=dict(zip(names, _average_precision(whole)[0].tolist(), strict=True)),
        f1=tuple((2 * hits / size).tolist()),
        unknown=int(extra.sum()),
    )


class _Counts(NamedTuple):
    """Sums over rows, (r, C) of r resamples."""

    hits: Array
    said: Array
    truth: Array
    extra: Array  # (r,)
    rows: Array  # (r,)

    @classmethod
    def of(cls, sums: Array, classes: int) -> "_Counts":
        hits, said, truth = (sums[:, at * classes : (at + 1) * classes] for at in range(3))
        return cls(hits, said, truth, sums[:, -2], sums[:, -1])


def _table(rows: Sequence[set[str]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    places = {name: at for at, name in enumerate(names)}
    table = np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows):
        table[number, [places[name] for name in row if name in places]] = 1
    return table


def _average_precision(counts: _Counts) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(counts.said > 0, counts.hits / counts.said, 0.0)
        recall = counts.hits / counts.truth
    found: Array = precision * recall + (1 - recall) * counts.truth / counts.rows[:, None]
    return found


def _f1(counts: _Counts) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = 2 * counts.hits / (counts.said + counts.truth)
    return found


def _micro_f1(counts: _Counts) -> Array:
    size = counts.said.sum(1) + counts.truth.sum(1) + counts.extra
    found: Array = 2 * counts.hits.sum(1) / size
    return found


def _macro(of_label: Callable[[_Counts], Array], counts: _Counts) -> Array:
    """Mean over the labels that a resample holds."""
    has = counts.truth > 0
    found: Array = np.where(has, of_label(counts), 0.0).sum(1) / has.sum(1)
    return found
