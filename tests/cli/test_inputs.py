import os
from pathlib import Path
from threading import Thread

import pytest
import typer

from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.cli.inputs import audio_seconds, find_sources, open_source

from .conftest import write_noise


def names(found: list[str], folder: Path) -> list[str]:
    return [Path(name).relative_to(folder).as_posix() for name in found]


def test_folders_are_searched_by_suffix_or_content(folder: Path) -> None:
    bare = write_noise(folder / "d.wav", 0.1).rename(folder / "d")
    write_noise(folder / ".hidden" / "x.wav", 0.1)
    write_noise(folder / ".y.wav", 0.1)
    (folder / "Makefile").write_text("all:\n")
    (folder / "empty").touch()
    assert names(find_sources([str(folder)]), folder) == ["a.wav", "b.flac", bare.name, "deep/c.WAV"]


def test_globs_names_and_stdin_in_order_each_once(folder: Path) -> None:
    arguments = ["-", str(folder / "b.flac"), str(folder / "**" / "*.*"), "missing.wav", "-"]
    found = find_sources(arguments)
    assert found[0] == "-" and found[-1] == "missing.wav"
    assert names(found[1:-1], folder) == ["b.flac", "a.wav", "deep/c.WAV", "notes.txt"]


def test_a_file_may_be_named_like_a_glob(tmp_path: Path) -> None:
    odd = write_noise(tmp_path / "take[1].wav", 0.1)
    assert find_sources([str(odd)]) == [str(odd)]


@pytest.mark.parametrize("argument", ["*.ogg", "."])
def test_nothing_found_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.BadParameter, match="no audio file"):
        find_sources([argument])


def test_seconds_of_audio_are_those_of_the_headers(tmp_path: Path) -> None:
    files = [str(write_noise(tmp_path / f"{number}.wav", 0.5)) for number in range(3)]
    assert audio_seconds([*files, str(tmp_path / "missing.wav")], DEFAULT_LIMITS) == pytest.approx(1.5)
    assert audio_seconds([*files, "-"], DEFAULT_LIMITS) is None
    assert audio_seconds(files * 100, DEFAULT_LIMITS) is None
    assert audio_seconds(files, Limits(isolate=True)) is None


def test_what_is_left_out_of_a_folder_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cover.jpg").touch()
    (folder / ".DS_Store").touch()
    os.mkfifo(folder / "pipe.wav")
    find_sources([str(folder)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"auricle: {folder}: left out as no audio: 1 ")
    assert {"1 .jpg", "1 .txt", "1 hidden", "1 no regular file"} == set(line.split("audio: ")[1].split(", "))


@pytest.mark.parametrize("name", "x.mpga x.3gp x.M4R x.spx x.weba x.ts x.sph x.ogv x.mpeg".split())
def test_suffixes_that_people_have(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert names(find_sources([str(tmp_path)]), tmp_path) == [name]


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "b").symlink_to(folder)
    (library / "a").symlink_to(folder)
    (folder / "deep" / "up").symlink_to(library)
    assert names(find_sources([str(library)]), library) == ["a/a.wav", "a/b.flac", "a/deep/c.WAV"]


def test_a_quoted_glob_may_match_folders_and_hold_brackets(folder: Path, tmp_path: Path) -> None:
    live = tmp_path / "[live] 1999"
    live.mkdir()
    write_noise(live / "x.wav", 0.1)
    assert names(find_sources([str(tmp_path / "[live] *" / "*.wav")]), live) == ["x.wav"]
    assert names(find_sources([str(folder / "d*")]), folder) == ["deep/c.WAV"]


def test_a_missing_source_can_be_refused(folder: Path) -> None:
    with pytest.raises(typer.BadParameter, match="there is no"):
        find_sources([str(folder), str(folder / "non")], must_exist=True)


def test_pipes_are_read_as_standard_input(folder: Path) -> None:
    content = (folder / "a.wav").read_bytes()
    reader, writer = os.pipe()
    thread = Thread(target=lambda: (os.write(writer, content), os.close(writer)))
    thread.start()
    source = open_source(f"/dev/fd/{reader}")
    thread.join()
    os.close(reader)
    assert source.read() == content and source.name == f"/dev/fd/{reader}"
    assert open_source(str(folder / "a.wav")) == str(folder / "a.wav")


def test_closed_standard_input_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(typer.BadParameter, match="closed"):
        open_source("-")
