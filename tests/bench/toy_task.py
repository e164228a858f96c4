"""A task of tones and noise, an encoder that separates them, and embeddings of random numbers."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch

from auricle.bench.embedded_task import EmbeddedTask
from auricle.bench.task import LabelRule, Source, Task


class Levels:
    """Frames of 40 ms: level, and level of the differences; separates tones from noise."""

    name = "levels"
    output_dim = 2
    hop_size_in_ms = 40.0
    fingerprint = "f" * 64
    num_parameters = 0

    def __init__(self) -> None:
        self.count = 0

    def embed_many(self, sources: Iterable[Any], *, frames: bool = False) -> Iterator[Any]:
        for waveform in sources:
            self.count += 1
            cut = torch.from_numpy(waveform[: len(waveform) // 640 * 640].copy()).view(-1, 640)
            yield SimpleNamespace(values=torch.stack([cut.std(1), cut.diff(dim=1).std(1)], 1))


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "suite": "auricle",
        "domain": "sound",
        "kind": "clip",
        "label": LabelRule(field="label"),
        "classes": ("noise", "tone"),
        "folds": ("a", "b"),
        "split_field": "fold",
        "metric": "accuracy",
        "epochs": 30,
        "learning_rate": 3e-2,
        "source": Source(),
    }
    return Task(**{**facts, **changes})


def waveform(label: str, seed: int, seconds: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(16_000 * seconds)) / 16_000
    clean = np.sin(2 * np.pi * rng.uniform(200, 400) * time) if label == "tone" else rng.standard_normal(len(time))
    return (0.1 * clean).astype(np.float32)


def write(folder: Path, rows: Iterable[tuple[str, dict[str, Any], np.ndarray]]) -> Path:
    folder.mkdir()
    lines = []
    for name, facts, samples in rows:
        soundfile.write(folder / f"{name}.wav", samples, 16_000)
        lines.append(json.dumps({"id": name, "audio": f"{name}.wav", **facts}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def embedded(labels: list[int], splits: list[str], **changes: Any) -> EmbeddedTask:
    count = len(labels)
    return EmbeddedTask(
        task=task(**changes),
        ids=[f"s{i}" for i in range(count)],
        splits=splits,
        labels=torch.tensor(labels),
        classes=("noise", "tone"),
        features=torch.randn(count, 4, generator=torch.Generator().manual_seed(0)),
        owners=torch.arange(count),
    )
