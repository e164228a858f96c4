import errno
import os
from pathlib import Path
from typing import Any

import pytest

import auricle as package
from auricle.search.query import Index

from ..encode.toy_aligner import ToyAligner, write_tone
from .conftest import Outcome, auricle


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Toy models under the name toy and, with other weights, under any other; what was loaded is kept."""
    loads: list[tuple[str, dict[str, Any]]] = []

    def load_aligner(name: str, **settings: Any) -> ToyAligner:
        loads.append((name, settings))
        return ToyAligner("ab" * 32 if name == "toy" else "cd" * 32)

    monkeypatch.setattr(package, "load_aligner", load_aligner)
    return loads


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    folder = tmp_path / "tones"
    write_tone(folder / "low.wav", "low", 1.5, 1)
    write_tone(folder / "deep" / "high.wav", "high", 12.0, 2)
    write_tone(folder / "middle.flac", "middle", 2.0, 3)
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def index(tones: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sounds.auricle"
    assert make(tones, path).code == 0
    return path


def make(*arguments: object) -> Outcome:
    *files, path = arguments
    return auricle("index", *files, "-o", path, "--model", "toy")


def seek(*arguments: object) -> Outcome:
    return auricle("search", *arguments, "--model", "toy")


def test_index_reports_what_it_did(tones: Path, tmp_path: Path, loaded: list[Any]) -> None:
    path = tmp_path / "x.auricle"
    done = auricle("index", tones, "-o", path, "--model", "toy", "--device", "cpu", "--dtype", "float32")
    summary = f"{path}: 3 files, 4 segments (3 files encoded, 0 kept, 0 removed, 0 failed)\n"
    assert done == Outcome(0, summary, f"auricle: {tones}: left out as no audio: 1 .txt\n")
    assert loaded == [("toy", {"device": "cpu", "dtype": "float32"})]
    (tones / "low.wav").unlink()
    write_tone(tones / "new.wav", "low", 1.0)
    done = auricle("index", tones, "-o", path, "--model", "toy", "--json")
    (report,) = done.records
    assert done.code == 0 and report == {
        "index": str(path),
        "model": "toy",
        "files": 3,
        "segments": 4,
        "encoded": 1,
        "reused": 2,
        "removed": 1,
        "failed": {},
        "partial": {},
    }


def test_windows_reach_the_index(tones: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.auricle"
    assert auricle("index", tones, "-o", path, "--model", "toy", "--window", 4, "--hop", 2).code == 0
    index = Index.open(path)
    assert (index.settings.window_s, index.settings.hop_s, len(index)) == (4, 2, 7)
    done = make(tones, path)
    assert done.code == 2 and "windows of 4 s every 2 s" in done.err
    wrong = auricle("index", tones, "-o", tmp_path / "y.auricle", "--model", "toy", "--window", 4, "--hop", 5)
    assert wrong.code == 2 and not (tmp_path / "y.auricle").exists()


def test_bad_files_are_reported_and_the_rest_is_indexed(tones: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.auricle"
    (tones / "page.wav").write_text("<html>")
    (tones / "gone.wav").symlink_to(tmp_path / "none.wav")
    (tones / "notes.txt").unlink()
    done = make(tones, path)
    assert done.code == 1 and "4 segments" in done.out and "2 failed" in done.out
    assert [line for line in done.err.splitlines() if "page.wav" in line or "gone.wav" in line] == done.err.splitlines()
    assert Index.open(path).num_files == 3
    (tones / "gone.wav").unlink()
    (report,) = auricle("index", tones, "-o", path, "--model", "toy", "--json").records
    assert list(report["failed"]) == [str(tones / "page.wav")] and report["reused"] == 3


def test_a_mistyped_folder_leaves_the_index_alone(index: Path, tones: Path) -> None:
    before = index.read_bytes()
    for folder in (tones.with_name("tonse"), tones / "deap"):
        done = make(folder, index)
        assert done.code == 2 and f"there is no '{folder}'" in done.err
    assert index.read_bytes() == before


def test_what_cannot_be_opened_keeps_its_vectors(
    index: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = (tones / "low.wav").rename(tmp_path / "low.wav")
    (tones / "low.wav").symlink_to(tmp_path / "nowhere.wav")
    scan = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path) == str(tones / "deep"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        done = auricle("index", tones, "-o", index, "--model", "toy", "--json")
    (report,) = done.records
    assert done.code == 1 and (report["files"], report["reused"], report["removed"]) == (3, 3, 0)
    assert "Permission denied" in report["failed"][str(tones / "deep")] and len(report["failed"]) == 2
    (tones / "low.wav").unlink()
    moved.rename(tones / "low.wav")
    (report,) = auricle("index", tones, "-o", index, "--model", "toy", "--json").records
    assert (report["files"], report["reused"], report["removed"], report["failed"]) == (3, 3, 0, {})


def test_a_truncated_file_is_reported(tones: Path, tmp_path: Path) -> None:
    whole = (tones / "low.wav").read_bytes()
    (tones / "low.wav").write_bytes(whole[: len(whole) // 2])
    done = make(tones, tmp_path / "x.auricle")
    assert done.code == 3 and "low.wav: read" in done.err and "3 files" in done.out


def test_search_by_words(index: Path, tones: Path) -> None:
    done = seek(index, "low", "--json")
    first = done.records[0]
    assert done.code == 0 and first["file"] == str(tones / "low.wav")
    assert first.keys() == {"file", "start_s", "end_s", "score"}
    assert (first["start_s"], first["end_s"]) == (0, 1.5) and 90 < first["score"] <= 100.1
    assert [record["score"] for record in done.records] == sorted((r["score"] for r in done.records), reverse=True)
    lines = seek(index, "high", "-k", 1).out.splitlines()
    assert len(lines) == 1 and lines[0].endswith(str(tones / "deep" / "high.wav")) and "  0:00:0" in lines[0]


def test_search_by_sound(index: Path, tones: Path, tmp_path: Path) -> None:
    clip = write_tone(tmp_path / "clip.wav", "middle", 1.0, 9)
    by_file = seek(index, "--like", clip, "-k", 1, "--json")
    assert by_file.code == 0 and by_file.records[0]["file"] == str(tones / "middle.flac")
    piped = auricle("search", index, "--like", "-", "-k", 1, "--json", "--model", "toy", stdin=clip.read_bytes())
    assert piped.records == by_file.records
    both = seek(index, "low", "--like", clip, "-k", 2, "--json").records
    assert {record["file"] for record in both} == {str(tones / "middle.flac"), str(tones / "low.wav")}
    broken = seek(index, "--like", tones / "notes.txt")
    assert broken.code == 1 and "notes.txt" in broken.err


def test_search_without(index: Path, tones: Path) -> None:
    plain = {record["file"]: record["score"] for record in seek(index, "low", "high", "--json").records}
    less = seek(index, "low", "high", "--without", "high", "--json").records
    assert less[0]["file"] == str(tones / "low.wav") and less[0]["score"] == pytest.approx(
        plain[str(tones / "low.wav")]
    )
    high = str(tones / "deep" / "high.wav")
    assert next(record["score"] for record in less if record["file"] == high) < plain[high] - 80


def test_one_hit_a_file_or_all(index: Path, tones: Path) -> None:
    high = str(tones / "deep" / "high.wav")
    for flags, count in (((), 1), (("--all-segments",), 2)):
        hits = [record for record in seek(index, "high", "--json", *flags).records if record["file"] == high]
        assert len(hits) == count


def test_another_model_is_refused(index: Path, tmp_path: Path, tones: Path) -> None:
    done = auricle("search", index, "low", "--model", "other")
    assert done.code == 2 and done.out == "" and "was made with model 'toy'" in done.err
    done = auricle("index", tones, "-o", index, "--model", "other")
    assert done.code == 2 and "was made with model 'toy'" in done.err


def test_wrong_usage(index: Path, tones: Path, tmp_path: Path, loaded: list[Any]) -> None:
    loaded.clear()
    assert seek(index).code == 2 and "--like" in seek(index).err
    assert auricle("index", tones).code == 2
    assert make(tmp_path / "tones" / "deep" / "*.ogg", tmp_path / "x.auricle").code == 2
    assert make("-", tmp_path / "x.auricle").code == 2
    assert not loaded
    missing = seek(tmp_path / "none.auricle", "low")
    assert missing.code == 1 and "auricle index" in missing.err
    assert seek(tones / "low.wav", "low").code == 1
    assert not loaded  # no model is loaded for what is no index
    unknown = seek(index, "thunder")
    assert unknown.code == 1 and "'thunder'" in unknown.err


def test_names_cannot_reach_the_terminal(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "a\x1b[31m\n.wav", "low", 1.0)
    assert make(tmp_path / "in", tmp_path / "x.auricle").code == 0
    done = seek(tmp_path / "x.auricle", "low")
    assert done.code == 0 and "\x1b" not in done.out and len(done.out.splitlines()) == 1
