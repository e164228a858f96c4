"""The files that the pages of the documentation work on, at toy size: what a reader is assumed to have."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
CLIPS = {
    "alarm": {"kind": "sound", "event": "clock_tick", "caption": "an alarm rings"},
    "piano": {"kind": "music", "instruments": ["piano"], "tempo": "slow", "caption": "a piano plays slowly"},
    "two_voices": {"kind": "speech", "language": "en", "caption": "a man speaks, then a woman"},
    "voice": {"kind": "speech", "text": "seven two four", "language": "en", "gender": "m", "caption": "a man speaks"},
    "voice_over_piano": {"kind": "speech", "gender": "m", "caption": "a man speaks over a piano"},
}
EVENTS = ("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog")


def make(folder: Path) -> None:
    """Fill an empty folder."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "examples", folder / "recordings", ignore=shutil.ignore_patterns("*.md", "*.py", "output"))
    (folder / "recordings" / "broken.wav").write_bytes(b"RIFF and nothing else")
    shutil.copy(ROOT / "examples" / "two_voices.ogg", folder / "street.ogg")
    shutil.copy(ROOT / "tests" / "fixtures" / "dasheng" / "weights.pt", folder / "dasheng_base.pt")
    denoiser(folder / "dasheng-denoiser_checkpoint.pt")
    clips = [{"audio": f"examples/{name}.ogg", **facts} for name, facts in CLIPS.items()]
    write_rows(folder / "my_clips.jsonl", clips)
    write_rows(folder / "questions.jsonl", questions())
    esc10(folder / "data" / "esc10")
    heldout(folder / "heldout")
    pairs(folder / "pairs")


def denoiser(path: Path) -> None:
    """The parity network in the layout of the official checkpoint."""
    fixture = ROOT / "tests" / "fixtures" / "denoiser"
    config = json.loads((fixture / "config.json").read_text())
    torch.save({"config": config, "state_dict": load_file(fixture / "model.safetensors")}, path)


def new(path: Path) -> Path:
    """A path whose folder is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    new(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tone(path: Path, hertz: float, seconds: float, seed: int) -> None:
    noise = 0.02 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))
    soundfile.write(new(path), 0.1 * np.sin(2 * np.pi * hertz * np.arange(len(noise)) / 16_000) + noise, 16_000)


def questions() -> list[dict[str, Any]]:
    prompt = "Which drawer does it belong to?"
    answers = {"alarm": "signals", "piano": "instruments", "voice": "voices", "two_voices": "voices"}
    return [{"audio": f"examples/{name}.ogg", "prompt": prompt, "answer": answer} for name, answer in answers.items()]


def esc10(folder: Path) -> None:
    """Five classes of ESC-10 as tones of five pitches, in four folds."""
    rows = []
    for number in range(80):
        event, fold = EVENTS[number % 5], number // 5 % 4 + 1
        tone(folder / f"{number}.wav", 300 + 700 * (number % 5), 0.2, number)
        rows.append({"id": str(number), "audio": f"{number}.wav", "category": event, "fold": fold})
    write_rows(folder / "manifest.jsonl", rows)


def heldout(folder: Path) -> None:
    """Pieces of the example clips, with the facts that the tasks of the suite `tiny` ask for."""
    pieces: list[tuple[str, float, float, dict[str, Any]]] = [
        ("voice", 0.0, 0.65, {"kind": "speech", "set": "fsdd", "text": "seven", "gender": "m"}),
        ("voice", 0.85, 1.3, {"kind": "speech", "set": "fsdd", "text": "two", "gender": "m"}),
        ("voice", 1.45, 2.05, {"kind": "speech", "set": "fsdd", "text": "four", "gender": "m"}),
        ("two_voices", 2.8, 5.0, {"kind": "speech", "gender": "f"}),
        *(("alarm", 0.2 * at, 0.2 * at + 0.8, {"kind": "sound", "event": "clock_tick"}) for at in range(8)),
    ]
    rows = []
    for number, (name, start_s, stop_s, facts) in enumerate(pieces):
        waveform, rate = soundfile.read(ROOT / "examples" / f"{name}.ogg")
        file = new(folder / f"{number}.flac")
        soundfile.write(file, waveform[int(start_s * rate) : int(stop_s * rate)], rate)
        rows.append({"audio": file.name, "language": "en", "speaker": name, **facts})
    write_rows(folder / "manifest.jsonl", rows)


def pairs(folder: Path) -> None:
    """Clips with captions, every sixth of them of another clip, for `auricle filter`."""
    rows, names = [], list(CLIPS)
    for number in range(80):
        name = names[number % 5]
        waveform, rate = soundfile.read(ROOT / "examples" / f"{name}.ogg")
        start = 1600 * (number // 5 % 8)
        soundfile.write(new(folder / f"{number}.flac"), waveform[start : start + 8_000 + 160 * number], rate)
        said = names[(number + 1) % 5] if number % 6 == 0 else name
        rows.append({"audio": f"{number}.flac", "domain": "sound", "language": "en", "caption": CLIPS[said]["caption"]})
    write_rows(folder / "manifest.jsonl", rows)
