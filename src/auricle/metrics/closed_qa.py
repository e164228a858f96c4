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
from collections.abc import Iterator, Sequence

from auricle.errors import DataError
from auricle.metrics.characters import visible
from auricle.metrics.tags import LabelMatcher, folded, plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD = re.compile(r"\b\w+\b")

# --- forms of a letter by the strict rule, in a text without markup, see `_without_markup`
_WIDE = r"\u2e80-\U0003ffff"  # Han, kana, Hangul: they may touch a letter
_X = rf"(?<![^\W{_WIDE}])(?<![^\W{_WIDE}]')([A-Za-z])(?![^\W{_WIDE}]|'\w|[#♯♭+])"
_END = rf"(?=\s*(?:[.,:;!?()\[\]{{}}'\"{_WIDE}]|\s[-–—]\s|$|\b(?:because|since|as|for)\b))"  # how sentences go on
_ONE_LETTER = re.compile(r"\W*([A-Za-z])\W*")
_BRACKETED = re.compile(r"(?<!\w)\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]")
_NOT_BEFORE = re.compile(r"(?i:\b(?:not|never|nor|neither|cannot|than|except|unlike|instead\s+of)|n't|不)\s*$")
_NOT_BEHIND = re.compile(r"(?i:\W*(?:is|was)(?:n't|\s+(?:not\b|wrong|false|incorrect|excluded|ruled)))|\W*不")
_KEYWORD = (
    r"(?<!\w)(?:answers?|options?|choices?|choose|chose|pick|select|go with|réponse|respuesta|resposta|risposta|"
    r"antwort|opción|opção|ответ)(?!\w)|정답|답|答案|选项|選項|选择|選擇|选|選|正解|答え|回答"
)
_LINK = (
    r"(?:is|are|was|be|would|should|must|est|es|é|è|ist|letter|option|choice|number|clearly)(?!\w)|"
    r"是|为|為|应该|は|은|는|[:=–—\"'-]"
)
_ANNOUNCED = re.compile(rf"(?i:(?:{_KEYWORD})\s*(?:(?:{_LINK})\s*)*)['\"(\[]*{_X}{_END}", re.MULTILINE)
_STATED = re.compile(
    rf"(?i:\b(?:it\s+is|it's|that's|that\s+is|must\s+be|would\s+be|i'd\s+say)\s+['\"(]*){_X}{_END}", re.MULTILINE
)
_CONFIRMED = re.compile(rf"{_X}['\")\]]*\s+(?:is|seems)\s+(?:the\s+)?(?:correct|right|true|best|most)\b")
_LED = re.compile(rf"^\W*{_X}['\"]*\s*(?:[.:)\]>]|$)", re.MULTILINE)
_FIRST = re.compile(rf"^\W*{_X}['\"]*(?:\s*[,;]|\s+[-–—]\s|\s+(?:because|since|as)\b)")
_LISTED = re.compile(rf"{_X}(?=\s*(?:,|/|\band\b|\bor\b)\s*\(?[A-Z]\b)|(?:,|/|\band\b|\bor\b)\s*\(?{_X}(?=\W*$)")
_COMMAND = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathbf|mathrm|mathsf|emph|displaystyle)\b\s*")
_PAIR = re.compile(r"<([A-Za-z])>(.*?)</\1>", re.DOTALL)
_TAG = re.compile(r"<(/?)([A-Za-z]\w*)[^<>]{0,80}>")
_HEADING = re.compile(r"^\s*#+\s", re.MULTILINE)
_AROUND = " .\t\n\"'"  # of a text that is a choice
_MARKUP = str.maketrans({
    "_": " ", **dict.fromkeys("*`$\\~", ""),
    **dict.fromkeys("{【〔〈《「『⟨", "("), **dict.fromkeys("}】〕〉》」』⟩", ")"),
    **dict.fromkeys("“”„«»″", '"'), **dict.fromkeys("‘’‚", "'"),
})  # fmt: skip


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

    Answers are texts of a choice if all of them are, and letters otherwise: one rule for a file, so that a choice
    called "B" is not taken for the second.

    >>> right_choices(["B", "a"], [["dog", "cat"], ["rain", "wind"]])
    [1, 0]

    Raises:
        DataError: an answer is neither a letter within its choices nor exactly one of them.
    """
    pairs = list(zip(answers, choices, strict=True))
    by_text = [same_choices(each, own) for each, own in pairs]
    by_letter = [_letter_number(each, len(own)) for each, own in pairs]
    if any(len(same) != 1 for same in by_text) and None not in by_letter:
        return [number for number in by_letter if number is not None]
    for number, (same, (each, own)) in enumerate(zip(by_text, pairs, strict=True), 1):
        if len(same) != 1:
            raise DataError(
                f"question {number}: answer {each!r} is {len(same)} of the choices {list(own)}, expected exactly one, "
                "or letters in all rows; correct the file"
            )
    return [same[0] for same in by_text]


def is_answer(answer: str, choices: Sequence[str]) -> bool:
    """Whether a reference is the letter or the text of one choice."""
    return _letter_number(answer, len(choices)) is not None or len(same_choices(answer, choices)) == 1


def same_choices(text: str, choices: Sequence[str]) -> list[int]:
    """Choices that a whole text is: to the letter, else but for case and spelling, else but for signs.

    >>> same_choices("c#", ["C", "C#"]), same_choices("Rain!", ["rain", "wind"])
    ([1], [0])
    """
    for form in (str.strip, folded, plain):
        wanted = form(text)
        if found := [at for at, choice in enumerate(choices) if wanted and form(choice) == wanted]:
            return found
    return []


def choice_of(prediction: str, choices: Sequence[str]) -> int | None:
    """Number of the choice that a prediction names by the strict rule; None: none, or several.

    A letter counts in the forms that answers have: alone, in brackets, quotes or markup, before a mark, on a line of
    its own, or where the sentence says that it is the answer. Where the words of another choice contradict it, neither
    counts.

    Args:
        prediction: of the model.
        choices: their texts, at least one.

    >>> choice_of("The answer is **B**.", ["dog", "cat"]), choice_of("a cat", ["dog", "cat"])
    (1, 1)
    """
    bare = _without_markup(prediction)
    core = bare.strip(_AROUND)
    same = same_choices(prediction, choices) or same_choices(core, choices)
    if len(same) == 1:
        letter = _ONE_LETTER.fullmatch(bare)
        is_clear = letter is None or _letter_number(letter[1], len(choices)) in (None, same[0])
        text = choices[same[0]]
        is_text = prediction.strip() == text.strip() or folded(core) == folded(text)
        return same[0] if is_clear or is_text else None
    letters, texts = _letters(bare, choices), _by_text(prediction, choices)
    if not letters:
        return texts[0] if len(texts) == 1 else None
    return letters[0] if len(letters) == 1 and (not texts or letters[0] in texts) else None


def contains_answer(answer: str, prediction: str) -> bool:
    """Whether a prediction is correct by the strict rule where there are no choices: it contains the answer's words.

    For yes and no, the other one must be absent.

    >>> contains_answer("yes", "Yes, it is."), contains_answer("yes", "yes and no")
    (True, False)
    """
    matcher = LabelMatcher({"yes", "no"} if plain(answer) in ("yes", "no") else {answer})
    return matcher.find(prediction) == [matcher.key(answer)]


def _letter_number(text: str, count: int) -> int | None:
    letter = text.strip().upper()
    return LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS[:count] else None


def _without_markup(text: str) -> str:
    """A text whose letters stand alone: without emphasis, formulas and tags, with one kind of brackets and quotes."""
    text = visible(unicodedata.normalize("NFKC", text))
    text = _PAIR.sub(r" \2 ", _HEADING.sub("", text))
    text = _TAG.sub(lambda tag: f"({tag[2]})" if len(tag[2]) == 1 and not tag[1] else " ", text)
    return _COMMAND.sub("", text).replace("\\(", "").replace("\\)", "").translate(_MARKUP)


def _letters(text: str, choices: Sequence[str]) -> list[int]:
    """Choices named by letter, each once; those too whose text has the letter as a word, as "Speaker B" has."""
    if whole := _ONE_LETTER.fullmatch(text):
        named = [whole[1].upper()]
    else:
        named = [letter.upper() for letter in _mentioned(text)]
    places = [LETTERS.index(letter) for letter in named if letter in LETTERS[: len(choices)]]
    words = [{word for word in plain(choice).split() if len(word) == 1} for choice in choices]
    if len({word for own in words for word in own if word.upper() in LETTERS}) > 1:  # one alone is an article
        clear = {LETTERS.index(letter.upper()) for letter in _in_brackets(text) if letter.upper() in LETTERS}
        bare = {LETTERS[place].lower() for place in places if place not in clear}
        places += [at for at, own in enumerate(words) if own & bare]
    return list(dict.fromkeys(places))


def _mentioned(text: str) -> Iterator[str]:
    """Letters in one of the forms of an answer, unless they are denied."""
    yield from _in_brackets(text)
    for pattern in (_ANNOUNCED, _STATED, _CONFIRMED, _LED, _FIRST, _LISTED):
        for match in pattern.finditer(text):
            letter = next(group for group in match.groups() if group)
            is_word = letter.islower() and pattern in (_FIRST, _LISTED)  # of Spanish, Italian, …
            if not is_word and not _is_denied(text, match):
                yield letter


def _in_brackets(text: str) -> Iterator[str]:
    for match in _BRACKETED.finditer(text):
        if not _is_denied(text, match):
            yield match[1] or match[2]


def _is_denied(text: str, match: re.Match[str]) -> bool:
    first, last = match.span(match.lastindex or 0)
    before = (text[:place].rstrip(" ([\"'") for place in (match.start(), first))
    return any(map(_NOT_BEFORE.search, before)) or _NOT_BEHIND.match(text, last) is not None


def _by_text(text: str, choices: Sequence[str]) -> list[int]:
    """Choices whose words are in the text, longer ones matched first; equal choices are all returned."""
    matcher = LabelMatcher(choice for choice in choices if plain(choice))
    found = set(matcher.find(text))
    return [at for at, choice in enumerate(choices) if matcher.key(choice) in found]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
