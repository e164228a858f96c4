"""Answers to questions with given choices.

========  ==========================================================================================================
compat    the words of the right answer are among those of the model's, and no word of another choice is
strict    the answer is read as a letter or as the text of one choice; what names none, or several, is unparseable and
          counts as wrong: no choice is ever guessed
========  ==========================================================================================================

Source of compat: `compute_qa_acc.py` of github.com/xiaomi-research/dasheng-lm, which is MMAU's string match.
"""

import re
import unicodedata
from collections.abc import Sequence

from auricle.errors import DataError
from auricle.metrics.tags import Naming, plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD = re.compile(r"\b\w+\b")
# Where a letter is meant as one and no article: alone, in brackets, with a mark behind it, or after "answer is".
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_BRACKETED = re.compile(r"\(([A-Za-z])\)|\[([A-Za-z])\]")
_LED = re.compile(r"(?:^|\n)\s*([A-Z])\s*[.:)\]]")
_ANNOUNCED = re.compile(
    r"(?i:\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*)\(?([A-Z])\b(?=\s*(?:[.,:;)\]]|$))", re.MULTILINE
)
_LISTED = re.compile(
    r"(?<![\w'])([A-Z])\b(?=\s*(?:,|/|\band\b|\bor\b)\s*\(?[A-Z]\b)|(?:,|/|\band\b|\bor\b)\s*\(?([A-Z])\b(?=\W*$)"
)


def list_choices(choices: Sequence[str]) -> str:
    """As closed questions list them: ``(A) …`` on lines of their own."""
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def is_right_compat(answer: str, said: str, choices: Sequence[str]) -> bool:
    """The released rule; ``answer`` is a letter or a text, choices may be none."""
    heard, expected = _words(said), _words(answer)
    if not heard or not expected <= heard:
        return False
    wrong: set[str] = set()
    for choice in choices:
        own = _words(choice)
        if own != expected:
            wrong |= own - expected
    return heard.isdisjoint(wrong)


def right_choices(answers: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
    """Number of the right choice of each question.

    Answers are letters if all of them are, and texts of a choice otherwise: a single rule for a file, so that a choice
    called "B" is not taken for the second.

    Raises:
        DataError: an answer is neither a letter within its choices nor exactly one of them.
    """
    pairs = list(zip(answers, choices, strict=True))
    if all(len(each.strip()) == 1 and each.strip().upper() in LETTERS[: len(own)] for each, own in pairs):
        return [LETTERS.index(each.strip().upper()) for each in answers]
    found = []
    for number, (each, own) in enumerate(pairs, 1):
        same = [at for at, choice in enumerate(own) if plain(choice) == plain(each)]
        if len(same) != 1:
            raise DataError(
                f"question {number}: answer {each!r} is {len(same)} of the choices {list(own)}, expected exactly one, "
                "or letters in all rows; correct the file"
            )
        found.append(same[0])
    return found


def choice_of(said: str, choices: Sequence[str]) -> int | None:
    """The strict reading of an answer: number of the choice it names; None: none, or several.

    Args:
        said: of the model.
        choices: their texts, at least one.
    """
    text = unicodedata.normalize("NFKC", said)
    by_text = _by_text(text, choices)
    if len(by_text) == 1 and plain(text) == plain(choices[by_text[0]]):
        return by_text[0]
    letters = _letters(text, len(choices))
    found = set(letters) | (set(by_text) if len(by_text) == 1 or not letters else set())
    return found.pop() if len(found) == 1 else None


def agrees(answer: str, said: str) -> bool:
    """The strict rule where there are no choices: the answer's words stand in what was said, one after the other.

    Of yes and no, the other one must not be there.
    """
    known = {"yes", "no"} if plain(answer) in ("yes", "no") else {answer}
    return Naming(known).find(said) == [plain(answer)]


def _letters(text: str, count: int) -> list[int]:
    """Choices named by letter, in order of appearance, each once."""
    whole = _ALONE.fullmatch(text)
    named = [whole[1]] if whole else []
    for pattern in (_BRACKETED, _LED, _ANNOUNCED, _LISTED):
        named += [group for match in pattern.finditer(text) for group in match.groups() if group]
    return list(dict.fromkeys(LETTERS.index(each.upper()) for each in named if each.upper() in LETTERS[:count]))


def _by_text(text: str, choices: Sequence[str]) -> list[int]:
    """Choices whose words stand in the text, longer ones first taken; equal choices are told apart by none."""
    places: dict[str, list[int]] = {}
    for at, choice in enumerate(choices):
        if words := plain(choice):
            places.setdefault(words, []).append(at)
    found = Naming(places).find(text) if places else []
    return [at for name in found for at in places[name]]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
