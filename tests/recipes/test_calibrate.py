"""The recipe step that calibrates a model's confidence, on models whose confidence is known to be wrong."""

import importlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import auricle
from auricle.data.shards import ShardSet, ShardWriter
from auricle.data.vocabulary import event_name
from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.listen.confidence import Calibration
from auricle.metrics.calibration import LogisticMap, calibration_error
from auricle.weights import read_card, safe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tiny"
TINY = ROOT / "tests" / "fixtures" / "midashenglm" / "model"
EVENTS = ("dog", "rain", "rooster", "helicopter")
CLIPS = 240


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RECIPE))
    try:
        yield importlib.import_module("calibrate")
    finally:
        sys.path.remove(str(RECIPE))


def facts_of(number: int) -> dict[str, Any]:
    ways: list[dict[str, Any]] = [
        {"kind": "sound", "event": EVENTS[number // 4 % 4], "set": "own"},
        {"kind": "speech", "text": ("one", "two")[number // 4 % 2], "gender": "m", "language": "en"},
        {"kind": "music", "instruments": ["piano"]},
        {"kind": "speech", "text": "a long story of a night", "gender": "f", "language": "de"},
    ]
    return ways[number % 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "valid"
    with ShardWriter(folder, "own") as writer:
        for number in range(CLIPS):
            # The first sample tells the fake model which clip it is.
            waveform = np.full(3200, (number + 1) / 1000, np.float32)
            writer.write(f"clip{number:03}", waveform, facts_of(number))
    return folder


@pytest.fixture(scope="module")
def shards(folder: Path) -> ShardSet:
    return ShardSet(folder)


class Overconfident:
    """Right in `share` of its answers, and as sure of all of them, but for a little."""

    def __init__(self, share: float) -> None:
        self.share, self.rng = share, np.random.default_rng(0)
        self.calibration = Calibration()

    def facts(self, clip: np.ndarray) -> dict[str, Any]:
        return facts_of(round(1000 * float(clip[0])) - 1)

    def ask_many(self, clips: Sequence[np.ndarray], prompt: str) -> Iterator[Any]:
        for clip in clips:
            meta, is_right = self.facts(clip), self.rng.uniform() < self.share
            right = {
                CAPTION_PROMPT: {"sound": f"A {meta.get('event')} sounds.", "speech": "A man speaks."}.get(
                    meta["kind"], "Piano music."
                ),
                TRANSCRIBE_PROMPT: meta.get("text", ""),
            }.get(prompt, meta["kind"])
            confidence = 0.9 + 0.08 * self.rng.uniform() + 0.01 * is_right
            yield SimpleNamespace(text=right if is_right else "thunder", confidence=confidence)

    def choose_many(self, clips: Sequence[np.ndarray], question: str, options: Sequence[str]) -> Iterator[Any]:
        for clip in clips:
            meta = self.facts(clip)
            name = event_name(meta["event"]) if "sound" not in options else meta["kind"]
            place = list(options).index(name)
            if self.rng.uniform() >= self.share:
                place = (place + 1) % len(options)
            yield SimpleNamespace(text=options[place], confidence=0.9 + 0.1 * self.rng.uniform())


def test_an_overconfident_model_is_brought_to_its_share(recipe: ModuleType, shards: ShardSet) -> None:
    settings, rows = recipe.calibrate(Overconfident(0.6), shards, limit=1000)
    assert set(rows) == {"caption", "answer", "transcript", "label"}
    assert len(rows["caption"][0]) == CLIPS
    for kind, (before, after) in rows.items():
        right = before[:, 1].mean()
        assert (before[:, 1] == after[:, 1]).all()
        assert calibration_error(before) == pytest.approx(before[:, 0].mean() - right, abs=0.02)
        assert calibration_error(after) < 0.1 and calibration_error(after) < calibration_error(before) / 2, kind
    # Half of the speech with a text is open, and wrong however it is written.
    assert rows["transcript"][0][:, 1].mean() == pytest.approx(0.3, abs=0.1)
    change = LogisticMap(settings["auricle_caption_confidence_slope"], settings["auricle_caption_confidence_offset"])
    assert change(0.94) == pytest.approx(0.6, abs=0.1)
    assert all(len(str(value)) < 9 for value in settings.values())


def test_kinds_with_too_few_right_or_wrong_answers_stay_as_they_are(recipe: ModuleType, shards: ShardSet) -> None:
    settings, rows = recipe.calibrate(Overconfident(1.0), shards, limit=2)
    assert settings == {} == rows


def test_what_declines_is_no_transcript(recipe: ModuleType, shards: ShardSet) -> None:
    class Modest(Overconfident):
        def ask_many(self, clips: Sequence[np.ndarray], prompt: str) -> Iterator[Any]:
            for clip, found in zip(clips, super().ask_many(clips, prompt), strict=True):
                is_long = len(self.facts(clip).get("text", "").split()) > 1
                yield SimpleNamespace(text="speech in German" if is_long else found.text, confidence=found.confidence)

    found = recipe.answered(Modest(0.5), shards, recipe.TRANSCRIPTS, 1000)
    assert len(found) == CLIPS // 4


def test_folds_have_their_share_of_right_answers(recipe: ModuleType) -> None:
    right = np.array([1, 0, 0, 0] * 25)
    folds = recipe.folds_of(right)
    assert [int(right[folds == fold].sum()) for fold in range(recipe.FOLDS)] == [5] * 5


def test_the_models_folder_declares_it(recipe: ModuleType, shards: ShardSet, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    file = folder / "generation_config.json"
    old = {"auricle_open_speech_below": 0.7, "auricle_answer_confidence_slope": 3.0, "auricle_unsure_below": 0.9}
    file.write_text(json.dumps({**json.loads(file.read_text()), **old}))
    safe.write_checksums(folder)
    settings, rows = recipe.calibrate(Overconfident(0.6), shards, limit=1000)
    del settings["auricle_answer_confidence_slope"], settings["auricle_answer_confidence_offset"], rows["answer"]
    table = recipe.declare(folder, settings, rows, unsure_below=0.5)
    stated = json.loads(file.read_text())
    assert stated["auricle_unsure_below"] == 0.5 and settings.items() <= stated.items()
    assert "auricle_open_speech_below" not in stated and "auricle_answer_confidence_slope" not in stated
    safe.verify_checksums(folder)
    card = read_card(folder)
    assert card.calibration == table and set(table) == {"caption", "transcript", "label"}
    for row in table.values():
        assert row["error_after"] < row["error_before"] and 0 <= row["unsure_of_right"] <= row["unsure_of_wrong"] + 0.2
    text = (folder / "README.md").read_text()
    assert "## How sure it is" in text and "| caption | 240 |" in text and "(calibration.svg)" in text
    figure = ElementTree.fromstring((folder / "calibration.svg").read_text())
    assert figure.tag.endswith("svg") and (folder / "calibration.svg").stat().st_size < 20_000
    model = auricle.load(str(folder), device="cpu")
    assert model.calibration.caption.slope == settings["auricle_caption_confidence_slope"]
    assert model.calibration.answer == LogisticMap() and model.unsure_below == 0.5
    # Again, after which all is the same.
    assert recipe.declare(folder, settings, rows, unsure_below=0.5) == table
    assert json.loads(file.read_text()) == stated


def test_a_model_is_calibrated_from_the_command_line(
    recipe: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    loaded = Overconfident(0.6)
    loaded.calibration = Calibration(caption=LogisticMap(2.0, 1.0))
    monkeypatch.setattr(recipe.auricle, "load", lambda name, device: loaded)
    monkeypatch.setattr(sys, "argv", ["calibrate.py", str(folder), str(model), "--unsure-below", "0.4"])
    recipe.main()
    printed = json.loads(capsys.readouterr().out)
    assert loaded.calibration == Calibration(), "it measures what the model gives"
    stated = json.loads((model / "generation_config.json").read_text())
    assert printed["auricle_unsure_below"] == 0.4 == stated["auricle_unsure_below"]
    assert printed["table"] == read_card(model).calibration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["shards/test", "model"], "clips to measure with"), (["valid", "model", "--unsure-below", "2"], "0 to 1")],
)
def test_it_refuses(
    recipe: ModuleType, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        recipe.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
