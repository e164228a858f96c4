import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.bench import probes
from auricle.bench.probes import knn_predict, knn_scores
from auricle.errors import ConfigError, DataError


def sampled(seed: int, n: int = 40, m: int = 15, dim: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    train, test = torch.randn(n, dim, generator=generator), torch.randn(m, dim, generator=generator)
    return train, torch.randint(4, (n,), generator=generator), test


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from(["cosine", "compat"]))
def test_votes_are_shares(seed: int, k: int, mode: probes.Mode) -> None:
    train, labels, test = sampled(seed)
    scores = knn_scores(train, labels, test, k=k, mode=mode, num_classes=5)
    assert scores.shape == (15, 5)
    assert torch.allclose(scores.sum(1), torch.ones(15), atol=1e-5)
    assert torch.equal(scores[:, 4], torch.zeros(15))  # no training clip has it
    assert torch.equal(knn_predict(train, labels, test, k=k, mode=mode), scores[:, :4].argmax(1))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_votes_by_the_definition(seed: int) -> None:
    train, labels, test = sampled(seed)
    scores = knn_scores(train, labels, test, k=5, temperature=0.2)
    for query, row in zip(test, scores, strict=True):
        closeness = F.cosine_similarity(query[None], train)
        nearest = closeness.argsort(descending=True)[:5]
        weights = (closeness[nearest] / 0.2).softmax(0)
        expected = torch.stack([weights[labels[nearest] == number].sum() for number in range(4)])
        assert torch.allclose(row, expected, atol=1e-5)


def test_what_each_mode_ignores() -> None:
    train, labels, test = sampled(3)
    lengths = torch.arange(1.0, 41)[:, None]
    units = torch.arange(1.0, 7)
    cosine, compat = (knn_scores(train, labels, test, mode=mode) for mode in ("cosine", "compat"))
    assert not torch.allclose(cosine, compat, atol=1e-2)
    assert torch.allclose(knn_scores(train * lengths, labels, test), cosine, atol=1e-5)
    assert not torch.allclose(knn_scores(train * lengths, labels, test, mode="compat"), compat, atol=1e-2)
    # compat ignores the unit of each feature of the training clips, cosine does not.
    assert torch.allclose(knn_scores(train * units, labels, test, mode="compat"), compat, atol=1e-5)
    assert not torch.allclose(knn_scores(train * units, labels, test), cosine, atol=1e-2)


def test_queries_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels, test = sampled(0)
    expected = knn_scores(train, labels, test)
    monkeypatch.setattr(probes, "_SIMILARITIES", 3 * len(train) + 1)
    assert torch.allclose(knn_scores(train, labels, test), expected, atol=1e-6)


def test_a_low_temperature_does_not_overflow() -> None:
    train, labels, test = sampled(0)
    scores = knn_scores(train, labels, test, temperature=1e-4)
    assert torch.isfinite(scores).all()
    assert torch.equal(scores.argmax(1), knn_predict(train, labels, test, k=1))


def test_what_is_refused() -> None:
    train, labels, test = sampled(0)
    for wrong in ({"k": 0}, {"temperature": 0.0}, {"mode": "euclid"}):
        with pytest.raises(ConfigError, match="one of cosine, compat"):
            knn_scores(train, labels, test, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected 0 to 2"):
        knn_scores(train, labels, test, num_classes=3)
    with pytest.raises(DataError, match="do not fit"):
        knn_scores(train, labels, test[:, :2])
