"""Signals whose truth is known, and experts that know them without a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from auricle.curate.factory.clips import Source
from auricle.curate.factory.experts import Expert, ExpertInput, Fact
from auricle.curate.factory.sheet import Evidence, Sheet

RATE = 16_000
EVENTS = {440: "dog", 880: "rooster", 1320: "rain"}  # by the pitch of a clip
SPEECH_HZ, MUSIC_HZ = 2200, 3300


def seconds(length: float) -> np.ndarray:
    return np.arange(int(length * RATE)) / RATE


def sine(hertz: float, length: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * seconds(length))).astype(np.float32)


def noise(length: float = 1.0, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(int(length * RATE))).astype(np.float32)


def write_tones(folder: Path, count: int) -> list[Source]:
    """Files of one second, each of another level: events, speech and music by pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    pitches = [*EVENTS, SPEECH_HZ, MUSIC_HZ]
    sources = []
    for number in range(count):
        path = folder / f"{number:03d}.wav"
        soundfile.write(path, sine(pitches[number % len(pitches)], level=0.05 + 0.8 * number / count), RATE, "FLOAT")
        sources.append(Source(id=path.stem, audio=str(path), meta={"license": "CC0-1.0", "author": "a machine"}))
    return sources


def by_pitch(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
    found = []
    for clip in clips:
        spectrum = np.abs(np.fft.rfft(clip.waveform))
        hertz = round(float(spectrum.argmax()) * RATE / len(clip.waveform) / 110) * 110
        kind = "speech" if hertz == SPEECH_HZ else "music" if hertz == MUSIC_HZ else "sound"
        facts = [Fact(name="caption", value="A tone.", confidence=0.9, stop_s=clip.seconds)]
        facts.append(Fact(name="tag", value=kind, confidence=0.9, stop_s=clip.seconds))
        if hertz in EVENTS:
            facts.append(Fact(name="event", value=EVENTS[hertz], confidence=0.9, stop_s=clip.seconds))
        found.append(facts)
    return found


PITCH = Expert(name="pitch", version="1", phase="tag", gives=("caption", "tag", "event"), run=by_pitch)


def sheet(code: str = "S0A", *facts: Evidence) -> Sheet:
    """A clip of 4 s with the tags of its code, and these facts."""
    kinds = {"S": "speech", "M": "music", "A": "sound"}
    tags = [fact("tag", kinds[letter], 0.9) for letter in code if letter != "0"]
    return Sheet(clip_hash="0123456789abcdef" * 2, seconds=4.0, code=code, evidence=(*tags, *facts))


def fact(
    name: str, value: object, confidence: float | None = 0.9, start_s: float = 0.0, stop_s: float = 4.0
) -> Evidence:
    return Evidence("test@1", name, value, confidence, start_s, stop_s)  # type: ignore[arg-type]
