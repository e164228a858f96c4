import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import auricle as package
from auricle.data.shards import ShardSet, ShardWriter

from ..curate.tones import Tones, tone, write_pairs
from .conftest import auricle


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A model of tones in the place of any other; notes what was requested."""
    requests: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> Tones:
        requests.append((name, options))
        return Tones()

    monkeypatch.setattr(package, "load_aligner", load, raising=False)
    return requests


def test_filter_sorts_and_undo_restores(tmp_path: Path, model: list[tuple[str, dict[str, Any]]]) -> None:
    shards, out = write_pairs(tmp_path / "in", 200), tmp_path / "out"
    done = auricle("filter", tmp_path / "in", "-o", out, "--model", "some", "--p", "0.02", "--device", "cpu")
    assert done.code == 0 and model == [("some", {"device": "cpu", "dtype": "float32"})]
    assert all(word in done.out for word in ("keep", "review", "drop", "report.html", "pass p = 0.02"))
    contents = {index.tar: index.tar.read_bytes() for index in shards.shards}
    assert "exists, byte for byte" in auricle("filter", "--undo", out).out
    for tar in contents:
        tar.unlink()
    restored = auricle("filter", "--undo", out, "--json")
    assert restored.records == [{"file": str(tar), "restored": True} for tar in contents]
    assert {tar: tar.read_bytes() for tar in contents} == contents
    elsewhere = auricle("filter", "--undo", out, "-o", tmp_path / "there")
    assert elsewhere.code == 0 and ShardSet(tmp_path / "there").manifest_hash == shards.manifest_hash


def test_json_is_the_summary(tmp_path: Path, model: list[tuple[str, dict[str, Any]]]) -> None:
    write_pairs(tmp_path / "in", 120)
    tars = sorted((tmp_path / "in").glob("*.tar"))
    done = auricle("filter", *tars, "-o", tmp_path / "out", "--json", "--top", 2, "--seed", 5, "--keep-duplicates")
    (record,) = done.records
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.code == 0 and model[0][0] == "auricle-tiny-glap"
    assert record == {**summary, "output": str(tmp_path / "out"), "encoded": record["encoded"]}
    assert record["encoded"]["sounds"] == 120
    assert (summary["settings"]["top"], summary["settings"]["seed"]) == (2, 5)
    assert summary["settings"]["keep_duplicates"] is True


def test_clips_that_fail_are_reported(tmp_path: Path, model: list[tuple[str, dict[str, Any]]]) -> None:
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "in", "set") as writer:
        for i in range(60):
            hertz = int(rng.integers(30, 600)) * 10
            writer.write(f"k{i}", tone(hertz, seed=i), {"text": f"{hertz} Hz"})
        for i in range(7):
            writer.write(f"short{i}", tone(500, samples=300 + i), {"text": "500 Hz"})
    done = auricle("filter", tmp_path / "in", "-o", tmp_path / "out", "--caption", "text", "--json")
    assert done.code == 1 and done.records[0]["signs"]["not heard"] == 7
    assert "auricle: short0: too short" in done.err and "2 more clips" in done.err and "short6" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "SHARDS"),
        (["in"], 2, "--output"),
        (["in", "-o", "out", "--p", "0.5"], 2, "expected 0.0001 <= p <= drop_p"),
        (["nowhere", "-o", "out"], 1, "nowhere does not exist"),
        (["in", "--undo", "out"], 2, "takes no shards"),
        (["--undo", "nowhere"], 1, "no folder that the filter wrote"),
    ],
)
def test_filter_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: list[tuple[str, dict[str, Any]]],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = auricle("filter", *arguments)
    assert done.code == code and message in " ".join(done.err.split()) and not model
