"""Experts that ask an audio language model: tags in windows of 2 s, voices, music.

All tags come from captions, of the whole clip and of its windows, since a caption names a part only where it is told
apart from the others; the probability that the model gives to "yes" says how sure it is of speech and music.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.segments import segments
from auricle.curate.factory.experts import Expert, ExpertInput, ExpertSettings, Fact
from auricle.data.vocabulary import EVENTS, LANGUAGES, names_music, names_speech
from auricle.errors import AuricleError

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM

WINDOW_S = 2.0  # of tags; as in the labels of ACAVCaps (arXiv 2603.24038)
_LEAST_WINDOW_S = 0.5
_BATCH = 16
_CODE = "1"  # version of this module
_LEAST = 0.2  # probability of speech or music below which the caption that names it is not believed
# An event that the caption of the whole clip leaves out counts where as many windows name it, each this surely.
_WINDOWS, _WINDOW_SURE = 2, 0.6
_SPEECH, _MUSIC = "Is there speech in the audio?", "Is there music in the audio?"
_GENDER, _AGE = "Is the speaker male or female?", "Is the speaker a child or an adult?"
_COUNT = "How many people speak?"
_LANGUAGE = "Which language is spoken?"
_INSTRUMENT, _TEMPO = "Which instrument is playing?", "Is the music fast or slow?"

Result = TypeVar("Result")


@cache
def load_model(name: str, device: str) -> "AudioLM":
    """The model that all experts of a process share."""
    from auricle.listen.loading import load

    return load(name, device=device)


def tags(settings: ExpertSettings) -> Expert:
    """What is there: ``caption``, ``tag`` (speech, music or sound), ``event``; with the windows it is named in."""
    model = load_model(settings.model, settings.device)

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact] | AuricleError]:
        whole = list(model.describe_many([clip.waveform for clip in clips], batch_size=_BATCH))
        speech, music = (_odds(model, clips, question, ("yes", "no"), "yes") for question in (_SPEECH, _MUSIC))
        cuts = [(i, start, stop) for i, clip in enumerate(clips) for start, stop in _windows(clip)]
        parts = model.describe_many([clips[i].waveform[start:stop] for i, start, stop in cuts], batch_size=_BATCH)
        windows: list[list[tuple[float, float, Any]]] = [[] for _ in clips]
        for (i, start, stop), part in zip(cuts, parts, strict=True):
            if not isinstance(part, AuricleError):
                windows[i].append((start / SAMPLE_RATE, stop / SAMPLE_RATE, part))
        found: list[list[Fact] | AuricleError] = []
        for i, clip in enumerate(clips):
            described = whole[i]
            if isinstance(described, AuricleError):
                found.append(described)
            else:
                found.append(_tags_of(clip, described, windows[i], (speech[i], music[i])))
        return found

    return _expert("tags", "tag", ("caption", "tag", "event"), run, model, cost=0.02)


def voice(settings: ExpertSettings) -> Expert:
    """Who speaks: ``gender``, ``age``, ``speakers``, ``language``, ``transcript`` where the model can give one."""
    model = load_model(settings.model, settings.device)

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        found: list[list[Fact]] = [[] for _ in clips]
        _choose(model, clips, found, _GENDER, {"male": "male", "female": "female"}, "gender")
        _choose(model, clips, found, _AGE, {"child": "child", "adult": "adult"}, "age")
        _choose(model, clips, found, _COUNT, {"one person": 1, "two people": 2}, "speakers")
        _choose(model, clips, found, _LANGUAGE, {name.lower(): name for name in _languages()}, "language")
        words = model.transcribe_many([clip.waveform for clip in clips], batch_size=_BATCH)
        for clip, facts, spoken in zip(clips, found, words, strict=True):
            if isinstance(spoken, AuricleError) or not spoken.text or spoken.suggested_model:
                continue
            facts.append(_fact(clip, "transcript", spoken.text, spoken.confidence))
        return found

    gives = ("gender", "age", "speakers", "language", "transcript")
    return _expert("voice", "speech", gives, run, model, letters="S", cost=0.02)


def music(settings: ExpertSettings) -> Expert:
    """What is played: ``instrument``, one fact each, and ``pace`` (slow or fast)."""
    model = load_model(settings.model, settings.device)

    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        found: list[list[Fact]] = [[] for _ in clips]
        answers = model.ask_many([clip.waveform for clip in clips], _INSTRUMENT, batch_size=_BATCH)
        for clip, facts, answer in zip(clips, found, answers, strict=True):
            if not isinstance(answer, AuricleError):
                facts += [_fact(clip, "instrument", name, answer.confidence) for name in _instruments(answer.text)]
        _choose(model, clips, found, _TEMPO, {"slow": "slow", "fast": "fast"}, "pace")
        return found

    return _expert("music", "music", ("instrument", "pace"), run, model, letters="M", cost=0.02)


def events_in(caption: str) -> list[str]:
    """The events that a caption of `auricle.data.wording` names, in its order."""
    found: dict[str, int] = {}
    for event, pattern in _phrases():
        if match := pattern.search(caption):
            found.setdefault(event, match.start())
    return sorted(found, key=lambda event: found[event])


def _expert(name: str, phase: Any, gives: tuple[str, ...], run: Any, model: "AudioLM", **more: Any) -> Expert:
    version, device = f"{_CODE}-{model.fingerprint[:12]}", str(next(model.loaded.model.parameters()).device)
    return Expert(name=name, version=version, phase=phase, gives=gives, run=run, device=device, **more)


def _fact(clip: ExpertInput, name: str, value: Any, confidence: float | None) -> Fact:
    rounded = None if confidence is None else round(confidence, 3)
    return Fact(name=name, value=value, confidence=rounded, stop_s=round(clip.seconds, 3))


def _windows(clip: ExpertInput) -> list[tuple[int, int]]:
    """Windows of tags; none where the clip is no longer than one."""
    if clip.seconds <= WINDOW_S:
        return []
    return segments(len(clip.waveform), length_s=WINDOW_S, min_s=_LEAST_WINDOW_S)


def _tags_of(
    clip: ExpertInput, described: Any, windows: Sequence[tuple[float, float, Any]], sure: tuple[float, float]
) -> list[Fact]:
    caption, sureness = described.text, described.confidence or 1.0
    speech, music = sure
    events = {event: sureness for event in events_in(caption)} | _of_windows(windows, events_in(caption))
    kinds = {
        "speech": speech if names_speech(caption) and speech >= _LEAST else None,
        "music": music if names_music(caption) and music >= _LEAST else None,
        "sound": max(events.values(), default=None),
    }
    facts = [_fact(clip, "caption", caption, sureness)]
    for kind, confidence in kinds.items():
        if confidence is not None:
            spans = [each[:2] for each in windows if _names(each[2].text, kind)]
            facts += _spanned(clip, "tag", kind, confidence, spans)
    for event, confidence in events.items():
        spans = [each[:2] for each in windows if event in events_in(each[2].text)]
        facts += _spanned(clip, "event", event, confidence, spans)
    return facts


def _of_windows(windows: Sequence[tuple[float, float, Any]], known: Sequence[str]) -> dict[str, float]:
    """Events that several windows name, with the mean of what they are sure of."""
    found: dict[str, list[float]] = {}
    for _, _, part in windows:
        if (part.confidence or 0.0) >= _WINDOW_SURE:
            for event in events_in(part.text):
                found.setdefault(event, []).append(part.confidence)
    named = {event: each for event, each in found.items() if event not in known and len(each) >= _WINDOWS}
    return {event: sum(each) / len(each) for event, each in named.items()}


def _names(caption: str, kind: str) -> bool:
    names: dict[str, Callable[[str], bool]] = {"speech": names_speech, "music": names_music}
    return names[kind](caption) if kind in names else bool(events_in(caption))


def _spanned(
    clip: ExpertInput, name: str, value: str, confidence: float, spans: Iterable[tuple[float, float]]
) -> list[Fact]:
    """One fact for each run of neighbouring windows; of the whole clip where no window names it."""
    joined: list[list[float]] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    rounded = round(confidence, 3)
    return [
        Fact(name=name, value=value, confidence=rounded, start_s=round(start, 3), stop_s=round(stop, 3))
        for start, stop in joined or [[0.0, clip.seconds]]
    ]


def _odds(
    model: "AudioLM", clips: Sequence[ExpertInput], question: str, options: Sequence[str], wanted: str
) -> list[float]:
    """Probability of one option for each clip; 0 where it cannot be asked."""
    found = model.choose_many([clip.waveform for clip in clips], question, options, batch_size=_BATCH)
    return [
        0.0 if isinstance(each, AuricleError) else next(odds.probability for odds in each.odds if odds.text == wanted)
        for each in found
    ]


def _choose(
    model: "AudioLM",
    clips: Sequence[ExpertInput],
    found: Sequence[list[Fact]],
    question: str,
    options: dict[str, Any],
    name: str,
) -> None:
    """Add the likeliest option as a fact of each clip."""
    choices = model.choose_many([clip.waveform for clip in clips], question, list(options), batch_size=_BATCH)
    for clip, facts, choice in zip(clips, found, choices, strict=True):
        if not isinstance(choice, AuricleError):
            facts.append(_fact(clip, name, options[choice.text], choice.confidence))


def _instruments(answer: str) -> list[str]:
    """Names in "flute and cello"; an answer of other words, such as "dog barking", is long or has a verb."""
    names = [name.strip() for name in answer.lower().rstrip(".").split(" and ")]
    return [name for name in names if re.fullmatch(r"[a-z]+( [a-z]+)?", name) and not name.endswith("ing")]


@cache
def _languages() -> tuple[str, ...]:
    return tuple(dict.fromkeys(LANGUAGES.values()))


@cache
def _phrases() -> list[tuple[str, re.Pattern[str]]]:
    """Each way to phrase an event once, with the first event that is phrased so."""
    found: dict[tuple[str, str, str], tuple[str, re.Pattern[str]]] = {}
    for event, words in EVENTS.items():
        subject = re.escape(re.sub("^(an?|the) ", "", words.subject))
        ways = f"(?:(?:is |are )?{re.escape(words.gerund)}|{re.escape(words.verb)})"
        pattern = re.compile(rf"\b{subject} {ways}\b", re.IGNORECASE)
        found.setdefault((words.subject, words.verb, words.gerund), (event, pattern))
    return list(found.values())
