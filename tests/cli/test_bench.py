import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.bench.results import read_result

from .conftest import auricle

EVENTS = ("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """ESC-10 as a manifest: five of its classes, eight sounds of each in each of four folds."""
    folder = tmp_path / "data" / "esc10"
    folder.mkdir(parents=True)
    lines = []
    for number in range(160):
        rng = np.random.default_rng(number)
        event, fold = EVENTS[number % 5], number // 5 % 4 + 1
        tone = np.sin(2 * np.pi * (300 + 700 * (number % 5)) * np.arange(3200) / 16_000)
        soundfile.write(folder / f"{number}.wav", 0.1 * tone + 0.02 * rng.standard_normal(3200), 16_000)
        lines.append(json.dumps({"id": str(number), "audio": f"{number}.wav", "category": event, "fold": fold}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return tmp_path / "data"


def test_encoders_are_measured_compared_and_reported(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["bench", "run", "-e", "log-mel", "-e", "mfcc", "-t", "esc10", "--data", data, "-o", out]
    done = auricle(*command, "--protocol", "both", "--json")
    assert done.code == 0 and len(done.records) == 4
    for record in done.records:
        result = read_result(record["file"])
        assert result.data.clips == 160 and result.scores["mlp"].value == record["scores"]["mlp"]["value"]
    assert [record["cost"]["reused"] for record in done.records] == [0, 160, 0, 160]
    again = auricle(*command)
    assert again.code == 0 and "160 of 160 kept" in again.out and "log-mel" in again.out

    both = auricle("bench", "compare", out, "--json")
    assert both.code == 0 and {both.records[0]["first"], both.records[0]["second"]} == {"log-mel", "mfcc"}
    swapped = auricle("bench", "compare", out, "-e", "mfcc", "-e", "log-mel", "--json")
    assert swapped.records[0]["first"] == "mfcc"
    assert auricle("bench", "compare", out, "-e", "mfcc").code == 2
    assert auricle("bench", "compare", out, out, "-e", "mfcc", "-e", "log-mel").code == 2

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for name, folder in (("log-mel", "a"), ("mfcc", "b")):
        for file in out.glob(f"{name}*.json"):
            file.rename(tmp_path / folder / file.name)
    compared = auricle("bench", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert compared.code == 0 and {test["judge"] for test in compared.records[0]["tests"]} == {"mlp", "knn"}
    assert "esc10" in auricle("bench", "compare", tmp_path / "a", tmp_path / "b").out
    assert "log-mel" in auricle("bench", "compare", tmp_path / "a").err  # the one that is there
    placed = auricle("bench", "leaderboard", tmp_path / "a", "--json")
    assert placed.err == "auricle: left out, since the suite has no such task: esc10\n"
    assert placed.code == 0 and any(record["origin"] == "published" for record in placed.records)
    pytest.importorskip("matplotlib")
    reported = auricle("bench", "report", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "report")
    assert reported.code == 0 and (tmp_path / "report" / "report.html").read_text().count("log-mel")


def test_a_task_without_data_fails_and_the_others_go_on(data: Path, tmp_path: Path) -> None:
    command = ["bench", "run", "-e", "log-mel", "-t", "esc50", "-t", "esc10", "--data", data, "-o", tmp_path / "out"]
    done = auricle(*command, "--json")
    assert done.code == 1 and "esc50" in done.err
    failed, measured = done.records
    assert failed["task"] == "esc50" and failed["error"] and measured["task"]["name"] == "esc10"


def test_wrong_usage_has_its_own_exit_code(data: Path, tmp_path: Path) -> None:
    run = ["bench", "run", "-o", tmp_path / "out", "--data", data]
    assert auricle(*run, "-e", "log-mel", "-t", "esc11").code == 2
    for flag in ("--protocol", "--scoring-rule"):
        assert auricle(*run, "-e", "log-mel", "-t", "esc10", flag, "loose").code == 2


def test_tasks_are_listed_with_what_is_on_disk(data: Path) -> None:
    listed = auricle("bench", "tasks", "--data", data, "--json").records
    assert {record["name"] for record in listed if record["data"]} == {"esc10"}
    assert len([record for record in listed if record["suite"] == "xares"]) == 22
    assert len([record for record in listed if record["suite"] == "hear"]) == 19
    shown = auricle("bench", "tasks", "--suite", "auricle", "--data", data).out
    assert "esc10" in shown and "on disk" in shown and "clotho" not in shown
