import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from auricle import load, load_encoder
from auricle.data.shards import ShardSet
from auricle.weights import load_midashenglm

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"
HAS_TOOLS = shutil.which("espeak-ng") and shutil.which("fluidsynth")
HAS_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2").is_file()


def write_noise(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).standard_normal(int(16_000 * seconds))
    soundfile.write(path, 0.1 * noise, 16_000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The three data sets in their layouts, a few noises each."""
    root = tmp_path / "data"
    rows = [(f"{fold}-{event}.wav", fold, event) for fold in (1, 2, 3, 4) for event in ("dog", "rain")]
    for name, _, _ in rows:
        write_noise(root / "esc10" / "audio" / name, 0.6)
    (root / "esc10" / "meta").mkdir()
    table = ["filename,fold,target,category,esc10", *(f"{name},{fold},0,{event},True" for name, fold, event in rows)]
    (root / "esc10" / "meta" / "esc50.csv").write_text("\n".join(table) + "\n")
    for speaker in ("george", "jackson", "lucas", "nicolas", "theo"):
        for digit in (1, 2):
            write_noise(root / "fsdd" / "recordings" / f"{digit}_{speaker}_0.wav", 0.4)
    for split in ("train", "test"):
        lines = []
        for number in range(2):
            audio = f"audio/{split}/{number}.wav"
            write_noise(root / "speechocean762" / audio, 0.8)
            facts = {"text": "MARK LIKES APPLES", "speaker": f"{split}{number}", "gender": "mf"[number], "age": 20}
            lines.append(json.dumps({"id": f"{split}{number}", "audio": audio, **facts}) + "\n")
        (root / "speechocean762" / f"{split}.jsonl").write_text("".join(lines))
    write_wide(root / "wide")
    return root


def write_wide(root: Path) -> None:
    """Two recordings of an event, two speakers of commands, notes of two instruments, strokes of a drum."""
    known = {"license": "CC0", "author": "nobody", "source": "noise"}
    sets: dict[str, list[dict[str, Any]]] = {
        "open_events": [{"kind": "sound", "event": "cat", "recording": f"r{number}"} for number in range(2)],
        "arabic_commands": [
            {"kind": "speech", "language": "ar", "keyword": "open", "text_en": "open", "speaker": f"s{number}"}
            for number in range(12)
        ],
        "philharmonia": [
            {"kind": "music", "instruments": [name], "note": note}
            for name in ("oboe", "flute")
            for note in ("C4", "D4", "E4", "G4", "A4", "C5")
        ],
        "philharmonia_plucked": [{"kind": "music", "instruments": ["banjo"], "note": f"C{n}"} for n in range(2, 6)],
        "drums_and_loops": [{"kind": "music", "instruments": ["tabla"]} for _ in range(8)],
    }
    for name, rows in sets.items():
        for number, row in enumerate(rows):
            row |= {"audio": f"audio/{number}.wav", **known}
            write_noise(root / name / row["audio"], 0.4)
        (root / name / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.skipif(
    not (HAS_TOOLS and HAS_FONT), reason="needs the Debian packages espeak-ng, fluidsynth and fluid-soundfont-gm"
)
def test_the_recipe_runs_from_recordings_to_the_package(data: Path, tmp_path: Path, warm_python: str) -> None:
    work = tmp_path / "work"
    small = {
        "PYTHON": warm_python,
        "MATERIAL_SCALE": "0.003",
        "VOCAB": "300",
        "STEPS": "2",
        "BATCH_SIZE": "2",
        "LIMIT": "2",
        "PAIRS": "40",
    }
    done = subprocess.run(
        [str(RECIPE / "run.sh"), str(data), str(work)], env={**os.environ, **small}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = {
        name: [ShardSet(work / "shards" / name).read_meta(i) for i in range(len(ShardSet(work / "shards" / name)))]
        for name in ("train", "test")
    }
    speakers = {name: {meta.get("speaker") for meta in metas} - {None} for name, metas in kinds.items()}
    assert not speakers["train"] & speakers["test"] and "theo" in speakers["test"]
    assert {meta.get("fold") for meta in kinds["train"]} == {None, 1, 2, 3}
    assert {meta.get("fold") for meta in kinds["test"]} == {None, 4}
    table = json.loads((work / "table.json").read_text())
    assert len(table["rows"]) >= 20 and all(row["n"] for row in table["rows"].values())
    assert "word error rate" in done.stdout
    shipped = str(work / "embedded" / "auricle-tiny")
    assert isinstance(load(shipped).ask(np.zeros(16_000), "Who speaks?", max_new_tokens=4).text, str)
    assert load_encoder(shipped).output_dim == 320
    assert {"cat", "dog"} <= {meta.get("event") for meta in kinds["train"]}
    assert any(meta.get("set") == "phrases" and meta["instruments"] for meta in kinds["train"])
    again = subprocess.run(
        [str(RECIPE / "run.sh"), str(data), str(work)],
        env={**os.environ, **small, "PYTHON": "false"},  # everything up to the training is there
        capture_output=True,
        text=True,
    )
    assert again.returncode == 1 and "4/9" in again.stderr and "5/9" not in again.stderr


def test_the_recipe_explains_itself() -> None:
    done = subprocess.run([str(RECIPE / "run.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and "recipes/tiny/run.sh DATA WORK" in done.stderr and "set -e" not in done.stderr


def test_a_model_keeps_what_its_new_tokenizer_shares(tmp_path: Path, warm_python: str) -> None:
    """Of a tokenizer with its tokens in another order and one more, which stands for two of them."""
    before = load_midashenglm("auricle-tiny", dtype="float32")
    content = json.loads(before.tokenizer.to_str())
    old = dict(content["model"]["vocab"])
    special = {each["content"] for each in content["added_tokens"]}
    plain = [token for token in sorted(old, key=old.__getitem__) if token not in special]
    ids = sorted(old[token] for token in plain)
    content["model"]["vocab"] = {
        **{token: number for token, number in old.items() if token in special},
        **dict(zip(reversed(plain), ids, strict=True)),
        "zz": len(old),
    }
    content["model"]["merges"].append(["z", "z"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    command = [warm_python, str(RECIPE / "retokenize.py"), str(tmp_path / "out"), "auricle-tiny"]
    subprocess.run([*command, str(tmp_path / "tokenizer.json")], check=True)
    after = load_midashenglm(tmp_path / "out", dtype="float32")
    was, now = (each.model.decoder.get_input_embeddings().weight for each in (before, after))
    for token, number in old.items():
        assert torch.equal(now[after.tokenizer.token_to_id(token)], was[number])
    assert torch.equal(now[len(old)], was[before.tokenizer.encode("zz", add_special_tokens=False).ids].mean(0))
    sound = np.random.default_rng(0).standard_normal(16_000) / 10
    assert load(str(tmp_path / "out")).describe(sound).caption == load("auricle-tiny").describe(sound).caption
