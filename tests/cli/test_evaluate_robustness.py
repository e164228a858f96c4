"""The verbs robustness and prompts, from files of audio to what they print and write."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import auricle.cli.evaluate_robustness  # noqa: F401  its verbs register themselves
from auricle.cli.evaluate import evaluate
from auricle.errors import AuricleError, ConfigError, MissingExtra

from ..evaluate.toy_model import TONES, ToyModel, tone_bytes
from .conftest import Outcome


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ToyModel:
    found = ToyModel(not_understood=("Name the tone.",))
    monkeypatch.setattr("auricle.load", lambda name, **settings: found)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = []
    for number in range(6):
        label = list(TONES)[number % 3]
        (tmp_path / f"{number}.wav").write_bytes(tone_bytes(label, number))
        rows.append({"audio": f"{number}.wav", "label": label, "question": "Which?", "choices": list(TONES)})
        rows[-1]["answer"] = "ABC"[number % 3]
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.evaluate.robustness_page.plot_cards", refuse)


def refuse(cards: Any) -> Any:
    raise MissingExtra("The figure", "bench")


def run(*arguments: object) -> Outcome:
    result = CliRunner().invoke(evaluate, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def test_robustness_writes_a_card_a_page_and_a_figure(
    model: ToyModel, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("robustness", "-t", f"vggsound={source}", "-c", "gain=-80,10", "-c", "white-noise=30", "-o", out)
    done = run(*arguments)
    assert done.code == 0
    assert "toy on vggsound, strict: 6 questions, clean accuracy 1.000" in done.out
    assert "Gain, nothing clipped: area" in done.out and "below 0.5: downwards -40 dB; upwards never" in done.out
    assert "vggsound: gain, -80 dB" in done.err
    card = json.loads((out / "toy" / "vggsound" / "robustness.strict.json").read_text())
    assert [each["name"] for each in card["conditions"]] == ["gain", "white-noise"]
    names = ["robustness.html", "robustness.vggsound-strict.png", "robustness.vggsound-strict.svg"]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == names
    requests = len(model.prompts)
    assert requests == 6 * 4
    monkeypatch.setattr("auricle.evaluate.robustness_page.plot_cards", refuse)
    (again,) = run(*arguments, "--json").records
    assert len(model.prompts) == requests  # all of it is in the cache
    assert again.pop("file") == str(out / "toy" / "vggsound" / "robustness.strict.json") and again == card


@pytest.mark.usefixtures("undrawn")
def test_models_and_earlier_cards_share_a_page(model: ToyModel, source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ("robustness", "-t", f"vggsound={source}", "-c", "gain=10", "--protocol")
    assert run(*arguments, "strict", "-o", first).code == 0
    model.model = "other"
    card = first / "toy" / "vggsound" / "robustness.strict.json"
    done = run(*arguments, "both", "-o", second, "--beside", card)
    assert done.code == 0 and "no figures" in done.err and not list(second.glob("*.png"))
    page = (second / "robustness.html").read_text()
    assert page.count("<summary>toy: clean") == 1 and page.count("<summary>other: clean") == 2


@pytest.mark.usefixtures("undrawn")
def test_clips_that_fail_decide_the_exit_code(model: ToyModel, source: Path, tmp_path: Path) -> None:
    (tmp_path / "0.wav").write_bytes(b"no audio")
    arguments = ("robustness", "-t", f"vggsound={source}", "-c", "gain=10", "-o", tmp_path / "out")
    refused = run(*arguments)
    assert refused.code == 1 and "1 clips have no answer" in refused.err and not (tmp_path / "out" / "toy").exists()
    counted = run(*arguments, "--missing", "worst")
    assert counted.code == 1 and "clean accuracy 0.833" in counted.out


def test_prompts_reports_the_sensitivity(model: ToyModel, source: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Name the tone.\nWhich one?\n")
    arguments = ("prompts", "-t", f"vggsound={source}", "-o", tmp_path / "out")
    done = run(*arguments, "--prompts", words)
    assert done.code == 0
    assert "toy on vggsound, strict: accuracy under 3 prompts, 6 questions" in done.out
    assert "worst  Name the tone." in done.out and "mean 0.667, standard deviation 0.577" in done.out
    assert "same verdict under all: 0.000 of the items" in done.out
    found = json.loads((tmp_path / "out" / "toy" / "vggsound" / "prompts.strict.json").read_text())
    assert [each["score"]["value"] for each in found["asked"]] == [1.0, 0.0, 1.0]
    assert found["asked"][0]["name"] == "Which label describes the sound?"  # the task's own comes first
    (known,) = run(*arguments, "-k", 4, "--json").records
    assert len(known["asked"]) == 4 and known["spread"] == 0.0


def test_choices_are_moved(model: ToyModel, source: Path, tmp_path: Path) -> None:
    (found,) = run("prompts", "-t", f"mmau={source}", "--choices", "-o", tmp_path / "out", "--json").records
    assert found["kind"] == "choices" and found["same_answer"] == 1.0 and len(found["asked"]) == 3
    assert (tmp_path / "out" / "toy" / "mmau" / "choices.strict.json").is_file()


@pytest.mark.parametrize(
    ("verb", "arguments", "match"),
    [
        ("robustness", ["-c", "rain"], "no corruption 'rain'"),
        ("robustness", ["-t", "vggsound"], "expected NAME=SOURCE"),
        ("robustness", ["-c", "gain=10", "-c", "gain"], "each once"),
        ("prompts", ["--choices", "--field", "long"], "keeps the prompts"),
        ("prompts", ["--field", "long"], "no field 'long'"),
        ("prompts", ["--choices"], "without choices"),
    ],
)
def test_wrong_usage_is_refused(
    model: ToyModel, source: Path, tmp_path: Path, verb: str, arguments: list[Any], match: str
) -> None:
    with pytest.raises(AuricleError, match=match) as caught:
        run(verb, "-t", f"vggsound={source}", "-o", tmp_path / "out", *arguments)
    assert isinstance(caught.value, ConfigError) or "choices" in match
    assert not (tmp_path / "out").exists()
