import numpy as np
import pytest
import torch
import torch.nn.functional as F

from auricle.data.parts import DIGITS, Part, Scene
from auricle.train.facts import LETTERS, FactHeads, letters, tag_names, tag_weights, tags

LABELS = (("command", "stop"), ("event", "dog"), ("event", "rain"), ("instrument", "flute"), ("language", "en"))
ANN = Part(kind="speech", text="one's, two", gender="f", age=30, language="en")
BOB = Part(kind="speech", gender="m")
DOG = Part(kind="sound", event="dog")
STOP = Part(kind="speech", command="stop", language="ar")
BEHIND = Part(kind="speech", language="en", foreground=False)
FLUTE, TUNE = Part(kind="music", instruments=("flute",)), Part(kind="music")


def scene(*parts: Part) -> Scene:
    return Scene(np.zeros(16_000, np.float32), parts, "any")


def test_letters_spell_the_speech() -> None:
    assert "".join(LETTERS[i - 1] for i in letters(scene(ANN))) == "one's two"
    assert not len(letters(scene(DOG))) and not len(letters(scene(ANN, BOB)))  # no speech; not all words known


def test_tags_are_present_absent_or_unknown() -> None:
    expected: dict[tuple[Part, ...], str] = {
        (ANN, DOG): "speech sound dog two female en",
        (STOP,): "speech stop",
        (FLUTE,): "music flute",
        (TUNE,): "music",
        (BOB,): "speech",
        (DOG, BEHIND): "speech sound dog en",
        (ANN, BOB): "speech en",
        (): "",
    }
    unknown: dict[tuple[Part, ...], str] = {
        (ANN, DOG): "",
        (STOP,): f"female child {' '.join(DIGITS)}",
        (FLUTE,): "female child",
        (TUNE,): "female child flute",
        (DOG, BEHIND): f"stop female child {' '.join(DIGITS)}",
        (BOB,): f"en child {' '.join(DIGITS)}",
        (ANN, BOB): f"female child {' '.join(DIGITS)}",
        (): "female child",
    }
    for parts, present in expected.items():
        found = dict(zip(tag_names(LABELS), tags(scene(*parts), LABELS).tolist(), strict=True))
        assert {name for name, value in found.items() if value == 1} == set(present.split())
        assert {name for name, value in found.items() if value != value} == set(unknown[parts].split())
        assert all(value in (0, 1) or value != value for value in found.values())


def test_kinds_and_voices_weigh_more_than_an_event() -> None:
    weights = dict(zip(tag_names([("event", "dog")]), tag_weights([("event", "dog")]), strict=True))
    assert weights["dog"] == weights["seven"] == 1.0 < weights["speech"] < weights["female"] == weights["child"]


@pytest.fixture
def heads() -> FactHeads:
    torch.manual_seed(0)
    return FactHeads(8, [1.0, 4.0, 2.0])


def test_the_letter_loss_is_ctc_of_each_clip(heads: FactHeads) -> None:
    frames = [torch.randn(n, 8) for n in (12, 30, 20)]
    targets = [torch.tensor([1, 2, 2]), torch.tensor([], dtype=torch.long), torch.tensor([5, 6, 7, 8])]
    found, _ = heads(frames, targets, torch.zeros(3, 3))
    wanted = 0.0
    for clip, target in ((frames[0], targets[0]), (frames[2], targets[2])):
        scores = heads.ctc(clip).log_softmax(-1)
        lengths = torch.tensor(len(clip)), torch.tensor(len(target))
        wanted += F.ctc_loss(scores, target, *lengths, reduction="sum").item()
    assert found.item() == pytest.approx(wanted / 7, rel=1e-5)


def test_clips_without_words_still_reach_every_parameter(heads: FactHeads) -> None:
    """Otherwise processes that train together would wait for gradients that one of them does not have."""
    empty = torch.tensor([], dtype=torch.long)
    letter_loss, tag_loss = heads([torch.randn(5, 8)], [empty], torch.ones(1, 3))
    (letter_loss + tag_loss).backward()
    assert letter_loss.item() == 0 and all(parameter.grad is not None for parameter in heads.parameters())


def test_unknown_tags_carry_no_loss(heads: FactHeads) -> None:
    frames, nothing = [torch.randn(5, 8)], [torch.tensor([], dtype=torch.long)]
    _, found = heads(frames, nothing, torch.tensor([[1.0, float("nan"), 0.0]]))
    logits = heads.tags(frames[0].mean(0))[[0, 2]]
    each = F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0]), reduction="none")
    assert found.item() == pytest.approx(((each[0] + 2 * each[1]) / 3).item())
    assert found.isfinite()
