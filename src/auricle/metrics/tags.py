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
from functools import cache, lru_cache
from typing import NamedTuple

from auricle.errors import DataError
from auricle.metrics.characters import LEADING, is_following, is_mark, is_unspaced, marks, visible

GENDERS: Mapping[str, tuple[str, ...]] = {
    "male": ("male", "man", "masculine", "boy"),
    "female": ("female", "woman", "feminine", "girl"),
}
Synonyms = Mapping[str, Sequence[str]]  # other names of each label
_ALIKE = str.maketrans({"♯": "#", "⁄": "/", "‘": "'", "’": "'", "ʼ": "'", **dict.fromkeys("‐‑‒–—―−", "-")})
_JOINING = re.compile(r"""[,;:.'"()\[\]«»“”„、。，；：「」『』،؛।]""")


def folded(text: str) -> str:
    """A text in its compatibility form (NFKC) and lower case, with single spaces and without invisible characters.

    Dashes are one character, as are apostrophes, and sharps.
    """
    text = visible(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(unicodedata.normalize("NFKC", text).translate(_ALIKE).split())


def plain(text: str, signs: str = "") -> str:
    """Words in lower case with single spaces; punctuation and symbols are left out, combining marks are not.

    Signs within a name stay where they make another name of it: sharps, flats, a plus at the end, minus and point of
    numbers.

    Args:
        text: of any script.
        signs: further signs that stay, as words of their own.

    >>> plain(" Bass-guitar, LOUD! "), plain("C#, B♭ or C++: -5.5 dB")
    ('bass guitar loud', 'c# b♭ or c++ -5.5 db')
    """
    return " ".join(_words(signs).findall(folded(text).replace("_", " ")))


@cache
def _words(signs: str) -> re.Pattern[str]:
    letter = rf"[\w{marks()}]"
    word = rf"(?:(?<!{letter})-(?=\d))?{letter}+(?:(?<=\d)\.(?=\d){letter}+|[#♭♮]{letter}*|\++(?!{letter}))*"
    if not signs:
        return re.compile(word)
    return re.compile(rf"{word}|(?!(?<={letter})-{letter})[{re.escape(signs)}]")


def _signs(text: str) -> set[str]:
    """Signs that distinguish a name from another one of the same words; others only join or close words."""
    return set(_JOINING.sub("", re.sub(rf"(?<=[\w{marks()}])-(?=[\w{marks()}])|[\w\s{marks()}]", "", folded(text))))


class LabelMatcher:
    """Finds known labels in free text, by whole words, the longest name first.

    In scripts without spaces, a name may stand beside any other word, but never ends within a syllable. Where names
    differ in signs alone, signs count.

    >>> LabelMatcher(["cat", "dog"], {"cat": ["kitten"]}).find("A dog, and a kitten.")
    ['dog', 'cat']
    >>> LabelMatcher(["5", "5%", "狗叫"]).find("5%，还有狗叫的声音")
    ['5 %', '狗叫']
    """

    def __init__(self, labels: Iterable[str], synonyms: Synonyms | None = None) -> None:
        """Prepare the names of all labels.

        Args:
            labels: known labels.
            synonyms: of some of them.

        Raises:
            DataError: a name of two labels, or one without words.
        """
        pairs = [(label, name) for label in sorted(set(labels)) for name in (label, *(synonyms or {}).get(label, ()))]
        for label, name in pairs:
            if not plain(name):
                raise DataError(f"label {label!r} is called {name!r}, expected words; correct label or synonyms")
        alike: dict[str, set[frozenset[str]]] = {}
        for _, name in pairs:
            alike.setdefault(plain(name), set()).add(frozenset(_signs(name)))
        differ = [words for words, signs in alike.items() if len(signs) > 1]
        self._signs = "".join(sorted(sign for words in differ for own in alike[words] for sign in own))
        self.names: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        for label, name in pairs:
            words, own = self.key(name), self.key(label)
            if self.names.setdefault(words, own) != own:
                raise DataError(f"{name!r} names {self.names[words]!r} and {label!r}; remove it from one of them")
            self._whole.setdefault(folded(name), own)
        # Lists within a label are written with commas or with "and".
        self._joined = {_without_and(words): label for words, label in self.names.items()}
        self._closed = frozenset(words for words in self.names if self._without_signs(words) in differ)
        self._patterns = {name: self._pattern(name) for name in self.names}

    def key(self, label: str) -> str:
        """A label as results of this matcher have it."""
        return plain(label, self._signs)

    def find(self, text: str) -> list[str]:
        """Labels named in a text, see `key`, in order of appearance, each once; a whole name names no other."""
        if (whole := self._whole.get(folded(text))) is not None:
            return [whole]
        words = self.key(text)
        spans = [
            (match.start(), -match.end(), name)
            for name, pattern in self._patterns.items()
            if name.split(" ", 1)[0] in words
            for match in pattern.finditer(words)
            if self._stands_alone(name, words, match.start(), match.end())
        ]
        found, end = [], 0
        for start, negative_end, name in sorted(spans):  # of those that start together the longest
            if start >= end:
                found.append(self.names[name])
                end = -negative_end
        return list(dict.fromkeys(found))

    def exact(self, text: str) -> str | None:
        """The label that the whole text names, if any; "and" and commas are equal."""
        words = self.key(text)
        return self._whole.get(folded(text)) or self.names.get(words) or self._joined.get(_without_and(words))

    def _without_signs(self, words: str) -> str:
        return " ".join(word for word in words.split() if word not in self._signs) if self._signs else words

    def _pattern(self, name: str) -> re.Pattern[str]:
        """A name within the words of a text; signs between its words do not count unless it has some."""
        is_plain = self._signs and self._without_signs(name) == name
        between = f"(?: [{re.escape(self._signs)}])* " if is_plain else " "
        return re.compile(between.join(map(re.escape, name.split(" "))))

    def _stands_alone(self, name: str, words: str, start: int, end: int) -> bool:
        before, after = words[start - 1 : start], words[end : end + 1]
        if name in self._closed and (
            set(words[max(0, start - 2) : start].strip()) & set(self._signs)
            or set(words[end : end + 2].strip()) & set(self._signs)
        ):
            return False
        starts = not (before and before in LEADING) if is_unspaced(name[0]) else _is_free(before)
        last = next((letter for letter in reversed(name) if not is_mark(letter)), "")
        return starts and (not is_following(after) if is_unspaced(last) else _is_free(after))


def _is_free(beside: str) -> bool:
    return beside in ("", " ") or is_unspaced(beside)


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
