"""Labels named in free text: one of a set, the speaker's gender, or several at once.

=========  ==================================================  =====================================================
           compat                                              strict
=========  ==================================================  =====================================================
one label  the label is a substring of the answer, so cat is   whole words; the right label or a synonym of it is
           found in concatenate and male in female             named, and no other label
gender     male or female as a substring, the other one absent  whole words with man, woman, …; one of both named
several    split by a rule of the model's name                 split at signs or by the known labels
=========  ==================================================  =====================================================

Scores of several labels are in `auricle.metrics.multilabel`. Source of compat: `compute_at_acc.py`,
`compute_gender_acc.py`, `compute_map.py` of github.com/xiaomi-research/dasheng-lm.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from auricle.errors import DataError

GENDERS: Mapping[str, tuple[str, ...]] = {
    "male": ("male", "man", "masculine", "boy"),
    "female": ("female", "woman", "feminine", "girl"),
}
Synonyms = Mapping[str, Sequence[str]]  # other names of each label


def plain(text: str) -> str:
    """Words in lower case with single spaces: NFKC, punctuation and symbols left out.

    >>> plain(" Bass-guitar, LOUD! ")
    'bass guitar loud'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


class LabelMatcher:
    """Finds known labels in free text, by whole words, the longest name first.

    >>> LabelMatcher(["cat", "dog"], {"cat": ["kitten"]}).find("A dog, and a kitten.")
    ['dog', 'cat']
    """

    def __init__(self, labels: Iterable[str], synonyms: Synonyms | None = None) -> None:
        """Prepare the names of all labels.

        Args:
            labels: known labels.
            synonyms: of some of them.

        Raises:
            DataError: a name of two labels, or one without words.
        """
        self.names: dict[str, str] = {}
        for label in sorted(set(labels)):
            for name in (label, *(synonyms or {}).get(label, ())):
                words = plain(name)
                if not words:
                    raise DataError(f"label {label!r} is called {name!r}, expected words; correct label or synonyms")
                if self.names.setdefault(words, plain(label)) != plain(label):
                    raise DataError(f"{name!r} names {self.names[words]!r} and {label!r}; remove it from one of them")
        # Lists within a label are written with commas or with "and".
        self._joined = {_without_and(words): label for words, label in self.names.items()}
        longest = sorted(self.names, key=lambda name: (-len(name), name))
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)") if longest else None

    def find(self, text: str) -> list[str]:
        """Labels named in a text, as `plain` writes them, in order of appearance, each once."""
        if self._pattern is None:
            return []
        return list(dict.fromkeys(self.names[name] for name in self._pattern.findall(plain(text))))

    def exact(self, text: str) -> str | None:
        """The label that the whole text names, if any; "and" and commas are equal."""
        words = plain(text)
        return self.names.get(words) or self._joined.get(_without_and(words))


def _without_and(words: str) -> str:
    return " ".join(word for word in words.split() if word != "and")


def contains_label_compat(label: str, answer: str) -> bool:
    """Whether the label is a substring of the answer, in lower case: the released rule.

    >>> contains_label_compat("cat", "concatenate")
    True
    """
    return label.lower().strip() in answer.lower().strip()


def single_label(answer: str, matcher: LabelMatcher) -> str | None:
    """The one label that an answer names by the strict rule; None: none, or several."""
    found = matcher.find(answer)
    return found[0] if len(found) == 1 else None


def gender_of_compat(answer: str) -> str:
    """``male``, ``female``, or the answer itself in lower case: the released rule.

    >>> gender_of_compat("A female voice"), gender_of_compat("male and female")
    ('female', 'male and female')
    """
    text = answer.lower().strip()
    if "female" in text:
        return text if "male" in text.replace("female", "") else "female"
    return "male" if "male" in text else text


@lru_cache(maxsize=1)
def gender_matcher() -> LabelMatcher:
    """The matcher of `GENDERS`."""
    return LabelMatcher(GENDERS, GENDERS)


def split_labels_compat(answer: str, *, dataset: str, model: str) -> list[str]:
    """Labels of an answer by the released rule, which depends on the names of model and data set.

    Args:
        answer: of the model.
        dataset: ``FSD50K`` joins with "and" what it would write with commas.
        model: names with qwen or kimi separate by commas, all others by semicolons.
    """
    text, name = answer.lower(), model.lower()
    by_commas = "kimi" in name or ("qwen" in name and ";" not in text)
    parts = [part.strip() for part in text.split("," if by_commas else ";")]
    if "qwen" in name:
        joint = " and " if dataset == "FSD50K" else ", "
        return [part.replace("_", " ").replace(" - ", joint) for part in parts]
    if "kimi" in name:
        return [part.replace("_", " ") for part in parts]
    if dataset == "FSD50K":
        return [part.replace(", and ", " and ").replace(", ", " and ") for part in parts]
    return parts


class Labels(NamedTuple):
    """The labels of one answer."""

    known: frozenset[str]
    unknown: int  # parts that are no known label


def split_labels(answer: str, matcher: LabelMatcher) -> Labels:
    """Labels of an answer by the strict rule: split at semicolons and line ends, then at commas.

    A comma may belong to a label ("Vehicle horn, car horn, honking"), so a part that is a label is never cut; in what
    is left, labels are found by their words.
    """
    known: set[str] = set()
    unknown = 0
    for part in re.split(r"[;\n|]+", answer):
        if (label := matcher.exact(part)) is not None:
            known.add(label)
        elif plain(part):
            found = matcher.find(part)
            known.update(found)
            unknown += sum(not matcher.find(piece) for piece in part.split(",") if plain(piece))
    return Labels(frozenset(known), unknown)
