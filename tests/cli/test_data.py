from pathlib import Path

import pytest

from .conftest import auricle, manifest, write_noise


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


def test_data_pack_picks_by_fact(folder: Path) -> None:
    done = auricle("data", "pack", manifest(folder), folder / "picked", "--only", "text=two,three")
    assert done.code == 0 and done.out.startswith("1 clips")
    none = auricle("data", "pack", manifest(folder), folder / "none", "--only", "text=four")
    assert none.code == 1 and "has text four" in none.err and not list((folder / "none").glob("*.tar"))


def test_packing_and_indexing_report_as_json(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 0.5)
    (tmp_path / "list.jsonl").write_text('{"audio": "a.wav", "kind": "sound", "event": "x"}\n{"audio": "b.wav"}\n')
    done = auricle("data", "pack", tmp_path / "list.jsonl", tmp_path / "out", "--json")
    (packed,) = done.records
    assert done.code == 1 and packed["written"] == 1 and list(packed["failed"]) == ["b"] and packed["manifest_hash"]
    (indexed,) = auricle("data", "index", *(tmp_path / "out").glob("*.tar"), "--json").records
    assert indexed["clips"] == 1 and indexed["audio_s"] == 0.5 and indexed["left_out"] is None
