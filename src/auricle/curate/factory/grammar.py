"""The writer that needs no language model: a grammar that composes English from facts, the same for the same facts.

Every text is made of facts of the sheet alone and has them as its evidence. A fact that is not sure enough is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from auricle.curate.factory.experts import LETTERS
from auricle.curate.factory.questions import questions
from auricle.curate.factory.sheet import FIELDS, PHRASINGS, Evidence, Field, Grades, Sentence, Sheet, Written, grades
from auricle.data import wording
from auricle.data.parts import Part, Scene
from auricle.data.vocabulary import LANGUAGES, event_words

NAME = "grammar@1"
_SURE = 0.6  # of gender, age, number of speakers: what is said of a person
_LIKELY = 0.5  # of languages, instruments, tempi, words
_SHORT_WORDS = 15  # of the field `short`, as MECAT asks for
_TRIES = 40
_QUOTED_WORDS = 30  # of the field `speech`
_ADULT, _CHILD = 30, 8  # years that `Part` takes for an adult and a child
_WHOLE = 0.8  # share of a clip from which something lasts "throughout"


def write(sheet: Sheet) -> Written:
    """Captions and questions of a clip."""
    parts, evidence = _parts(sheet)
    scene = Scene(np.zeros(0, np.float32), tuple(parts), "", _arrangement(sheet, parts))
    grade = grades(sheet)
    makers: dict[Field, Callable[[np.random.Generator], Sentence]] = {
        "long": lambda rng: _long(scene, evidence, grade, rng),
        "short": lambda rng: _short(scene, evidence, rng),
        "speech": lambda rng: _speech(sheet, scene, rng),
        "music": lambda rng: _music(sheet, scene, rng),
        "sound": lambda rng: _sound(sheet, rng),
        "environment": lambda rng: _environment(grade, rng),
    }
    fields = {field: _varied(makers[field], _seed(sheet, field), _absent(sheet, field)) for field in FIELDS}
    sure = [each.confidence for each in evidence if each.confidence is not None]
    return Written(
        writer=NAME,
        fields=fields,
        questions=questions(sheet, grade, _seed(sheet, "questions")),
        confidence=round(float(np.mean(sure)), 3) if sure else 1.0,
    )


def _seed(sheet: Sheet, name: str) -> np.random.Generator:
    return np.random.default_rng([int(sheet.clip_hash, 16), *name.encode()])


def _varied(
    make: Callable[[np.random.Generator], Sentence], rng: np.random.Generator, absent: Sequence[str]
) -> tuple[Sentence, ...]:
    """Three phrasings, different ones where the grammar has as many; of what is absent, fixed ones."""
    if absent:
        return tuple(Sentence(text=text) for text in absent)
    found: dict[str, Sentence] = {}
    for _ in range(_TRIES):
        made = make(rng)
        found.setdefault(made.text, made)
        if len(found) == PHRASINGS:
            break
    made_all = list(found.values())
    return tuple(made_all[place % len(made_all)] for place in range(PHRASINGS))


def _absent(sheet: Sheet, field: Field) -> Sequence[str]:
    """How MECAT's references say that something is not there; nothing where it is."""
    letter, what = LETTERS.get(field), "other sound" if field == "sound" else field
    if letter is None or letter in sheet.code:
        return ()
    return ("None", f"No {what} is present.", f"There is no {what}.")


# --- facts as parts of a scene


def _parts(sheet: Sheet) -> tuple[list[Part], list[Evidence]]:
    """The parts of a clip in the order in which they start, and all evidence of them."""
    found: list[tuple[float, Part, list[Evidence]]] = []
    if "S" in sheet.code:
        part, evidence = _voice(sheet)
        count = sheet.best("speakers", _SURE)
        parts = [part]
        if count is not None and count.value == 2:
            parts.append(replace(part, gender=None, age=None, text=None))
            evidence.append(count)
        found += [(_start(sheet, "tag", "speech"), each, evidence) for each in parts]
    if "A" in sheet.code:
        for event in _events(sheet)[:2]:
            found.append((_start(sheet, "event", event.value), Part(kind="sound", event=str(event.value)), [event]))
    if "M" in sheet.code:
        part, evidence = _tune(sheet)
        found.append((_start(sheet, "tag", "music"), part, evidence))
    if not found and (silence := sheet.best("caption")) is not None:
        return [], [silence]
    found.sort(key=lambda each: each[0])
    return [part for _, part, _ in found], list(dict.fromkeys(each for _, _, them in found for each in them))


def _voice(sheet: Sheet) -> tuple[Part, list[Evidence]]:
    used = sheet.all("tag")
    used = [each for each in used if each.value == "speech"]
    settings: dict[str, Any] = {}
    single = sheet.best("speakers", _SURE)
    if single is None or single.value == 1:
        if gender := _take(sheet, "gender", _SURE, used):
            settings["gender"] = gender[0]
        if age := _take(sheet, "age", _SURE, used):
            settings["age"] = _CHILD if age == "child" else _ADULT
    if language := _take(sheet, "language", _LIKELY, used):
        settings["language"] = next((code for code, name in LANGUAGES.items() if name == language), None)
    words = sheet.best("transcript", _LIKELY)
    if words is not None and 0 < len(str(words.value).split()) <= wording.QUOTED_WORDS:
        settings["text"] = str(words.value).replace('"', "'")
        used.append(words)
    return Part(kind="speech", **settings), used


def _tune(sheet: Sheet) -> tuple[Part, list[Evidence]]:
    used = [each for each in sheet.all("tag") if each.value == "music"]
    instruments = sheet.all("instrument", _LIKELY)[:2]
    pace = _take(sheet, "pace", _SURE, used)
    names = tuple(str(each.value) for each in instruments)
    return Part(kind="music", instruments=names, tempo=pace), [*used, *instruments]


def _take(sheet: Sheet, name: str, least: float, used: list[Evidence]) -> str | None:
    """The surest value of a fact, which joins the evidence."""
    found = sheet.best(name, least)
    if found is None:
        return None
    used.append(found)
    return str(found.value)


def _events(sheet: Sheet) -> list[Evidence]:
    """The first span of each event."""
    return list({each.value: each for each in reversed(sheet.all("event"))}.values())[::-1]


def _start(sheet: Sheet, name: str, value: Any) -> float:
    return min((each.start_s for each in sheet.all(name) if each.value == value), default=0.0)


def _arrangement(sheet: Sheet, parts: Sequence[Part]) -> Any:
    """ "then" where the second of two sounds starts when the first has ended."""
    if len(parts) < 2:
        return "single"
    if [part.kind for part in parts[:2]] == ["sound", "sound"]:
        first, second = parts[0].event, parts[1].event
        stop = max(each.stop_s for each in sheet.all("event") if each.value == first)
        return "then" if stop <= _start(sheet, "event", second) else "over"
    return "then" if [part.kind for part in parts] == ["speech", "speech"] else "over"


# --- the fields


def _long(scene: Scene, evidence: Sequence[Evidence], grade: Grades, rng: np.random.Generator) -> Sentence:
    quality, text = _environment(grade, rng), wording.caption(scene, rng)
    if not quality.evidence:
        return Sentence(text=text, evidence=tuple(evidence))
    return Sentence(text=f"{text} {quality.text}", evidence=(*evidence, *quality.evidence))


def _short(scene: Scene, evidence: Sequence[Evidence], rng: np.random.Generator) -> Sentence:
    text = wording.caption(scene, rng)
    for _ in range(_TRIES):
        if len(text.split()) <= _SHORT_WORDS:
            break
        text = wording.caption(scene, rng)
    return Sentence(text=text, evidence=tuple(evidence))


def _speech(sheet: Sheet, scene: Scene, rng: np.random.Generator) -> Sentence:
    """ "A woman speaks English." and, where they are known, her words."""
    _, evidence = _voice(sheet)
    count = sheet.best("speakers", _SURE)
    parts = tuple(replace(part, text=None) for part in scene.of_kind("speech"))
    if len(parts) == 2:
        language = LANGUAGES.get(parts[0].language or "")
        said = f" in {language}" if language else ""
        opening = ("Two people speak", "Two people are talking", "Two voices speak")[int(rng.integers(3))]
        text = f"{opening}{said}."
        evidence = [*evidence, *([count] if count is not None else [])]
    else:
        text = wording.caption(Scene(scene.waveform, parts, "", "single"), rng)
    words = sheet.best("transcript", _LIKELY)
    if words is not None:
        said = " ".join(str(words.value).replace('"', "'").split()[:_QUOTED_WORDS])
        whole = len(str(words.value).split()) <= _QUOTED_WORDS
        opening = ("The words are", "What is said is", "One hears")[int(rng.integers(3))] if whole else "It begins"
        text = f'{text} {opening} "{said}"{"." if whole else " …"}'
        evidence = [*evidence, words]
    return Sentence(text=text, evidence=tuple(dict.fromkeys(evidence)))


def _music(sheet: Sheet, scene: Scene, rng: np.random.Generator) -> Sentence:
    _, evidence = _tune(sheet)
    text = wording.caption(Scene(scene.waveform, scene.of_kind("music")[:1], "", "single"), rng)
    beat, tonality = sheet.best("bpm", _LIKELY), sheet.best("key", _SURE)
    more = []
    if beat is not None:
        more.append(f"at about {round(float(beat.value))} beats per minute")
        evidence.append(beat)
    if tonality is not None:
        more.append(f"in the key of {tonality.value}")
        evidence.append(tonality)
    if more:
        lead = ("It is played", "The piece runs" if beat is not None else "The piece is", "It is")[int(rng.integers(3))]
        text = f"{text} {lead} {' '.join(more)}."
    return Sentence(text=text, evidence=tuple(evidence))


def _sound(sheet: Sheet, rng: np.random.Generator) -> Sentence:
    """Each event with its time."""
    events = _events(sheet)[:3]
    if not events:
        used = tuple(each for each in sheet.all("tag") if each.value == "sound")
        texts = (
            "An unidentified sound is heard.",
            "There is a sound of unknown source.",
            "Another sound is present.",
        )
        return Sentence(text=texts[int(rng.integers(3))], evidence=used)
    clauses, used_all = [], list[Evidence]()
    for event in events:
        spans = [each for each in sheet.all("event") if each.value == event.value]
        clauses.append(f"{_clause(str(event.value), rng)}{_when(spans, sheet.seconds, rng)}")
        used_all += spans
    text = "; ".join(clauses)
    return Sentence(text=f"{text[0].upper()}{text[1:]}.", evidence=tuple(used_all))


def _clause(event: str, rng: np.random.Generator) -> str:
    words = event_words(event)
    being = "are" if words.is_plural else "is"
    forms = (f"{words.subject} {words.verb}", f"{words.subject} {being} {words.gerund}", f"{words.noun} can be heard")
    return forms[int(rng.integers(len(forms)))]


def _when(spans: Sequence[Evidence], seconds: float, rng: np.random.Generator) -> str:
    """Where in time; nothing of short clips, which have one window."""
    covered = sum(each.stop_s - each.start_s for each in spans)
    if covered >= _WHOLE * seconds:
        return " throughout" if seconds > 2.5 and rng.random() < 0.6 else ""
    if len(spans) > 1:
        return f" {len(spans)} times"
    start, stop = spans[0].start_s, spans[0].stop_s
    if start <= 0:
        return f" during the first {stop:g} seconds"
    return f" from second {start:g}" + ("" if stop >= seconds - 0.05 else f" to second {stop:g}")


def _environment(grade: Grades, rng: np.random.Generator) -> Sentence:
    if not grade.evidence:
        unknown = ("Unknown quality and surroundings.", "Unknown acoustic environment.", "Unknown recording quality.")
        return Sentence(text=unknown[int(rng.integers(3))])
    kind = ("recording", "clip", "take")[int(rng.integers(3))]
    level = f"{grade.level} " if grade.level else ""
    clauses = [clause[int(rng.integers(len(clause)))] for clause in grade.clauses]
    joined = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}" if clauses else ""
    text = f"A {level}{kind} with {joined}" if joined else f"A {level}{kind}" if level else f"A {kind} of medium level"
    return Sentence(text=f"{text}.", evidence=grade.evidence)
