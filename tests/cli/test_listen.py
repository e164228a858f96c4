import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import auricle as package
from auricle.cli.output import print_json, print_line
from auricle.cli.printing import clock
from auricle.listen.other_models.whisper import Whisper
from auricle.listen.verbs import PromptedTranscription
from auricle.weights import Card
from auricle.weights.cards import render_card

from ..listen.test_whisper import Counter, numbered
from .conftest import MODEL, auricle, with_tiny, write_noise

KEYS = {"describe": "caption", "ask": "answer", "transcribe": "text"}


def extra(verb: str) -> list[str]:
    return ["--prompt", "What is it?"] if verb == "ask" else []


@pytest.mark.parametrize("verb", KEYS)
def test_one_object_per_file(verb: str, folder: Path) -> None:
    done = with_tiny(verb, folder, "--json", "--batch-size", 2, *extra(verb))
    assert (done.code, done.err) == (0, f"auricle: {folder}: left out as no audio: 1 .txt\n")
    assert [Path(record["file"]).name for record in done.records] == ["a.wav", "b.flac", "c.WAV"]
    model = package.load(MODEL)
    for record in done.records:
        names = ["file", KEYS[verb], "confidence", "is_unsure", "segments", "receipt", "model", "device", "error"]
        assert list(record) == names and not record["is_unsure"]
        assert record["model"] == MODEL and record["error"] is None and record["receipt"]["complete"]
        expected = {
            "describe": lambda file: model.describe(file, max_new_tokens=4).caption,
            "transcribe": lambda file: model.transcribe(file, max_new_tokens=4).text,
            "ask": lambda file: model.ask(file, "What is it?", max_new_tokens=4).text,
        }[verb](record["file"])
        assert record[KEYS[verb]] == expected


def test_choices_have_their_odds(folder: Path) -> None:
    done = with_tiny("ask", folder / "a.wav", "-p", "What is it?", "--choices", "dog, rain,the sea", "--json")
    (record,) = done.records
    expected = package.load(MODEL).choose(folder / "a.wav", "What is it?", ["dog", "rain", "the sea"])
    assert record["answer"] == expected.answer and list(record)[:3] == ["file", "answer", "odds"]
    assert {o["text"]: o["probability"] for o in record["odds"]} == {o.text: o.probability for o in expected.odds}
    shown = with_tiny("ask", folder / "a.wav", "-p", "What is it?", "--choices", '["dog, big", "rain"]', "--letters")
    assert shown.code == 0 and shown.out.count("%") == 2 and "dog, big" in shown.out


def test_answers_by_a_schema(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["dog", "rain"]}')
    done = auricle("ask", folder / "a.wav", "-p", "?", "--schema", schema, "--model", MODEL, "--json")
    (record,) = done.records
    assert record["value"] in ("dog", "rain") and json.loads(record["answer"]) == record["value"]
    schema.write_text("[]")
    assert with_tiny("ask", folder / "a.wav", "-p", "?", "--schema", schema).code == 2


def test_several_questions_have_a_record_each(folder: Path) -> None:
    done = with_tiny("ask", folder, "-p", "What is it?", "-p", "Who speaks?", "--json")
    assert done.code == 0 and len(done.records) == 6
    model = package.load(MODEL)
    for record in done.records:
        assert record["answer"] == model.ask(record["file"], record["prompt"], max_new_tokens=4).text


def test_a_stream_of_words(folder: Path) -> None:
    plain = with_tiny("ask", folder / "a.wav", "-p", "What is it?")
    assert with_tiny("ask", folder / "a.wav", "-p", "What is it?", "--stream").out.strip() == plain.out.strip()
    records = with_tiny("ask", folder / "a.wav", "-p", "What is it?", "--stream", "--json").records
    assert "".join(record["piece"] for record in records[:-1]).strip() == records[-1]["answer"]
    assert records[-1]["receipt"]["complete"]
    failed = with_tiny("ask", folder / "notes.txt", folder / "a.wav", "-p", "?", "--stream", "--json")
    assert failed.code == 1 and failed.records[0]["error"] and failed.records[-1]["error"] is None
    shown = with_tiny("ask", folder / "notes.txt", folder / "a.wav", "-p", "?", "--stream")
    assert shown.code == 1 and "notes.txt" in shown.err and "a.wav: " in shown.out


def test_long_files_have_lines_with_times(tmp_path: Path) -> None:
    long = write_noise(tmp_path / "long.wav", 5.0)
    dense = with_tiny("describe", long, "--dense", "--window", 2)
    assert dense.code == 0 and all(line.startswith("[0:0") for line in dense.out.splitlines())
    timed = with_tiny("transcribe", long, "--segments", "--window", 2, "--overlap", 0).out.splitlines()
    assert len(timed) == 3 and timed[0].startswith("[0:00.0-0:0") and "-0:05.0]" in timed[-1]
    (record,) = with_tiny("transcribe", long, "--window", 2, "--overlap", 0.4, "--json").records
    assert len(record["segments"]) > 2 and record["receipt"]["overlaps"] and record["receipt"]["complete"]


def test_times_of_day_length() -> None:
    assert [clock(s) for s in (0, 59.96, 61.25, 3600, 37_000.04)] == [
        "0:00.0",
        "1:00.0",
        "1:01.2",
        "1:00:00.0",
        "10:16:40.0",
    ]


def test_text_for_people(folder: Path) -> None:
    several = with_tiny("describe", folder)
    assert several.code == 0 and [line.partition(":")[0] for line in several.out.splitlines()] == [
        str(folder / "a.wav"),
        str(folder / "b.flac"),
        str(folder / "deep" / "c.WAV"),
    ]
    one = with_tiny("describe", folder / "a.wav")
    assert one.out.strip() == several.out.splitlines()[0].partition(": ")[2].strip()


def test_failed_files_have_their_line_and_the_others_go_on(folder: Path) -> None:
    files = [folder / "a.wav", folder / "notes.txt", folder / "missing.wav", folder / "b.flac"]
    done = with_tiny("describe", *files, "--json")
    assert done.code == 1 and done.err == ""
    assert [record["error"] is None for record in done.records] == [True, False, False, True]
    failed = done.records[1]
    assert failed["file"] == str(files[1]) and failed["caption"] is None and failed["receipt"] is None
    assert "plain text" in failed["error"]
    shown = with_tiny("describe", *files)
    assert shown.code == 1 and len(shown.out.splitlines()) == 2 and len(shown.err.splitlines()) == 2
    assert "notes.txt" in shown.err and "Traceback" not in shown.err


def test_standard_input(folder: Path) -> None:
    sound = (folder / "a.wav").read_bytes()
    done = with_tiny("ask", "-", "-p", "?", "--json", stdin=sound)
    assert done.code == 0 and done.records[0]["file"] == done.records[0]["receipt"]["file"] == "-"
    named = with_tiny("ask", folder / "a.wav", "-p", "?", "--json")
    assert done.records[0]["answer"] == named.records[0]["answer"]
    broken = with_tiny("ask", "-", "-p", "?", "--json", stdin=b"<html>")
    assert broken.code == 1 and "HTML" in broken.records[0]["error"]


def test_partial_coverage_has_its_code(cut: Path, folder: Path) -> None:
    done = with_tiny("describe", cut, folder / "a.wav", "--json")
    assert done.code == 3
    receipts = [record["receipt"] for record in done.records]
    assert [receipt["complete"] for receipt in receipts] == [False, True] and receipts[0]["truncated"]
    shown = with_tiny("describe", cut)
    assert shown.code == 3 and "partly processed, 0.6 s" in shown.err and len(shown.out.splitlines()) == 1
    assert with_tiny("describe", cut, "missing.wav").code == 1


def test_silence_is_captioned_by_rule(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "s.wav", np.zeros(16_000), 16_000)
    assert with_tiny("describe", tmp_path / "s.wav").out == "Silence.\n"


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
        (["ask", "a.wav", "-p", "?", "--letters", "--model", MODEL], "--choices"),
        (["ask", "a.wav", "-p", "?", "--stream", "--choices", "a,b", "--model", MODEL], "--stream"),
        (["ask", "a.wav", "-p", "?", "-p", "!", "--stream", "--model", MODEL], "several --prompt"),
        (["ask", "a.wav", "-p", "?", "--choices", "a", "--model", MODEL], "at least two"),
        (["ask", "a.wav", "-p", "?", "--choices", "[1", "--model", MODEL], "JSON list"),
        (["ask", "a.wav", "-p", "?", "--reduce", "mean", "--model", MODEL], "majority"),
        (["ask", "a.wav", "-p", "?", "--schema", "no.json", "--model", MODEL], "no.json"),
        (["describe", "a.wav", "--window", "60", "--model", MODEL], "30 s"),
        (["transcribe", "a.wav", "--overlap", "20", "--model", MODEL], "a third"),
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


def test_odd_file_names_are_processed(tmp_path: Path) -> None:
    odd = write_noise(tmp_path / "a.wav", 0.3).rename(tmp_path / "\udc80\n.wav")
    done = with_tiny("describe", odd, "--json")
    assert done.code == 0 and done.records[0]["file"] == str(odd)


@pytest.fixture(scope="module")
def modest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that declares to be never sure, and a limit of its transcripts."""
    folder = tmp_path_factory.mktemp("modest") / "model"
    shutil.copytree(MODEL, folder)
    limits = {"transcribe": "birds only"}
    (folder / "README.md").write_text(render_card(Card(name="modest", verb_limits=limits)), encoding="utf-8")
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "auricle_unsure_below": 1.0}))
    return folder


def test_what_is_unsure_is_marked_and_limits_are_said_once(folder: Path, modest: Path) -> None:
    (folder / "notes.txt").unlink()  # which would be reported
    command = ["--model", modest, "--max-new-tokens", 4]
    shown = auricle("describe", folder, *command)
    assert shown.err == "" and all(re.search(r"  \(unsure, \d+%\)$", line) for line in shown.out.splitlines())
    records = auricle("describe", folder, *command, "--json").records
    marks = [f"(unsure, {record['confidence']:.0%})" for record in records]
    assert [line.rpartition("  ")[2] for line in shown.out.splitlines()] == marks
    sure = with_tiny("describe", folder)
    assert "(unsure" not in sure.out and len(sure.out.splitlines()) == 3

    assert all(line.split(": ", 1)[1].startswith("Unclear sound, perhaps ") for line in shown.out.splitlines())
    assert all(record["is_unsure"] and "Unclear" not in record["caption"] for record in records)


def test_speech_that_is_not_written_down_is_named_everywhere(folder: Path, tmp_path: Path, modest: Path) -> None:
    (folder / "notes.txt").unlink()
    command = ["--model", modest, "--max-new-tokens", 4]
    said = auricle("transcribe", folder, *command)
    assert said.err == f"auricle: {modest}: birds only\n"
    notice = "speech; birds only (try --model whisper:base)"
    assert [line.split(": ", 1)[1] for line in said.out.splitlines()] == [notice] * 3
    summary = (
        f"auricle: 3 files hold speech that {modest} was not trained to write down; --model whisper:base is for it"
    )
    quiet = auricle("transcribe", folder, *command, "--json")
    for record in quiet.records:
        assert (record["text"], record["open_speech"], record["notice"]) == ("", True, notice)
        assert record["raw_text"] and record["suggested_model"] == "whisper:base"
        assert [(each["text"], each["open_speech"]) for each in record["segments"]] == [("", "speech")]
        assert "birds only" in record["receipt"]["notes"][-1]
    assert quiet.err == "" and len(quiet.records) == 3
    timed = auricle("transcribe", folder, *command, "--segments")
    assert timed.err.splitlines()[1] == summary and timed.out.count("(speech, not written down)") == 3
    written = auricle("transcribe", folder, *command, "-o", tmp_path / "all.txt")
    assert written.err.splitlines()[1] == summary and (tmp_path / "all.txt").read_text() == said.out
    for ending, empty in (("srt", ""), ("vtt", "WEBVTT")):
        assert auricle("transcribe", folder / "a.wav", *command, "--format", ending).out.strip() == empty
    assert all("open_speech" not in record for record in with_tiny("transcribe", folder, "--json").records)


def test_answers_of_choices_and_streams_are_marked_alike(folder: Path, modest: Path) -> None:
    command = ["--model", modest, "--max-new-tokens", 4]
    chosen = auricle("ask", folder / "a.wav", "-p", "?", "--choices", "dog,rain", *command)
    streamed = auricle("ask", folder / "a.wav", "-p", "?", "--stream", *command)
    assert (
        re.search(r"%\)  \(unsure, \d+%\)$", chosen.out.strip())
        and streamed.out == auricle("ask", folder / "a.wav", "-p", "?", *command).out
    )


@pytest.mark.parametrize("verb", KEYS)
def test_strict_has_an_exit_code_for_doubt(verb: str, folder: Path, cut: Path, modest: Path) -> None:
    (folder / "notes.txt").unlink()
    doubt = [verb, folder / "a.wav", *extra(verb), "--max-new-tokens", 4, "--model", modest]
    assert auricle(*doubt).code == 0 and auricle(*doubt, "--json").code == 0
    assert auricle(*doubt, "--strict").code == 4 == auricle(*doubt, "--strict", "--json").code
    assert "--strict: 1 result is unsure" in auricle(*doubt, "--strict").err
    assert with_tiny(verb, folder / "a.wav", folder / "b.flac", *extra(verb), "--strict").code == 0
    assert auricle(*doubt, "missing.wav", "--strict").code == 1
    assert with_tiny(verb, cut, *extra(verb), "--strict").code == 3
    if verb == "ask":
        assert auricle(*doubt, "--strict", "--choices", "dog,rain").code == 4
        assert auricle(*doubt, "--strict", "--stream").code == 4


def test_strict_counts_files_with_warnings(tmp_path: Path) -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    waveform[50:60] = np.nan
    soundfile.write(tmp_path / "odd.wav", waveform, 16_000, subtype="FLOAT")
    assert with_tiny("describe", tmp_path / "odd.wav").code == 0
    odd = with_tiny("describe", tmp_path / "odd.wav", "--strict")
    assert odd.code == 4 and "not finite" in odd.err


def test_answers_are_written_by_the_ending(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").unlink()
    printed, records = with_tiny("describe", folder), with_tiny("describe", folder, "--json").records
    for ending in ("txt", "json", "jsonl"):
        out = tmp_path / f"out.{ending}"
        done = with_tiny("describe", folder, "-o", out)
        assert (done.code, done.out, done.err) == (0, "", "")
        text = out.read_text(encoding="utf-8")
        if ending == "txt":
            assert text == printed.out
        else:
            found = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
            assert found == records
        out.unlink()
    assert json.loads(with_tiny("describe", folder, "--format", "json").out) == records
    assert with_tiny("describe", folder, "--json", "-o", tmp_path / "odd.name").code == 0
    assert len((tmp_path / "odd.name").read_text().splitlines()) == 3
    failed = with_tiny("describe", folder / "a.wav", "missing.wav", "-o", tmp_path / "some.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert failed.code == 1 and "missing.wav" in failed.err and [bool(each["error"]) for each in kept] == [False, True]


def test_subtitles_are_of_one_file_with_times(tmp_path: Path, folder: Path) -> None:
    long = write_noise(tmp_path / "long.wav", 5.0)
    window = ["--window", 2]
    for ending in ("srt", "vtt"):
        assert with_tiny("transcribe", long, *window, "-o", tmp_path / f"a.{ending}").code == 0
        assert "00:00:00" in (tmp_path / f"a.{ending}").read_text()
        shown = with_tiny("transcribe", long, *window, "--format", ending)
        assert shown.out == (tmp_path / f"a.{ending}").read_text()
        assert with_tiny("describe", long, "--dense", *window, "--format", ending).out.count("-->") >= 1
    for wrong in (
        ["ask", long, "-p", "?", "--format", "srt"],
        ["describe", long, "--format", "srt"],
        ["transcribe", folder, "--format", "srt"],
        ["transcribe", long, "--json", "--format", "srt"],
        ["transcribe", long, "--json", "--output", "words.srt"],
        ["transcribe", long, "-o", tmp_path / "a.doc"],
        ["transcribe", long, "--format", "doc"],
        ["ask", long, "-p", "?", "--stream", "-o", tmp_path / "a.txt"],
    ):
        assert with_tiny(*wrong).code == 2, wrong
    unread = with_tiny("transcribe", "missing.wav", "-o", tmp_path / "none.srt")
    assert unread.code == 1 and not (tmp_path / "none.srt").exists()


def test_whisper_transcribes_files_with_words_and_languages(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auricle.load", lambda **settings: Whisper(Counter(), settings["name"]))
    soundfile.write(tmp_path / "talk.wav", numbered(40), 16_000)
    done = auricle("transcribe", tmp_path / "talk.wav", folder / "missing.wav", "--model", "whisper:toy", "--json")
    found, failed = done.records
    assert done.code == 1 and failed["error"] and failed["text"] is None
    assert found["text"].split() == [str(number) for number in range(1, 41)]
    assert (found["language"], found["language_probability"], found["model"]) == ("en", 0.9, "whisper:toy")
    first = found["segments"][0]["words"][0]
    assert first == {"start_s": 0.0, "stop_s": 0.9, "text": "1", "mean_logprob": -0.6931}
    shown = auricle("transcribe", tmp_path / "talk.wav", "--model", "whisper:toy", "--segments", "--language", "fr")
    assert shown.out.startswith("[0:00.0-0:04.9] 1 2 3 4 5\n[0:05.0-0:09.9] 6 7 8 9 10\n") and shown.err == ""
    titles = auricle("transcribe", tmp_path / "talk.wav", "--model", "whisper:toy", "--format", "vtt")
    assert titles.out.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:04.900\n1 2 3 4 5\n")
    refused = auricle("describe", tmp_path / "talk.wav", "--model", "whisper:toy")
    assert refused.code == 2 and "whisper:toy transcribes, and does nothing else" in refused.err


def test_a_place_that_cannot_be_written_is_found_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.load", lambda **settings: pytest.fail("loaded for nothing"))
    monkeypatch.setattr("auricle.load_encoder", lambda *_, **settings: pytest.fail("loaded for nothing"))
    done = with_tiny("describe", folder, "-o", "/nonexistent/a.txt")
    assert done.code == 1 and "/nonexistent" in done.err
    assert auricle("embed", folder, "-o", "/nonexistent/a.npz").code == 1


def test_files_of_a_folder_are_named_and_questions_repeated(folder: Path) -> None:
    below = folder / "deep"
    named = with_tiny("describe", below)
    alone = with_tiny("describe", below / "c.WAV")
    assert named.out == f"{below / 'c.WAV'}: {alone.out}"
    asked = with_tiny("ask", below / "c.WAV", "-p", "Who?", "-p", "Why?").out.splitlines()
    assert [line.partition("  ")[0] for line in asked] == ["Who?", "Why?"]
    assert with_tiny("ask", below / "c.WAV", "-p", "Who?").out.strip() == asked[0].partition("  ")[2]


def test_segments_are_printed_while_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = write_noise(tmp_path / "long.wav", 6.0)
    command = ["transcribe", long, "--segments", "--window", 1, "--batch-size", 1, "--overlap", 0]
    whole = with_tiny(*command)
    at: list[int] = []
    answer = PromptedTranscription.answer

    def noted(task: PromptedTranscription, prompts: Any) -> Any:
        at.append(len(lines))
        return answer(task, prompts)

    lines: list[str] = []
    monkeypatch.setattr(PromptedTranscription, "answer", noted)
    monkeypatch.setattr("auricle.cli.printing.print_line", lambda text, **_: lines.append(text))
    with_tiny(*command)
    assert lines == whole.out.splitlines() and at == [max(0, number - 1) for number in range(len(lines))]


def test_what_is_odd_about_a_file_is_said_once_on_standard_error(tmp_path: Path) -> None:
    samples = np.full(16_000, 0.1, np.float32)
    samples[100:110] = np.nan
    odd = tmp_path / "odd.wav"
    soundfile.write(odd, samples, 16_000, subtype="FLOAT")
    done = with_tiny("describe", odd)
    assert done.code == 0 and done.err.count("odd.wav: 10 samples that were not finite were replaced by 0") == 1
    assert "window" not in done.err
    (record,) = with_tiny("describe", odd, "--json").records
    assert record["receipt"]["warnings"] == ["10 samples that were not finite were replaced by 0"]
    good = tmp_path / "good.wav"
    soundfile.write(good, np.full(16_000, 0.1, np.float32), 16_000)
    assert "good.wav" not in with_tiny("describe", good).err


def test_a_file_without_one_number_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    done = with_tiny("describe", bad)
    assert done.code == 1 and "all 16,000 samples are NaN or infinite" in done.err and not done.out


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_empty_prompts_are_refused(tmp_path: Path, prompt: str) -> None:
    file = write_noise(tmp_path / "a.wav", 0.5)
    for more in ([], ["--choices", "yes,no"]):
        done = with_tiny("ask", file, "-p", prompt, *more)
        assert done.code == 2 and "is empty; expected" in done.err


def test_choices_have_a_rule_of_their_own(tmp_path: Path) -> None:
    done = with_tiny("ask", write_noise(tmp_path / "a.wav", 0.5), "-p", "Which?", "--choices", "a,b", "--reduce", "any")
    assert done.code == 2 and "--reduce" in done.err
