"""A handful of synthetic clips of all kinds, a tokenizer trained on them, and runs that take a second."""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auricle.data.shards import ShardWriter
from auricle.train.config import RunConfig, load_config
from auricle.train.loop import run

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
MAE = {"embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
CAPTION = {
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "dropout": 0.1,
}

Configure = Callable[..., RunConfig]


def facts_of(number: int) -> dict[str, Any]:
    digit, speaker = ("one", "two")[number % 2], ("ann", "bob")[number // 3 % 2]
    return (
        {"kind": "speech", "text": digit, "language": "en", "speaker": speaker, "gender": "fm"[number % 2]},
        {"kind": "sound", "event": ("dog", "rain")[number % 2], "set": "esc50", "fold": 1},
        {"kind": "music", "instruments": ["piano"], "tempo": "slow", "mode": "major"},
    )[number % 3]


def tone(hz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    time_s = np.arange(int(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hz * time_s) + 0.02 * rng.standard_normal(len(time_s))).astype(np.float32)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    with ShardWriter(folder, "toy") as writer:
        for number in range(18):
            writer.write(f"clip{number}", tone(200 + 150 * number, rng.uniform(0.5, 1.5), rng), facts_of(number))
    return folder


@pytest.fixture(scope="session")
def tokenizer(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the recipe makes it."""
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tokenizer.py", str(shards), str(out), "--vocab", "300", "--examples", "100"])
        runpy.run_path(str(RECIPE / "tokenizer.py"), run_name="__main__")
    return out


@pytest.fixture
def configure(shards: Path, tokenizer: Path, tmp_path: Path) -> Configure:
    """A toy configuration, also written to ``OUT.yaml``."""
    from omegaconf import OmegaConf

    def make(objective: str, out: str = "run", **changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "objective": objective,
            "out": str(tmp_path / out),
            "data": [str(shards)],
            "seed": 3,
            "steps": 6,
            "batch_size": 4,
            "lr": 3e-3,
            "warmup": 2,
            "precision": "fp32",
            "threads": 1,
            "log_every": 1,
            "mae": {**MAE, "crop_s": 0.8},
            "caption": {**CAPTION, "tokenizer": str(tokenizer)},
            "scenes": {"max_s": 2.0},
        }
        for key, value in changes.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        path = tmp_path / f"{out}.yaml"
        OmegaConf.save(OmegaConf.create(values), path)
        return load_config(path)

    return make


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Runs set the number of threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def log_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def curve(config: RunConfig) -> list[tuple[int, float, float]]:
    """What must be the same however a run was interrupted."""
    return [(record["step"], record["loss"], record["grad_norm"]) for record in log_of(config)]


def losses_of(config: RunConfig) -> list[float]:
    run(config)
    return [record["loss"] for record in log_of(config)]
