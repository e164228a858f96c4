"""Small tunes as standard MIDI files: random walks in major and minor scales on General MIDI instruments."""

import random
import struct
from typing import Any

TICKS = 240  # per quarter note
DRUM_CHANNEL = 9

# General MIDI programs (from 0) and the register, as MIDI notes, in which each instrument is played.
INSTRUMENTS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "piano": ((0, 1, 4), 48, 84),
    "guitar": ((24, 25, 27), 43, 76),
    "violin": ((40,), 57, 90),
    "flute": ((73, 75), 62, 93),
    "trumpet": ((56, 59), 55, 80),
    "organ": ((16, 17, 19), 45, 80),
    "drums": ((0,), 35, 51),
    "bass": ((32, 33, 36), 28, 48),
    "cello": ((42,), 38, 62),
    "saxophone": ((65, 66), 50, 78),
    "harp": ((46,), 45, 85),
    "marimba": ((12, 13), 50, 84),
    "accordion": ((21, 23), 50, 80),
    "choir": ((52, 53), 48, 76),
    "synthesizer": ((80, 81, 90), 48, 84),
    "clarinet": ((71,), 52, 82),
}
ACCOMPANIMENT = ("piano", "guitar", "organ", "bass", "drums")
SOLO_ONLY = frozenset({"flute", "trumpet", "saxophone", "clarinet", "bass"})  # one note at a time
TEMPI = {"slow": (50, 75), "medium": (92, 120), "fast": (150, 200)}  # quarter notes a minute
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 0, 4))  # scale degrees of the triads
BEATS = 24

Note = tuple[int, int, int, int]  # start tick, length in ticks, MIDI note, velocity


def _variable(value: int) -> bytes:
    """A MIDI variable-length quantity."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def midi_file(voices: list[tuple[int, int, list[Note]]], beats_per_minute: float) -> bytes:
    """A format-0 MIDI file of (channel, program, notes) voices."""
    events: list[tuple[int, int, bytes]] = []
    for channel, program, notes in voices:
        events.append((0, 0, bytes([0xC0 | channel, program])))
        for start, length, note, velocity in notes:
            events.append((start, 2, bytes([0x90 | channel, note, velocity])))
            events.append((start + length, 1, bytes([0x80 | channel, note, 0])))
    tempo = round(60_000_000 / beats_per_minute)
    track, now = b"\x00\xff\x51\x03" + tempo.to_bytes(3, "big"), 0
    for tick, _, message in sorted(events):
        track += _variable(tick - now) + message
        now = tick
    track += _variable(TICKS) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def _pitch(degree: int, mode: str, tonic: int, low: int, high: int) -> int:
    """The MIDI note of a scale degree, folded by octaves into the register."""
    octave, step = divmod(degree, 7)
    note = tonic + 12 * octave + SCALES[mode][step]
    while note < low:
        note += 12
    while note > high:
        note -= 12
    return note


def melody(rng: random.Random, mode: str, tonic: int, register: tuple[int, int]) -> list[Note]:
    """A random walk over the steps of a scale."""
    notes: list[Note] = []
    tick, degree = 0, rng.choice((0, 2, 4, 7))
    while tick < BEATS * TICKS:
        length = rng.choice((TICKS // 2, TICKS // 2, TICKS, TICKS, TICKS * 2))
        if rng.random() > 0.06:
            note = _pitch(degree, mode, tonic, *register)
            notes.append((tick, max(1, length * 9 // 10), note, rng.randint(70, 115)))
        degree = max(-3, min(11, degree + rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3))))
        tick += length
    return notes


def chords(rng: random.Random, mode: str, tonic: int, register: tuple[int, int]) -> list[Note]:
    """Triads of a common progression."""
    notes: list[Note] = []
    progression, length = rng.choice(PROGRESSIONS), rng.choice((TICKS, TICKS * 2))
    for number, tick in enumerate(range(0, BEATS * TICKS, length)):
        root = progression[number * length // (4 * TICKS) % len(progression)]
        velocity = rng.randint(65, 100)
        for degree in (root, root + 2, root + 4):
            notes.append((tick, length * 9 // 10, _pitch(degree, mode, tonic, *register), velocity))
    return notes


def _beat(rng: random.Random) -> list[Note]:
    """A rock pattern: kick 36, snare 38 or 40, hi-hat 42 or ride 51, now and then a tom or crash."""
    snare, cymbal = rng.choice((38, 40)), rng.choice((42, 42, 51))
    notes: list[Note] = []
    for half in range(BEATS * 2):
        tick = half * TICKS // 2
        notes.append((tick, 60, cymbal, rng.randint(60, 90)))
        if half % 4 == 0 or rng.random() < 0.12:
            notes.append((tick, 60, 36, rng.randint(90, 120)))
        if half % 4 == 2:
            notes.append((tick, 60, snare, rng.randint(85, 115)))
        if rng.random() < 0.05:
            notes.append((tick, 60, rng.choice((45, 47, 49, 50)), rng.randint(80, 110)))
    return notes


def _voice(
    instrument: str, channel: int, texture: str, rng: random.Random, key: tuple[str, int]
) -> tuple[int, int, list[Note]]:
    if instrument == "drums":
        return DRUM_CHANNEL, 0, _beat(rng)
    programs, low, high = INSTRUMENTS[instrument]
    bottom = rng.randint(low, max(low, high - 24))
    register = (bottom, min(high, bottom + 24))
    writer = chords if texture == "chords" else melody
    return channel, rng.choice(programs), writer(rng, *key, register)


def compose(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    """A MIDI file and its facts: instruments, tempo, mode (None for drums alone), texture."""
    lead = rng.choice(tuple(INSTRUMENTS))
    tempo = rng.choice(tuple(TEMPI))
    key = (rng.choice(tuple(SCALES)), rng.randint(48, 59))
    texture = "melody" if lead in SOLO_ONLY or rng.random() < 0.6 else "chords"
    if lead == "drums":
        texture = "rhythm"
    instruments = [lead]
    if lead != "drums" and rng.random() < 0.2:
        instruments.append(rng.choice([name for name in ACCOMPANIMENT if name != lead]))
        texture = "melody"
    voices = [_voice(lead, 0, texture, rng, key)]
    voices += [_voice(name, 1, "melody" if name == "bass" else "chords", rng, key) for name in instruments[1:]]
    mode = None if lead == "drums" else key[0]
    facts = {"instruments": instruments, "tempo": tempo, "mode": mode, "texture": texture}
    return midi_file(voices, rng.uniform(*TEMPI[tempo])), facts
