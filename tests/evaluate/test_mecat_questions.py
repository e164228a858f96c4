import json

import numpy as np
import pytest

from auricle.data.shards import ShardWriter
from auricle.errors import DataError
from auricle.evaluate.mecat import FIELDS, read_references
from auricle.evaluate.questions import mecat_folders, read_questions
from auricle.evaluate.task import load_language_task

CAPTIONS = {
    "00A": {"abc_1_0_11_0": {field: [f"{field} {i}" for i in range(3)] for field in FIELDS} | {"domain": "00A"}},
    "S00": {"x-y_z_0": {"long": "only one", "domain": "S00"}},
}
QUESTIONS = {
    "S0A": {
        "abc_1_0_11_0_0123abcd": {"category": "direct_perception", "difficulty": "basic", "question": "What {x}?"}
        | {"answer": "A dog", "domain": "S0A"},
        "abc_1_0_11_0_89ef0123": {
            "category": "inference_judgement",
            "question": "Why?",
            "answer": "So",
            "domain": "S0A",
        },
    }
}


def write(folder, content, audio=("abc_1_0_11_0.flac", "x-y_z_0.wav")):
    (folder / "audio").mkdir(parents=True)
    for domain, clips in content.items():
        rows = [json.dumps({name: value}) for name, value in clips.items()]
        (folder / f"{domain}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for name in audio:
        (folder / "audio" / name).write_bytes(name.encode())
    return folder


def test_every_caption_of_every_clip_is_a_question(tmp_path):
    task = load_language_task("mecat_caption")
    found = read_questions(task, write(tmp_path / "a", CAPTIONS))
    assert [(each.row["id"], each.field) for each in found] == [
        *(("abc_1_0_11_0", field) for field in FIELDS),
        ("x-y_z_0", "long"),
    ]
    assert found[2].prompt == "What is the speech content can be heard in this audio?"
    assert found[2].row == {
        "dataset_name": "MECAT-Caption",
        "audio": "abc_1_0_11_0.flac",
        "id": "abc_1_0_11_0",
        "domain": "00A",
        "field": "speech",
        "text": ["speech 0", "speech 1", "speech 2"],
        "prompt": found[2].prompt,
    }
    assert found[0].audio.read() == b"abc_1_0_11_0.flac"
    assert found[6].row["text"] == ["only one"]
    assert len(read_questions(task, tmp_path / "a", limit=1)) == 6


def test_questions_keep_their_words(tmp_path):
    found = read_questions(load_language_task("mecat_qa"), write(tmp_path / "a", QUESTIONS))
    assert [each.prompt for each in found] == ["What {x}?", "Why?"]
    assert {each.audio.name for each in found} == {"abc_1_0_11_0.flac"}
    assert found[0].field == ""
    assert [each.row["id"] for each in found] == list(read_references(tmp_path / "a").entries)
    wanted = {"category": "direct_perception", "difficulty": "basic", "answer": "A dog", "question": "What {x}?"}
    assert wanted.items() <= found[0].row.items()


def test_audio_may_lie_elsewhere_and_in_shards(tmp_path):
    write(tmp_path / "a", QUESTIONS, audio=())
    with ShardWriter(tmp_path / "tars", "mecat") as writer:
        writer.write("abc_1_0_11_0", np.zeros(400, np.float32), {})
    source = f"{tmp_path / 'a'}:{tmp_path / 'tars'}"
    assert mecat_folders(source) == (tmp_path / "a", tmp_path / "tars")
    found = read_questions(load_language_task("mecat_qa"), source)
    assert found[0].audio.read()[:4] == b"fLaC"
    assert found[0].row["audio"] == "abc_1_0_11_0"


def test_one_file_of_several_endings_is_taken(tmp_path):
    names = ("abc_1_0_11_0.wav", "abc_1_0_11_0.flac", "abc_1_0_11_0.txt")
    found = read_questions(load_language_task("mecat_qa"), write(tmp_path / "a", QUESTIONS, audio=names))
    assert found[0].audio.name == "abc_1_0_11_0.flac"


def test_what_is_not_complete_is_refused(tmp_path):
    caption, qa = load_language_task("mecat_caption"), load_language_task("mecat_qa")
    write(tmp_path / "a", CAPTIONS, audio=("x-y_z_0.wav",))
    with pytest.raises(DataError, match="has no audio of 1 of 2 clips, first 'abc_1_0_11_0'"):
        read_questions(caption, tmp_path / "a")
    with pytest.raises(DataError, match="holds references of caption, expected those of qa"):
        read_questions(qa, tmp_path / "a")
    with pytest.raises(DataError, match="audio/ inside, or REFERENCES:AUDIO"):
        read_questions(qa, tmp_path)
    questions = {"S0A": {"abc_1_0_11_0_0123abcd": {"category": "direct_perception", "answer": "A dog"}}}
    write(tmp_path / "b", questions)
    with pytest.raises(DataError, match=r"S0A\.jsonl, line 1: abc_1_0_11_0_0123abcd has no question"):
        read_questions(qa, tmp_path / "b")
