"""Words for sound events: how an event is phrased, and which words in a caption count as naming it."""

import re
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class EventWords:
    """An event as a short clause; one of the `accepted` words must occur for the event to count as named."""

    subject: str  # with its article: "a dog"
    verb: str  # finite: "barks"
    gerund: str  # "barking"
    accepted: tuple[str, ...]
    is_plural: bool = False

    @property
    def name(self) -> str:
        """The event as a short answer: "dog barking"."""
        return f"{re.sub('^(an?|the) ', '', self.subject)} {self.gerund}"

    @property
    def noun(self) -> str:
        """The event as a noun phrase: "a dog barking"."""
        return self.subject if self.subject.startswith("the sound of") else f"{self.subject} {self.gerund}"


def _read_events() -> dict[str, EventWords]:
    lines = resources.files("auricle.data").joinpath("events.tsv").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines[1:]:
        event, subject, verb, gerund, accepted, *number = line.split("\t")
        found[event] = EventWords(subject, verb, gerund, tuple(accepted.split()), is_plural=number == ["plural"])
    return found


# Accepted words are inflections and close synonyms of the event's name only. A word that would fit other events as well
# ("buzzing" or "saw" of a chainsaw, "crow" of a rooster, "water" of rain or waves) is left out.
EVENTS: dict[str, EventWords] = _read_events()

STEADY_EVENTS = frozenset({"noise", "tone", "hum", "beep", "radio_static", "sweep"})  # that name no source

_ALIASES = {"clock_ticking": "clock_tick", "baby_crying": "crying_baby", "sea_wave": "sea_waves"}

# Languages of the speech material, by the codes of espeak-ng.
LANGUAGES: dict[str, str] = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "nl": "Dutch",
    "cmn": "Chinese",
    "zh": "Chinese",
    "hi": "Hindi",
    "ru": "Russian",
    "pt": "Portuguese",
    "ja": "Japanese",
    "ar": "Arabic",
    "pl": "Polish",
    "sv": "Swedish",
    "tr": "Turkish",
    "ko": "Korean",
}

_SPEECH = re.compile(r"\b(says?|said|speaks?|speaking|spoken|talks?|talking|voices?|speech|speakers?|orders)\b", re.I)
_MUSIC = re.compile(r"\b(music|musical|melody|tune|song|chords?|rhythm|arpeggios)\b", re.I)
_SOUND = re.compile(r"\b(sounds? of|noises?)\b", re.I)
_NEGATED = re.compile(r"\b(no|without|nobody|none)\s+(\w+\s+)?(speech|voices?|speaks?|speaking|music|sounds?)\b", re.I)
_QUOTED = re.compile(r"[\"“][^\"”]*[\"”]")


def event_words(event: str) -> EventWords:
    """How an event is phrased; without an entry, "door_wood_knock" becomes "the sound of door wood knock"."""
    known = EVENTS.get(_ALIASES.get(event, event))
    if known is not None:
        return known
    words = event.replace("_", " ").lower()
    return EventWords(f"the sound of {words}", "is heard", "audible", tuple(words.split()))


def event_name(event: str) -> str:
    """The event as a short lower-case answer, such as "dog barking"."""
    key = _ALIASES.get(event, event)
    return EVENTS[key].name if key in EVENTS else event.replace("_", " ").lower()


def keywords(event: str) -> tuple[str, ...]:
    """The words (lower case, whole words) of which one must occur in a caption for it to name the event."""
    return event_words(event).accepted


def _affirmed(caption: str) -> str:
    """The caption without quoted words and negated parts."""
    return _NEGATED.sub(" ", _QUOTED.sub(" ", caption))


def names_event(caption: str, event: str) -> bool:
    """Whether the caption names the event by one of its `keywords` or all words of its label, outside quoted speech."""
    found = set(re.findall(r"[a-z]+", _affirmed(caption).lower()))
    return not found.isdisjoint(keywords(event)) or found.issuperset(event.lower().split("_"))


def names_speech(caption: str) -> bool:
    """Whether the caption names speech."""
    return bool(_SPEECH.search(_affirmed(caption)))


def names_music(caption: str) -> bool:
    """Whether the caption names music."""
    return bool(_MUSIC.search(_affirmed(caption)))


def names_sound(caption: str) -> bool:
    """Whether the caption names any known event, or "the sound of" something."""
    return bool(_SOUND.search(_affirmed(caption))) or any(names_event(caption, event) for event in EVENTS)


def names_source(caption: str) -> bool:
    """Whether the caption names what makes a sound: an event that is more than a steady signal, speech, or music."""
    is_event = any(names_event(caption, event) for event in EVENTS if event not in STEADY_EVENTS)
    return is_event or names_speech(caption) or names_music(caption)


def category_of(caption: str) -> str | None:
    """The category a caption names: "speech", "sound", "music", "mixed" for two or more, None for none."""
    found = {
        "speech": names_speech(caption),
        "sound": names_sound(caption),
        "music": names_music(caption),
    }
    named = [kind for kind, is_named in found.items() if is_named]
    return "mixed" if len(named) > 1 else (named[0] if named else None)
