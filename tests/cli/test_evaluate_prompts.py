"""The verb prompts, from files of audio to what it prints and writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from auricle.cli.evaluate_variants import prompts
from auricle.errors import AuricleError, ConfigError

from ..evaluate.toy_model import ToyModel
from .conftest import Outcome, invoke


def run(*arguments: object) -> Outcome:
    return invoke(prompts, *arguments)


def test_prompts_reports_the_sensitivity(toy_model: ToyModel, tones: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Name the tone.\nWhich one?\n")
    arguments = ("-t", f"vggsound={tones}", "-o", tmp_path / "out")
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


def test_choices_are_moved(toy_model: ToyModel, tones: Path, tmp_path: Path) -> None:
    (found,) = run("-t", f"mmau={tones}", "--choices", "-o", tmp_path / "out", "--json").records
    assert found["kind"] == "choices" and found["same_answer"] == 1.0 and len(found["asked"]) == 3
    assert (tmp_path / "out" / "toy" / "mmau" / "choices.strict.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--choices", "--field", "long"], "keeps the prompts"),
        (["--field", "long"], "no field 'long'"),
        (["--choices"], "without choices"),
    ],
)
def test_wrong_usage_is_refused(
    toy_model: ToyModel, tones: Path, tmp_path: Path, arguments: list[Any], match: str
) -> None:
    with pytest.raises(AuricleError, match=match) as caught:
        run("-t", f"vggsound={tones}", "-o", tmp_path / "out", *arguments)
    assert isinstance(caught.value, ConfigError) or "choices" in match
    assert not (tmp_path / "out").exists()
