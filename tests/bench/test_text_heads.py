from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.bench.run import run_benchmark
from auricle.bench.task import LabelRule, Task
from auricle.errors import ConfigError, DataError

from .toy_task import Levels, task, waveform, write

SPLITS = {"folds": (), "train": "train", "valid": "valid", "test": "test", "split_field": "split", "classes": None}


def spoken(**changes: Any) -> Task:
    rule = LabelRule(field="text", value="text")
    facts = {**SPLITS, "kind": "asr", "loss": "language_model", "metric": "WER_inv", "label": rule, "knn": False}
    return task(**{**facts, "epochs": 12, "batch_size": 4, "learning_rate": 3e-3, **changes})


def captioned(**changes: Any) -> Task:
    rule = LabelRule(field="captions", value="text")
    facts = {**SPLITS, "kind": "retrieval", "loss": "contrastive", "metric": "recallatk_r1", "label": rule}
    return task(**{**facts, "knn": False, "epochs": 8, "batch_size": 32, "learning_rate": 1e-3, **changes})


def speech(folder: Path, count: int = 48) -> Path:
    rows = []
    for i in range(count):
        label = ("tone", "noise")[i % 2]
        split = ("train", "train", "train", "train", "valid", "test")[i // 2 % 6]
        rows.append((f"s{i}", {"text": {"tone": "sing", "noise": "hiss"}[label], "split": split}, waveform(label, i)))
    return write(folder, rows)


@pytest.mark.parametrize("scoring_rule", ["compat", "strict"])
def test_words_are_read_off_frames_by_a_frozen_language_model(tmp_path: Path, scoring_rule: Any) -> None:
    result = run_benchmark(
        Levels(), spoken(), speech(tmp_path / "data"), scoring_rule=scoring_rule, store=tmp_path / "store"
    )
    score = result.scores["mlp"]
    assert score.n == 8 and score.value > 0.8 and score.low is not None and score.low <= score.value
    assert (
        score.settings["language_model"] == "auricle-tiny" and len(str(score.settings["language_model_sha256"])) == 64
    )
    assert score.settings["word_error_rate"] == pytest.approx(1 - score.value)
    assert np.mean(list(result.items["mlp"].values())) == pytest.approx(score.value)
    assert {truth for truth, _ in score.settings["transcripts"]} <= {"sing", "hiss"}
    again = run_benchmark(Levels(), spoken(), tmp_path / "data", scoring_rule=scoring_rule, store=tmp_path / "store")
    assert (again.scores, again.items, again.cost.encoded) == (result.scores, result.items, 0)


def test_an_encoder_of_silence_transcribes_at_chance(tmp_path: Path) -> None:
    folder = speech(tmp_path / "data")
    for wav in folder.glob("*.wav"):
        soundfile.write(wav, np.zeros(8000, np.float32), 16_000)
    result = run_benchmark(Levels(), spoken(epochs=3), folder, scoring_rule="strict", store=tmp_path / "store")
    assert result.scores["mlp"].value <= 0.5


@pytest.mark.parametrize("scoring_rule", ["compat", "strict"])
def test_captions_are_found_by_clips(tmp_path: Path, scoring_rule: Any) -> None:
    rows = []
    for i in range(60):
        label = ("tone", "noise")[i % 2]
        split = ("train", "train", "train", "valid", "test")[i // 2 % 5]
        captions = [f"{label} of a machine", f"some {label} is audible"]
        # Loudness separates the clips of a kind, as words do: quiet, loud.
        loud = i % 4 < 2
        captions = [f"{'loud' if loud else 'quiet'} {caption}" for caption in captions]
        samples = waveform(label, i) * (1.0 if loud else 0.1)
        rows.append((f"s{i}", {"captions": captions, "split": split}, samples))
    folder = write(tmp_path / "data", rows)
    result = run_benchmark(Levels(), captioned(), folder, scoring_rule=scoring_rule, store=tmp_path / "store")
    score = result.scores["mlp"]
    # Three test clips of each of four kinds have the same captions, so R@1 ends near a third; chance is a twelfth.
    assert score.n == 12 and len(result.items["mlp"]) == 12
    assert score.value == pytest.approx(np.mean(list(result.items["mlp"].values())), abs=1e-6)
    assert score.settings["audio_to_text"]["r5"] >= 0.5
    assert score.settings["text_to_audio"]["r5"] >= 0.5


def test_clips_beyond_the_context_are_refused_before_training(tmp_path: Path) -> None:
    class Dense(Levels):
        def embed_many(self, sources: Any, *, frames: bool = False) -> Any:
            for result in super().embed_many(sources, frames=frames):
                yield SimpleNamespace(values=result.values.repeat(200, 1))

    with pytest.raises(ConfigError, match="reads 2048 tokens"):
        run_benchmark(Dense(), spoken(), speech(tmp_path / "data"), scoring_rule="compat", store=tmp_path / "store")


def test_texts_are_not_scored_in_folds(tmp_path: Path) -> None:
    rows = [(f"s{i}", {"text": "a", "fold": "ab"[i % 2]}, waveform("tone", i)) for i in range(8)]
    folds = spoken(folds=("a", "b"), train=None, valid=None, test=None, split_field="fold")
    with pytest.raises(DataError, match="folds"):
        run_benchmark(Levels(), folds, write(tmp_path / "data", rows), scoring_rule="compat", store=tmp_path / "store")
