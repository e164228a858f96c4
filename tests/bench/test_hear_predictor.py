import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from auricle.bench import hear_predictor
from auricle.bench.hear_predictor import (
    FoldRows,
    GridPoint,
    Predictor,
    PredictorSettings,
    Rows,
    choose_point,
    fit_folds,
    fit_predictor,
    grid,
    sample_points,
)
from auricle.errors import ConfigError, DataError
from auricle.metrics.classification import accuracy, mean_average_precision

POINT = GridPoint(1, 1e-3, "xavier_uniform")
SMALL = PredictorSettings(kind="multiclass", width=32, batch_size=32, max_epochs=30)


def rows(n: int = 90, seed: int = 0) -> Rows:
    labels = torch.arange(n) % 3
    noise = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return Rows(torch.eye(3, 8)[labels] * 3 + noise, labels)


def fit(train: Rows, valid: Rows, point: GridPoint = POINT, score: Any = accuracy, **changes: Any) -> Any:
    values = {"kind": "multiclass", "width": 32, "batch_size": 32, "max_epochs": 30, **changes}
    return fit_predictor(train, valid, point, num_classes=3, score=score, settings=PredictorSettings(**values))


def scripted(values: list[float]) -> Callable[[Tensor, Tensor], float]:
    calls = iter(values)
    return lambda probabilities, targets: next(calls)


def test_the_grid_is_that_of_hear() -> None:
    points = grid()
    assert len(points) == len(set(points)) == 16
    assert {point.hidden_layers for point in points} == {1, 2}
    assert {point.rate for point in points} == {3.2e-3, 1e-3, 3.2e-4, 1e-4}
    fixed = PredictorSettings(kind="multilabel")
    assert (fixed.width, fixed.dropout, fixed.batch_size) == (1024, 0.1, 1024)
    assert (fixed.max_epochs, fixed.check_every, fixed.patience) == (500, 3, 20)


@given(st.integers(0, 10_000), st.integers(1, 16))
def test_points_are_sampled_without_repeats(seed: int, count: int) -> None:
    points = sample_points(count, seed=seed)
    assert len(set(points)) == count and set(points) <= set(grid())
    assert points == sample_points(16, seed=seed)[:count]
    assert len(sample_points(seed=seed)) == 8


def test_points_differ_between_seeds() -> None:
    assert len({tuple(sample_points(seed=seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("initialisation", ["xavier_uniform", "xavier_normal"])
def test_layers_and_their_weights(initialisation: Any) -> None:
    torch.manual_seed(0)
    predictor = Predictor(300, 5, GridPoint(2, 1e-3, initialisation), width=400)
    kinds = [type(layer) for layer in predictor.hidden]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.ReLU] * 2
    deviations = [predictor.hidden[0].weight.std(), predictor.hidden[4].weight.std(), predictor.projection.weight.std()]
    expected = [math.sqrt(2 / 700), math.sqrt(2) * math.sqrt(2 / 800), math.sqrt(2) * math.sqrt(2 / 405)]
    assert [each.item() for each in deviations] == pytest.approx(expected, rel=0.05)
    is_bounded = predictor.hidden[0].weight.abs().max().item() <= math.sqrt(6 / 700) * 1.0001
    assert is_bounded == (initialisation == "xavier_uniform")


def test_classes_are_learned() -> None:
    found = fit(rows(), rows(seed=1))
    assert found.score > 0.9
    probabilities = found.probabilities(rows(seed=2).embeddings)
    assert torch.allclose(probabilities.sum(1), torch.ones(90), atol=1e-5)
    assert accuracy(probabilities, rows(seed=2).targets) > 0.9


def test_several_classes_at_once_are_learned() -> None:
    def several(seed: int) -> Rows:
        one = rows(seed=seed)
        return Rows(one.embeddings, nn.functional.one_hot(one.targets, 3))

    found = fit(several(0), several(1), score=mean_average_precision, kind="multilabel")
    assert found.score > 0.9
    probabilities = found.probabilities(several(1).embeddings)
    assert mean_average_precision(probabilities, several(1).targets) == pytest.approx(found.score)
    assert not torch.allclose(probabilities.sum(1), torch.ones(90), atol=1e-2)


def test_it_stops_when_validation_no_longer_improves() -> None:
    values = [0.1, 0.5, 0.5, 0.4, 0.3, 0.9]
    found = fit(rows(), rows(), score=scripted(values), check_every=2, patience=3)
    assert (found.score, found.epoch, found.epochs) == (0.5, 4, 10)  # equal is no improvement, 0.9 is never seen
    found = fit(rows(), rows(), score=scripted(values), check_every=2, patience=4, max_epochs=12)
    assert (found.score, found.epoch, found.epochs) == (0.9, 12, 12)
    found = fit(rows(), rows(), score=scripted([math.nan, -0.5, -0.7]), check_every=10)
    assert (found.score, found.epoch) == (-0.5, 20)


def test_the_best_epoch_comes_back() -> None:
    seen: list[Tensor] = []

    def score(probabilities: Tensor, targets: Tensor) -> float:
        seen.append(probabilities)
        return {0: 0.1, 1: 0.9}.get(len(seen) - 1, 0.2)

    found = fit(rows(), rows(seed=1), score=score, max_epochs=12)
    assert len(seen) == 4 and found.epoch == 6
    assert torch.allclose(found.probabilities(rows(seed=1).embeddings), seen[1], atol=1e-6)
    assert not torch.allclose(seen[1], seen[3], atol=1e-3)


def test_the_best_point_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    score_of = {point: float(i % 5) for i, point in enumerate(grid())}

    def fitted(train: Rows, valid: Rows, point: GridPoint, **kwargs: Any) -> Any:
        return hear_predictor.Fitted(Predictor(8, 3, point, width=4), point, "multiclass", score_of[point], 3, 3)

    monkeypatch.setattr(hear_predictor, "fit_predictor", fitted)
    tried = sample_points(seed=SMALL.seed)
    found = choose_point(rows(), rows(), num_classes=3, score=accuracy, settings=SMALL)
    assert found.point == max(tried, key=score_of.__getitem__)
    some = grid()[1:3]
    assert choose_point(rows(), rows(), num_classes=3, score=accuracy, settings=SMALL, points=some).point == some[1]


def test_folds_share_the_point_of_the_first() -> None:
    seen: list[Any] = []
    folds = [FoldRows(rows(seed=i), rows(seed=i + 5), accuracy) for i in range(3)]
    settings = PredictorSettings(kind="multiclass", width=32, batch_size=32, max_epochs=6)
    tried = grid()[:2]
    found = fit_folds(iter(folds), num_classes=3, settings=settings, points=tried, on_point=seen.append)
    assert [each.point for each in seen[:2]] == tried and len(seen) == 4
    assert found[0] in seen[:2] and {each.point for each in found} == {found[0].point}
    alone = fit_predictor(
        folds[2].train, folds[2].valid, found[0].point, num_classes=3, score=accuracy, settings=settings
    )
    assert torch.equal(alone.predictor.projection.weight, found[2].predictor.projection.weight)
    assert fit_folds([], num_classes=3, settings=settings) == []


def test_the_loss_may_choose() -> None:
    def never(probabilities: Tensor, targets: Tensor) -> float:
        raise AssertionError("the score is not used")

    found = fit(rows(), rows(seed=1), score=never, select_by="loss", max_epochs=60)
    with torch.no_grad():
        logits = found.predictor(rows(seed=1).embeddings)
    assert found.score == pytest.approx(-float(nn.functional.cross_entropy(logits, rows(seed=1).targets)), abs=1e-6)


def test_half_precision_rows_are_read_as_they_are() -> None:
    def half(seed: int) -> Rows:
        return Rows(rows(seed=seed).embeddings.half(), rows(seed=seed).targets)

    def full(seed: int) -> Rows:
        return Rows(half(seed).embeddings.float(), half(seed).targets)

    weights = [fit(make(0), make(1), max_epochs=6).predictor.projection.weight for make in (half, full)]
    assert torch.equal(*weights)


def test_weights_without_an_order_are_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores refuse outputs that are not finite; training goes on without asking them."""
    diverged = iter([math.nan, 0.0, math.nan])
    logits = hear_predictor._logits
    monkeypatch.setattr(hear_predictor, "_logits", lambda *given: logits(*given) + next(diverged))
    found = fit(rows(), rows(seed=1), score=mean_average_precision_of_one, max_epochs=9)
    assert found.epoch == 6 and found.score > 0


def mean_average_precision_of_one(probabilities: Tensor, targets: Tensor) -> float:
    return mean_average_precision(probabilities, nn.functional.one_hot(targets, 3))


def test_training_repeats_itself_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = fit(rows(), rows(), max_epochs=3)
    assert torch.equal(torch.rand(1), expected)
    two, other = fit(rows(), rows(), max_epochs=3), fit(rows(), rows(), max_epochs=3, seed=1)
    weights = [each.predictor.projection.weight for each in (one, two, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_last_batch_of_one_waits() -> None:
    assert math.isfinite(fit(rows(33), rows(9), max_epochs=3).score)


def test_what_is_refused() -> None:
    for values in (
        {"kind": "ranking"},
        {"kind": "multiclass", "dropout": 1.0},
        {"kind": "multiclass", "batch_size": 1},
        {"kind": "multiclass", "select_by": "luck"},
    ):
        with pytest.raises(ConfigError):
            PredictorSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="before the last epoch"):
        PredictorSettings(kind="multiclass", max_epochs=2)
    with pytest.raises(ConfigError, match="one of xavier"):
        GridPoint(1, 1e-3, "zeros")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected 1 … 16"):
        sample_points(17)
    with pytest.raises(ConfigError, match="at least one"):
        choose_point(rows(), rows(), num_classes=3, score=accuracy, settings=SMALL, points=[])
    with pytest.raises(DataError, match="do not fit"):
        Rows(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(DataError, match=r"classes 0 … 2"):
        fit(Rows(rows().embeddings, rows().targets + 1), rows())
    with pytest.raises(DataError, match=r"expected \(n, 3\)"):
        fit(rows(), rows(), kind="multilabel")
    with pytest.raises(DataError, match="at least two"):
        fit(rows(1), rows())
