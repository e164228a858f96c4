"""Texts about a scene: captions, transcripts, questions with answers, varied in wording but true to the facts.

Captions are one sentence and name every part by its key word (see `auricle.data.vocabulary`); answers are short
lower-case phrases without a final period. Prompts vary widely, because users write them; answers vary little.
"""

from collections.abc import Sequence

import numpy as np

from auricle.data import prompts
from auricle.data.parts import DIGITS, Part, Scene
from auricle.data.vocabulary import (
    EVENTS,
    LANGUAGES,
    category_of,
    event_name,
    event_words,
    keywords,
    names_event,
    names_music,
    names_sound,
    names_speech,
)

__all__ = [
    "CAPTION_PROMPT",
    "NO_SPEECH",
    "TRANSCRIBE_PROMPT",
    "caption",
    "category_answer",
    "category_of",
    "event_name",
    "example",
    "keywords",
    "names_event",
    "names_music",
    "names_sound",
    "names_speech",
    "questions",
    "transcript",
]

CAPTION_PROMPT = "Write a general audio caption."
TRANSCRIBE_PROMPT = "Transcribe the speech."
NO_SPEECH = "no speech"
OPEN_SPEECH = "speech in"  # how the answer to `TRANSCRIBE_PROMPT` starts where the words are not to be written down
QUOTED_WORDS = 3  # captions quote speech of up to this many words

_COUNTS = {2: "two", 3: "three", 4: "four"}
_PLACES = {"start": "at the beginning", "middle": "in the middle", "end": "at the end"}
_LOUDNESS = {"quiet": ("faintly", "faint"), "loud": ("loudly", "loud")}
_TEXTURES = ("melody", "chords", "rhythm", "arpeggios")
_ORDER = ("size", "roast", "numberOfShots", "coffeeDrink")  # slots as they stand before the drink

_SILENT = ("Silence with no clear sound.", "There is only silence here.", "Nothing but silence can be heard.")


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _speaker(part: Part) -> str:
    """The speaker as a noun with article, by age and gender where known."""
    if part.is_child:
        return {"m": "a boy", "f": "a girl"}.get(part.gender or "", "a child")
    return {"m": "a man", "f": "a woman"}.get(part.gender or "", "a person")


def _is_quotable(part: Part) -> bool:
    return part.text is not None and not part.is_open and 0 < len(part.text.split()) <= QUOTED_WORDS


def order(part: Part) -> str:
    """A spoken order in words: "large double shot latte with soy milk and sugar"."""
    slots = dict(part.slots)
    start = " ".join(slots.pop(name) for name in _ORDER if name in slots)
    rest = " and ".join(slots.values())
    return f"{start} with {rest}" if start and rest else start or rest


def _foreign(part: Part) -> str:
    """The name of a language other than English, or nothing."""
    name = LANGUAGES.get(part.language or "en")
    return name if name is not None and name != "English" else ""


def _speech_clause(part: Part, rng: np.random.Generator) -> str:
    who = _speaker(part)
    if _is_quotable(part):
        return f'{who} says "{part.text}"'
    if part.command and _foreign(part):
        return f'{who} says "{part.command}" in {_foreign(part)}'
    if part.slots:
        return f"{who} orders {'an' if order(part)[:1] in 'aeiou' else 'a'} {order(part)}"
    if _foreign(part):
        return f"{who} {_pick(rng, ('speaks', 'is speaking'))} {_foreign(part)}"
    return f"{who} {_pick(rng, ('speaks', 'is speaking', 'is speaking', 'is talking'))}"


def _speech_noun(part: Part, rng: np.random.Generator) -> str:
    language = f" {_foreign(part)}" if _foreign(part) else ""
    return f"{_speaker(part)} speaking{language}"


def _event_clause(part: Part, rng: np.random.Generator) -> str:
    words = event_words(part.event or "")
    if part.count:
        return f"{words.subject} {words.verb} {_times(part.count)}"
    if rng.random() < 0.4:
        return f"{words.subject} {words.verb}"
    return f"{words.subject} {'are' if words.is_plural else 'is'} {words.gerund}"


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{_COUNTS[count]} times"


def _event_noun(part: Part, rng: np.random.Generator) -> str:
    return event_words(part.event or "").noun


def _music_name(part: Part, rng: np.random.Generator) -> str:
    """ "slow piano music"; a medium tempo is not mentioned."""
    tempo = f"{part.tempo} " if part.tempo in ("slow", "fast") else ""
    players = " and ".join("drum" if name == "drums" else name for name in part.instruments)
    return " ".join(f"{tempo}{players} music".split())


def _player(name: str) -> tuple[str, bool]:
    """An instrument with its article, and whether it is plural."""
    if name.endswith("s") and not name.endswith("bass"):
        return name, True
    if name.endswith("percussion"):
        return name, False
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}", False


def _music_clause(part: Part, rng: np.random.Generator) -> str:
    """ "slow piano music is playing", or "a flute and a cello play a fast melody" where the instruments are known."""
    if not part.instruments or rng.random() < 0.5:
        return f"{_music_name(part, rng)} {_pick(rng, ('plays', 'is playing'))}"
    players = [_player(name) for name in part.instruments]
    is_plural = len(players) > 1 or players[0][1]
    verb = _pick(rng, ("play", "are playing")) if is_plural else _pick(rng, ("plays", "is playing"))
    tempo = f"{part.tempo} " if part.tempo in ("slow", "fast") else ""
    what = part.texture if part.texture in _TEXTURES else "music"
    article = "a " if what in ("melody", "rhythm") else ""
    return f"{' and '.join(name for name, _ in players)} {verb} {article}{tempo}{what}"


_CLAUSES = {"speech": _speech_clause, "sound": _event_clause, "music": _music_clause}
_NOUNS = {"speech": _speech_noun, "sound": _event_noun, "music": _music_name}


def _single(part: Part, rng: np.random.Generator) -> str:
    """A clause or noun phrase about the only part."""
    if part.kind == "speech":
        clause = _speech_clause(part, rng)
        is_english = part.language == "en" and not _is_quotable(part) and not part.slots
        return f"{clause} in English" if is_english and rng.random() < 0.6 else clause
    if part.kind == "sound":
        if part.event == "noise" and rng.random() < 0.5:
            return "steady noise with no clear sound"
        if not part.count and rng.random() < 0.3:
            noun = _event_noun(part, rng)
            return noun if noun.startswith("the sound") else f"the sound of {noun}"
        return _event_clause(part, rng)
    if rng.random() < 0.3:
        what = part.texture if part.texture in _TEXTURES else "tune"
        article = "" if what in ("chords", "arpeggios") else "a "
        return f"{_music_name(part, rng)} with {article}{what}"
    key = f" in a {part.mode} key" if part.mode and rng.random() < 0.2 else ""
    return _music_clause(part, rng) + key


def _both(front: Part, back: Part, rng: np.random.Generator) -> str:
    clause = _CLAUSES[front.kind](front, rng)
    if front.place:
        clause = f"{clause} {_PLACES[front.place]}"
    form = rng.random()
    if back.loudness and form < 0.6:
        return f"{clause} with {_NOUNS[back.kind](back, rng)} {_LOUDNESS[back.loudness][0]} in the background"
    if form < 0.45:
        return f"{clause} while {_CLAUSES[back.kind](back, rng)}"
    if form < 0.75:
        return f"{clause} with {_NOUNS[back.kind](back, rng)} in the background"
    return f"{clause} over {_NOUNS[back.kind](back, rng)}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One sentence about the scene that names every part of it."""
    if not scene.parts:
        return _pick(rng, _SILENT)
    first = scene.parts[0]
    if len(scene.parts) == 1:
        sentence = _single(first, rng)
    elif len(scene.parts) == 2 and scene.arrangement != "then":
        sentence = _both(first, scene.parts[1], rng)
    else:
        second = scene.parts[1]
        link = ", then" if scene.arrangement == "then" else " while"
        sentence = f"{_CLAUSES[first.kind](first, rng)}{link} {_CLAUSES[second.kind](second, rng)}"
        for behind in scene.parts[2:]:
            sentence = f"{sentence}, with {_NOUNS[behind.kind](behind, rng)} in the background"
    return f"{sentence[0].upper()}{sentence[1:]}."


def transcript(scene: Scene) -> str | None:
    """What is to be written down of the speech.

    The words of all of it in order; `NO_SPEECH` without speech; "speech in English" where its words are not to be
    written down, see `Part.is_open`; None if the words of a part are unknown.
    """
    spoken = scene.of_kind("speech")
    if not spoken:
        return NO_SPEECH
    if all(part.is_open and part.foreground for part in spoken):
        languages = dict.fromkeys(LANGUAGES.get(part.language or "", "an unknown language") for part in spoken)
        return f"{OPEN_SPEECH} {' and '.join(languages)}"
    return None if any(part.is_open for part in spoken) else spoken_words(scene)


def spoken_words(scene: Scene) -> str | None:
    """The words of all speech in order, `NO_SPEECH` without speech, None if the words of a part are unknown."""
    spoken = scene.of_kind("speech")
    texts = [part.text for part in spoken if part.text is not None]
    if len(texts) < len(spoken):
        return None
    return " ".join(texts) if spoken else NO_SPEECH


def category_answer(scene: Scene) -> str:
    """ "speech", "sound", "music", "mixed" for more than one of these, "silence" for none."""
    kinds = sorted({part.kind for part in scene.parts})
    return "silence" if not kinds else kinds[0] if len(kinds) == 1 else "mixed"


def _yes_no(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Presence questions: speech, music, an event that is present and one that is not."""
    found = [
        ("has_speech", _pick(rng, prompts.HAS_SPEECH), "yes" if scene.of_kind("speech") else "no"),
        ("has_music", _pick(rng, prompts.HAS_MUSIC), "yes" if scene.of_kind("music") else "no"),
    ]
    present = [part.event or "" for part in scene.of_kind("sound")]
    named = {word for event in present for word in keywords(event)}
    # Half of the absent ones are any event: if they were always common ones, a rare event would be a sure yes.
    absent = [
        event
        for event in (prompts.COMMON_EVENTS if rng.random() < 0.5 else tuple(EVENTS))
        if event not in present and named.isdisjoint(keywords(event))
    ]
    for event, answer in [*((event, "yes") for event in present), (_pick(rng, absent), "no")]:
        found.append(("has_event", _pick(rng, prompts.HAS_EVENT).format(thing=_thing(event, rng)), answer))
    return found


def _thing(event: str, rng: np.random.Generator) -> str:
    """An event as questions name it: "a dog" or "a dog barking", where "a dog" names it."""
    words = event_words(event)
    names_it = set(words.subject.split()) & set(words.accepted)  # "a dog" names the event, "a person" does not
    return words.subject if names_it and rng.random() < 0.5 else words.noun


def _about_details(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """How often a sound occurs, what comes first and last, when, and how loud a background is."""
    found = []
    if len(scene.parts) == 1 and scene.parts[0].count:
        found.append(("times", _pick(rng, prompts.TIMES), _COUNTS[scene.parts[0].count]))
    if scene.arrangement == "then":
        first, last = scene.parts[:2]
        found.append(("first", _pick(rng, prompts.FIRST), _answer_for(first)))
        found.append(("last", _pick(rng, prompts.LAST), _answer_for(last)))
    for part in scene.parts:
        thing = _thing(part.event, rng) if part.event else "the music" if part.kind == "music" else "the voice"
        if part.place:
            found.append(("when", _pick(rng, prompts.WHEN).format(thing=thing), _PLACES[part.place]))
        if part.loudness:
            found.append(("loudness", _pick(rng, prompts.LOUDNESS).format(thing=thing), _LOUDNESS[part.loudness][1]))
    return found


def _about_speech(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    spoken = scene.of_kind("speech")
    count = ("no one", "one person", "two people")[min(len(spoken), 2)]
    found = [("count", _pick(rng, prompts.COUNT), count)]
    if len(spoken) != 1:
        return found
    part = spoken[0]
    if part.gender in ("m", "f"):
        found.append(("gender", _pick(rng, prompts.GENDER), "male" if part.gender == "m" else "female"))
    if part.is_child is not None and (part.is_child or (part.age or 0) >= 16):
        found.append(("age", _pick(rng, prompts.AGE), "child" if part.is_child else "adult"))
    if LANGUAGES.get(part.language or ""):
        found.append(("language", _pick(rng, prompts.LANGUAGE), LANGUAGES[part.language or ""].lower()))
    if part.command:
        found.append(("command", _pick(rng, prompts.COMMAND), part.command))
    if part.slots:
        found.append(("order", _pick(rng, prompts.ORDER), order(part)))
        found += [
            ("slot", _pick(rng, prompts.SLOTS[name]), value) for name, value in part.slots if name in prompts.SLOTS
        ]
    if part.text is not None and not part.is_open:
        found.append(("words", _pick(rng, prompts.WORDS), part.text))
        words = part.text.split()
        if words and set(words) <= DIGITS:
            ways = prompts.DIGIT if len(words) == 1 else prompts.DIGITS
            found.append(("digit", _pick(rng, ways), part.text))
    return found


def _about_music(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    tunes = scene.of_kind("music")
    if len(tunes) != 1:
        return []
    part, found = tunes[0], []
    if part.instruments:
        found.append(("instrument", _pick(rng, prompts.INSTRUMENT), " and ".join(part.instruments)))
    if part.tempo in ("slow", "fast"):
        found.append(("tempo", _pick(rng, prompts.TEMPO), part.tempo))
    if part.mode in ("major", "minor"):
        found.append(("mode", _pick(rng, prompts.MODE), part.mode))
    return found


def _answer_for(part: Part) -> str:
    if part.kind == "sound":
        return event_name(part.event or "")
    return "speech" if part.kind == "speech" else f"{' and '.join(part.instruments)} music".strip()


_WEIGHTS = {
    "event": 3.0,
    "all": 1.5,
    "category": 3.0,
    "gender": 4.0,
    "age": 1.0,
    "language": 1.0,
    "words": 1.0,
    "digit": 1.5,
    "instrument": 2.0,
    "tempo": 1.0,
    "mode": 0.5,
    "has_speech": 0.7,
    "has_music": 0.7,
    "has_event": 1.0,
    "count": 0.7,
    "command": 3.0,
    "order": 2.0,
    "slot": 1.0,
    "times": 1.5,
    "first": 0.7,
    "last": 0.7,
    "when": 1.0,
    "loudness": 1.0,
}


def _all_questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """(topic, prompt, answer) of every question that the facts answer."""
    found = [("category", _pick(rng, prompts.CATEGORY), category_answer(scene))]
    if scene.parts:
        names = dict.fromkeys(map(_answer_for, scene.parts))
        found.append(("all", _pick(rng, prompts.ALL_SOUNDS), " and ".join(names)))
    if events := [event_name(part.event or "") for part in scene.of_kind("sound")]:
        found.append(("event", _pick(rng, prompts.EVENT), " and ".join(events)))
    about = (_about_speech, _about_music, _about_details, _yes_no)
    return found + [each for ways in about for each in ways(scene, rng)]


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    """One wording of every question that the facts answer, with the answer."""
    return [(prompt, answer) for _, prompt, answer in _all_questions(scene, rng)]


def _vary(prompt: str, rng: np.random.Generator) -> str:
    """Vary a prompt as typed by users: case, final mark, a polite or introductory word."""
    chance = rng.random(3)
    if chance[0] < 0.05:
        prompt = f"Please {prompt[0].lower()}{prompt[1:]}" if not prompt.endswith("?") else f"Listen. {prompt}"
    if chance[1] < 0.15:
        prompt = prompt.rstrip(".?")
    if chance[2] < 0.15:
        prompt = prompt.lower()
    return prompt


def example(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Sample a training example (prompt, answer): about 35 % captions, 25 % transcripts of speech, else questions."""
    words = transcript(scene)
    share = 0.0 if words is None else (0.05 if words == NO_SPEECH else 0.25)
    chance = rng.random()
    if chance < share:
        exact = rng.random() < 0.75
        prompt = TRANSCRIBE_PROMPT if exact else _vary(_pick(rng, prompts.TRANSCRIBE), rng)
        return prompt, words or NO_SPEECH
    if chance < share + 0.35:
        exact = rng.random() < 0.8
        prompt = CAPTION_PROMPT if exact else _vary(_pick(rng, prompts.CAPTION), rng)
        return prompt, caption(scene, rng)
    found = _all_questions(scene, rng)
    weights = np.asarray([_WEIGHTS[topic] for topic, _, _ in found])
    _, prompt, answer = found[int(rng.choice(len(found), p=weights / weights.sum()))]
    return _vary(prompt, rng), answer
