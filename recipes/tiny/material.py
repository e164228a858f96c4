"""Make the synthetic part of the tiny models' training material: voices, tunes and plain procedural sounds.

    python recipes/tiny/material.py OUT [--notes MANIFEST ...] [--scale 1.0] [--seed 0] [--jobs 2]

With manifests of recorded notes and strokes, as `wide.py` writes them, phrases and patterns are composed of these.
Writes 16 kHz FLAC files under OUT/{speech,music,sound} and OUT/manifest.jsonl, one JSON object a clip with its `id`,
`audio` (path relative to OUT), `seconds` and facts. The same seed gives the same files (with the same versions of
espeak-ng, fluidsynth and the soundfont). Needs the Debian packages espeak-ng, fluidsynth and fluid-soundfont-gm.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import phrases
import sentences
import soundfile
import sounds
import soxr
import tunes

SAMPLE_RATE = 16_000
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
COUNTS = {"digits": 1200, "english": 1600, "foreign": 2600, "music": 800, "sound": 600, "phrase": 1200, "beat": 150}

ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
VARIANTS = {  # voice variants of espeak-ng whose files state, or whose names give, the gender
    "m": tuple("m1 m2 m3 m4 m5 m6 m7 m8 Andy Lee Marco Denis antonio travis victor".split()),
    "f": tuple("f1 f2 f3 f4 f5 Alicia Andrea Annie anika belinda linda steph steph2".split()),
}


class MissingTool(SystemExit):
    """A program or file of the Debian packages is absent."""


def check_tools() -> None:
    """Stop with the names of the Debian packages when a program or the soundfont is missing."""
    absent = {
        "espeak-ng": shutil.which("espeak-ng") is None,
        "fluidsynth": shutil.which("fluidsynth") is None,
        "fluid-soundfont-gm": not SOUNDFONT.is_file(),
    }
    packages = " ".join(package for package, is_absent in absent.items() if is_absent)
    if packages:
        raise MissingTool(f"not installed: {packages}. On Debian or Ubuntu: apt install {packages}")


def speak(text: str, voice: str, *, speed: int = 160, pitch: int = 50) -> np.ndarray:
    """Render text by espeak-ng: float32 at 16 kHz. `speed` in words a minute, `pitch` 0-99."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", "--", text]
    wave = subprocess.run(command, capture_output=True, check=True).stdout
    rate = int.from_bytes(wave[24:28], "little")
    samples = np.frombuffer(wave[44 : len(wave) - len(wave) % 2], np.int16).astype(np.float32) / 32768
    return soxr.resample(samples, rate, SAMPLE_RATE)


def play(midi: bytes, duration_s: float) -> np.ndarray:
    """Render a MIDI file by fluidsynth: float32 at 16 kHz, cut to `duration_s` with a short fade."""
    with tempfile.TemporaryDirectory() as folder:
        score, rendered = Path(folder, "tune.mid"), Path(folder, "tune.wav")
        score.write_bytes(midi)
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-r",
            "44100",
            "-g",
            "0.6",
            "-F",
            str(rendered),
            str(SOUNDFONT),
            str(score),
        ]
        subprocess.run(command, capture_output=True, check=True)
        samples, rate = soundfile.read(rendered, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)[: int(duration_s * SAMPLE_RATE)]
    mono[-800:] *= np.linspace(1, 0, min(800, mono.size), dtype=np.float32)
    return mono


def trim(waveform: np.ndarray, rng: random.Random) -> np.ndarray:
    """Cut digital silence at both ends down to a random 0.02-0.25 s."""
    loud = np.flatnonzero(np.abs(waveform) > 0.003)
    if loud.size == 0:
        return waveform
    before, after = (int(rng.uniform(0.02, 0.25) * SAMPLE_RATE) for _ in range(2))
    return waveform[max(0, loud[0] - before) : loud[-1] + after]


def at_level(waveform: np.ndarray, rng: random.Random) -> np.ndarray:
    """Scale to a random peak between -16 and -1 dBFS."""
    return waveform * (10 ** (rng.uniform(-16, -1) / 20) / max(float(np.abs(waveform).max(initial=0.0)), 1e-6))


def make_speech(task: str, rng: random.Random) -> tuple[np.ndarray, dict[str, Any]]:
    """An utterance and its facts; the words of other languages than English are not given."""
    gender = rng.choice("mf")
    variant = rng.choice(VARIANTS[gender])
    text: str | None
    if task == "foreign":
        language = rng.choice(tuple(sentences.FOREIGN))
        text, spoken, accent = None, sentences.foreign(language, rng), language
    else:
        language, accent = "en", rng.choice(ACCENTS)
        text = spoken = sentences.digits(rng) if task == "digits" else sentences.sentence(rng)
    pitch = rng.randint(25, 60) if gender == "m" else rng.randint(42, 75)
    waveform = speak(spoken, f"{accent}+{variant}", speed=rng.randint(110, 200), pitch=pitch)
    speaker = f"{accent}+{variant}"
    return at_level(trim(waveform, rng), rng), {
        "kind": "speech", "text": text, "language": language, "gender": gender, "age": None, "speaker": speaker,
        "set": "espeak",
    }  # fmt: skip


def make_music(rng: random.Random) -> tuple[np.ndarray, dict[str, Any]]:
    """A tune and its facts."""
    midi, facts = tunes.compose(rng)
    waveform = play(midi, rng.uniform(3.0, 6.0))
    return at_level(waveform, rng), {"kind": "music", **facts, "set": "fluidsynth"}


def make_sound(rng: random.Random) -> tuple[np.ndarray, dict[str, Any]]:
    """A procedural sound and its facts."""
    waveform, event = sounds.synthesize(rng)
    return at_level(waveform, rng), {"kind": "sound", "event": event, "set": "procedural"}


def make_clip(job: tuple[str, int, int, str, tuple[Path, ...]]) -> dict[str, Any]:
    """Render and write one clip of (task, number, seed, folder, manifests of notes); the facts for the manifest."""
    task, number, seed, folder, notes = job
    rng = random.Random(f"{seed} {task} {number}")
    if task == "music":
        waveform, facts = make_music(rng)
    elif task == "sound":
        waveform, facts = make_sound(rng)
    elif task in ("phrase", "beat"):
        make, recorded = (phrases.phrase, phrases.beat)[task == "beat"], phrases.read_notes(notes)[task == "beat"]
        waveform, facts = make(rng, recorded)
        waveform, facts = at_level(waveform, rng), {"kind": "music", **facts, "set": "phrases"}
    else:
        waveform, facts = make_speech(task, rng)
    name = f"{task}-{number:05d}"
    audio = f"{facts['kind']}/{name}.flac"
    soundfile.write(Path(folder, audio), waveform.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")
    return {"id": name, "audio": audio, "seconds": round(waveform.size / SAMPLE_RATE, 3), **facts, "synthetic": True}


def make_material(
    folder: Path, *, notes: tuple[Path, ...] = (), scale: float = 1.0, seed: int = 0, jobs: int = 2
) -> list[dict[str, Any]]:
    """Render everything into `folder`, write its manifest and return the rows; phrases only with recorded notes."""
    check_tools()
    for kind in ("speech", "music", "sound"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    pitched, strokes = phrases.read_notes(notes)
    without = {task for task, recorded in (("phrase", pitched), ("beat", strokes)) if not recorded}
    work = [
        (task, number, seed, str(folder), notes)
        for task, count in COUNTS.items()
        if task not in without
        for number in range(max(1, round(count * scale)))
    ]
    with ProcessPoolExecutor(jobs) as pool:
        rows = list(pool.map(make_clip, work, chunksize=8))
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        manifest.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return rows


def main(arguments: list[str]) -> None:
    """Parse the command line, render, say what was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the clips and manifest.jsonl")
    parser.add_argument("--notes", type=Path, nargs="+", default=[], help="manifests of recorded notes and strokes")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args(arguments)
    rows = make_material(given.out, notes=tuple(given.notes), scale=given.scale, seed=given.seed, jobs=given.jobs)
    for kind in ("speech", "music", "sound"):
        seconds = [row["seconds"] for row in rows if row["kind"] == kind]
        print(f"{kind}: {len(seconds)} clips, {sum(seconds) / 60:.1f} minutes")


if __name__ == "__main__":
    main(sys.argv[1:])
