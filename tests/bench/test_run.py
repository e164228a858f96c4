import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auricle.bench.run import run_benchmark
from auricle.bench.task import LabelRule, load_task
from auricle.bench.xares import score_linear_head
from auricle.errors import DataError

from .toy_task import Levels, embedded, task, waveform, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(
        tmp_path / "data",
        [
            (f"{label}{i}", {"label": label, "fold": "ab"[i % 2]}, waveform(label, 100 * (label == "tone") + i))
            for label in ("noise", "tone")
            for i in range(40)
        ],
    )


@pytest.mark.parametrize("scoring_rule", ["compat", "strict"])
def test_a_task_is_measured_from_clips_to_scores(folder: Path, tmp_path: Path, scoring_rule: Any) -> None:
    encoder = Levels()
    result = run_benchmark(encoder, task(), folder, scoring_rule=scoring_rule, store=tmp_path / "store")
    assert encoder.count == 80 and result.data.clips == 80 and result.data.splits == {"a": 40, "b": 40}
    assert set(result.scores) == {"mlp", "knn"} and result.scores["mlp"].folds.keys() == {"a", "b"}
    for head, score in result.scores.items():
        # The released kNN scales features, not clips: with two features it cannot separate levels.
        assert score.n == 80 and (score.value > 0.9 or (head, scoring_rule) == ("knn", "compat"))
        assert score.low is not None and score.high is not None and score.low <= score.value <= score.high
        assert score.value == pytest.approx(np.mean(list(score.folds.values())))
    assert result.items["mlp"].keys() == {f"{'ab'[i % 2]}/{label}{i}" for label in ("noise", "tone") for i in range(40)}
    assert np.mean(list(result.items["mlp"].values())) == pytest.approx(result.scores["mlp"].value)


def test_a_second_run_encodes_nothing_and_scores_the_same(folder: Path, tmp_path: Path) -> None:
    encoder = Levels()
    first = run_benchmark(encoder, task(), folder, scoring_rule="strict", store=tmp_path / "store")
    encoder.count = 0
    second = run_benchmark(encoder, task(), folder, scoring_rule="strict", store=tmp_path / "store")
    run_benchmark(encoder, task(), folder, scoring_rule="compat", store=tmp_path / "store")
    assert encoder.count == 0 and second.cost.reused == 80
    assert second.cost.audio_s == 0 and first.cost.audio_s == first.data.seconds == pytest.approx(80 * 0.48)
    assert replace(second, cost=first.cost).to_json() == first.to_json()  # the same bytes, but for what it took


def test_classes_that_the_data_lacks_are_stated(folder: Path, tmp_path: Path) -> None:
    more = task(classes=("noise", "tone", "silence"))
    result = run_benchmark(Levels(), more, folder, scoring_rule="strict", store=tmp_path / "store")
    assert [each.settings["absent_classes"] for each in result.scores.values()] == [["silence"]] * 2
    whole = run_benchmark(Levels(), task(), folder, scoring_rule="strict", store=tmp_path / "store")
    assert all("absent_classes" not in each.settings for each in whole.scores.values())


def test_labels_without_relation_to_the_clips_score_chance(folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rng = np.random.default_rng(0)
    for row in rows:
        row["label"] = str(rng.choice(["noise", "tone"]))
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_benchmark(Levels(), task(), folder, scoring_rule="strict", store=tmp_path / "store")
    for score in result.scores.values():
        assert 0.3 < score.value < 0.7


def test_crops_are_kept_and_scored_by_clip_when_strict(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "data",
        [
            (f"{label}{i}", {"label": label, "fold": "ab"[i % 2]}, waveform(label, i, seconds=5.0))
            for label in ("noise", "tone")
            for i in range(16)
        ],
    )
    cropped = task(crop_s=1.0)
    strict = run_benchmark(Levels(), cropped, folder, scoring_rule="strict", store=tmp_path / "store")
    compat = run_benchmark(Levels(), cropped, folder, scoring_rule="compat", store=tmp_path / "store")
    assert strict.data.pieces == compat.data.pieces == 160
    assert strict.scores["knn"].n == 32 and compat.scores["knn"].n == 160
    assert len(strict.items["knn"]) == len(compat.items["knn"]) == 32


def test_a_class_no_fold_trained_on_is_never_hit() -> None:
    rows = replace(embedded([0, 1] * 20, ["a", "a", "b", "b"] * 10), labels=torch.tensor([0, 1, 0, -1] * 10))
    wrong = score_linear_head(rows, "compat", seed=0).items
    assert all(wrong[f"s{i}"] == 0.0 for i in range(3, 40, 4))


def test_several_labels_are_scored_by_average_precision(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        label = ("noise", "tone", "noise;tone")[i % 3]
        parts = [waveform(name, i) for name in label.split(";")]
        rows.append((f"s{i}", {"label": label, "fold": "ab"[i // 3 % 2]}, np.sum(parts, axis=0)))
    many = task(label=LabelRule(field="label", separator=";"), loss="bce", metric="mAP", knn=False)
    result = run_benchmark(
        Levels(), many, write(tmp_path / "data", rows), scoring_rule="strict", store=tmp_path / "store"
    )
    assert set(result.scores) == {"mlp"} and result.scores["mlp"].value > 0.8
    assert result.scores["mlp"].classes.keys() == {"noise", "tone"}


def test_numbers_are_scored_by_their_squared_error(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        level = (i % 10) / 10
        samples = (0.3 * level + 0.02) * waveform("noise", i) * 10
        rows.append((f"s{i}", {"label": level, "fold": "ab"[i % 2]}, samples))
    rule = LabelRule(field="label", value="number")
    scored = task(kind="regression", loss="mse", metric="MSE", label=rule, classes=None, knn=False, epochs=60)
    result = run_benchmark(
        Levels(), scored, write(tmp_path / "data", rows), scoring_rule="compat", store=tmp_path / "store"
    )
    assert not result.task.higher_is_better and 0 <= result.scores["mlp"].value < 0.082  # below their variance


def test_events_are_scored_in_segments(tmp_path: Path) -> None:
    rows = []
    for i in range(40):
        quiet = 0.01 * waveform("noise", i, seconds=2.0)
        events = []
        for start in (0.0, 1.0):
            if np.random.default_rng((i, int(start))).random() < 0.5:
                quiet[int(start * 16_000) :][:16_000] += waveform("tone", i, seconds=1.0)
                events.append({"onset": start, "offset": start + 1.0, "event": "tone"})
        rows.append((f"s{i}", {"label": events, "fold": "ab"[i % 2]}, quiet))
    rule = LabelRule(field="label", event="event", onset="onset", offset="offset")
    framed = task(
        kind="frame",
        loss="bce",
        metric="segmentf1_macro",
        segment_s=1.0,
        frames_s=2.0,
        label=rule,
        classes=("tone",),
        knn=False,
    )
    result = run_benchmark(
        Levels(), framed, write(tmp_path / "data", rows), scoring_rule="strict", store=tmp_path / "store"
    )
    assert result.scores["mlp"].value > 0.8 and len(result.items["mlp"]) == 40


def test_clips_in_two_folds_are_reported(tmp_path: Path) -> None:
    rows = [
        (f"{label}{i}", {"label": label, "fold": "ab"[i % 2]}, waveform(label, i // 2 if i < 4 else i))
        for label in ("noise", "tone")
        for i in range(20)
    ]
    result = run_benchmark(
        Levels(), task(), write(tmp_path / "data", rows), scoring_rule="strict", store=tmp_path / "store"
    )
    assert {frozenset((one, other)) for one, _, other, _ in result.leaks.exact} == {
        frozenset((f"a/{label}{i}", f"b/{label}{i + 1}")) for label in ("noise", "tone") for i in (0, 2)
    }


def test_refused_clips_end_the_run(folder: Path, tmp_path: Path) -> None:
    (folder / "tone3.wav").unlink()
    with pytest.raises(DataError, match="tone3"):
        run_benchmark(Levels(), task(), folder, scoring_rule="strict", store=tmp_path / "store")
    (folder / "tone3.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"1 of 80 clips .* b/tone3"):
        run_benchmark(Levels(), task(), folder, scoring_rule="strict", store=tmp_path / "store")


def test_scenes_of_hear_are_scored_by_its_predictor(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        label = ("tone", "noise")[i % 2]
        rows.append((f"s{i}", {"labels": [label], "split": f"fold{i // 2 % 3:02}"}, waveform(label, i)))
    folds = ("fold00", "fold01", "fold02")
    facts = replace(load_task("hear_esc50").hear, duration_s=0.4)
    scenes = replace(load_task("hear_esc50"), folds=folds, classes=None, epochs=30, hear=facts)
    result = run_benchmark(
        Levels(), scenes, write(tmp_path / "data", rows), scoring_rule="compat", store=tmp_path / "store"
    )
    score = result.scores["hear"]
    assert score.value > 0.9 and set(score.folds) == set(folds) and len(result.items["hear"]) == 60
    assert result.data.seconds == pytest.approx(60 * 0.4)  # each cut to the task's length


def test_events_of_hear_are_found_by_their_onsets(tmp_path: Path) -> None:
    rows = []
    for i in range(36):
        quiet = 0.05 * waveform("noise", i, seconds=1.0)
        start = 0.1 + 0.05 * (i % 9)
        quiet[int(start * 16_000) :][:4800] += 9 * waveform("tone", i, seconds=0.3)
        events = [{"label": "tone", "start": 1000 * start, "end": 1000 * (start + 0.3)}]
        rows.append((f"s{i}", {"events": events, "split": ("train", "valid", "test")[i // 3 % 3]}, quiet))
    task = load_task("hear_dcase2016_task2")
    framed = replace(task, classes=("tone",), epochs=20, hear=replace(task.hear, duration_s=1.0))
    result = run_benchmark(
        Levels(), framed, write(tmp_path / "data", rows), scoring_rule="compat", store=tmp_path / "store"
    )
    assert result.scores["hear"].value > 0.8 and result.task.metric == "onset_f"
