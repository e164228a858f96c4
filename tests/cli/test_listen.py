import json
from pathlib import Path

import pytest

import auricle as package
from auricle.cli.output import print_json, print_line

from .conftest import MODEL, auricle, hear, write_noise

KEYS = {"describe": "caption", "ask": "answer", "transcribe": "text"}


def extra(verb: str) -> list[str]:
    return ["--prompt", "What is it?"] if verb == "ask" else []


@pytest.mark.parametrize("verb", KEYS)
def test_one_object_per_file(verb: str, folder: Path) -> None:
    done = hear(verb, folder, "--json", "--batch-size", 2, *extra(verb))
    assert (done.code, done.err) == (0, "")
    assert [Path(record["file"]).name for record in done.records] == ["a.wav", "b.flac", "c.WAV"]
    ear = package.load(MODEL)
    for record in done.records:
        assert list(record) == ["file", KEYS[verb], "segments", "receipt", "model", "error"]
        assert record["model"] == MODEL and record["error"] is None and record["receipt"]["complete"]
        expected = {
            "describe": lambda file: ear.describe(file, max_new_tokens=4).caption,
            "transcribe": lambda file: ear.transcribe(file, max_new_tokens=4).text,
            "ask": lambda file: ear.ask(file, "What is it?", max_new_tokens=4),
        }[verb](record["file"])
        assert record[KEYS[verb]] == expected


def test_text_for_people(folder: Path) -> None:
    several = hear("describe", folder)
    assert several.code == 0 and [line.partition(":")[0] for line in several.out.splitlines()] == [
        str(folder / "a.wav"),
        str(folder / "b.flac"),
        str(folder / "deep" / "c.WAV"),
    ]
    one = hear("describe", folder / "a.wav")
    assert one.out.strip() == several.out.splitlines()[0].partition(": ")[2].strip()


def test_failed_files_have_their_line_and_the_others_go_on(folder: Path) -> None:
    files = [folder / "a.wav", folder / "notes.txt", folder / "missing.wav", folder / "b.flac"]
    done = hear("describe", *files, "--json")
    assert done.code == 1 and done.err == ""
    assert [record["error"] is None for record in done.records] == [True, False, False, True]
    failed = done.records[1]
    assert failed["file"] == str(files[1]) and failed["caption"] is None and failed["receipt"] is None
    assert "plain text" in failed["error"]
    shown = hear("describe", *files)
    assert shown.code == 1 and len(shown.out.splitlines()) == 2 and len(shown.err.splitlines()) == 2
    assert "notes.txt" in shown.err and "Traceback" not in shown.err


def test_standard_input(folder: Path) -> None:
    sound = (folder / "a.wav").read_bytes()
    done = hear("ask", "-", "-p", "?", "--json", stdin=sound)
    assert done.code == 0 and done.records[0]["file"] == done.records[0]["receipt"]["file"] == "-"
    named = hear("ask", folder / "a.wav", "-p", "?", "--json")
    assert done.records[0]["answer"] == named.records[0]["answer"]
    broken = hear("ask", "-", "-p", "?", "--json", stdin=b"<html>")
    assert broken.code == 1 and "HTML" in broken.records[0]["error"]


def test_partial_coverage_has_its_code(cut: Path, folder: Path) -> None:
    done = hear("describe", cut, folder / "a.wav", "--json")
    assert done.code == 3
    receipts = [record["receipt"] for record in done.records]
    assert [receipt["complete"] for receipt in receipts] == [False, True] and receipts[0]["truncated"]
    shown = hear("describe", cut)
    assert shown.code == 3 and "heard in part, 0.6 s" in shown.err and len(shown.out.splitlines()) == 1
    assert hear("describe", cut, "missing.wav").code == 1


def test_silence_needs_no_model_to_be_named(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "s.wav", np.zeros(16_000), 16_000)
    assert hear("describe", tmp_path / "s.wav").out == "Silence.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe"], "Missing argument"),
        (["ask", "a.wav"], "--prompt"),
        (["describe", "a.wav", "--batch-size", "0"], "--batch-size"),
        (["describe", "a.wav", "--loud"], "--loud"),
        (["describe", "nothing*.wav"], "no audio file"),
        (["describe", "a.wav", "--model", "auricle-tini"], "auricle-tiny"),
        (["describe", "a.wav", "--model", MODEL, "--dtype", "int8"], "int8"),
        (["describe", "a.wav", "--model", MODEL, "--device", "toaster"], "toaster"),
        (["sing"], "sing"),
    ],
)
def test_wrong_usage_is_two_and_has_no_traceback(arguments: list[str], words: str) -> None:
    done = auricle(*arguments)
    assert done.code == 2 and words in done.err and "Traceback" not in done.err and done.out == ""


def test_names_cannot_reach_the_terminal(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_line("a\x1b[31m\udc80.wav: two\nlines, naïve 中")
    print_json({"file": "\udc80.wav", "caption": "naïve 中"})
    first, second = capfdbinary.readouterr().out.splitlines()
    assert first.decode() == "a\\x1b[31m\\udc80.wav: two lines, naïve 中"
    assert json.loads(second) == {"file": "\udc80.wav", "caption": "naïve 中"}


def test_odd_file_names_are_heard(tmp_path: Path) -> None:
    odd = write_noise(tmp_path / "a.wav", 0.3).rename(tmp_path / "\udc80\n.wav")
    done = hear("describe", odd, "--json")
    assert done.code == 0 and done.records[0]["file"] == str(odd)
