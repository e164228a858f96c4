"""evaluate compare and evaluate report, from folders to what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from auricle.cli import evaluate_report
from auricle.errors import DataError
from auricle.metrics.scoring_rule import ScoringRule

from ..evaluate.toy_runs import score_file

LABELS = ["cat", "dog", "rain", "sea"] * 4


def call(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(evaluate_report.compare)
    app.command()(evaluate_report.report)
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    for model, wrong in (("a", 0), ("b", 9)):
        place = folder / model / "events"
        place.mkdir(parents=True)
        rows = [
            {
                "dataset_name": "Set",
                "audio": f"{at}.wav",
                "model_output": label if at >= wrong else "\x1b[31mx",
                "label": [label],
                "model_name": model,
            }
            for at, label in enumerate(LABELS)
        ]
        (place / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rules: list[ScoringRule] = ["strict", "compat"] if model == "a" else ["strict"]
        for rule in rules:
            scored = score_file(place / "answers.jsonl", "tagging", rule, rounds=20)
            (place / f"{rule}.json").write_text(scored.to_json())
    return folder


def test_a_comparison_in_words(out: Path) -> None:
    done = call("compare", out / "a", out / "b")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[:2] == ["A: a", "B: b"]
    (line,) = [line for line in lines if line.startswith("events")]
    assert "A 100.0 B  43.8" in line and "+56.2 [" in line and "9 : 0, p 0.0039" in line and line.endswith("A better")
    assert "not compared: events compat: only the first model has it" in lines
    assert call("compare", out / "b", out / "a").output.splitlines()[3].endswith("B better")
    assert "no difference shown" in call("compare", out / "a", out / "a").output


def test_a_comparison_as_json(out: Path) -> None:
    done = call("compare", out / "a" / "events" / "strict.json", out / "b" / "events" / "strict.json", "--json")
    found = json.loads(done.output)
    (test,) = found["tests"]
    assert test["better"] == "first" and test["difference"]["value"] == pytest.approx(9 / 16) and test["wins"] == 9
    assert found["left_out"] == []


def test_a_page(out: Path, tmp_path: Path) -> None:
    done = call("report", out, "-o", tmp_path / "report", "--no-figures", "--worst", 2)
    assert (done.exit_code, done.output.split()) == (0, [str(tmp_path / "report" / "report.html")])
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("clip not found") == 2 and "\x1b" not in page
    done = call("report", out / "a", out / "b", "-o", tmp_path / "other", "--no-figures", "--no-sounds", "--json")
    found = json.loads(done.output)
    assert found["files"] == [str(tmp_path / "other" / "report.html")]
    tables = {each["protocol"]: each for each in found["tables"]}
    assert tables["strict"]["best"] == ["a"] and tables["strict"]["scores"]["b"]["n"] == 16
    assert "clip not found" not in (tmp_path / "other" / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_named(out: Path, tmp_path: Path) -> None:
    assert isinstance(call("compare", out, out / "a").exception, DataError)
    assert isinstance(call("report", tmp_path, "-o", tmp_path / "report").exception, DataError)
    assert call("report", out).exit_code == 2  # no folder for the page
    assert call("compare", out / "a").exit_code == 2
