import pytest
import torch

from auricle.bench.probes import effective_rank, knn_predict, linear_predict
from auricle.errors import DataError


def clusters(n: int, seed: int, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.eye(3, 8)[labels] * 2 + spread * torch.randn(n, 8, generator=generator), labels


@pytest.mark.parametrize("predict", [knn_predict, linear_predict])
def test_separable_classes_are_separated(predict) -> None:  # type: ignore[no-untyped-def]
    (train, labels), (test, truth) = clusters(60, 0), clusters(45, 1)
    assert torch.equal(predict(train, labels, test), truth)


@pytest.mark.parametrize("predict", [knn_predict, linear_predict])
def test_labels_without_relation_give_chance(predict) -> None:  # type: ignore[no-untyped-def]
    (train, labels), (test, truth) = clusters(300, 0), clusters(300, 1)
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    right = (predict(train, shuffled, test) == truth).float().mean().item()
    assert 0.15 < right < 0.55


def test_neighbours_are_weighted_by_cosine() -> None:
    train = torch.tensor([[1.0, 0.0], [0.9, 0.6], [0.8, 0.7]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[5.0, 0.0]])  # length does not count
    assert knn_predict(train, labels, query, k=1).item() == 0
    assert knn_predict(train, labels, query, k=3).item() == 0  # one at cosine 1 outweighs two at 0.8
    assert knn_predict(train, labels, query, k=3, temperature=100.0).item() == 1


def test_the_linear_probe_ignores_scale_and_dead_features() -> None:
    (train, labels), (test, truth) = clusters(60, 0), clusters(45, 1)
    scale = torch.tensor([1e-4, 1e3, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert torch.equal(linear_predict(train * scale + 50, labels, test * scale + 50), truth)


def test_predicting_leaves_no_gradient() -> None:
    train, labels = clusters(30, 0)
    with torch.no_grad():
        assert not linear_predict(train, labels, train).requires_grad


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_rank_of_known_matrices(rank: int) -> None:
    """Orthogonal columns of equal length and mean zero have exactly their number as rank."""
    n = 64
    waves = torch.stack([torch.cos(2 * torch.pi * (k + 1) * torch.arange(n) / n) for k in range(rank)], dim=1)
    matrix = waves @ torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:rank]
    assert effective_rank(matrix) == pytest.approx(rank, rel=1e-4)
    assert effective_rank(matrix + 100.0) == pytest.approx(rank, rel=1e-3)  # the mean does not count


def test_rank_of_a_collapse() -> None:
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.randn(500, 16, generator=torch.Generator().manual_seed(0))) > 15


def test_shapes_that_do_not_fit_are_named() -> None:
    for train, labels in ((torch.zeros(3, 2), 2), (torch.zeros(0, 2), 0), (torch.zeros(3, 4), 3)):
        with pytest.raises(DataError, match="do not fit"):
            knn_predict(train, torch.zeros(labels, dtype=torch.long), torch.zeros(2, 2))
