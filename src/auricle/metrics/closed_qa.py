"""Predictions on questions with given choices.

========  ==========================================================================================================
compat    the words of the correct answer are among those of the prediction, and no word of another choice is
strict    the prediction is parsed as a letter or as the text of one choice; one that names none, or several, is
          unparseable and counts as wrong: no choice is ever guessed
========  ==========================================================================================================

Source of compat: `compute_qa_acc.py` of github.com/xiaomi-research/dasheng-lm, which is MMAU's string match.
"""

import re
import unicodedata
from collections.abc import Sequence

from auricle.errors import DataError
from auricle.metrics.tags import LabelMatcher, plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD = re.compile(r"\b\w+\b")
# Where a letter is a choice and no article: alone, in brackets, before a mark, or after "answer is".
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
    """The choices of a prompt, ``(A) …`` on a line each.

    >>> list_choices(["dog", "cat"])
    '(A) dog\\n(B) cat'
    """
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def is_right_compat(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """Whether a prediction is correct by the released rule.

    Args:
        answer: a letter or a text.
        prediction: of the model.
        choices: may be none.

    >>> is_right_compat("sad song", "a sad, slow song", ["happy song", "sad song"])
    True
    """
    found, expected = _words(prediction), _words(answer)
    if not found or not expected <= found:
        return False
    wrong: set[str] = set()
    for choice in choices:
        words = _words(choice)
        if words != expected:
            wrong |= words - expected
    return found.isdisjoint(wrong)


def right_choices(answers: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
    """Number of the correct choice of each question.

    Answers are letters if all of them are, and texts of a choice otherwise: one rule for a file, so that a choice
    called "B" is not taken for the second.

    >>> right_choices(["B", "a"], [["dog", "cat"], ["rain", "wind"]])
    [1, 0]

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


def choice_of(prediction: str, choices: Sequence[str]) -> int | None:
    """Number of the choice that a prediction names by the strict rule; None: none, or several.

    Args:
        prediction: of the model.
        choices: their texts, at least one.

    >>> choice_of("The answer is (B).", ["dog", "cat"]), choice_of("a cat", ["dog", "cat"])
    (1, 1)
    """
    text = unicodedata.normalize("NFKC", prediction)
    by_text = _by_text(text, choices)
    if len(by_text) == 1 and plain(text) == plain(choices[by_text[0]]):
        return by_text[0]
    letters = _letters(text, len(choices))
    found = set(letters) | (set(by_text) if len(by_text) == 1 or not letters else set())
    return found.pop() if len(found) == 1 else None


def contains_answer(answer: str, prediction: str) -> bool:
    """Whether a prediction is correct by the strict rule where there are no choices: it contains the answer's words.

    For yes and no, the other one must be absent.

    >>> contains_answer("yes", "Yes, it is."), contains_answer("yes", "yes and no")
    (True, False)
    """
    known = {"yes", "no"} if plain(answer) in ("yes", "no") else {answer}
    return LabelMatcher(known).find(prediction) == [plain(answer)]


def _letters(text: str, count: int) -> list[int]:
    """Choices named by letter, in order of appearance, each once."""
    whole = _ALONE.fullmatch(text)
    named = [whole[1]] if whole else []
    for pattern in (_BRACKETED, _LED, _ANNOUNCED, _LISTED):
        named += [group for match in pattern.finditer(text) for group in match.groups() if group]
    return list(dict.fromkeys(LETTERS.index(each.upper()) for each in named if each.upper() in LETTERS[:count]))


def _by_text(text: str, choices: Sequence[str]) -> list[int]:
    """Choices whose words are in the text, longer ones matched first; equal choices are all returned."""
    places: dict[str, list[int]] = {}
    for at, choice in enumerate(choices):
        if words := plain(choice):
            places.setdefault(words, []).append(at)
    found = LabelMatcher(places).find(text) if places else []
    return [at for name in found for at in places[name]]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
