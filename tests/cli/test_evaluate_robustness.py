"""The verb robustness, from files of audio to what it prints and writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from auricle.cli.evaluate_variants import robustness
from auricle.errors import ConfigError, MissingExtra

from ..evaluate.toy_model import ToyModel
from .conftest import Outcome, invoke


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.evaluate.robustness_page.plot_cards", refuse)


def refuse(cards: Any) -> Any:
    raise MissingExtra("The figure", "bench")


def run(*arguments: object) -> Outcome:
    return invoke(robustness, *arguments)


def test_robustness_writes_a_card_a_page_and_a_figure(
    toy_model: ToyModel, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("-t", f"vggsound={tones}", "-c", "gain=-80,10", "-c", "white-noise=30", "-o", out)
    done = run(*arguments)
    assert done.code == 0
    assert "toy on vggsound, strict: 6 questions, clean accuracy 1.000" in done.out
    assert "Gain, nothing clipped: area" in done.out and "below 0.5: downwards -40 dB; upwards never" in done.out
    assert "vggsound: gain, -80 dB" in done.err
    card = json.loads((out / "toy" / "vggsound" / "robustness.strict.json").read_text())
    assert [each["name"] for each in card["conditions"]] == ["gain", "white-noise"]
    names = ["robustness.html", "robustness.vggsound-strict.png", "robustness.vggsound-strict.svg"]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == names
    requests = len(toy_model.prompts)
    assert requests == 6 * 4
    monkeypatch.setattr("auricle.evaluate.robustness_page.plot_cards", refuse)
    (again,) = run(*arguments, "--json").records
    assert len(toy_model.prompts) == requests  # all of it is in the cache
    assert again.pop("file") == str(out / "toy" / "vggsound" / "robustness.strict.json") and again == card


@pytest.mark.usefixtures("undrawn")
def test_models_and_earlier_cards_share_a_page(toy_model: ToyModel, tones: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ("-t", f"vggsound={tones}", "-c", "gain=10", "--protocol")
    assert run(*arguments, "strict", "-o", first).code == 0
    toy_model.model = "other"
    card = first / "toy" / "vggsound" / "robustness.strict.json"
    done = run(*arguments, "both", "-o", second, "--beside", card)
    assert done.code == 0 and "no figures" in done.err and not list(second.glob("*.png"))
    page = (second / "robustness.html").read_text()
    assert page.count("<summary>toy: clean") == 1 and page.count("<summary>other: clean") == 2


@pytest.mark.usefixtures("undrawn")
def test_clips_that_fail_decide_the_exit_code(toy_model: ToyModel, tones: Path, tmp_path: Path) -> None:
    (tmp_path / "0.wav").write_bytes(b"no audio")
    arguments = ("-t", f"vggsound={tones}", "-c", "gain=10", "-o", tmp_path / "out")
    refused = run(*arguments)
    assert refused.code == 1 and "1 clips have no answer" in refused.err and not (tmp_path / "out" / "toy").exists()
    counted = run(*arguments, "--missing", "worst")
    assert counted.code == 1 and "clean accuracy 0.833" in counted.out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["-c", "rain"], "no corruption 'rain'"),
        (["-t", "vggsound"], "expected NAME=SOURCE"),
        (["-c", "gain=10", "-c", "gain"], "each once"),
    ],
)
def test_wrong_usage_is_refused(
    toy_model: ToyModel, tones: Path, tmp_path: Path, arguments: list[Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        run("-t", f"vggsound={tones}", "-o", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()
