import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from auricle.bench.heads import (
    Fold,
    Heads,
    HeadSettings,
    LabelledFeatures,
    Trained,
    cosine_rates,
    initial_heads,
    train_heads,
)
from auricle.errors import ConfigError, DataError
from auricle.metrics.classification import accuracy, mean_average_precision
from auricle.metrics.events import segment_f1
from auricle.metrics.regression import mean_absolute_error

DIM, CLASSES = 6, 3


def clips(n: int = 60, seed: int = 0) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    return LabelledFeatures(torch.eye(CLASSES, DIM)[labels] * 2 + torch.randn(n, DIM, generator=generator), labels)


def folds(n: int = 60, count: int = 3) -> list[Fold]:
    """The first has fewer items than the others, and none a whole number of batches."""
    parts = torch.arange(n).tensor_split([n // 6, n // 2])[:count]
    return [Fold(key, torch.cat([p for i, p in enumerate(parts) if i != key]), parts[key]) for key in range(count)]


def train(examples: LabelledFeatures, chosen: list[Fold], **kwargs: Any) -> Trained:
    return train_heads(
        examples, chosen, num_outputs=CLASSES, score=accuracy, settings=HeadSettings(**{"epochs": 3, **kwargs})
    )


def apart(one: Heads, other: Heads, places: tuple[Any, Any]) -> float:
    pairs = zip(one.tensors, other.tensors, strict=True)
    return max((a[places[0]] - b[places[1]]).abs().max().item() for a, b in pairs)


# Against torch's own parts, one head at a time


class Reference(nn.Module):
    def __init__(self, heads: Heads, fold: int, rate: int) -> None:
        super().__init__()
        scale, shift, weight, bias = (part[fold, rate].detach() for part in heads.tensors)
        self.ln, self.fc = nn.LayerNorm(DIM), nn.Linear(DIM, len(bias))
        for part, value in zip(
            (self.ln.weight, self.ln.bias, self.fc.weight, self.fc.bias), tensors_of(heads, fold, rate), strict=True
        ):
            part.data = value.clone()
        assert len(scale) == len(shift) == weight.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(self.ln(features.float()))


def tensors_of(heads: Heads, fold: int, rate: int) -> list[Tensor]:
    return [part[fold, rate].detach() for part in heads.tensors]


LOSSES = {
    "cross_entropy": nn.CrossEntropyLoss(),
    "bce": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
    "l1": nn.L1Loss(),
    "mse": nn.MSELoss(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("is_framed", [False, True])
def test_the_stack_is_torch_head_by_head(loss: str, is_framed: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (30,), generator=generator)
    rows = int(lengths.sum()) if is_framed else 30
    features = torch.randn(rows, DIM, generator=generator).half()
    targets = torch.randint(CLASSES, (rows,), generator=generator)
    if loss != "cross_entropy":
        targets = nn.functional.one_hot(targets, CLASSES).float()
    examples = LabelledFeatures(features, targets, lengths if is_framed else None)
    chosen = [Fold(0, torch.arange(20), torch.arange(20, 30)), Fold(4, torch.arange(3, 30), torch.arange(3))]
    fixed = HeadSettings(
        epochs=4,
        batch_size=8,
        rates=(1e-2, 1e-3),
        shuffle=False,
        loss=loss,
        pos_weight=3.0 if loss == "bce" else None,  # type: ignore[arg-type]
    )
    trained = train_heads(examples, chosen, num_outputs=CLASSES, score=lambda outputs, truth: 0.0, settings=fixed)
    start = initial_heads([0, 4], 2, DIM, CLASSES, seed=42)
    for number, fold in enumerate(chosen):
        for place, rate in enumerate(fixed.rates):
            model = Reference(start, number, place)
            adam = torch.optim.Adam(model.parameters(), lr=rate)
            for epoch_rate in cosine_rates(rate, 4):
                adam.param_groups[0]["lr"] = epoch_rate
                for batch in fold.train.split(8):
                    picked = examples.rows(batch)
                    adam.zero_grad()
                    LOSSES[loss](model(features[picked]), targets[picked]).backward()
                    adam.step()
            expected = (model.ln.weight, model.ln.bias, model.fc.weight, model.fc.bias)
            for ours, theirs in zip(tensors_of(trained.final, number, place), expected, strict=True):
                assert torch.allclose(ours, theirs, atol=1e-5)
            picked = examples.rows(fold.valid)
            left = LOSSES[loss](model(features[picked]), targets[picked]).item()
            assert trained.losses[-1, number, place].item() == pytest.approx(left, abs=1e-5)
            assert torch.allclose(trained.final.outputs(features, number)[place], model(features), atol=1e-5)


# Independence


@settings(max_examples=8)
@given(st.permutations([0, 1, 2]), st.integers(1, 3), st.integers(2, 40), st.integers(0, 100))
def test_a_fold_is_the_same_in_any_batch(order: list[int], count: int, batch: int, seed: int) -> None:
    examples, every = clips(), folds()
    together = train(examples, [every[i] for i in order[:count]], batch_size=batch, seed=seed)
    for place, number in enumerate(order[:count]):
        alone = train(examples, [every[number]], batch_size=batch, seed=seed)
        assert apart(together.final, alone.final, (place, 0)) < 1e-5
        assert torch.equal(together.best_epoch[place], alone.best_epoch[0])
        assert torch.equal(together.scores[:, place], alone.scores[:, 0])


@settings(max_examples=6)
@given(st.lists(st.sampled_from([1e-1, 1e-2, 1e-3, 1e-4]), min_size=1, max_size=4, unique=True))
def test_a_rate_is_the_same_in_any_batch(rates: list[float]) -> None:
    together = train(clips(), folds(), rates=tuple(rates))
    for place, rate in enumerate(rates):
        alone = train(clips(), folds(), rates=(rate,))
        assert apart(together.final, alone.final, ((slice(None), place), (slice(None), 0))) < 1e-5


@settings(max_examples=6)
@given(st.integers(0, 100))
def test_frames_are_the_same_in_any_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.randn(int(n), DIM, generator=generator) for n in torch.randint(1, 12, (20,), generator=generator)]
    truth = [(each[:, :CLASSES] > 0).float() for each in frames]
    examples = LabelledFeatures.of_frames(frames, truth)
    chosen = [Fold(0, torch.arange(5, 20), torch.arange(5)), Fold(1, torch.arange(8), torch.arange(8, 20))]

    def run(some: list[Fold]) -> Trained:
        return train_heads(
            examples, some, num_outputs=CLASSES, score=score, settings=HeadSettings(epochs=3, batch_size=4, loss="bce")
        )

    def score(outputs: list[Tensor], targets: list[Tensor]) -> float:
        assert [len(each) for each in outputs] == [len(each) for each in targets]
        return segment_f1(outputs, targets, hop_ms=1000, average="micro")

    together = run(chosen)
    for place, fold in enumerate(chosen):
        assert apart(together.final, run([fold]).final, (place, 0)) < 1e-5


def test_a_head_that_diverges_spoils_no_other() -> None:
    healthy = train(clips(), folds(), rates=(1e-3,))
    mixed = train(clips(), folds(), rates=(1e-3, 3e38))
    assert torch.equal(mixed.scores[..., 0], healthy.scores[..., 0])
    assert (mixed.scores[..., 1] == -math.inf).all()
    assert mixed.scores.amax(0).argmax(1).tolist() == [0, 0, 0]


# Order, selection, learning


def test_shuffles_depend_on_seed_and_fold_only() -> None:
    one, again, other = (train(clips(), folds(), seed=seed) for seed in (0, 0, 1))
    assert apart(one.final, again.final, ((), ())) == 0
    assert apart(one.final, other.final, ((), ())) > 1e-3
    twins = [Fold(key, torch.arange(50), torch.arange(50, 60)) for key in (0, 1)]
    trained = train(clips(), twins)
    assert apart(trained.final, trained.final, (0, 1)) > 1e-3  # another key, other weights and shuffles
    in_order = train(clips(), twins[:1], shuffle=False)
    assert apart(in_order.final, trained.final, (0, 0)) > 1e-5


def test_the_earliest_of_the_best_epochs_is_kept() -> None:
    wanted = [0.1, 0.7, 0.3, 0.7, math.nan]
    calls = iter(wanted)
    seen: list[int] = []
    trained = train_heads(
        clips(),
        folds()[:1],
        num_outputs=CLASSES,
        score=lambda outputs, truth: next(calls),
        settings=HeadSettings(epochs=5),
        on_epoch=seen.append,
    )
    assert seen == [0, 1, 2, 3, 4]
    assert trained.best_epoch.tolist() == [[1]]
    assert trained.scores[:, 0, 0].tolist() == [0.1, 0.7, 0.3, 0.7, -math.inf]
    assert apart(trained.best, trained.final, ((), ())) > 1e-4
    outputs = trained.best.outputs(clips().features[folds()[0].valid], 0)[0]
    loss = nn.functional.cross_entropy(outputs, clips().targets[folds()[0].valid])
    assert loss.item() == pytest.approx(trained.losses[1, 0, 0].item(), abs=1e-6)


def test_the_best_rate_is_chosen_on_validation() -> None:
    trained = train(clips(240), folds(240), rates=(1e-6, 3e-2), epochs=6)
    assert trained.scores.amax(0).argmax(1).tolist() == [1, 1, 1]
    assert trained.scores.amax(0)[:, 1].min() > 0.7  # chance is a third


def test_heads_learn_other_targets() -> None:
    examples = clips(240)
    fold = [Fold(0, torch.arange(180), torch.arange(180, 240))]
    several = LabelledFeatures(examples.features, nn.functional.one_hot(examples.targets, CLASSES))
    found = train_heads(
        several,
        fold,
        num_outputs=CLASSES,
        score=mean_average_precision,
        settings=HeadSettings(epochs=20, rates=(1e-2,), loss="bce"),
    )
    assert found.scores.max() > 0.85
    numbers = LabelledFeatures(examples.features, examples.features @ torch.arange(float(DIM)) / 10)
    errors = train_heads(
        numbers,
        fold,
        num_outputs=1,
        score=lambda outputs, truth: -mean_absolute_error(outputs[:, 0], truth),
        settings=HeadSettings(epochs=20, rates=(1e-2,), loss="l1"),
    )
    assert errors.scores.max() > -0.7 * numbers.targets[180:].std().item()


def test_rates_fall_by_a_cosine() -> None:
    rates = cosine_rates(1.0, 10)
    assert rates[0] == 1.0 and rates[5] == pytest.approx(0.55) and rates[9] > 0.1
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert cosine_rates(1e-3, 1) == [1e-3]


def test_frames_of_some_items() -> None:
    frames = [torch.full((n, 2), float(n)) for n in (3, 1, 2)]
    examples = LabelledFeatures.of_frames(frames, [torch.ones(2, 1), torch.ones(5, 1), torch.ones(2, 1)])
    assert examples.targets[:, 0].tolist() == [1, 1, 0, 1, 1, 1]  # filled with zeros, cut
    items = torch.tensor([2, 0])
    assert examples.rows(items).tolist() == [4, 5, 0, 1, 2]
    parts = examples.split(examples.features[examples.rows(items)], items)
    assert [part[:, 0].tolist() for part in parts] == [[2, 2], [3, 3, 3]]
    assert len(examples) == 3 and len(clips()) == 60


# Refusals


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"rates": ()},
        {"rates": (0.0,)},
        {"batch_size": 0},
        {"loss": "hinge"},
        {"pos_weight": 2.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HeadSettings(**values)


def test_what_does_not_fit_is_refused() -> None:
    fold = folds()[0]
    with pytest.raises(ConfigError, match="all different"):
        train(clips(), [fold, fold])
    with pytest.raises(DataError, match="to valid on"):
        train(clips(), [Fold(0, fold.train, torch.arange(0))])
    with pytest.raises(DataError, match=r"0 … 59"):
        train(clips(), [Fold(0, torch.tensor([60]), fold.valid)])
    with pytest.raises(DataError, match=r"classes 0 … 2"):
        train(LabelledFeatures(clips().features, clips().targets + 1), [fold])
    with pytest.raises(DataError, match="for 3 outputs"):
        train(clips(), [fold], loss="bce")
    with pytest.raises(DataError, match="do not fit"):
        LabelledFeatures(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(DataError, match="no clips"):
        LabelledFeatures.of_frames([], [])
