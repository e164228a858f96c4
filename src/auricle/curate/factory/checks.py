"""Checks of what a writer wrote: domain, events, instruments and quotes must be those of the facts.

A clause that states something else is dropped with its reason; a text of which nothing is left is replaced by the
grammar's. The check reads words: it finds statements about kinds of content, about the events and instruments it knows,
quoted words, and links; of free prose beyond these it says nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from auricle.curate.factory.experts import LETTERS
from auricle.curate.factory.questions import PLACES
from auricle.curate.factory.sheet import FIELDS, PHRASINGS, Field, Question, Sentence, Sheet, Written
from auricle.data.vocabulary import EVENTS, event_words, names_music, names_speech

_SPLIT = re.compile(r"(\s*(?:;|, (?:while|with|then|and|but)|\b(?:while|with|over)\b|(?<=[.!?])(?=\s+[A-Z\"“]))\s*)")
_QUOTED = re.compile(r"[\"“]([^\"”]{1,2000})[\"”]")
_LINK = re.compile(r"https?:|www\.|@\w+\.\w|<[a-z/!]|\[[^\]]*\]\(", re.IGNORECASE)
_OVERLAP = 0.6  # share of quoted words that must be in the transcript
_LONGEST = 600  # characters of a text
_VAGUE = frozenset("person something device sound people building machine one someone object picture car wood".split())
_OF_MEASURES = {"noise": "snr", "telephone": "bandwidth"}  # words that a measure supports, too
INSTRUMENTS = frozenset(
    "accordion banjo bass bassoon bell bells cello choir clarinet clavinet contrabassoon cymbal cymbals drum drums "
    "flute glockenspiel guitar harmonica harp harpsichord horn keyboard mandolin marimba oboe organ piano piccolo "
    "saxophone sitar synthesizer tambourine triangle trombone trumpet tuba ukulele vibraphone viola violin "
    "xylophone".split()
)
# A text that is only about something not being there; `auricle.evaluate` reads more ways of saying so.
_ABSENT = re.compile(
    r"(?:there (?:is|are) no|no|none|unknown)\b|[\w\s]{0,40}\b(?:is|are) (?:absent|not (?:present|heard|detected))\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:no|not|without|none|nobody|neither|lacks?|absent|free of)\b", re.IGNORECASE)


def check(written: Written, sheet: Sheet, fallback: Written) -> Written:
    """What of a writer's texts the facts support.

    Args:
        written: of any writer.
        sheet: the facts.
        fallback: of the grammar, for texts of which nothing is left.
    """
    dropped: list[str] = []
    fields: dict[Field, tuple[Sentence, ...]] = {}
    for field in FIELDS:
        kept = [_checked(sentence, field, sheet, dropped) for sentence in written.fields.get(field, ())]
        good = [sentence for sentence in kept if sentence is not None]
        spare = [each for each in fallback.fields[field] if each.text not in {sentence.text for sentence in good}]
        fields[field] = tuple([*good, *spare, *fallback.fields[field]][:PHRASINGS])
    questions = [each for each in written.questions if _is_supported_question(each, sheet, dropped)]
    asked = {each.question for each in questions}
    spare_questions = [each for each in fallback.questions if each.question not in asked]
    return replace(
        written,
        fields=fields,
        questions=tuple([*questions, *spare_questions][: len(fallback.questions)]),
        dropped=(*written.dropped, *dropped),
    )


def fault(text: str, sheet: Sheet) -> str:
    """Why the facts do not support a clause; empty: nothing in it is known to be wrong."""
    if _LINK.search(text):
        return "a link or markup"
    for quoted in _QUOTED.findall(text):
        if not _is_spoken(quoted, sheet):
            return "quoted words that no transcript has"
    plain = _QUOTED.sub(" ", text)
    if _NEGATED.search(plain):
        return ""
    for kind, names in (("speech", names_speech), ("music", names_music)):
        if names(plain) and LETTERS[kind] not in sheet.code:
            return f"{kind}, which the domain {sheet.code} does not have"
    words = set(re.findall(r"[a-z]+", plain.lower()))
    if wrong := sorted((words & _nouns()) - _supported(sheet)):
        return f"{', '.join(wrong)}, which no expert states"
    return ""


def states_absence(text: str) -> bool:
    """Whether a text says that there is nothing of its kind, or nothing known: "None", "There is no speech."."""
    return _ABSENT.match(text.strip()) is not None


def _checked(sentence: Sentence, field: Field, sheet: Sheet, dropped: list[str]) -> Sentence | None:
    """A text without its unsupported clauses; None where nothing is left, or the field is absent and it is not."""
    text = " ".join(sentence.text.split())
    if len(text) > _LONGEST:
        dropped.append(f"{field}: a text of {len(text)} characters")
        return None
    if field in LETTERS:
        is_absent = LETTERS[field] not in sheet.code
        if is_absent != states_absence(text):
            dropped.append(f"{field}: {text[:100]!r} where the domain is {sheet.code}")
            return None
        if is_absent:
            return replace(sentence, text=text)
    kept, is_dropping = "", False
    for link, clause in _clauses(text):
        is_new = not link.strip() or ";" in link
        reason = fault(clause, sheet) or ("" if is_new or not is_dropping else "part of what was dropped")
        is_dropping = bool(reason)
        if reason:
            dropped.append(f"{field}: {clause[:100]!r}: {reason}")
            if not kept:  # the clause that the others hang on
                return None
        else:
            kept += f"{link}{clause}"
    kept = kept.strip().rstrip(",;")
    kept = kept if kept[-1:] in '.!?…"”' else f"{kept}."
    if len(kept.split()) < 2 and not states_absence(kept):
        return None
    if not sentence.evidence and not states_absence(kept):
        dropped.append(f"{field}: {kept[:100]!r}: no evidence")
        return None
    return replace(sentence, text=kept)


def _clauses(text: str) -> Iterator[tuple[str, str]]:
    """Each clause with what links it to the one before; quoted words are never cut."""
    quotes: list[str] = []

    def hide(match: "re.Match[str]") -> str:
        quotes.append(match[0])
        return f"\0{len(quotes) - 1}\0"

    parts = _SPLIT.split(_QUOTED.sub(hide, text))
    shown = [re.sub("\0(\\d+)\0", lambda match: quotes[int(match[1])], part) for part in parts]
    yield "", shown[0]
    for link, clause in zip(shown[1::2], shown[2::2], strict=True):
        if clause:
            yield link, clause


def _is_supported_question(question: Question, sheet: Sheet, dropped: list[str]) -> bool:
    reason = fault(question.answer, sheet) or ("a link or markup" if _LINK.search(question.question) else "")
    if not reason and not question.evidence and not sheet.code == "000" and question.answer not in ("no", "none"):
        reason = "no evidence"
    if not reason and max(len(question.question), len(question.answer)) > _LONGEST:
        reason = "too long"
    if reason:
        dropped.append(f"question: {question.answer[:100]!r}: {reason}")
    return not reason


def _is_spoken(quoted: str, sheet: Sheet) -> bool:
    said = {word for each in sheet.all("transcript") for word in _words(str(each.value))}
    words = _words(quoted)
    return bool(words) and sum(word in said for word in words) >= _OVERLAP * len(words)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@cache
def _nouns() -> frozenset[str]:
    """Heads of the subjects of all known events, and instruments; without words that fit anything."""
    heads = (re.sub("^(the sound of|an?|the) ", "", words.subject).split()[-1] for words in EVENTS.values())
    return (frozenset(heads) | INSTRUMENTS) - _VAGUE


def _supported(sheet: Sheet) -> set[str]:
    """Words of the facts: events, instruments, labels, and the captions of models."""
    stated: Sequence[str] = [
        word
        for each in sheet.evidence
        if isinstance(each.value, str) and each.name in ("event", "instrument", "label", "caption")
        for word in _words(each.value.replace("_", " "))
    ]
    events = [each for each in sheet.all("event") if isinstance(each.value, str)]
    accepted = (word for each in events for word in event_words(str(each.value)).accepted)
    places = (word for each in events for word in _words(PLACES.get(str(each.value), "")))
    measured = (word for word, name in _OF_MEASURES.items() if sheet.best(name) is not None)
    return {
        *stated,
        *accepted,
        *measured,
        *places,
        *(word for each in events for word in _words(event_words(str(each.value)).subject)),
    }
