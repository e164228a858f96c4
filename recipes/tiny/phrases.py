"""Phrases and chords of real instruments, composed from recordings of single notes; patterns of percussion strokes."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
import tunes

SAMPLE_RATE = 16_000
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAX_SHIFT = 4  # semitones that a recorded note may be moved by
Array = np.ndarray


class Recorded(NamedTuple):
    """A stroke or note: its pitch as a MIDI note (0 unknown) and its audio."""

    pitch: int
    waveform: Array


def midi_number(name: str) -> int:
    """ "G#3" → 56."""
    return NAMES.index(name[:-1]) + 12 * (int(name[-1]) + 1)


@lru_cache(maxsize=2)
def read_notes(manifests: tuple[Path, ...]) -> tuple[dict[str, list[Recorded]], dict[str, list[Recorded]]]:
    """Instruments with pitched notes, and others by their strokes, of manifests that `wide.py` wrote."""
    pitched: dict[str, list[Recorded]] = defaultdict(list)
    strokes: dict[str, list[Recorded]] = defaultdict(list)
    for manifest in manifests:
        for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()):
            if row["kind"] != "music":
                continue
            waveform, rate = soundfile.read(row["audio"], dtype="float32", always_2d=True)
            mono = soxr.resample(waveform.mean(1), rate, SAMPLE_RATE)
            loud = np.flatnonzero(np.abs(mono) > 0.05 * np.abs(mono).max(initial=1e-6))
            sound = mono[max(0, int(loud[0]) - 160) :] if loud.size else mono
            name = row["instruments"][0]
            if row.get("note"):
                pitched[name].append(Recorded(midi_number(row["note"]), sound))
            elif sound.size < 2.5 * SAMPLE_RATE:
                strokes[name].append(Recorded(0, sound))
    return dict(pitched), dict(strokes)


def _shifted(notes: Sequence[Recorded], pitch: int, rng: random.Random) -> Array:
    """A note near a pitch, moved onto it."""
    near = sorted(notes, key=lambda note: abs(note.pitch - pitch))[:2]
    note = rng.choice([each for each in near if abs(each.pitch - pitch) <= MAX_SHIFT] or near[:1])
    shift = max(-MAX_SHIFT, min(MAX_SHIFT, pitch - note.pitch))
    return soxr.resample(note.waveform, SAMPLE_RATE * 2 ** (shift / 12), SAMPLE_RATE, quality="LQ")


def _put(canvas: Array, sound: Array, start: int, length: int) -> None:
    """Add a sound to a canvas, cut to a length with a fade."""
    sound = sound[: min(length, canvas.size - start)].copy()
    fade = min(800, sound.size)
    sound[sound.size - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    canvas[start : start + sound.size] += sound


def _arpeggios(rng: random.Random, mode: str, tonic: int, register: tuple[int, int]) -> list[tunes.Note]:
    """Chords whose three notes come one after the other."""
    notes = tunes.chords(rng, mode, tonic, register)
    return [
        (start + number % 3 * length // 3, length // 2, pitch, velocity)
        for number, (start, length, pitch, velocity) in enumerate(notes)
    ]


WRITERS = {"melody": tunes.melody, "chords": tunes.chords, "arpeggios": _arpeggios}


def phrase(rng: random.Random, pitched: dict[str, list[Recorded]]) -> tuple[Array, dict[str, Any]]:
    """A melody, chords or arpeggios of 2 to 6 s on one instrument, in one case of seven on two; and its facts."""
    players = rng.sample(sorted(pitched), min(len(pitched), 2 if rng.random() < 0.15 else 1))
    tempo = rng.choice(tuple(tunes.TEMPI))
    mode, tonic = rng.choice(tuple(tunes.SCALES)), rng.randint(48, 59)
    texture = rng.choice(("melody", "melody", "melody", "chords", "arpeggios"))
    is_in_tune = True
    tick = 60 / rng.uniform(*tunes.TEMPI[tempo]) / tunes.TICKS * SAMPLE_RATE
    canvas = np.zeros(int(rng.uniform(2, 6) * SAMPLE_RATE), np.float32)
    for number, player in enumerate(players):
        pitches = [note.pitch for note in pitched[player]]
        low = rng.randint(min(pitches), max(min(pitches), max(pitches) - 14))
        writer = tunes.melody if number else WRITERS[texture]
        for start, length, pitch, velocity in writer(rng, mode, tonic, (low, min(max(pitches), low + 18))):
            if (begin := int(start * tick)) < canvas.size:
                sound = _shifted(pitched[player], pitch, rng)
                is_in_tune &= min(abs(each - pitch) for each in pitches) <= MAX_SHIFT
                level = velocity / 100 / max(float(np.abs(sound).max()), 1e-3)
                _put(canvas, sound * np.float32(level), begin, int(length * tick * 1.1))
    facts = {"instruments": players, "tempo": tempo, "mode": mode if is_in_tune else None, "texture": texture}
    return canvas, facts


def beat(rng: random.Random, strokes: dict[str, list[Recorded]]) -> tuple[Array, dict[str, Any]]:
    """A repeated pattern of strokes of one instrument, and its facts."""
    player = rng.choice(sorted(strokes))
    sounds = [stroke.waveform for stroke in strokes[player]]
    step = int(rng.uniform(0.12, 0.4) * SAMPLE_RATE)
    pattern = [rng.random() < 0.5 for _ in range(rng.choice((4, 6, 8)))]
    pattern[0] = True
    canvas = np.zeros(int(rng.uniform(2, 5) * SAMPLE_RATE), np.float32)
    for number, start in enumerate(range(0, canvas.size, step)):
        if pattern[number % len(pattern)]:
            sound = rng.choice(sounds)
            _put(canvas, sound / max(float(np.abs(sound).max()), 1e-3), start, sound.size)
    return canvas, {"instruments": [player], "texture": "rhythm"}
