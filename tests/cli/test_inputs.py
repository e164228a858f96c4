from pathlib import Path

import pytest
import typer

from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.cli.inputs import audio_seconds, find_sources

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
