from pathlib import Path

import pytest
import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.train.caption import CaptionObjective
from auricle.train.mae import MaeObjective
from auricle.train.teacher import (
    CLASSES,
    EMBEDDING,
    TOKENS,
    TOKENS_HOP,
    WINDOW_SAMPLES,
    EventTeacher,
    Taught,
    TeacherHead,
    load_teacher,
)
from auricle.weights import safe

from .conftest import Configure


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, of which every layer passes something on."""
    torch.manual_seed(0)
    tensors = EventTeacher().state_dict()
    tensors["window"] = torch.hann_window(400)
    tensors["filters"] = torch.rand(257, 64) / 64
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    safe.write_tensors(file, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return file


def test_a_clip_is_taught_alike_alone_and_among_others(teacher: Path) -> None:
    clips = [0.1 * torch.randn(length) for length in (1000, WINDOW_SAMPLES, 40_000)]
    loaded = load_teacher(teacher)
    together = loaded.teach(clips)
    assert [len(found.logits) for found in together] == [1, 1, 1 + (40_000 - WINDOW_SAMPLES) // (480 * 16)]
    for clip, found in zip(clips, together, strict=True):
        (alone,) = loaded.teach([clip])
        torch.testing.assert_close(alone.logits, found.logits, atol=2e-2, rtol=0)
        torch.testing.assert_close(found.embeddings.norm(dim=-1), torch.ones(len(found.embeddings)))
    padded = torch.nn.functional.pad(clips[0], (0, WINDOW_SAMPLES - 1000))
    torch.testing.assert_close(loaded.teach([padded])[0].logits, together[0].logits, atol=2e-2, rtol=0)


def test_networks_pad_as_tensorflow_does() -> None:
    # A strided convolution over an even length pads at the end alone: a unit at the start stays in the first output.
    teacher = EventTeacher()
    shapes = [teacher.first(torch.zeros(1, 1, 97, 65)).shape[2:], (48, 32)]
    assert tuple(shapes[0]) == shapes[1]
    logits, embeddings = teacher(torch.randn(2, 96, 64))
    assert logits.shape == (2, CLASSES) and embeddings.shape == (2, EMBEDDING)


def taught(head: TeacherHead, frames: Tensor, windows: int) -> Taught:
    """What a head that has learnt everything would have been taught."""
    pooled = torch.stack([frames[TOKENS_HOP * w : TOKENS_HOP * w + TOKENS].mean(0) for w in range(windows)])
    vectors = torch.nn.functional.normalize(head.embeddings(pooled), dim=-1)
    return Taught(head.scores(pooled), vectors)


def test_the_loss_of_equal_predictions_is_zero() -> None:
    head = TeacherHead(16)
    clips = [torch.randn(length, 16) for length in (5, 24, 61)]
    wanted = [taught(head, clip, windows) for clip, windows in zip(clips, (1, 1, 4), strict=True)]
    assert head(clips, wanted).item() == pytest.approx(0, abs=1e-4)
    assert head(clips[::-1], wanted[::-1]).item() == pytest.approx(0, abs=1e-4)
    moved = [Taught(found.logits + 1, found.embeddings.roll(1, -1)) for found in wanted]
    assert head(clips, moved).item() > 0.5


def test_objectives_learn_from_the_teacher(configure: Configure, teacher: Path) -> None:
    mae = MaeObjective(configure("mae", mae={"teacher": str(teacher), "mix": 0.5}))
    caption = CaptionObjective(configure("caption", caption={"teacher": str(teacher), "rebuild_weight": 1.0}))
    for objective, encoder in ((mae, mae.network.encoder), (caption, caption.network.audio_encoder)):
        assert objective.provenance()["teacher"] == safe.sha256(teacher)
        objective(**objective.make_batch(0, 0, 2).inputs).backward()
        heads = [name for name, value in objective.named_parameters() if "head." in name and value.grad is not None]
        assert heads and any(value.grad is not None for value in encoder.parameters())
        assert not any("depthwise" in name for name in objective.state_dict())
    assert set(mae.log_values()) == {"rebuild_loss", "teacher_loss"}
    assert caption.rebuild is not None and caption.rebuild.weight.grad is not None


def test_other_tensors_are_no_teacher(tmp_path: Path) -> None:
    safe.write_tensors(tmp_path / "x.safetensors", {"window": torch.zeros(3)})
    with pytest.raises(ConfigError, match="is missing, unknown or of another shape"):
        load_teacher(tmp_path / "x.safetensors")
