import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from auricle.bench import hear
from auricle.bench.embedded_task import EmbeddedTask
from auricle.bench.hear import chroma_accuracy, hear_partitions, placements, predictor_settings, score_hear
from auricle.bench.hear_events import frame_times, labels_at
from auricle.bench.hear_predictor import Fitted, GridPoint
from auricle.bench.task import Task, load_task, tasks
from auricle.bench.xares import HeadResult
from auricle.errors import ConfigError, DataError
from auricle.metrics.classification import roc_auc
from auricle.metrics.events import Event, onset_scores

POINTS = [GridPoint(1, 2e-2, "xavier_uniform"), GridPoint(2, 1e-2, "xavier_normal")]
DIM, HOP_MS, FRAMES = 12, 40.0, 100
NAMES = ("2", "11", "14", "23")  # pitches: the first and third are octaves of each other, the second and fourth too


def task(name: str, **changes: Any) -> Task:
    return replace(load_task(name), **changes)


def scenes(chosen: Task, *, each: int = 24, noise: float = 0.3, seed: int = 0) -> EmbeddedTask:
    """Sounds of four classes in turn, ``each`` of every split; a class is a direction."""
    rng = torch.Generator().manual_seed(seed)
    splits = [name for name in chosen.splits for _ in range(each)]
    classes = torch.arange(len(splits)) % len(NAMES)
    features = torch.eye(DIM)[classes] * 2
    labels = classes
    if chosen.is_multilabel:
        others = torch.randint(len(NAMES), (len(splits),), generator=rng)
        features = features + torch.eye(DIM)[others] * 2
        labels = torch.nn.functional.one_hot(classes, len(NAMES)).logical_or(
            torch.nn.functional.one_hot(others, len(NAMES))
        )
    return EmbeddedTask(
        task=chosen,
        ids=[f"{split}/s{i}" for i, split in enumerate(splits)],
        splits=splits,
        labels=labels.float() if labels.ndim == 2 else labels,
        classes=NAMES,
        features=features + noise * torch.randn(len(splits), DIM, generator=rng),
        owners=torch.arange(len(splits)),
    )


def timed(chosen: Task, *, each: int = 6, noise: float = 0.3, length_s: float = 0.6, seed: int = 0) -> EmbeddedTask:
    """Clips of 4 s with two events each; a class is a direction of the frames."""
    rng = np.random.default_rng(seed)
    splits = [name for name in chosen.splits for _ in range(each)]
    events, frames = [], []
    for number in range(len(splits)):
        onsets = [rng.uniform(0.2, 1.0), rng.uniform(2.0, 3.0)]
        own = [Event(at, at + length_s, NAMES[(number + i) % 2]) for i, at in enumerate(onsets)]
        active = labels_at(own, NAMES[:2], frame_times(FRAMES, HOP_MS))
        events.append(own)
        frames.append(2 * active @ torch.eye(2, DIM) + noise * torch.tensor(rng.standard_normal((FRAMES, DIM))).float())
    return EmbeddedTask(
        task=chosen,
        ids=[f"{split}/s{i}" for i, split in enumerate(splits)],
        splits=splits,
        labels=torch.zeros(len(splits), 2),
        classes=NAMES[:2],
        features=torch.cat(frames),
        owners=torch.arange(len(splits)),
        lengths=torch.full((len(splits),), FRAMES),
        events=events,
        hop_ms=HOP_MS,
    )


def head(table: EmbeddedTask, *, epochs: int = 12, points: Sequence[GridPoint] = POINTS, **changes: Any) -> HeadResult:
    batch = 12 if table.lengths is None else 256
    small = {"width": 24, "batch_size": batch, "max_epochs": epochs, "check_every": 3, **changes}
    return score_hear(table, seed=1, settings=replace(predictor_settings(table.task, 1), **small), points=points)


@pytest.mark.parametrize("name", [declared.name for declared in tasks("hear")])
def test_every_declared_task_is_scored(name: str) -> None:
    chosen = load_task(name)
    table = timed(chosen) if chosen.kind == "frame" else scenes(chosen)
    score, items = head(table, points=POINTS[:1])
    tested = {i for i, split in zip(table.ids, table.splits, strict=True) if chosen.folds or split == "test"}
    assert set(items) == tested and score.n == len(tested)
    assert score.folds.keys() == set(chosen.folds)
    assert 0.85 < score.value <= 1 and score.low is not None and score.high is not None
    assert score.low - 1e-9 <= score.value <= score.high + 1e-9
    if chosen.folds:
        assert score.value == pytest.approx(np.mean(list(score.folds.values())))
    assert set(score.classes) == set(table.classes)
    assert chosen.hear is not None and set(chosen.hear.beside) <= set(score.settings["beside"])
    json.dumps(dict(score.settings), allow_nan=False)


def test_settings_are_those_of_hear() -> None:
    esc, events, piano = (
        predictor_settings(load_task(f"hear_{name}"), 7) for name in ("esc50", "dcase2016_task2", "maestro_5h")
    )
    assert (esc.kind, esc.batch_size, esc.max_epochs, esc.check_every) == ("multiclass", 1024, 500, 3)
    assert (esc.patience, esc.width, esc.select_by, esc.seed) == (20, 1024, "score", 7)
    assert (events.kind, events.check_every, events.select_by) == ("multilabel", 10, "score")
    assert (piano.check_every, piano.select_by) == (1, "loss")


def test_a_fold_is_tested_while_the_next_validates() -> None:
    found = hear_partitions(scenes(load_task("hear_vocal_imitations"), each=2))
    assert [partition.name for partition in found] == ["fold00", "fold01", "fold02"]
    assert [(p.train.tolist(), p.valid.tolist(), p.test.tolist()) for p in found] == [
        ([4, 5], [2, 3], [0, 1]),
        ([0, 1], [4, 5], [2, 3]),
        ([2, 3], [0, 1], [4, 5]),
    ]
    (only,) = hear_partitions(scenes(load_task("hear_fsd50k"), each=2))
    assert (only.train.tolist(), only.valid.tolist(), only.test.tolist()) == ([0, 1], [2, 3], [4, 5])


def test_the_point_of_the_first_fold_serves_all() -> None:
    seen: list[Fitted] = []
    table = scenes(load_task("hear_vocal_imitations"), noise=3.0)
    settings = replace(predictor_settings(table.task, 1), width=16, max_epochs=6)
    settings_seen = score_hear(table, seed=1, settings=settings, points=POINTS, on_point=seen.append).score.settings
    assert [each.point for each in seen[:2]] == POINTS and len(seen) == 4
    best = seen[0] if seen[0].score >= seen[1].score else seen[1]
    assert {each.point for each in seen[2:]} == {best.point} and settings_seen["rate"] == best.point.rate
    assert settings_seen["validation"] == [best.score, seen[2].score, seen[3].score]


@pytest.mark.parametrize("name", ["hear_beehive_states", "hear_dcase2016_task2"])
def test_test_clips_choose_nothing(name: str) -> None:
    chosen = load_task(name)
    table = timed(chosen, noise=1.0) if chosen.kind == "frame" else scenes(chosen, noise=2.0)
    last = torch.tensor([split == "test" for split in table.splits])
    rows = last if table.lengths is None else last.repeat_interleave(FRAMES)
    other = replace(
        table,
        features=torch.where(rows[:, None], -table.features, table.features),
        labels=torch.where(last, 3 - table.labels, table.labels) if table.labels.ndim == 1 else table.labels,
    )
    one, two = head(table), head(other)
    for key in ("rate", "initialisation", "hidden_layers", "epoch", "validation"):
        assert one.score.settings[key] == two.score.settings[key]
    assert one.score.value != two.score.value


def test_a_class_that_was_not_trained_is_never_hit() -> None:
    table = scenes(load_task("hear_speech_commands_5h"))
    unknown = table.labels == 2
    narrow = replace(table, labels=torch.where(unknown, -1, table.labels))
    score, items = head(narrow)
    assert [items[table.ids[i]] for i in unknown.nonzero()[:, 0].tolist() if table.splits[i] == "test"] == [0.0] * 6
    assert score.value == pytest.approx(0.75, abs=0.05)
    with pytest.raises(DataError, match="none of 24 clips"):
        head(replace(table, labels=torch.where(torch.arange(72) < 48, table.labels.clamp(max=-1), table.labels)))


def test_octaves_are_the_same_chroma() -> None:
    """Classes are in the order of their names as text, so their numbers are no semitones."""
    pitches = torch.tensor([108, 21, 33, 34])
    outputs = torch.eye(4)
    labels = torch.tensor([3, 2, 1, -1])  # wrong by 74 semitones, by an octave, by an octave, unknown
    assert chroma_accuracy(outputs, labels, pitches) == 0.5
    assert chroma_accuracy(outputs, torch.arange(4), pitches) == 1.0

    table = scenes(load_task("hear_nsynth_pitch_5h"))
    octaves = replace(table, labels=(table.labels + 2 * (torch.arange(72) >= 48)) % 4)
    score = head(octaves).score
    assert score.value < 0.1 and score.settings["beside"]["chroma accuracy"] > 0.9
    with pytest.raises(DataError, match="no pitches"):
        head(replace(table, classes=("a", "b", "c", "d")))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 4))
def test_placements_average_to_the_area(seed: int, n: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randint(6, (n, classes), generator=generator) / 5  # many equal ones
    truth = (torch.rand(n, classes, generator=generator) < 0.4).float()
    each = placements(outputs, truth)
    known = (truth.any(0) & ~truth.all(0)).nonzero()[:, 0]
    expected = roc_auc(outputs[:, known], truth[:, known]) if len(known) else 0.5
    assert each.shape == (n,) and float(each.mean()) == pytest.approx(expected)
    assert 0 <= float(each.min()) and float(each.max()) <= 1


def test_items_of_areas_average_to_the_score() -> None:
    score, items = head(scenes(load_task("hear_beehive_states"), noise=2.0))
    assert 0.5 < score.value < 1 and np.mean(list(items.values())) == pytest.approx(score.value, abs=1e-5)
    assert np.mean(list(score.classes.values())) == pytest.approx(score.value)


def test_a_perfect_d_prime_is_no_number_of_json() -> None:
    clear = head(scenes(load_task("hear_fsd50k"), noise=0.0), epochs=30, points=POINTS[:1]).score
    assert clear.value == 1.0 and clear.settings["beside"]["d prime"] is None
    noisy = head(scenes(load_task("hear_fsd50k"), noise=1.5)).score
    assert math.isfinite(noisy.settings["beside"]["d prime"]) and noisy.settings["beside"]["AUCROC"] < 1


def test_frames_are_labelled_at_their_centres() -> None:
    times = frame_times(5, 40.0)
    assert times.tolist() == [20, 60, 100, 140, 180]
    events = [Event(0.06, 0.1, "a"), Event(0.101, 0.139, "b"), Event(0.0, 0.021, "b"), Event(0.0, 9.0, "c")]
    assert labels_at(events, ("a", "b"), times).t().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert labels_at([], ("a",), times).tolist() == [[0]] * 5


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=5), st.sampled_from([10.0, 20.0, 40.0]))
def test_frames_of_any_events(bounds: list[tuple[int, int]], hop_ms: float) -> None:
    events = [Event(start / 1000, (start + length) / 1000, "a") for start, length in bounds]
    times = frame_times(12, hop_ms)
    expected = [any(start <= time <= start + length for start, length in bounds) for time in times.tolist()]
    assert labels_at(events, ("a",), times)[:, 0].tolist() == expected


def exact(table: EmbeddedTask) -> tuple[EmbeddedTask, Any]:
    """Features that are the truth itself, and a fit that gives them back as probabilities."""
    active = [labels_at(events, table.classes, frame_times(FRAMES, HOP_MS)) for events in table.events]

    class Scored(Fitted):
        def probabilities(self, embeddings: Tensor) -> Tensor:
            return embeddings

    def fit_folds(folds: Any, **rest: Any) -> list[Fitted]:
        fold_scores = [fold.score(fold.valid.embeddings, fold.valid.targets) for fold in folds]
        return [Scored(None, POINTS[0], "multilabel", score, 3, 3) for score in fold_scores]  # type: ignore[arg-type]

    return replace(table, features=torch.cat(active)), fit_folds


def test_events_labelled_frame_by_frame_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table, fit_folds = exact(timed(load_task("hear_maestro_5h")))
    monkeypatch.setattr(hear, "fit_folds", fit_folds)
    score, items = head(table)
    assert score.value == 1.0 and set(items.values()) == {1.0}
    assert score.settings["validation"] == [1.0] * 5
    assert score.settings["beside"]["precision"] == score.settings["beside"]["recall"] == 1.0
    late = replace(table, features=table.features.roll(2, 0))  # 80 ms, more than the tolerance of 50 ms
    assert head(late).score.value == 0.0


def test_the_shortest_event_is_chosen_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """False events of 200 ms are dropped, unless validation has true ones that are as short."""
    declared = load_task("hear_dcase2016_task2")
    assert declared.hear is not None
    facts = replace(declared.hear, median_filter_ms=None, min_duration_ms=(125.0, 250.0))
    table, fit_folds = exact(timed(replace(declared, hear=facts)))
    monkeypatch.setattr(hear, "fit_folds", fit_folds)
    kept = head(table).score
    assert kept.settings["min_duration_ms"] == [250.0] and kept.value == 1.0
    spurious = table.features.view(-1, FRAMES, 2).clone()
    spurious[:, 94:, 0] = 1.0
    for clips in (slice(6, 12), slice(12, 18)):  # of validation, of the test
        changed = table.features.view(-1, FRAMES, 2).clone()
        changed[clips] = spurious[clips]
        found = head(replace(table, features=changed.flatten(0, 1))).score
        assert found.settings["min_duration_ms"] == [250.0] and found.value == 1.0
    # Short events that are there: keeping them is better on validation, and the test keeps its false ones then.
    short = [[*own, Event(3.78, 3.98, NAMES[0])] if 6 <= i < 12 else own for i, own in enumerate(table.events)]
    changed = replace(table, events=short, features=spurious.flatten(0, 1))
    found = head(changed).score
    assert found.settings["min_duration_ms"] == [125.0] and found.value == pytest.approx(4 / 5)


def test_a_score_of_events_is_that_of_all_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    table, fit_folds = exact(timed(load_task("hear_dcase2016_task2")))
    monkeypatch.setattr(hear, "fit_folds", fit_folds)
    hidden = table.features.view(-1, FRAMES, 2).clone()
    hidden[12:14] = 0.0
    score, items = head(replace(table, features=hidden.flatten(0, 1)))
    references = table.events[12:]
    expected = onset_scores(references, [[], [], *references[2:]], tolerance_s=0.2).overall
    assert score.value == pytest.approx(expected.f_measure) and score.value == pytest.approx(2 * 8 / 20)
    assert list(items.values()) == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert score.settings["beside"]["recall"] == pytest.approx(expected.recall)
    assert score.low is not None and score.low < score.value


def test_what_is_refused() -> None:
    table = scenes(load_task("hear_esc50"), each=4)
    with pytest.raises(ConfigError, match="expected one of 'hear'"):
        score_hear(replace(table, task=load_task("esc50")), seed=0)
    with pytest.raises(DataError, match="21 pieces of 20 clips"):
        head(replace(table, owners=torch.tensor([0, *range(20)])))
    with pytest.raises(DataError, match="2 folds; expected 3"):
        head(replace(table, task=task("hear_esc50", folds=("fold00", "fold01"))))
    with pytest.raises(DataError, match="no clips of fold04"):
        head(replace(table, splits=["fold00", *table.splits[:16], *["fold01"] * 3]))
    with pytest.raises(ConfigError, match="no metric MSE"):
        head(replace(table, task=task("hear_esc50", metric="MSE")))
    events = timed(load_task("hear_maestro_5h"), each=1)
    for broken in (replace(events, events=()), replace(events, lengths=None), replace(events, events=[[]] * 5)):
        with pytest.raises(DataError, match="the events of 5 clips"):
            head(broken)
