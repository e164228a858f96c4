import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import auricle as package
from auricle.data.shards import ShardSet, ShardWriter

from .conftest import FOLDER, MODEL, auricle

ENCODER = FOLDER.parent / "dasheng" / "weights.pt"


def write_clips(folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    facts = [
        *({"kind": "sound", "event": event, "set": "esc50"} for event in ("dog", "rain", "dog")),
        *({"kind": "speech", "text": digit, "set": "fsdd", "speaker": "theo"} for digit in ("one", "two", "one")),
        {"kind": "speech", "text": "good morning all", "gender": "f", "speaker": "7"},
        *({"kind": "music", "instruments": ["piano"]} for _ in range(3)),
    ]
    with ShardWriter(folder, "clips") as writer:
        for number, meta in enumerate(facts):
            writer.write(f"clip{number}", 0.1 * rng.uniform(-1, 1, 6400), meta)
    return folder


def test_heldout_prints_a_table_and_says_what_it_measured(tmp_path: Path) -> None:
    test, train = write_clips(tmp_path / "test", 0), write_clips(tmp_path / "train", 1)
    file = tmp_path / "table.json"
    command = ["heldout", test, "--model", MODEL, "--encoder", ENCODER, "--train", train, "-o", file]
    done = auricle(*command, "--json", "--seed", 3, "--limit", 2)
    (report,) = done.records
    assert done.code == 0 and json.loads(file.read_text()) == report
    assert report["test"] == {"clips": 10, "manifest": ShardSet(test).manifest_hash}
    assert report["train"]["manifest"] == ShardSet(train).manifest_hash != report["test"]["manifest"]
    assert (report["seed"], report["limit"], report["version"]) == (3, 2, package.__version__)
    assert report["model"]["sha256"] == hashlib.sha256((Path(MODEL) / "model.safetensors").read_bytes()).hexdigest()
    assert report["encoder"] == {"name": str(ENCODER), "fingerprint": package.load_encoder(str(ENCODER)).fingerprint}
    assert report["rows"]["event named in the caption"]["n"] == 2 and report["rows"]["word error rate"]["n"] == 1
    for row in report["rows"].values():
        assert row["low"] <= row["value"] <= row["high"]
    assert {"events, kNN, encoder", "digits, linear, mean log-mel"} <= report["rows"].keys()
    assert "2 clips in " in done.err


def test_rows_without_clips_are_shown_as_such(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "test", "few") as writer:
        for kind, more in (("speech", {"text": "one"}), ("sound", {"event": "dog"}), ("music", {})):
            writer.write(kind, np.full(6400, 0.1), {"kind": kind, **more})
    shown = auricle("heldout", tmp_path / "test", "--model", MODEL)
    lines = {line[:26].strip(): line for line in shown.out.splitlines()}
    assert shown.code == 0 and lines["word error rate"].split()[3:] == ["no", "such", "clips", "0"]
    assert "%" in lines["event named in the caption"] and not any("kNN" in name for name in lines)
    report = auricle("heldout", tmp_path / "test", "--model", MODEL, "--json").records[0]
    assert report["rows"]["word error rate"] == {"value": None, "low": None, "high": None, "n": 0}
    assert report["encoder"] is None and report["train"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere does not exist"),
        (["nowhere", "--limit", "0"], 2, "--limit"),
        ([], 2, "TEST_SHARDS"),
    ],
)
def test_heldout_refuses(arguments: list[str], code: int, message: str) -> None:
    done = auricle("heldout", *arguments)
    assert done.code == code and message in done.err


def test_a_table_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    test = write_clips(tmp_path / "test", 0)
    done = auricle("heldout", test, "--model", MODEL, "--limit", 1, "-o", tmp_path / "no" / "table.json")
    assert done.code == 1 and "cannot be written" in done.err
