import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

import auricle as package
from auricle.bench.results import read_result

from ..encode.keys import Keys, sound
from .conftest import auricle

WORDS = ("dog", "rain", "rooster", "sneezing")  # of ESC-10's ten


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    model = Keys()
    model.loads: list[dict[str, Any]] = []  # type: ignore[attr-defined]

    def load(name: str, **settings: Any) -> Keys:
        model.loads.append({"name": name, **settings})  # type: ignore[attr-defined]
        return model

    monkeypatch.setattr(package, "load_aligner", load)
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """ESC-10 as a manifest, four of its classes in four folds; a captioned set beside it."""
    folder = tmp_path / "data" / "esc10"
    folder.mkdir(parents=True)
    labelled, captioned = [], []
    for number in range(16):
        word = WORDS[number % 4]
        soundfile.write(folder / f"{number}.wav", sound(word, seed=number), 16_000)
        facts = {"id": str(number), "audio": f"{number}.wav"}
        labelled.append(json.dumps({**facts, "category": word, "fold": number // 4 + 1}) + "\n")
        captioned.append(json.dumps({**facts, "caption": f"a {word}", "fold": number // 4 + 1}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(labelled))
    (folder / "mine.jsonl").write_text("".join(captioned))
    return tmp_path / "data"


def test_classes_and_captions_are_measured(keys: Keys, data: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "out", data / "esc10" / "mine.jsonl"
    command = ["bench", "align", "-m", "keys", "-t", "esc10", "-t", f"audiocaps={own}", "-t", own, "--data", data]
    done = auricle(*command, "-o", out, "--json")
    assert done.code == 0 and [record["task"]["name"] for record in done.records] == ["esc10", "audiocaps", "mine"]
    classes, captions, _ = (read_result(record["file"]) for record in done.records)
    assert classes.scores["zero_shot"].value == 1.0 and classes.data.clips == 16
    assert captions.scores["retrieval"].value == 1.0 and captions.scores["retrieval"].settings["captions"] == 4
    assert keys.num_clips == 16 and keys.loads[0]["pooling"] is None  # type: ignore[attr-defined]
    shown = auricle(*command, "-o", out, "--published")
    assert keys.num_clips == 16 and "accuracy 100.0 [80.6, 100.0], chance 10.0" in shown.out
    assert "text → audio  mAP@10" in shown.out and "median rank 1.0 [1.0, 1.0]" in shown.out
    line = next(line for line in shown.out.splitlines() if line.startswith("AudioCaps") and "text → audio" in line)
    assert "GLAP  41.6  keys (strict) 100.0 [100.0, 100.0]" in line
    assert "2506.11350" in shown.out


def test_folds_prompts_and_rules_are_chosen(keys: Keys, data: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("dog\train\nrain\tdog\n")
    command = ["bench", "align", "-m", "keys", "--data", data, "-o", tmp_path / "out", "--json"]
    done = auricle(*command, "-t", "esc10", "--fold", "4", "--labels-file", words, "--template", "{label}?")
    score = done.records[0]["scores"]["zero_shot"]
    assert (score["n"], score["value"], score["settings"]["templates"]) == (4, 0.5, ["{label}?"])
    assert auricle(*command, "-t", "esc10", "--domain", "music").code == 0
    assert "The music in the style of dog." in keys.texts
    mine = data / "esc10" / "mine.jsonl"
    done = auricle(*command, "-t", mine, "--protocol", "both", "--fold", "1", "--fold", "2", "--pooling", "v013")
    assert [record["protocol"] for record in done.records] == ["compat", "strict"]
    strict, compat = (record["scores"]["retrieval"]["settings"]["captions"] for record in reversed(done.records))
    assert (strict, compat) == (4, 8) and keys.loads[-1]["pooling"] == "v013"  # type: ignore[attr-defined]


def test_a_task_without_data_fails_and_the_others_go_on(keys: Keys, data: Path, tmp_path: Path) -> None:
    command = ["bench", "align", "-m", "keys", "-t", "esc50", "-t", "esc10", "--data", data, "-o", tmp_path / "out"]
    done = auricle(*command, "--json")
    failed, measured = done.records
    assert done.code == 1 and "keys on esc50" in done.err and failed["error"]
    assert measured["scores"]["zero_shot"]["value"] == 1.0


def test_published_scores_are_shown_without_a_model(keys: Keys, tmp_path: Path) -> None:
    done = auricle("bench", "align", "--published", "-o", tmp_path / "nothing")
    assert done.code == 0 and "ESC-50                   accuracy              GLAP  88.2" in done.out
    rows = auricle("bench", "align", "--published", "-o", tmp_path / "nothing", "--json").records
    assert len(rows) == 18 and all(row["own"] == [] for row in rows)
    assert keys.loads == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--task"),
        (["-t", "esc11"], "esc10"),
        (["-t", "esc10", "--protocol", "loose"], "--scoring-rule"),
        (["-t", "esc10", "--scoring-rule", "loose"], "expected one of strict, compat, both"),
        (["-t", "esc10", "--domain", "noise"], "sound, music, speech, none"),
        (["-t", "voxceleb1"], "numbers of speakers"),
        (["-t", "nsynth_pitch"], "numbers of keys"),
        (["-t", "desed"], "is frame"),
    ],
)
def test_wrong_usage_is_reported(keys: Keys, data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = auricle("bench", "align", *arguments, "--data", data, "-o", tmp_path / "out")
    assert done.code == 2 and message in done.err and keys.num_clips == 0
