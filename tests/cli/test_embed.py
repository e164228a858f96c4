import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import auricle as package

from .conftest import MODEL, Outcome, auricle


def embed(*arguments: object) -> Outcome:
    return auricle("embed", *arguments, "--model", MODEL)


@pytest.fixture
def expected(folder: Path) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
    files = [str(folder / "a.wav"), str(folder / "b.flac"), str(folder / "deep" / "c.WAV")]
    encoder = package.load_encoder(MODEL)
    frames, lengths = encoder.encode(files)
    flat = torch.cat([clip[:length] for clip, length in zip(frames, lengths, strict=True)])
    return files, encoder.embed(files), flat, lengths


def close(ours: object, wanted: torch.Tensor) -> bool:
    return np.allclose(np.asarray(ours, dtype=np.float32), wanted.numpy(), atol=5e-5)


def test_safetensors(folder: Path, expected: tuple) -> None:
    files, pooled, flat, lengths = expected
    out = folder / "out.safetensors"
    assert embed(folder, "-o", out) == Outcome(0, "", f"auricle: {folder}: left out as no audio: 1 .txt\n")
    with safe_open(out, framework="pt") as file:
        facts = file.metadata()
        assert json.loads(facts["files"]) == files and facts["model"] == MODEL
        assert json.loads(facts["hop_size_in_ms"]) == 40
        assert close(file.get_tensor("embeddings"), pooled)
    assert embed(folder, "-o", out, "--frames").code == 0
    with safe_open(out, framework="pt") as file:
        assert close(file.get_tensor("frames"), flat) and torch.equal(file.get_tensor("lengths"), lengths)


def test_npz(folder: Path, expected: tuple) -> None:
    files, pooled, flat, lengths = expected
    out = folder / "out.npz"
    assert embed(folder, "-o", out).code == embed(folder, "-o", folder / "frames.npz", "--frames").code == 0
    with np.load(out, allow_pickle=False) as file:
        assert file["files"].tolist() == files and close(file["embeddings"], pooled)
    with np.load(folder / "frames.npz", allow_pickle=False) as file:
        assert close(file["frames"], flat) and file["lengths"].tolist() == lengths.tolist()


def test_parquet(folder: Path, expected: tuple) -> None:
    import pyarrow.parquet

    files, pooled, flat, lengths = expected
    out = folder / "out.parquet"
    assert embed(folder, "-o", out).code == embed(folder, "-o", folder / "frames.parquet", "--frames").code == 0
    table = pyarrow.parquet.read_table(out)
    assert table["file"].to_pylist() == files and close(table["embedding"].to_pylist(), pooled)
    rows = pyarrow.parquet.read_table(folder / "frames.parquet")["frames"].to_pylist()
    assert [len(row) for row in rows] == lengths.tolist()
    assert close([vector for row in rows for vector in row], flat)


def test_json_holds_the_vectors(folder: Path, expected: tuple) -> None:
    done = embed(folder, "--json")
    assert done.code == 0 and close([record["embedding"] for record in done.records], expected[1])
    assert all(record["receipt"]["complete"] and record["error"] is None for record in done.records)
    with_file = embed(folder, "--json", "-o", folder / "x.npz")
    assert all("embedding" not in record for record in with_file.records)


def test_failed_files_are_left_out(folder: Path, cut: Path) -> None:
    out = folder / "out.npz"
    done = embed(folder / "a.wav", folder / "notes.txt", "-o", out)
    assert done.code == 1 and "notes.txt" in done.err
    with np.load(out) as file:
        assert file["files"].tolist() == [str(folder / "a.wav")]
    assert embed(cut, "-o", out).code == 3
    out.unlink()
    assert embed(folder / "notes.txt", "-o", out).code == 1 and not out.exists()


def test_what_cannot_be_written_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([], ["--frames", "--json"], ["-o", "x.csv"]):
        done = embed(folder, *arguments)
        assert done.code == 2 and "--output" in done.err
    nowhere = embed(folder, "-o", folder / "no" / "such" / "x.npz")
    assert nowhere.code == 1 and "cannot be written" in nowhere.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    missing = embed(folder, "-o", "x.parquet")
    assert missing.code == 1 and "auricle[parquet]" in missing.err
