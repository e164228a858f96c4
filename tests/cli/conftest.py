"""The tiny model on disk, its sounds, and a way to run a verb."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from auricle.cli.main import app

from ..evaluate.toy_model import TONES, ToyModel, tone_bytes

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "midashenglm"
MODEL = str(FOLDER / "model")


@dataclass
class Outcome:
    """What a verb printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def auricle(*arguments: object, stdin: bytes | None = None) -> Outcome:
    """Run a verb in this process; what is no exit is raised."""
    return _outcome(app, arguments, stdin)


def invoke(verb: Callable[..., None], *arguments: object) -> Outcome:
    """Run one verb in this process; errors are raised."""
    app = typer.Typer()
    app.command()(verb)
    return _outcome(app, arguments)


def _outcome(app: typer.Typer, arguments: Sequence[object], stdin: bytes | None = None) -> Outcome:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def with_tiny(verb: str, *arguments: object, stdin: bytes | None = None) -> Outcome:
    """Run a verb of a language model on the tiny one."""
    return auricle(verb, *arguments, "--model", MODEL, "--max-new-tokens", 4, stdin=stdin)


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = 0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))
    soundfile.write(path, waveform, 16_000)
    return path


def manifest(folder: Path) -> Path:
    rows = [{"audio": "a.wav", "text": "one"}, {"audio": "b.flac", "text": "two"}]
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sounds and a text on the top, one sound below."""
    write_noise(tmp_path / "a.wav", 0.5, 1)
    write_noise(tmp_path / "b.flac", 0.7, 2)
    write_noise(tmp_path / "deep" / "c.WAV", 0.6, 3)
    (tmp_path / "notes.txt").write_text("no sound")
    return tmp_path


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A sound of 1 s of which 0.6 s are left."""
    whole = write_noise(tmp_path / "whole.wav", 1.0).read_bytes()
    path = tmp_path / "cut.wav"
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    return path


@pytest.fixture
def toy_model(monkeypatch: pytest.MonkeyPatch) -> ToyModel:
    found = ToyModel(not_understood=("Name the tone.",))
    monkeypatch.setattr("auricle.load", lambda name, **settings: found)
    return found


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    rows = []
    for number in range(6):
        label = list(TONES)[number % 3]
        (tmp_path / f"{number}.wav").write_bytes(tone_bytes(label, number))
        rows.append({"audio": f"{number}.wav", "label": label, "question": "Which?", "choices": list(TONES)})
        rows[-1]["answer"] = "ABC"[number % 3]
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
