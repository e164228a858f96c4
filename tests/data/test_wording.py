import re
from collections import Counter
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from auricle.data import prompts, wording
from auricle.data.parts import Arrangement, Part, Scene
from auricle.data.vocabulary import EVENTS
from auricle.data.wording import CAPTION_PROMPT, NO_SPEECH, TRANSCRIBE_PROMPT

MAN = Part(kind="speech", text="three", language="en", gender="m")
GIRL = Part(kind="speech", text="she has a big red balloon", language="en", gender="f", age=8)
GERMAN = Part(kind="speech", language="de", gender="f", age=30)
DOG = Part(kind="sound", event="dog")
RAIN = Part(kind="sound", event="rain")
PIANO = Part(kind="music", instruments=("piano",), tempo="slow", mode="minor", texture="melody")
OPEN = Part(kind="speech", text="call me", language="en", is_open=True)
OPENED = Part(kind="speech", command="open", language="ar", gender="f")
COFFEE = Part(
    kind="speech",
    language="en",
    slots=(("coffeeDrink", "latte"), ("numberOfShots", "double shot"), ("size", "large"), ("milkAmount", "soy milk")),
)
BAND = Part(kind="music", instruments=("violin", "drums"), tempo="fast", mode="major", texture="melody")


def scene(*parts: Part, arrangement: Arrangement = "over") -> Scene:
    return Scene(np.zeros(16_000, np.float32), parts, "any", arrangement if len(parts) > 1 else "single")


SCENES = [
    scene(),
    *(scene(part) for part in (MAN, GIRL, GERMAN, DOG, RAIN, PIANO, BAND, OPEN, OPENED, COFFEE)),
    scene(replace(DOG, count=2)),
    scene(replace(DOG, place="start"), replace(RAIN, loudness="quiet")),
    scene(DOG, RAIN, replace(GERMAN, foreground=False), arrangement="then"),
    scene(GIRL, DOG, replace(PIANO, foreground=False)),
    scene(MAN, replace(RAIN, loudness="loud")),
    scene(Part(kind="sound", event="noise")),
    scene(MAN, DOG),
    scene(GIRL, PIANO),
    scene(GERMAN, RAIN),
    scene(RAIN, Part(kind="speech", foreground=False)),
    scene(BAND, RAIN),
    scene(DOG, RAIN),
    scene(DOG, RAIN, arrangement="then"),
    scene(MAN, GIRL, arrangement="then"),
]


def told(ways: tuple[str, ...], *things: str) -> tuple[str, ...]:
    return tuple(way.format(thing=thing) for way in ways for thing in things)


def captions(of: Scene, count: int = 60) -> list[str]:
    rng = np.random.default_rng(0)
    return [wording.caption(of, rng) for _ in range(count)]


def questions(of: Scene, count: int = 40) -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    return [pair for _ in range(count) for pair in wording.questions(of, rng)]


@pytest.mark.parametrize("given", SCENES)
def test_captions_claim_exactly_what_is_audible(given: Scene) -> None:
    for text in captions(given):
        assert (wording.category_of(text) or "silence") == wording.category_answer(given), text
        assert text[0].isupper() and text.endswith(".") and 2 <= len(text.split()) <= 20
        for part in given.of_kind("sound"):
            assert wording.names_event(text, part.event or "")
        for part in given.of_kind("music"):
            assert wording.names_music(text) and all(name.removesuffix("s") in text for name in part.instruments)


def source(event: str) -> set[str]:
    """What makes the sound: other sounds of the same source may go by the same word."""
    return set(EVENTS[event].subject.split()) - {"a", "an", "the", "of", "someone", "something", "person"}


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_named_and_not_taken_for_another(event: str) -> None:
    for text in captions(scene(Part(kind="sound", event=event))):
        assert wording.names_event(text, event)
        assert wording.category_of(text) == "sound"
        others = [other for other in EVENTS if other != event and wording.names_event(text, other)]
        assert all(source(event) & set(wording.keywords(other)) or source(other) & source(event) for other in others), (
            text,
            others,
        )
    found = set(re.findall("[a-z]+", wording.event_name(event)))
    assert found & set(wording.keywords(event))


def test_unknown_events_go_by_their_label() -> None:
    assert wording.event_name("door_wood_knock") == "door wood knock"
    for text in captions(scene(Part(kind="sound", event="door_wood_knock"))):
        assert "door wood knock" in text and wording.category_of(text) == "sound"


def test_speakers_are_named_by_age_gender_and_language() -> None:
    assert set(captions(scene(MAN))) == {'A man says "three".'}
    assert all("girl" in text for text in captions(scene(GIRL)))
    assert all("woman" in text and "German" in text for text in captions(scene(GERMAN)))
    assert all(text.startswith("A person") for text in captions(scene(Part(kind="speech"))))
    assert not any("English" in text for text in captions(scene(Part(kind="speech"))))


def test_scoring_ignores_quotations_and_denials() -> None:
    assert wording.category_of('A man says "music".') == "speech"
    assert not wording.names_event('A man says "dog".', "dog")
    assert wording.category_of("Rain falls and no one speaks, no speech.") != "speech"
    assert wording.category_of("Nothing but silence.") is None
    assert not wording.names_event("Grain is poured.", "rain")


def test_transcripts() -> None:
    assert wording.transcript(scene(MAN, GIRL, arrangement="then")) == "three she has a big red balloon"
    assert wording.transcript(scene(DOG)) == wording.transcript(scene()) == NO_SPEECH
    assert wording.transcript(scene(GERMAN)) is None
    assert wording.transcript(scene(MAN, GERMAN, arrangement="then")) is None


def test_open_speech_is_named_and_not_written_down() -> None:
    assert wording.transcript(scene(OPEN)) == "speech in English"
    assert wording.transcript(scene(OPEN, replace(GERMAN, is_open=True), arrangement="then")) == (
        "speech in English and German"
    )
    assert wording.transcript(scene(MAN, OPEN, arrangement="then")) is None
    assert wording.spoken_words(scene(OPEN)) == OPEN.text
    assert not any(
        OPEN.text in text for text in [*captions(scene(OPEN)), *(reply for _, reply in questions(scene(OPEN)))]
    )


def test_details_are_told() -> None:
    assert all("three times" in text for text in captions(scene(replace(DOG, count=3))))
    assert all("twice" in text for text in captions(scene(replace(DOG, count=2))))
    at_end = captions(scene(replace(DOG, place="end"), RAIN))
    assert all("at the end" in text for text in at_end)
    assert any("faintly" in text for text in captions(scene(MAN, replace(RAIN, loudness="quiet"))))
    assert any("loudly" in text for text in captions(scene(MAN, replace(RAIN, loudness="loud"))))
    three = scene(GIRL, DOG, PIANO)
    for text in captions(three):
        assert "girl" in text and text.index("dog") < text.index("piano")
    behind = replace(GERMAN, foreground=False)
    for text in captions(scene(DOG, RAIN, behind, arrangement="then")):
        assert text.index("dog") < text.index("then") < text.index("rain") < text.index("German")
    assert set(captions(scene(OPENED))) == {'A woman says "open" in Arabic.'}
    assert set(captions(scene(COFFEE))) == {"A person orders a large double shot latte with soy milk."}


@pytest.mark.parametrize(
    ("given", "ways", "answer"),
    [
        (scene(OPENED), prompts.COMMAND, "open"),
        (scene(COFFEE), prompts.ORDER, "large double shot latte with soy milk"),
        (scene(COFFEE), prompts.SLOTS["size"], "large"),
        (scene(replace(DOG, count=3)), prompts.TIMES, "three"),
        (scene(replace(DOG, place="middle"), PIANO), told(prompts.WHEN, "a dog", "a dog barking"), "in the middle"),
        (scene(MAN, replace(DOG, loudness="quiet")), told(prompts.LOUDNESS, "a dog", "a dog barking"), "faint"),
        (scene(DOG, replace(PIANO, loudness="loud")), told(prompts.LOUDNESS, "the music"), "loud"),
        (scene(DOG, RAIN, arrangement="then"), prompts.FIRST, "dog barking"),
        (scene(DOG, MAN, arrangement="then"), prompts.LAST, "speech"),
        (scene(MAN), prompts.GENDER, "male"),
        (scene(GIRL), prompts.GENDER, "female"),
        (scene(GIRL), prompts.AGE, "child"),
        (scene(GERMAN), prompts.AGE, "adult"),
        (scene(GERMAN), prompts.LANGUAGE, "german"),
        (scene(MAN, DOG), prompts.DIGIT, "three"),
        (scene(GIRL), prompts.WORDS, "she has a big red balloon"),
        (scene(DOG), prompts.EVENT, "dog barking"),
        (scene(DOG, RAIN), prompts.EVENT, "dog barking and rain falling"),
        (scene(GIRL, PIANO), prompts.ALL_SOUNDS, "speech and piano music"),
        (scene(BAND), prompts.INSTRUMENT, "violin and drums"),
        (scene(PIANO), prompts.TEMPO, "slow"),
        (scene(PIANO), prompts.MODE, "minor"),
        (scene(DOG), prompts.HAS_SPEECH, "no"),
        (scene(GIRL, PIANO), prompts.HAS_MUSIC, "yes"),
        (scene(DOG, RAIN), prompts.CATEGORY, "sound"),
        (scene(GIRL, PIANO), prompts.CATEGORY, "mixed"),
        (scene(), prompts.CATEGORY, "silence"),
        (scene(), prompts.COUNT, "no one"),
        (scene(MAN, GIRL, arrangement="then"), prompts.COUNT, "two people"),
    ],
)
def test_answers(given: Scene, ways: tuple[str, ...], answer: str) -> None:
    answers = {reply for prompt, reply in questions(given) if prompt in ways}
    assert answers == {answer}


def test_event_presence_is_answered_both_ways() -> None:
    answers = {prompt: reply for prompt, reply in questions(scene(DOG), 200) if reply in ("yes", "no")}
    about_dog = {reply for prompt, reply in answers.items() if " a dog" in prompt}
    about_rain = {reply for prompt, reply in answers.items() if "rain" in prompt}
    assert about_dog == {"yes"} and about_rain == {"no"}


def test_unknown_facts_are_not_asked() -> None:
    bare = questions(scene(Part(kind="speech")))
    unknown = {*prompts.GENDER, *prompts.AGE, *prompts.LANGUAGE, *prompts.WORDS, *prompts.DIGIT}
    assert not unknown & {prompt for prompt, _ in bare}
    two = questions(scene(MAN, GERMAN, arrangement="then"))
    assert not set(prompts.GENDER) & {prompt for prompt, _ in two}


def test_prompts_are_varied() -> None:
    pools = [
        value for name, value in vars(prompts).items() if name.isupper() and name not in ("COMMON_EVENTS", "SLOTS")
    ]
    pools += prompts.SLOTS.values()
    assert len(pools) >= 25 and all(2 <= len(set(ways)) == len(ways) for ways in pools)
    assert set(prompts.COMMON_EVENTS) <= set(EVENTS)


def test_examples_follow_the_shares() -> None:
    rng = np.random.default_rng(3)
    counts = Counter(prompt for prompt, _ in (wording.example(scene(GIRL), rng) for _ in range(3000)))
    assert counts[CAPTION_PROMPT] / 3000 == pytest.approx(0.28, abs=0.04)
    assert counts[TRANSCRIBE_PROMPT] / 3000 == pytest.approx(0.1875, abs=0.04)
    assert len(counts) > 100
    silent = Counter(reply for prompt, reply in (wording.example(scene(DOG), rng) for _ in range(2000)))
    assert 0 < silent[NO_SPEECH] < 200


def test_examples_depend_on_the_generator_alone() -> None:
    for given in SCENES:
        one, two = (wording.example(given, np.random.default_rng(9)) for _ in range(2))
        assert one == two and all(one)


# Every instrument of recipes/tiny that is written in more than one word, is plural or has no article.
INSTRUMENTS = (
    "accordion", "agogo bells", "banana shaker", "bass clarinet", "bells", "castanets", "Chinese hand cymbals",
    "clash cymbals", "cowbell", "cymbals", "double bass", "drum kit", "drum loop", "drums", "electronic percussion",
    "english horn", "french horn", "kick drum", "oboe", "percussion", "sleigh bells", "spring coil", "synth bass",
    "tom-toms", "triangle", "violin", "whip",
)  # fmt: skip


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instruments_are_named_and_are_no_events(name: str) -> None:
    for texture in (None, "melody", "chords", "rhythm", "arpeggios"):
        for text in captions(scene(Part(kind="music", instruments=(name,), tempo="fast", texture=texture))):
            assert wording.category_of(text) == "music" and name.removesuffix("s").lower() in text.lower(), text


def test_instruments_play_in_good_grammar() -> None:
    def clauses(*names: str) -> set[str]:
        part = Part(kind="music", instruments=names, tempo="slow", texture="melody")
        return {text for text in captions(scene(part)) if "music" not in text}

    assert clauses("oboe") == {"An oboe plays a slow melody.", "An oboe is playing a slow melody."}
    assert clauses("castanets") == {"Castanets play a slow melody.", "Castanets are playing a slow melody."}
    assert clauses("double bass") >= {"A double bass plays a slow melody."}
    assert clauses("percussion") >= {"Percussion plays a slow melody."}
    assert clauses("flute", "cello") >= {"A flute and a cello play a slow melody."}


def test_noise_is_called_noise_and_nothing_else() -> None:
    texts = captions(scene(Part(kind="sound", event="noise")))
    assert "Steady noise with no clear sound." in texts
    assert {event for event in EVENTS for text in texts if wording.names_event(text, event)} == {"noise"}


def test_the_words_of_a_label_name_it() -> None:
    assert wording.names_event("A loud car horn.", "car_horn") and not wording.names_event("A horn.", "car_horn")
    assert wording.names_event("Wood is breaking.", "wood_breaking")


def test_absent_events_are_of_every_kind() -> None:
    named = Counter(prompt for prompt, reply in questions(scene(DOG), 400) if reply == "no")
    assert len({prompt for prompt in named if "yak" in prompt or "zebra" in prompt or "kettle" in prompt}) > 0


def test_the_table_of_events_is_whole() -> None:
    lines = resources.files("auricle.data").joinpath("events.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(EVENTS) + 1 and lines[1:] == sorted(lines[1:], key=lambda line: line.split("\t")[0])
    for event, words in EVENTS.items():
        assert words.accepted and all(re.fullmatch("[a-z]+", word) for word in words.accepted), event
        assert words.subject == words.subject.lower() and words.gerund.split()[0].endswith("ing"), event
        assert words.is_plural == (words.subject in PLURAL), event
        assert not words.is_plural or not words.verb.split()[0].endswith("s") or words.verb.endswith("ss"), event


PLURAL = {
    "bicycle spokes", "birds", "church bells", "cicadas", "crickets", "dishes", "fireworks", "footsteps", "insects",
    "leaves", "scissors", "sea waves",
}  # fmt: skip
