import json
from pathlib import Path

import pytest

from auricle.weights.catalog import entries

from .conftest import MODEL, Outcome, auricle, with_tiny, write_noise


def test_models_lists_the_catalogue() -> None:
    names = [entry.name for entry in entries()]
    shown = auricle("models")
    listed = [line.split()[0] for line in shown.out.splitlines()]
    assert shown.code == 0 and [name for name in listed if name != "note:"] == names
    assert listed.count("note:") == sum(bool(entry.caution) for entry in entries())
    records = auricle("models", "--json").records
    assert [record["name"] for record in records] == names and all("license" in record for record in records)


def test_convert_keeps_what_the_model_says(folder: Path) -> None:
    target = folder / "converted"
    assert auricle("convert", MODEL, target).code == 0
    sound = folder / "a.wav"
    assert auricle("describe", sound, "--model", target, "--max-new-tokens", 4).out == with_tiny("describe", sound).out
    again = auricle("convert", MODEL, target)
    assert again.code == 1 and "not an empty folder" in again.err
    assert auricle("convert", "no-such-model", folder / "x").code == 2


def manifest(folder: Path) -> Path:
    rows = [{"audio": "a.wav", "text": "one"}, {"audio": "b.flac", "text": "two"}]
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_data_pack_index_info(folder: Path) -> None:
    packed = auricle("data", "pack", manifest(folder), folder / "mine")
    assert packed.code == 0 and packed.out.startswith("2 clips")
    tar = folder / "mine" / "mine-000000.tar"
    assert tar.is_file()
    info = auricle("data", "info", folder / "mine", "--json").records[0]
    assert info["clips"] == 2 and info["longest_s"] == 0.7 and info["manifest"] in packed.out
    assert "clips" in auricle("data", "info", tar).out
    indexed = auricle("data", "index", tar)
    assert indexed.code == 0 and "2 clips" in indexed.out
    assert auricle("data", "info", folder / "mine", "--json").records[0] == info


def test_data_pack_names_what_it_leaves_out(folder: Path) -> None:
    path = manifest(folder)
    path.write_text(path.read_text() + '{"audio": "notes.txt"}\n')
    done = auricle("data", "pack", path, folder / "shards", "--name", "other")
    assert done.code == 1 and "notes" in done.err and done.out.startswith("2 clips")
    assert (folder / "shards" / "other-000000.tar").is_file()


def test_data_pack_reads_published_layouts(tmp_path: Path) -> None:
    for speaker in ("jackson", "theo"):
        write_noise(tmp_path / "recordings" / f"3_{speaker}_0.wav", 0.3)
    done = auricle("data", "pack", tmp_path, tmp_path / "digits", "--layout", "fsdd", "--only", "theo")
    assert done.code == 0 and done.out.startswith("1 clips")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--layout", "esc51"],
        ["--layout", "esc50", "--only", "one"],
        ["--layout", "speechocean762"],
        ["--only", "1"],
    ],
)
def test_data_pack_refuses_what_it_does_not_know(folder: Path, arguments: list[str]) -> None:
    done = auricle("data", "pack", folder, folder / "x", *arguments)
    assert done.code == 2 and not (folder / "x").exists()


def train(folder: Path, *arguments: str) -> Outcome:
    config = folder / "run.yaml"
    config.write_text(
        f"objective: mae\ndata: ['{folder / 'mine'}']\nsteps: 2\nbatch_size: 2\nlog_every: 1\nprecision: fp32\n"
        "mae: {embed_dim: 32, depth: 1, num_heads: 2, decoder_dim: 16, decoder_depth: 1, decoder_heads: 2, "
        "crop_s: 0.4}\n"
    )
    return auricle("train", config, "--out", str(folder / "run"), *arguments)


def test_train_runs_and_goes_on(folder: Path) -> None:
    auricle("data", "pack", manifest(folder), folder / "mine")
    first = train(folder)
    lines = first.out.splitlines()
    assert first.code == 0 and [line.split("  ")[0] for line in lines[:2]] == ["step 1/2", "step 2/2"]
    exported = Path(lines[-1])
    assert exported.is_relative_to(folder / "run")
    more = train(folder, "steps=3", "--json")
    assert more.code == 0 and [record["step"] for record in more.records] == [3]
    assert auricle("embed", folder / "a.wav", "--model", exported, "--json").code == 0


def test_train_refuses_wrong_settings(folder: Path) -> None:
    for change in ("steps", "no_such_key=1", "steps=0"):
        done = train(folder, change)
        assert done.code == 2 and "Traceback" not in done.err
    assert auricle("train", folder / "missing.yaml").code == 2


def test_data_pack_picks_by_fact(folder: Path) -> None:
    done = auricle("data", "pack", manifest(folder), folder / "picked", "--only", "text=two,three")
    assert done.code == 0 and done.out.startswith("1 clips")
    none = auricle("data", "pack", manifest(folder), folder / "none", "--only", "text=four")
    assert none.code == 1 and "has text four" in none.err and not list((folder / "none").glob("*.tar"))
