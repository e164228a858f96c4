"""Official files of published benchmarks, in the fields of their release code, become closed questions."""

import json
from pathlib import Path
from typing import Any

import pytest

from auricle.errors import DataError
from auricle.evaluate.questions import Question, read_questions
from auricle.evaluate.run import Evaluator, run_task
from auricle.evaluate.task import load_language_task

from .toy_model import TONES, ToyModel, tone_bytes

LETTERED = {"choice_a": "low", "choice_b": "middle", "choice_c": "high", "choice_d": None, "question": "Which tone?"}


def write(folder: Path, name: str, records: list[dict[str, Any]]) -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in records))
    else:
        path.write_text(json.dumps(records))
    return path


def tones(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tone_bytes(list(TONES)[number % 3], number))


def questions_of(task: str, source: Path, notes: list[str] | None = None) -> list[Question]:
    return read_questions(load_language_task(task), source, on_note=(notes if notes is not None else []).append)


def test_mmar(tmp_path: Path) -> None:
    tones(tmp_path, "audio/a.wav", "audio/b.wav")
    record = {"question": "Which tone?", "choices": list(TONES), "modality": "sound", "category": "Signal Layer"}
    records = [
        {"id": "a", "audio_path": "./audio/a.wav", **record, "answer": "low"},
        {"id": "b", "audio_path": "./audio/b.wav", **record, "answer": "middle", "language": None},
    ]
    found = questions_of("mmar", write(tmp_path, "MMAR-meta.jsonl", records))
    assert [each.row["answer"] for each in found] == ["low", "middle"] and found[0].row["modality"] == "sound"
    assert "(A) low\n(B) middle\n(C) high" in found[0].prompt
    run = run_task(Evaluator(model=ToyModel(), task=load_language_task("mmar")), found, tmp_path / "out")
    assert run.scored["strict"].scores["accuracy"].value == 1.0
    assert "all_correct_rate" not in run.scored["strict"].scores


def test_mmau_pro_leaves_out_what_needs_a_judge_or_several_clips(tmp_path: Path) -> None:
    tones(tmp_path, "data/a.wav")
    closed = {"question": "Which tone?", "choices": list(TONES), "answer": "low", "category": "sound"}
    records = [
        {**closed, "id": "1", "audio_path": ["data/a.wav"]},
        {**closed, "id": "2", "audio_path": ["data/a.wav", "data/b.wav"]},
        {**closed, "id": "3", "audio_path": ["data/a.wav"], "category": "open", "choices": []},
        {**closed, "id": "4", "audio_path": ["data/a.wav"], "category": "instruction following"},
    ]
    notes: list[str] = []
    found = questions_of("mmau_pro", write(tmp_path, "test.parquet", records), notes)
    assert [each.row["id"] for each in found] == ["1"]
    assert sorted(note.split(" of ")[0] for note in notes) == ["1 records", "2 records"]


@pytest.mark.parametrize("name", ["train.parquet", "mmsu.jsonl"])
def test_mmsu_with_its_audio_inside_or_beside(tmp_path: Path, name: str) -> None:
    tones(tmp_path, "a.wav")
    content = (tmp_path / "a.wav").read_bytes()
    audio = {"audio": {"bytes": content, "path": "a.wav"}} if name.endswith("parquet") else {"audio_path": "a.wav"}
    (found,) = questions_of("mmsu", write(tmp_path, name, [{**LETTERED, **audio, "answer_gt": "low", "id": "x"}]))
    assert found.prompt.endswith("Question: Which tone?\n\nA. low\nB. middle\nC. high")
    assert found.row["choices"] == list(TONES) and found.audio.read() == content


def test_air_bench_finds_its_folders(tmp_path: Path) -> None:
    tones(tmp_path, "Sound_AQA_clotho/a.wav", "Audio_Grounding_set/b.flac")
    records = [
        {**LETTERED, "path": "a.wav", "task_name": "Sound_AQA", "dataset_name": "clotho", "answer_gt": "low"},
        {**LETTERED, "path": "b.wav", "task_name": "Audio_Grounding", "dataset_name": "set", "answer_gt": "high"},
    ]
    for number, record in enumerate(records):
        record["uniq_id"] = number
    found = questions_of("air_bench_foundation", write(tmp_path, "Foundation_meta.json", records))
    assert [each.audio.name for each in found] == ["Sound_AQA_clotho/a.wav", "Audio_Grounding_set/b.flac"]
    assert all(each.audio.read() for each in found) and found[1].row["task_name"] == "Audio_Grounding"
    assert {each.row["dataset_name"] for each in found} == {"AIR-Bench Foundation"}


def test_star_bench_is_asked_in_every_rotation(tmp_path: Path) -> None:
    tones(tmp_path, "a.wav", "b.wav")
    record = {"task": "pc", "question": "Which tone?", "options": list(TONES)}
    records = [
        {**record, "id": "p_1", "audio_paths": ["a.wav"], "answer": "low"},
        {**record, "id": "p_2", "audio_paths": ["b.wav"], "answer": "middle"},
        {**record, "id": "p_3", "audio_paths": ["a.wav", "b.wav"], "answer": "middle"},
    ]
    notes: list[str] = []
    found = questions_of("star_bench", write(tmp_path, "foundation_perception.json", records), notes)
    assert [each.row["order"] for each in found] == [0, 1, 2] * 2 and len(notes) == 1
    assert [each.row["choices"][0] for each in found[:3]] == ["low", "high", "middle"]
    assert "<A>: high\n<B>: low\n<C>: middle" in found[1].prompt

    class Wavering(ToyModel):
        """Right about the second question in its first order alone."""

        def answer(self, tone: str, prompt: str) -> str:
            return tone if tone == "low" or "<A>: low" in prompt else "high"

    task = load_language_task("star_bench")
    scored = run_task(Evaluator(model=Wavering(), task=task), found, tmp_path / "out").scored["strict"]
    assert scored.scores["accuracy"].value == pytest.approx(4 / 6)
    assert scored.scores["all_correct_rate"].value == pytest.approx(1 / 2)
    assert scored.scores["all_correct_rate"].n == 2 and len(scored.items["accuracy"]) == 6


def test_star_bench_reasoning_has_three_runs(tmp_path: Path) -> None:
    tones(tmp_path, "a.wav")
    record = {"id": "s_1", "question": "Where?", "options": ["left", "right", "front", "back"], "answer": "left"}
    records = [{**record, "audio_paths": ["a.wav"]}]
    assert len(questions_of("star_bench", write(tmp_path, "holistic_reasoning_spatial.json", records))) == 3


def test_voicebench_has_spoken_questions(tmp_path: Path) -> None:
    tones(tmp_path, "a.wav", "b.wav", "c.wav")
    records = [
        {
            "audio": {"bytes": (tmp_path / f"{name}.wav").read_bytes(), "path": f"{name}.wav"},
            "prompt": name,
            "reference": ref,
        }
        for name, ref in (("a", "B"), ("b", "No"), ("c", "an essay"))
    ]
    notes: list[str] = []
    found = questions_of("voicebench_closed", write(tmp_path, "test.parquet", records), notes)
    assert [(each.row["choices"], each.row["answer"]) for each in found] == [
        (["A", "B", "C", "D"], "B"),
        (["yes", "no"], "no"),
    ]
    assert all("spoken question" in each.prompt for each in found) and "neither a letter" in notes[0]


@pytest.mark.parametrize(
    ("task", "name", "records", "message"),
    [
        ("mmar", "m.json", [{"id": "a"}], "is it the official file"),
        (
            "mmar",
            "m.json",
            [{"audio_path": "../../etc/passwd", "question": "q", "choices": ["a"], "answer": "a"}],
            "outside",
        ),
        ("mmsu", "m.jsonl", [{**LETTERED, "audio_path": "a.wav", "answer_gt": "loud"}], "answer is"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, task: str, name: str, records: list[Any], message: str) -> None:
    tones(tmp_path, "a.wav")
    with pytest.raises(DataError, match=message):
        questions_of(task, write(tmp_path, name, records))
