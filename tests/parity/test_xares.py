"""Heads and metrics against the reference: X-ARES 0.1.3 (ignite, scikit-learn, jiwer), sed_eval 0.2 as in HEAR."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from auricle.bench.asr_head import AsrAdapter
from auricle.bench.heads import Fold, Heads, HeadSettings, LabelledFeatures, Trained, cosine_rates, train_heads
from auricle.bench.probes import knn_predict, knn_scores
from auricle.bench.retrieval_head import contrastive_loss
from auricle.bench.task import load_task
from auricle.metrics import classification as metrics
from auricle.metrics import events, regression, retrieval, suite_average, word_errors
from auricle.metrics.events import (
    Detection,
    Event,
    frame_targets,
    onset_scores,
    pad_or_trim,
    segment_f1,
    segment_scores,
)

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "xares"
EXACT = 1e-12  # float64 counts; only the order of a sum differs
FLOAT32 = 1e-6  # the reference ran in float32


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


METRICS, KNN, LINEAR, HEADS = (stored(name) for name in ("metrics", "knn", "linear_head", "heads_and_helpers"))
ONSETS = stored("hear_onset_fmeasure")


def joined(batches: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    return tuple(torch.cat([torch.tensor(batch[key]) for batch in batches]) for key in ("pred", "target"))  # type: ignore[return-value]


def worst(ours: Tensor, theirs: Any) -> float:
    golden = torch.as_tensor(theirs)
    assert ours.shape == golden.shape
    return (ours.double() - golden.double()).abs().max().item()


# Metrics


def test_accuracy() -> None:
    case = METRICS["accuracy"]
    assert metrics.accuracy(*joined(case["batches"])) == pytest.approx(case["result"], abs=EXACT)


@pytest.mark.parametrize("case", METRICS["mAP"], ids=lambda case: case["name"])
def test_mean_average_precision(case: dict[str, Any]) -> None:
    assert metrics.mean_average_precision(*joined(case["batches"])) == pytest.approx(case["result"], abs=EXACT)


def test_frame_mean_average_precision() -> None:
    case = METRICS["frame_mAP"]
    assert metrics.frame_mean_average_precision(*joined(case["batches"])) == pytest.approx(case["result"], abs=EXACT)


@pytest.mark.parametrize(
    ("name", "metric"), [("MAE", regression.mean_absolute_error), ("MSE", regression.mean_squared_error)]
)
def test_errors_of_numbers(name: str, metric: Any) -> None:
    assert metric(*joined(METRICS["MAE"]["batches"])) == pytest.approx(METRICS[name]["result"], abs=FLOAT32)


@pytest.mark.parametrize("case", METRICS["segment_f1"], ids=lambda case: case["name"])
def test_segment_f1(case: dict[str, Any]) -> None:
    hop_ms, segment_s = case["hop_size_in_ms"], case["segment_length_in_s"]
    assert events.segment_window(segment_s, hop_ms) == case["pool"]
    logits, targets = (
        [torch.tensor(clip) for batch in case["batches"] for clip in batch[key]] for key in ("logits", "target")
    )
    ours = segment_f1(logits, targets, hop_ms=hop_ms, segment_s=segment_s, average=case["average"])
    assert ours == pytest.approx(case["result"], abs=EXACT)


def test_retrieval() -> None:
    case = METRICS["retrieval"]
    audio, text, captions = torch.tensor(case["audio"]), torch.tensor(case["text"]), case["num_caps"]
    assert retrieval.recall_at_1(audio, text, captions=captions) == pytest.approx(case["recallatk_r1"], abs=EXACT)
    owners = torch.arange(len(audio) // captions).repeat_interleave(captions)
    both = retrieval.retrieval_scores(audio[::captions], text, owners)
    for ours, theirs in zip(both, (case["detail_percent"][way] for way in ("a2t", "t2a")), strict=True):
        ranks = [theirs["meanr"], theirs["medr"]]
        shares = [theirs[name] / 100 for name in ("r1", "r5", "r10")]
        expected = [*shares, *ranks, theirs["mAP10"] / 100]
        assert list(ours) == pytest.approx(expected, abs=EXACT)
    for name, field in (("r1", "r1"), ("r5", "r5"), ("r10", "r10"), ("mAP10", "map10")):
        mean = sum(getattr(way, field) for way in both) / 2
        assert mean == pytest.approx(case["averaged"][name], abs=EXACT)


@pytest.mark.parametrize("case", METRICS["WER_inv"], ids=["mixed", "saturated"])
def test_word_error_rate(case: dict[str, Any]) -> None:
    assert word_errors.wer_inv(case["ref"], case["hyp"]) == pytest.approx(case["result"], abs=EXACT)


def test_equal_error_rate() -> None:
    case = METRICS["EER"]
    scores, labels = torch.tensor(case["score"]), torch.tensor(case["target"])
    assert metrics.equal_error_rate(scores, labels) == pytest.approx(case["result"], abs=EXACT)


@pytest.mark.parametrize("case", METRICS["weighted_average"], ids=["suite", "no weight"])
def test_weighted_average(case: dict[str, Any]) -> None:
    columns = zip(*case["table"].values(), strict=True)
    assert [suite_average.weighted_average(column) for column in columns] == pytest.approx(case["result"], abs=EXACT)


# Nearest neighbours


@pytest.mark.parametrize("case", KNN["cases"], ids=lambda case: f"k={case['k']}")
@pytest.mark.parametrize(("mode", "name"), [("compat", "reference"), ("cosine", "true_cosine")])
def test_nearest_neighbours(case: dict[str, Any], mode: Any, name: str) -> None:
    train, labels, test, truth = (torch.tensor(KNN[key]) for key in ("train", "train_labels", "test", "test_labels"))
    settings = {"k": case["k"], "temperature": case["temperature"]}
    scores = knn_scores(train, labels, test, mode=mode, num_classes=KNN["num_classes"], **settings)
    if case[f"{name}_scores"] is not None:
        assert worst(scores, case[f"{name}_scores"]) < FLOAT32
    assert metrics.accuracy(scores, truth) == pytest.approx(case[f"{name}_accuracy"], abs=FLOAT32)


def test_nearest_neighbours_of_sequences() -> None:
    case = KNN["sequence_case"]
    train, test = (torch.stack([torch.tensor(item).mean(-1) for item in case[key]]) for key in ("train", "test"))
    assert worst(test, case["pooled_test"]) < FLOAT32
    found = knn_predict(train, torch.tensor(case["train_labels"]), test, k=10, temperature=0.07, mode="compat")
    right = (found == torch.tensor(case["test_labels"])).double().mean().item()
    assert right == pytest.approx(case["reference_accuracy"], abs=EXACT)


# The linear head


NAMES = ("ln.weight", "ln.bias", "fc.weight", "fc.bias")


@pytest.fixture(scope="module")
def trained() -> Trained:
    start = Heads(*(torch.tensor(LINEAR["init"][name])[None, None] for name in NAMES))
    outputs = start.outputs(torch.tensor(LINEAR["val"]), 0)[0]
    assert worst(outputs, LINEAR["forward_val_logits_at_init"]) < FLOAT32
    features, labels = (
        torch.cat([torch.tensor(LINEAR[f"{split}{suffix}"]) for split in ("train", "val")])
        for suffix in ("", "_labels")
    )
    n = len(LINEAR["train"])
    settings = HeadSettings(
        epochs=LINEAR["epochs"], batch_size=LINEAR["batch"], rates=(LINEAR["lr"], 1e-4), shuffle=False
    )
    start = Heads(*(part.expand(1, 2, *part.shape[2:]) for part in start.tensors))
    fold = Fold(0, torch.arange(n), torch.arange(n, len(features)))
    return train_heads(
        LabelledFeatures(features, labels),
        [fold],
        num_outputs=5,
        score=metrics.accuracy,
        settings=settings,
        start=start,
    )


def test_learning_rates() -> None:
    assert cosine_rates(LINEAR["lr"], LINEAR["epochs"]) == pytest.approx(LINEAR["lr_per_epoch"], abs=EXACT)


def test_validation_of_the_linear_head(trained: Trained) -> None:
    expected = torch.tensor(LINEAR["val_accuracy_loss_per_epoch"], dtype=torch.float64)
    assert worst(trained.scores[:, 0, 0], expected[:, 0]) < FLOAT32
    assert worst(trained.losses[:, 0, 0], expected[:, 1]) < FLOAT32
    assert trained.scores[:, 0, 0].max().item() == pytest.approx(LINEAR["best_score"], abs=EXACT)
    assert trained.best_epoch[0, 0] == expected[:, 0].argmax()


@pytest.mark.parametrize(("name", "key"), [("final", "final"), ("best", "best_checkpoint")])
def test_weights_of_the_linear_head(trained: Trained, name: str, key: str) -> None:
    for tensor, part in zip(NAMES, getattr(trained, name).tensors, strict=True):
        assert worst(part[0, 0], LINEAR[key][tensor]) < FLOAT32, tensor


# Other heads, frames


@pytest.mark.parametrize(("regularised", "key"), [(True, "loss"), (False, "loss_without_regularisation")])
def test_contrastive_loss(regularised: bool, key: str) -> None:
    case = HEADS["contrastive_loss"]
    audio, text, log_scale = (torch.tensor(case[name]) for name in ("audio", "text", "log_temperature"))
    loss = contrastive_loss(audio, text, log_scale, mode="compat", regularised=regularised)
    assert loss.item() == pytest.approx(case[key], abs=FLOAT32)


def test_asr_adapter() -> None:
    case = HEADS["asr_adapter"]
    adapter = AsrAdapter(6, hidden=10, width=4)
    adapter.load_state_dict({name: torch.tensor(value) for name, value in case["params"].items()})
    assert worst(adapter(torch.tensor(case["input"])), case["output"]) < FLOAT32


def activity(targets: Tensor) -> list[Any]:
    """[class, [first frame, last frame, frames]] of each active class."""
    found = [(number, column.nonzero().flatten().tolist()) for number, column in enumerate(targets.t())]
    return [[number, [frames[0], frames[-1], len(frames)]] for number, frames in found if frames]


@pytest.mark.parametrize("case", HEADS["frame_labels"], ids=lambda case: f"{case['hop_size_in_ms']} ms")
def test_frame_targets(case: dict[str, Any]) -> None:
    hop_ms = case["hop_size_in_ms"]
    listed = [
        Event(event["onset"], event["offset"], label)
        for event in case["desed_events"]
        for label in event["label"].split(",")
    ]
    desed = load_task("desed")
    assert isinstance(desed.classes, tuple)
    targets = frame_targets(listed, desed.classes, hop_ms=hop_ms, duration_s=desed.frames_s)
    assert list(targets.t().shape) == case["desed_shape"]
    assert activity(targets) == case["desed_active_class_first_last_count"]
    notes = [Event(note["start"], note["end"], note["note"] - 21) for note in case["maestro_notes"]]
    targets = frame_targets(notes, 87, hop_ms=hop_ms)
    assert list(targets.t().shape) == case["maestro_shape"]
    assert activity(targets) == case["maestro_active_class_first_last_count"]


@pytest.mark.parametrize("case", HEADS["pad_or_trim"], ids=["trim", "pad"])
def test_pad_or_trim(case: dict[str, Any]) -> None:
    shape = case["shape"]
    values = torch.arange(float(torch.Size(shape).numel())).view(shape)
    assert pad_or_trim(values, case["target"], dim=-1).tolist() == case["result"]


# Events


def clips(case: dict[str, Any], key: str) -> list[list[Event]]:
    files = sorted({event["file"] for event in case["reference"]})
    return [
        [Event(e["event_onset"], e["event_offset"], e["event_label"]) for e in case[key] if e["file"] == file]
        for file in files
    ]


def check_detection(ours: Detection, theirs: dict[str, Any]) -> None:
    for group in ("f_measure", "error_rate"):
        for name, value in theirs[group].items():
            assert getattr(ours, name) == pytest.approx(value, abs=EXACT), name


@pytest.mark.parametrize("case", ONSETS, ids=lambda case: case["name"])
def test_onset_scores(case: dict[str, Any]) -> None:
    found = onset_scores(clips(case, "reference"), clips(case, "estimated"), tolerance_s=case["t_collar_s"])
    check_detection(found.overall, case["overall"])
    check_detection(found.class_average, case["class_wise_average"])


@pytest.mark.parametrize("case", ONSETS, ids=lambda case: case["name"])
def test_segment_scores(case: dict[str, Any]) -> None:
    found = segment_scores(clips(case, "reference"), clips(case, "estimated"), case["labels"], segment_s=1.0)
    theirs = case["segment_based_1s_overall"]
    check_detection(found.overall, theirs)
    for name, value in theirs["accuracy"].items():
        assert getattr(found, name) == pytest.approx(value, abs=EXACT), name
