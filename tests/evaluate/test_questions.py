import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from hashlib import sha256
from multiprocessing import get_context

import numpy as np
import pytest

from auricle.data.shards import ShardWriter
from auricle.errors import AudioError, ConfigError, DataError
from auricle.evaluate.predictions import read_predictions
from auricle.evaluate.questions import read_questions
from auricle.evaluate.sources import AudioFile
from auricle.evaluate.task import load_language_task


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions_of(name, source, **options):
    return read_questions(load_language_task(name), source, **options)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    waveform = (np.arange(800) % 50 / 100).astype(np.float32)
    with ShardWriter(folder, "speech") as writer:
        for i, text in enumerate(("one", "two", "three", "four", "five", "six")):
            meta = {"kind": "speech", "text": text, "gender": "mf"[i % 2], "speaker": f"s{i % 3}", "set": "fsdd"}
            writer.write(f"digit-{i}", waveform * (1 - i / 10), meta)
        meta = {"kind": "speech", "text": "we read", "gender": "f", "speaker": "s9", "set": "speechocean762"}
        writer.write("read", waveform, meta)
    with ShardWriter(folder, "sound") as writer:
        for i, event in enumerate(("dog", "rain", "sea_waves", "dog")):
            writer.write(f"event-{i}", waveform, {"kind": "sound", "event": event, "fold": 1, "mode": None})
    return folder


def test_a_table_of_transcripts(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"bytes of a")
    (tmp_path / "list.csv").write_text(
        "audio,text,speaker,lang\na.wav,HELLO,17,\nb.wav,Xin chào,18,vi\n", encoding="utf-8"
    )
    first, second = questions_of("gigaspeech2_vi", tmp_path / "list.csv")
    assert first.prompt == second.prompt == "Transcribe the speech in to text <|vi|>"
    assert first.row == {
        "dataset_name": "GigaSpeech 2 Vietnamese",
        "audio": "a.wav",
        "speaker": "17",
        "text": "HELLO",
        "lang": "vi",
        "prompt": first.prompt,
    }
    assert first.audio.read() == b"bytes of a"
    assert first.audio.digest() == sha256(b"bytes of a").hexdigest()
    with pytest.raises(AudioError, match=r"b\.wav"):
        second.audio.read()
    assert questions_of("librispeech_clean", tmp_path / "list.csv")[1].prompt.endswith("<|vi|>")


def test_audio_files_may_be_read_in_another_process(tmp_path, shards):
    (tmp_path / "a.wav").write_bytes(b"bytes of a")
    lines(tmp_path / "list.jsonl", {"audio": "a.wav", "label": "flute"})
    questions = [*questions_of("nsynth", tmp_path / "list.jsonl"), *questions_of("events", shards, limit=2)]
    files = [each.audio for each in questions]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(AudioFile.digest, files)) == [each.digest() for each in files]


def test_labels_as_lists_and_as_text(tmp_path):
    (tmp_path / "list.csv").write_text('audio,label\na.wav,"Vehicle horn, car horn; Speech"\n')
    assert questions_of("fsd50k", tmp_path / "list.csv")[0].row["label"] == ["Vehicle horn, car horn", "Speech"]
    assert questions_of("vggsound", tmp_path / "list.csv")[0].row["label"] == ["Vehicle horn, car horn; Speech"]
    genders = [{"audio": f"{i}.wav", "label": label} for i, label in enumerate(("m", "F", "Woman", ["male"]))]
    found = questions_of("voxceleb_gender", lines(tmp_path / "list.jsonl", *genders))
    assert [each.row["label"] for each in found] == [["male"], ["female"], ["female"], ["male"]]
    named = replace(load_language_task("nsynth"), fact="instrument")
    (tmp_path / "list.tsv").write_text("audio\tinstrument\na.wav\tflute\n")
    assert read_questions(named, tmp_path / "list.tsv")[0].row["label"] == ["flute"]


def test_captions_and_open_questions(tmp_path):
    rows = [{"audio": "a.wav", "text": ["A dog.", "One dog."]}, {"audio": "b.wav", "text": "A cat.", "age": 2.5}]
    found = questions_of("clotho", lines(tmp_path / "list.jsonl", *rows))
    assert [each.row["text"] for each in found] == [["A dog.", "One dog."], "A cat."]
    assert found[1].row["age"] == 2.5
    rows = [{"audio": "a.wav", "id": i, "text": "no", "question": f"Why {{{i}}}?", "answer": "so"} for i in range(2)]
    found = questions_of("musicqa", lines(tmp_path / "list.jsonl", *rows))
    assert [each.prompt for each in found] == [
        "Why {0}? Answer with 1-2 sentences",
        "Why {1}? Answer with 1-2 sentences",
    ]
    assert "text" not in found[0].row


def test_closed_questions_have_the_published_form(tmp_path):
    row = {"audio": "a.wav", "question": "Which {one}?", "choices": ["{x}", "two", "A"], "answer": "B"}
    (found,) = questions_of("mmau", lines(tmp_path / "list.jsonl", row))
    assert found.prompt == "Which {one}?\n(A) {x}\n(B) two\n(C) A\nAnswer with a single Letter: "
    assert (found.row["answer"], found.row["choices"]) == ("B", ["{x}", "two", "A"])
    assert questions_of("mmau", lines(tmp_path / "list.jsonl", row | {"answer": "Two."}))[0].row["answer"] == "Two."
    for faulty in ({"answer": "D"}, {"answer": "three"}, {"choices": []}, {"choices": "two"}, {"choices": ["x"] * 27}):
        with pytest.raises(DataError, match=r"'a': (answer|choices) is"):
            questions_of("mmau", lines(tmp_path / "list.jsonl", row | faulty))


def test_a_file_of_predictions_is_a_source(tmp_path):
    rows = [
        {"dataset_name": "MusicQA", "audio": "x/a.flac", "question": q, "answer": f"{q}: so", "lang": "en"}
        | {"prompt": "old", "model_output": "secret", "model_name": "m"}
        for q in ("Why", "How")
    ]
    path = lines(tmp_path / "answers.jsonl", *rows)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.flac").write_bytes(b"beside")
    found = questions_of("musicqa", path)
    assert [each.prompt for each in found] == ["Why Answer with 1-2 sentences", "How Answer with 1-2 sentences"]
    assert found[0].row == {name: rows[0][name] for name in ("dataset_name", "audio", "question", "answer", "lang")} | {
        "prompt": found[0].prompt
    }
    assert found[1].audio.read() == b"beside"
    (tmp_path / "other" / "x").mkdir(parents=True)
    (tmp_path / "other" / "x" / "a.flac").write_bytes(b"elsewhere")
    assert questions_of("musicqa", f"{path}:{tmp_path / 'other'}")[0].audio.read() == b"elsewhere"


def test_rows_are_those_of_files_of_predictions(tmp_path, shards):
    for name in ("digits", "gender", "events", "event_captions", "facts_qa"):
        task = load_language_task(name)
        rows = [{**each.row, "model_output": "", "model_name": "m"} for each in read_questions(task, shards)]
        found = read_predictions(lines(tmp_path / f"{name}.jsonl", *rows), task.kind)
        assert len(found.rows) == len(rows) > 0


@pytest.mark.parametrize("name", ["../a.wav", "x/../../a.wav", "http://host/a.wav", "", 3, "a\u0000.wav", None])
def test_paths_out_of_reach_are_refused(tmp_path, name):
    row = {"dataset_name": "N", "audio": name, "label": ["flute"]}
    with pytest.raises(DataError, match=r"list\.jsonl, line 1"):
        questions_of("nsynth", lines(tmp_path / "list.jsonl", row))


def test_the_manifest_may_have_its_audio_elsewhere(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_bytes(b"there")
    path = lines(tmp_path / "list.jsonl", {"audio": "a.wav", "label": "flute"})
    (found,) = questions_of("nsynth", f"{path}:{tmp_path / 'audio'}")
    assert (found.audio.name, found.audio.read()) == ("a.wav", b"there")


def test_a_row_without_its_reference_is_named(tmp_path):
    path = lines(tmp_path / "list.jsonl", {"audio": "a.wav", "label": "x"}, {"audio": "b.wav", "name": "x"})
    with pytest.raises(DataError, match=r"'b': label is None, expected a reference of task 'nsynth' among \['name'\]"):
        questions_of("nsynth", path)
    with pytest.raises(DataError, match="'a': text is 3, expected text"):
        questions_of("librispeech_clean", lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": 3}))
    with pytest.raises(DataError, match="'a': text is '', expected text or a list"):
        questions_of("clotho", lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": ""}))
    with pytest.raises(DataError, match="'a': speaker is None, expected a value, as its rows are resampled by it"):
        questions_of("sentences", lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": "we read"}))
    with pytest.raises(DataError, match="'a': event is None, expected that, a digit"):
        questions_of("facts_qa", lines(tmp_path / "list.jsonl", {"audio": "a.wav", "text": "we read"}))


def test_shards_hold_several_sets(shards):
    notes = []
    digits = questions_of("digits", shards, on_note=notes.append)
    assert [each.row["text"] for each in digits] == ["one", "two", "three", "four", "five", "six"]
    assert notes == [f"5 of 11 clips of {shards} do not belong to task 'digits'"]
    assert [each.audio.name for each in questions_of("sentences", shards)] == ["read"]
    events = questions_of("events", shards)
    assert [each.row["label"][0] for each in events] == [
        "dog barking",
        "rain falling",
        "sea waves crashing",
        "dog barking",
    ]
    assert events[0].row["event"] == "dog"
    assert "mode" not in events[0].row
    assert events[0].audio.read()[:4] == b"fLaC"
    assert len({each.audio.digest() for each in digits}) == 6
    assert {each.row["label"][0] for each in questions_of("gender", shards)} == {"male", "female"}
    assert len(questions_of("facts_qa", shards)) == 6 * 3 + 2 + 4 * 2
    assert questions_of("events", shards / "sound-000000.tar")[1].row == events[1].row
    with pytest.raises(DataError, match="holds no clip of task 'nsynth'; expected clips that have 'label'"):
        questions_of("nsynth", shards)


def test_captions_of_events_have_several_references(shards):
    assert all(len(each.row["text"]) >= 3 for each in questions_of("event_captions", shards))


def test_a_manifest_may_hold_other_clips_than_the_tasks(tmp_path):
    notes = []
    rows = [{"audio": "a.wav", "text": "one"}, {"audio": "b.wav", "text": "a sentence"}]
    found = questions_of("digits", lines(tmp_path / "list.jsonl", *rows), on_note=notes.append)
    assert [each.audio.name for each in found] == ["a.wav"]
    assert len(notes) == 1


def test_a_limit_is_evenly_spaced(shards):
    assert [each.audio.name for each in questions_of("digits", shards, limit=3)] == ["digit-0", "digit-2", "digit-4"]
    assert len(questions_of("digits", shards, limit=100)) == 6
    few, whole = questions_of("facts_qa", shards, limit=2), questions_of("facts_qa", shards)
    names = {each.audio.name for each in few}
    assert len(names) == 2
    assert [each.row for each in few] == [each.row for each in whole if each.audio.name in names]
    with pytest.raises(ConfigError, match="limit is 0"):
        questions_of("digits", shards, limit=0)


def test_no_question_is_repeated(tmp_path):
    rows = [{"audio": "a.wav", "id": i, "label": "flute"} for i in range(2)]
    with pytest.raises(DataError, match=r"'a\.wav' has the question .* twice"):
        questions_of("nsynth", lines(tmp_path / "list.jsonl", *rows))


def test_what_is_no_source(tmp_path, shards):
    with pytest.raises(DataError, match="does not exist"):
        questions_of("nsynth", tmp_path / "none.jsonl")
    (tmp_path / "list.txt").write_text("a.wav")
    with pytest.raises(DataError, match=r"is not a source of questions; expected \.jsonl, \.csv, \.tsv"):
        questions_of("nsynth", tmp_path / "list.txt")
    with pytest.raises(DataError, match="no folder"):
        questions_of("nsynth", f"{tmp_path / 'list.txt'}:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="shards hold their audio"):
        questions_of("digits", f"{shards}:{tmp_path}")
    (tmp_path / "list.jsonl").write_text('{"dataset_name": "N", "audio": "a.wav"}\n{"audio"\n')
    with pytest.raises(DataError, match="line 2: no readable JSON"):
        questions_of("nsynth", tmp_path / "list.jsonl")
