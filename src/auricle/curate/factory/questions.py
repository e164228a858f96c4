"""Questions about a clip that its facts answer: five, in MECAT's categories and difficulties."""

from collections.abc import Iterator, Sequence

import numpy as np

from auricle.curate.factory.experts import LETTERS
from auricle.curate.factory.sheet import Evidence, Grades, Question, Sheet
from auricle.data.vocabulary import event_name

COUNT = 5
_SURE = 0.6
_NOISES = {"clean": "little background noise", "some": "some background noise", "noisy": "strong background noise"}
_BANDS = {"telephone": "narrow, as on a telephone", "limited": "limited in the treble", "full": "full up to 8 kHz"}
_ROOMS = {"dry": "a small or damped room", "room": "a normal room", "reverberant": "a large or hard-walled room"}
PLACES = {  # what an event says of the place, where it says anything
    "rain": "outdoors, in the rain",
    "sea_waves": "by the sea",
    "crackling_fire": "beside a fire",
    "helicopter": "outdoors, below a helicopter",
    "rooster": "outdoors, on a farm",
    "chainsaw": "outdoors, near somebody cutting wood",
    "thunderstorm": "outdoors, in a thunderstorm",
    "wind": "outdoors, in the wind",
    "crickets": "outdoors, at night",
    "chirping_birds": "outdoors, among birds",
    "church_bells": "near a church",
    "train": "near a railway",
    "car_horn": "in traffic",
    "crying_baby": "indoors, with a baby",
    "clock_tick": "indoors, near a clock",
}


def questions(sheet: Sheet, grade: Grades, rng: np.random.Generator) -> tuple[Question, ...]:
    """Five questions: categories in turn, within each any of those that the facts answer."""
    by_category: dict[str, list[Question]] = {}
    for question in _all(sheet, grade):
        by_category.setdefault(question.category, []).append(question)
    for them in by_category.values():
        rng.shuffle(them)
    order = list(by_category)
    rng.shuffle(order)
    found: list[Question] = []
    while len(found) < COUNT and any(by_category.values()):
        found += [by_category[category].pop() for category in order if by_category[category]]
    return tuple(found[:COUNT])


def _all(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    yield from _perception(sheet)
    yield from _characteristics(sheet, grade)
    yield from _quality(sheet, grade)
    yield from _environment(sheet, grade)
    yield from _judgement(sheet, grade)
    yield from _application(sheet, grade)


def _tags(sheet: Sheet, kind: str = "") -> tuple[Evidence, ...]:
    return tuple(each for each in sheet.all("tag") if not kind or each.value == kind)


def _names(sheet: Sheet) -> list[str]:
    found = ["speech"] if "S" in sheet.code else []
    if "A" in sheet.code:
        found += [event_name(str(value)) for value in dict.fromkeys(each.value for each in sheet.all("event"))]
    return found + (["music"] if "M" in sheet.code else [])


def _perception(sheet: Sheet) -> Iterator[Question]:
    def ask(question: str, answer: str, *evidence: Evidence) -> Question:
        return Question(
            category="direct_perception", difficulty="basic", question=question, answer=answer, evidence=evidence
        )

    names = _names(sheet)
    yield ask("What can be heard in this clip?", _joined(names) or "silence", *_tags(sheet), *sheet.all("event"))
    for kind, letter in LETTERS.items():
        if kind != "sound":
            yield ask(f"Is there {kind} in this clip?", "yes" if letter in sheet.code else "no", *_tags(sheet, kind))
    instruments = sheet.all("instrument", _SURE) if "M" in sheet.code else []
    if instruments:
        yield ask("Which instrument is played?", _joined([str(each.value) for each in instruments]), *instruments)


def _characteristics(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    def ask(question: str, answer: str, *evidence: Evidence) -> Question:
        return Question(
            category="sound_characteristics",
            difficulty="intermediate",
            question=question,
            answer=answer,
            evidence=evidence,
        )

    if "S" in sheet.code and (gender := sheet.best("gender", _SURE)):
        yield ask("Does the voice sound male or female?", str(gender.value), gender)
    if "M" in sheet.code and (pace := sheet.best("pace", _SURE)):
        yield ask("Is the music slow or fast?", str(pace.value), pace)
    if "M" in sheet.code and (tonality := sheet.best("key", _SURE)):
        yield ask("In which key is the music?", str(tonality.value), tonality)
    if lufs := sheet.best("loudness"):
        answer = f"{grade.level or 'of medium level'}, about {round(float(lufs.value))} LUFS"
        yield ask("How loud is the clip?", answer, lufs)
    for event in sheet.all("event") if "A" in sheet.code else []:
        if event.stop_s - event.start_s < 0.8 * sheet.seconds:
            answer = f"from second {event.start_s:g} to second {event.stop_s:g}"
            yield ask(f"When is {event_name(str(event.value))} heard?", answer, event)


def _quality(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    def ask(question: str, answer: str, *names: str) -> Question:
        evidence = tuple(found for name in names if (found := sheet.best(name)))
        return Question(
            category="quality_assessment",
            difficulty="intermediate",
            question=question,
            answer=answer,
            evidence=evidence,
        )

    if grade.noise:
        yield ask("How noisy is the recording?", _NOISES[grade.noise], "snr")
    if grade.band:
        yield ask("How wide is the frequency range of the recording?", _BANDS[grade.band], "bandwidth")
    if sheet.best("clipped"):
        yield ask("Is the recording clipped?", "yes" if grade.is_clipped else "no", "clipped")


def _environment(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    category = "environment_reasoning"
    for event in sheet.all("event") if "A" in sheet.code else []:
        if place := PLACES.get(str(event.value)):
            question = "Where was this most likely recorded?"
            yield Question(category=category, difficulty="advanced", question=question, answer=place, evidence=(event,))
            return
    if grade.room and (time := sheet.best("reverberation")):
        question = "In what kind of room does the voice sound?"
        yield Question(
            category=category, difficulty="advanced", question=question, answer=_ROOMS[grade.room], evidence=(time,)
        )


def _judgement(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    category = "inference_judgement"
    if "S" in sheet.code and (age := sheet.best("age", _SURE)):
        question = "Is the speaker more likely a child or an adult?"
        yield Question(
            category=category, difficulty="advanced", question=question, answer=str(age.value), evidence=(age,)
        )
    count = len(set(sheet.code) - {"0"})
    answers = ("silence", "a single kind of content", "a mixture of two kinds", "a mixture of all three kinds")
    yield Question(
        category=category,
        difficulty="advanced",
        question="Does the clip hold one kind of content, such as speech alone, or a mixture?",
        answer=answers[count],
        evidence=_tags(sheet),
    )


def _application(sheet: Sheet, grade: Grades) -> Iterator[Question]:
    if sheet.code == "000" or not grade.band:
        return
    evidence = (*_tags(sheet), *grade.evidence)
    if "S" in sheet.code:
        is_fit = grade.noise == "clean" and sheet.code == "S00"
        question = "Would this clip suit the training of a speech recogniser for clean speech?"
        reason = "clean speech alone" if is_fit else "it is noisy or mixed with other content"
    else:
        is_fit = sheet.code in ("00A", "0M0") and grade.band == "full" and not grade.is_clipped
        question = "Would this clip suit a library of isolated sounds?"
        reason = "one kind of content in full quality" if is_fit else "it is mixed or limited in quality"
    yield Question(
        category="application_context",
        difficulty="complex",
        question=question,
        answer=f"{'yes' if is_fit else 'no'}, {reason}",
        evidence=evidence,
    )


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
