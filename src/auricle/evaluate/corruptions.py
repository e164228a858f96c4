"""Corruptions of audio: noise, codecs, clipping and others, each with levels from mild to severe.

A corruption is a pure function of a 16 kHz mono waveform, a level and a seed that comes from the bytes of the audio
file: the same file is corrupted the same way in every run and for every model, and the levels of one corruption share
their randomness, so that noise grows and is not sampled again. The length stays, except where a corruption changes it
(speed, padding). Corruptions that measure a level leave digital silence as it is.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeAlias

import numpy as np

from auricle.audio.decode import decode
from auricle.data import codecs, mixing
from auricle.data.mixing import SAMPLE_RATE, SILENCE_RMS, Waveform
from auricle.errors import ConfigError, hint_names
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile, NamedBytes

Change: TypeAlias = Callable[[Waveform, float, np.random.Generator], Waveform]

_PIECE = SAMPLE_RATE // 10  # 100 ms, what a dropout takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """One kind of corruption."""

    name: str
    title: str  # as figures print it
    unit: str  # of the levels
    levels: tuple[float, ...]  # measured by default, mild to severe
    low: float  # the levels allowed
    high: float
    neutral: float | None  # the level that changes nothing; None: every level changes something
    severe: int  # 1: the higher, the more severe; -1: the lower; 0: both directions from the neutral one
    in_octaves: bool  # figures and areas count doublings of the level, as of bit rates
    is_counted: bool  # levels are whole numbers, and nothing is between them
    change: Change


def corrupt(waveform: Waveform, corruption: Corruption, level: float, seed: int) -> Waveform:
    """A corrupted waveform.

    Args:
        waveform: float32 (num_samples,), mono at 16 kHz.
        corruption: of `CORRUPTIONS`.
        level: in the unit of the corruption.
        seed: of random corruptions.

    Returns:
        A new float32 waveform; samples may exceed 1 where a corruption adds energy, as in files of floats.

    Raises:
        ConfigError: the level is outside the corruption's range, or a codec is not available.
    """
    _check_level(corruption, level)
    if level == corruption.neutral or waveform.size == 0:
        return waveform.copy()
    changed = corruption.change(waveform, level, np.random.default_rng(seed))
    return np.ascontiguousarray(changed, dtype=np.float32)


def corrupted_file(audio: AudioFile, corruption: Corruption, level: float) -> AudioFile:
    """An audio file of the same name that is corrupted whenever it is read; at the neutral level the file itself.

    Its bytes are a WAV file of floats, the same in every run, so that kept answers are found again.

    Raises:
        ConfigError: the level is outside the corruption's range.
    """
    _check_level(corruption, level)
    if level == corruption.neutral:
        return audio

    def read() -> bytes:
        content = audio.read()
        seed = int.from_bytes(sha256(sha256(content).digest() + corruption.name.encode()).digest()[:8], "big")
        return wav_bytes(corrupt(decode(NamedBytes(content, audio.name)).waveform, corruption, level, seed))

    return AudioFile(audio.name, read)


def corrupted_questions(questions: Sequence[Question], corruption: Corruption, level: float) -> list[Question]:
    """The same questions about corrupted audio files; questions that shared a file still do."""
    files: dict[int, AudioFile] = {}
    found = []
    for each in questions:
        audio = files.setdefault(id(each.audio), corrupted_file(each.audio, corruption, level))
        found.append(replace(each, audio=audio))
    return found


def find_corruption(text: str) -> tuple[Corruption, tuple[float, ...]]:
    """A corruption and its levels, mild to severe, from ``NAME`` or ``NAME=LEVEL,LEVEL,…``.

    Raises:
        ConfigError: unknown, no numbers, or outside the range.
    """
    name, given, listed = text.partition("=")
    if name not in CORRUPTIONS:
        raise ConfigError(f"no corruption {name!r}.{hint_names(name, CORRUPTIONS)}")
    corruption = CORRUPTIONS[name]
    if not given:
        return corruption, corruption.levels
    try:
        levels = tuple(dict.fromkeys(float(each) for each in listed.split(",")))
    except ValueError:
        raise ConfigError(f"{text}: levels are {listed!r}, expected numbers in {corruption.unit}, as 20,10,0") from None
    for level in levels:
        _check_level(corruption, level)
    kept = [level for level in levels if level != corruption.neutral]
    if not kept:
        raise ConfigError(f"{text}: names no level that changes anything; {corruption.neutral:g} is the clean audio")
    return corruption, tuple(sorted(kept, reverse=corruption.severe < 0))


def wav_bytes(waveform: Waveform) -> bytes:
    """A WAV file of 32-bit floats; libsndfile would write the time of day into it."""
    data = waveform.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sII4sI", b"fact", 4, waveform.size, b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _check_level(corruption: Corruption, level: float) -> None:
    if not corruption.low <= level <= corruption.high:
        raise ConfigError(
            f"{corruption.name}: level {level:g} {corruption.unit}, expected {corruption.low:g} to {corruption.high:g}"
        )
    if corruption.is_counted and level != round(level):
        raise ConfigError(f"{corruption.name}: level {level:g}, expected a whole number of {corruption.unit}")


# --- the corruptions


def _noise(exponent: float) -> Change:
    def change(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
        if mixing.active_rms(waveform) <= SILENCE_RMS:
            return waveform.copy()
        return mixing.mix(waveform, mixing.noise(waveform.size, rng, exponent), level)

    return change


def _opus(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    return codecs.opus(waveform, level)


def _mp3(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    return codecs.mp3(waveform, level)


def _telephone(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    import soxr

    received = waveform
    for _ in range(int(level)):
        line = soxr.resample(received, SAMPLE_RATE, SAMPLE_RATE // 2)
        line = mixing.colour(line, band_hz=_BAND) if line.size else line
        coded = codecs.through_file(line, SAMPLE_RATE // 2, format="WAV", subtype="ULAW")
        received = mixing.place(soxr.resample(coded, SAMPLE_RATE // 2, SAMPLE_RATE), 0, waveform.size)
    return received


# `mixing.band_response` counts in Hz of a 16 kHz waveform; at 8 kHz the same places are half as high. The line itself
# passes 300 to 3400 Hz (ITU-T G.712).
_BAND = (600.0, 6800.0)


def _reverb(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    # As much reverberant energy as direct: the critical distance.
    room = mixing.room_response(rng, level, direct=1.0, wet=1.0)
    return _level_as(mixing.colour(waveform, room=room), waveform)


def _level_as(waveform: Waveform, model: Waveform) -> Waveform:
    """At the active level of another one, so that a corruption is no change of loudness."""
    rms = mixing.active_rms(model)
    return waveform if rms <= SILENCE_RMS else mixing.to_level(waveform, float(20 * np.log10(rms)))


def _gain(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    return mixing.gain(waveform, level)


def _overdrive(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    return np.clip(mixing.gain(waveform, level), -1, 1)


def _speed(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    changed = mixing.change_speed(waveform, level)
    return changed if changed.size else waveform.copy()


def _clipping(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    limit = clipping_limit(waveform, level / 100)
    return _level_as(np.clip(waveform, -limit, limit), waveform)


def clipping_limit(waveform: Waveform, share: float) -> float:
    """The height that ``share`` of the samples exceed; digital silence is never clipped and does not count."""
    heights = np.sort(np.abs(waveform[waveform != 0]))
    if not heights.size:
        return 1.0
    return float(heights[heights.size - 1 - min(round(share * heights.size), heights.size - 1)])


def _dropouts(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    # One order for all levels: what a mild level drops, every more severe one drops too.
    order = rng.permutation(-(-waveform.size // _PIECE))
    dropped = waveform.copy()
    for piece in order[: round(level / 100 * len(order))]:
        dropped[piece * _PIECE : (piece + 1) * _PIECE] = 0.0
    return dropped


def _padding(waveform: Waveform, level: float, rng: np.random.Generator) -> Waveform:
    before = round(level * SAMPLE_RATE)
    return mixing.place(waveform, before, waveform.size + 2 * before)


def _corruptions() -> Mapping[str, Corruption]:
    def one(
        name: str, title: str, unit: str, levels: str, ends: tuple[float, float], neutral: float | None, change: Change
    ) -> Corruption:
        numbers = tuple(float(each) for each in levels.split())
        two_sided = neutral is not None and ends[0] < neutral < ends[1]
        severe = 0 if two_sided else 1 if neutral is not None else -1
        return Corruption(
            name=name, title=title, unit=unit, levels=numbers, low=ends[0], high=ends[1], neutral=neutral,
            severe=severe, in_octaves=unit == "kbit/s",
            is_counted=unit == "in a row", change=change,
        )  # fmt: skip

    noise = "30 25 20 15 10 5 0 -5"
    found = (
        # Levels of noise and signal are those of `mixing.active_rms`: pauses do not count.
        one("white-noise", "White noise", "dB SNR", noise, (-40, 80), None, _noise(0.0)),
        one("pink-noise", "Pink noise", "dB SNR", noise, (-40, 80), None, _noise(1.0)),
        one("opus", "Opus", "kbit/s", "64 32 24 16 12 8 6", codecs.OPUS_KBPS, None, _opus),
        one("mp3", "MP3", "kbit/s", "64 48 32 24 16", (16, 160), None, _mp3),
        one("telephone", "Telephone lines (8 kHz, G.711 µ-law)", "in a row", "1 2 4", (0, 8), 0, _telephone),
        one("reverb", "Reverberation", "s RT60", "0.2 0.4 0.6 0.8 1.0 1.2", (0, 10), 0, _reverb),
        one("gain", "Gain, nothing clipped", "dB", "-40 -30 -20 -10 10 20", (-80, 40), 0, _gain),
        one("overdrive", "Gain, clipped at full scale", "dB", "6 12 20 30 40", (0, 80), 0, _overdrive),
        one("speed", "Speed", "times", "0.8 0.9 0.95 1.05 1.1 1.25", (0.5, 2), 1, _speed),
        one("clipping", "Clipping", "% of samples", "1 5 10 20 35 50", (0, 90), 0, _clipping),
        one("dropouts", "Dropouts of 100 ms", "% of time", "5 10 20 30 50 70", (0, 100), 0, _dropouts),
        one("padding", "Silence before and after", "s", "0.5 1 2 4 8", (0, 60), 0, _padding),
    )
    return {each.name: each for each in found}


CORRUPTIONS: Mapping[str, Corruption] = _corruptions()
