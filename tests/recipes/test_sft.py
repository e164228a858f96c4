import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.train.config import load_config
from auricle.train.loop import run
from auricle.train.sft_eval import heldout_probe

RECIPE = Path(__file__).parents[2] / "recipes" / "sft"
BASE = Path(__file__).parents[1] / "fixtures" / "midashenglm" / "model"
SPEAKERS = ("0014", "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")


def speaker(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["speaker.py", *map(str, arguments)])
        runpy.run_path(str(RECIPE / "speaker.py"), run_name="__main__")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """speechocean762 in its layout: noises of a dozen speakers of all ages, the first of whom is kept aside."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        (root / "audio" / part).mkdir(parents=True)
        listed = []
        for number, name in enumerate(SPEAKERS):
            audio = f"audio/{part}/{name}.wav"
            soundfile.write(root / audio, 0.1 * rng.standard_normal(6400), 16_000)
            facts = {
                "audio": audio,
                "speaker": part[1] + name,
                "gender": "mf"[number % 2],
                "age": (8, 17, 30)[number % 3],
            }
            listed.append(json.dumps({"id": part + name, **facts}) + "\n")
        (root / f"{part}.jsonl").write_text("".join(listed))
    return root


@pytest.mark.parametrize("name", ["lora", "speaker", "stage1", "stage2", "stage3"])
def test_the_recipes_are_valid(name: str) -> None:
    config = load_config(RECIPE / f"{name}.yaml")
    assert config.objective == "sft" and config.warmup < config.steps and not config.sft.train
    if name in ("stage2", "stage3"):
        assert sum(config.sft.shares.values()) == pytest.approx(100, abs=1)
    learns = {
        "stage1": ("full", "full", "full"),
        "stage2": ("full", "full", "lora"),
        "stage3": ("full", "full", "lora"),
    }
    assert (config.sft.encoder, config.sft.projector, config.sft.decoder) == learns.get(
        name, ("frozen", "full", "lora")
    )


def test_the_example_runs_from_recordings_to_scores(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    speaker("make", data, work)
    rows = {name: lines(work / f"{name}.jsonl") for name in ("train", "heldout", "test")}
    speakers = {name: {row["speaker"] for row in listed} for name, listed in rows.items()}
    assert not speakers["train"] & speakers["heldout"] and len(rows["train"]) + len(rows["heldout"]) == 8
    assert len(rows["test"]) == 8 and rows["train"] and rows["heldout"]
    known = {facts["speaker"]: facts for facts in lines(data / "test.jsonl")}
    for row in rows["test"]:
        facts = known[row["speaker"]]
        assert (
            row["answer"]
            == {(8, "m"): "A", (8, "f"): "B", (30, "m"): "C", (30, "f"): "D"}[facts["age"], facts["gender"]]
        )
    changes = [f"out={work / 'run'}", f"sft.train=[{work / 'train.jsonl'}]", f"sft.heldout=[{work / 'heldout.jsonl'}]"]
    toy = [f"sft.init={BASE}", "steps=2", "warmup=1", "batch_size=2", "log_every=1", "probe_every=1"]
    config = load_config(RECIPE / "speaker.yaml", [*changes, *toy])
    model = run(config, probe=heldout_probe(config))
    capsys.readouterr()
    speaker("score", work / "test.jsonl", BASE, model, "-o", work / "scores.json")
    scores = json.loads((work / "scores.json").read_text())
    assert json.loads(capsys.readouterr().out) == scores
    for row in scores["rows"]:
        for key in ("exact", "choice"):
            low, high = row[key]["wilson"]
            assert row[key]["n"] == 8 and low <= row[key]["accuracy"] <= high
    assert scores["rows"][0]["sha256"] != scores["rows"][1]["sha256"]
