"""The recipe of auricle-tiny-denoiser at toy size, from packed clips to the package."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from auricle.data.manifest import read_manifest
from auricle.data.shards import ShardWriter
from auricle.errors import MissingExtra, WeightsError
from auricle.weights import load_dasheng, read_card
from auricle.weights.vocoders.denoiser import load_denoiser

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tiny"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two sets of clips that run.sh would have packed."""
    for part in ("train", "test"):
        with ShardWriter(tmp_path / "work" / "shards" / part, "toy") as writer:
            for number in range(6):
                rng = np.random.default_rng((len(part), number))
                fact: dict[str, Any] = {"kind": "sound", "event": "rain", "set": "esc50"}
                if number % 2:
                    fact = {"kind": "speech", "text": "one two", "speaker": f"{part}{number}", "set": "speechocean762"}
                time = np.arange(16_000) / 16_000
                wave = 0.1 * np.sin(2 * np.pi * (150 + 40 * number) * time) * (1 + np.sin(8 * time))
                writer.write(f"{part}{number}", (wave + 0.01 * rng.standard_normal(16_000)).astype(np.float32), fact)
    return tmp_path / "work"


def make_pairs(work: Path, python: str, out: str) -> Path:
    command = [python, str(RECIPE / "noisy_pairs.py"), str(work / "shards" / "test"), str(work / out), "--count", "4"]
    subprocess.run(command, check=True, timeout=300)
    return work / out


def test_held_out_pairs_are_aligned_and_the_same_again(shards: Path, warm_python: str) -> None:
    first, second = make_pairs(shards, warm_python, "noisy"), make_pairs(shards, warm_python, "again")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 9 and all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    for entry in read_manifest(first / "manifest.jsonl"):
        noisy, clean = soundfile.read(entry.audio)[0], soundfile.read(first / entry.meta["clean"])[0]
        assert noisy.shape == clean.shape and -5 <= entry.meta["snr_db"] <= 15 and entry.meta["backgrounds"]
        assert entry.meta["speaker"].startswith("speechocean762/test")


def published(work: Path, warm_python: str, steps: int) -> Path:
    """The steps of denoiser.sh behind the shards."""
    env = {
        **os.environ,
        "PYTHON": warm_python,
        "STEPS": str(steps),
        "BATCH_SIZE": "2",
        "PAIRS": "4",
        "METRICS": "si_sdr",
    }
    script = (RECIPE / "denoiser.sh").read_text().replace('SHARDS_ONLY=1 "$recipe/run.sh" "$data" "$work"', ":")
    script = script.replace('recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)', f"recipe={RECIPE}")
    done = subprocess.run(
        ["bash", "-c", script, "denoiser.sh", "-", str(work)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "spectral gating" in done.stdout or "left out" in done.stderr
    return work / "embedded" / "auricle-tiny-denoiser"


@pytest.mark.slow
def test_the_recipe_runs_from_shards_to_the_package(shards: Path, warm_python: str) -> None:
    folder = published(shards, warm_python, 2)
    table = json.loads((shards / "enhancement.json").read_text())
    assert table["pairs"] == 4 and table["systems"]["noisy"]["si_sdr"]["n"] == 4
    trained, shipped = load_denoiser(shards / "denoiser" / "model").model, load_denoiser(folder).model
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    encoder = load_dasheng("auricle-tiny-encoder").state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in shipped.encoder.state_dict().items())
    frames = torch.randn(1, 10, shipped.config.encoder.embed_dim)
    with torch.no_grad():
        torch.testing.assert_close(shipped.vocode(frames), trained.vocode(frames), atol=0.05, rtol=0.05)
    card = read_card(folder)
    assert card.limits and card.seed == 1 and {"stage_1", "stage_2"} <= card.config.keys()
    assert card.config["stage_2"]["curve"] and any(name.startswith("frames, denoised") for name in card.metrics)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "encoder_sha256": "0" * 64}))
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(WeightsError, match="another version of auricle-tiny-encoder"):
        load_denoiser(folder)


class Echo:
    """Transcribes any clip as the same words."""

    def transcribe(self, waveform: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(text="One, two three!" if waveform.any() else "")


@pytest.fixture
def enhancement() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    other = sys.modules.pop("pairs", None)  # the recipe has a file of that name too
    try:
        yield importlib.import_module("enhancement")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        sys.modules.pop("pairs", None)
        if other is not None:
            sys.modules["pairs"] = other


def test_the_table_has_means_differences_and_word_errors(enhancement: ModuleType) -> None:
    rng = np.random.default_rng(0)
    clean = 0.1 * rng.standard_normal(16_000).astype(np.float32)
    noisy = clean + np.float32(0.1) * rng.standard_normal(16_000).astype(np.float32)
    pairs = [enhancement.Pair(noisy * k, clean, f"s{k}", "one two") for k in (1, 2, 3)]
    metrics = enhancement.usable(["si_sdr"])
    rows = [enhancement.measure(pair, {"noisy": None}, metrics, Echo()) for pair in pairs]
    assert [row["noisy"]["word_errors"] for row in rows] == [1, 1, 1]
    rows = [{**row, "ours": {**row["noisy"], "si_sdr": row["noisy"]["si_sdr"] + k}} for k, row in enumerate(rows)]
    rows[0]["ours"]["si_sdr"] = float("nan")
    table = enhancement.scores(rows, [pair.speaker for pair in pairs])
    assert table["systems"]["noisy"]["wer"]["value"] == pytest.approx(0.5)
    assert table["systems"]["noisy"]["si_sdr"]["value"] == pytest.approx(0, abs=0.3)
    gained = table["minus_noisy"]["ours"]["si_sdr"]
    assert gained["value"] == pytest.approx(1.5) and gained["n"] == 2 and gained["low"] >= 1 and gained["high"] <= 2
    assert any("si_sdr" in line for line in enhancement.lines({**table, "pairs": 3, "speakers": 3}))


def test_a_metric_that_is_asked_for_needs_its_extra(
    enhancement: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(made: np.ndarray, clean: np.ndarray) -> dict[str, float]:
        raise MissingExtra("PESQ", "enhance")

    monkeypatch.setattr(enhancement, "METRICS", {"pesq": missing, "si_sdr": enhancement.METRICS["si_sdr"]})
    assert list(enhancement.usable(None)) == ["si_sdr"] and "auricle[enhance]" in capsys.readouterr().err
    with pytest.raises(MissingExtra, match=r"auricle\[enhance\]"):
        enhancement.usable(["pesq"])


def test_the_recipe_explains_itself_and_takes_the_shards_of_the_other() -> None:
    done = subprocess.run([str(RECIPE / "denoiser.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and "recipes/tiny/denoiser.sh DATA WORK" in done.stderr and "set -e" not in done.stderr
    before, stop, after = (RECIPE / "run.sh").read_text().partition("if [[ -n ${SHARDS_ONLY:-} ]]; then exit; fi")
    assert stop and "2/9 shards" in before and "3/9" in after and "auricle train" not in before
