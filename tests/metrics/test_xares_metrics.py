import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import DataError
from auricle.metrics import classification as metrics
from auricle.metrics import regression, retrieval, word_errors


def drawn(seed: int, n: int = 30, classes: int = 4, levels: int = 5) -> tuple[Tensor, Tensor]:
    """Scores of few levels, hence many ties, and targets of which each class has both."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, classes)) < 0.4
    targets[0], targets[1] = True, False
    return torch.tensor(rng.integers(levels, size=(n, classes)) / levels), torch.tensor(targets.astype(np.int64))


SEEDS = st.integers(0, 10_000)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([2, 5, 1000]))
def test_rankings_agree_with_scikit_learn(seed: int, levels: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, targets = drawn(seed, levels=levels)
    expected = sklearn.average_precision_score(targets.numpy(), scores.numpy(), average="macro")
    assert metrics.mean_average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)
    areas = sklearn.roc_auc_score(targets.numpy(), scores.numpy(), average=None)
    assert metrics.roc_auc(scores, targets) == pytest.approx(areas.mean(), abs=1e-12)
    alarms, hits, _ = sklearn.roc_curve(targets[:, 0].numpy(), scores[:, 0].numpy(), pos_label=1)
    closest = np.abs(1 - hits - alarms).argmin()
    expected = (alarms[closest] + 1 - hits[closest]) / 2
    assert metrics.equal_error_rate(scores[:, 0], targets[:, 0]) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25)
@given(SEEDS)
def test_rankings_do_not_depend_on_scale_or_order(seed: int) -> None:
    scores, targets = drawn(seed)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    for metric in (metrics.mean_average_precision, metrics.roc_auc, metrics.d_prime):
        expected = pytest.approx(metric(scores, targets), abs=1e-12)
        assert metric(scores * 7 - 3, targets) == expected
        assert metric(scores[order], targets[order]) == expected


@settings(max_examples=25)
@given(SEEDS)
def test_the_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    scores, targets = drawn(seed, n=12, classes=1)
    high, low = scores[targets == 1], scores[targets == 0]
    pairs = (high[:, None] > low).double() + 0.5 * (high[:, None] == low)
    assert metrics.roc_auc(scores, targets) == pytest.approx(pairs.mean().item(), abs=1e-12)


def test_known_rankings() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    targets = torch.tensor([[1], [0], [1], [0]])
    assert metrics.mean_average_precision(scores, targets) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.roc_auc(scores, targets) == pytest.approx(0.75)
    assert metrics.d_prime(scores, targets) == pytest.approx(0.6744898 * math.sqrt(2), abs=1e-6)
    assert metrics.d_prime(scores, (scores > 0.75).long()) == math.inf
    assert metrics.equal_error_rate(scores[:, 0], targets[:, 0]) == pytest.approx(0.5)


def test_a_class_without_positives_counts_as_zero() -> None:
    scores, targets = torch.rand(6, 2), torch.zeros(6, 2)
    targets[:, 0] = 1
    assert metrics.mean_average_precision(scores, targets) == pytest.approx(0.5)
    assert math.isnan(metrics.roc_auc(scores, targets))
    assert math.isnan(metrics.d_prime(scores, targets))
    with pytest.raises(DataError, match="both labels; found 6 of 1 and 0 of 0"):
        metrics.equal_error_rate(scores[:, 0], targets[:, 0])


def test_equal_error_rate_of_separated_scores() -> None:
    scores, labels = torch.arange(10.0), (torch.arange(10) > 6).long()
    assert metrics.equal_error_rate(scores, labels) == 0.0
    assert metrics.equal_error_rate(-scores, labels) == 1.0
    assert metrics.equal_error_rate(torch.zeros(10), labels) == 0.5  # one threshold, between all and nothing


def test_accuracy_counts_the_largest_output() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([0, 12, 13, 5]), 30).float()
    labels = torch.tensor([0, 0, 0, 17])
    assert metrics.accuracy(logits, labels) == 0.25


def test_errors_are_summed_over_outputs() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert regression.mean_absolute_error(outputs, targets) == pytest.approx((1 + 2 + 4) / 2)
    assert regression.mean_squared_error(outputs, targets) == pytest.approx((1 + 4 + 16) / 2)


def test_transcripts_are_compared_word_by_word() -> None:
    assert word_errors.wer_inv(["A b c"], ["a  B c"]) == 1.0
    assert word_errors.wer_inv(["a b c d", "e"], ["a b c d", ""]) == pytest.approx(0.8)
    assert word_errors.wer_inv(["stop."], ["stop"]) == 0.0  # punctuation is part of a word
    with pytest.raises(DataError, match="no words"):
        word_errors.wer_inv([" "], ["a"])
    with pytest.raises(DataError, match="one for each"):
        word_errors.wer_inv(["a"], [])


def test_perfect_and_collapsed_retrieval() -> None:
    clips = torch.eye(6)
    owners = torch.arange(6).repeat_interleave(3)
    for way in retrieval.retrieval_scores(clips, clips[owners], owners):
        assert way[:5] == (1.0, 1.0, 1.0, 1.0, 1.0)
    for way in retrieval.retrieval_scores(torch.ones(6, 4), torch.ones(18, 4), owners):
        assert way.r1 == 0.0


@settings(max_examples=25)
@given(SEEDS)
def test_retrieval_knows_owners_in_any_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(8, 5, generator=generator), torch.randn(24, 5, generator=generator)
    owners = torch.arange(8).repeat_interleave(3)
    order = torch.randperm(24, generator=generator)
    expected = retrieval.retrieval_scores(audio, text, owners)
    for found, way in zip(retrieval.retrieval_scores(audio, text[order], owners[order]), expected, strict=True):
        assert found == pytest.approx(way, abs=1e-12)
    repeated = retrieval.recall_at_1(audio[owners], text, captions=3)
    assert repeated == pytest.approx((expected[0].r1 + expected[1].r1) / 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.accuracy(torch.zeros(3, 2), torch.zeros(2)),
        lambda: metrics.accuracy(torch.zeros(0, 2), torch.zeros(0)),
        lambda: metrics.mean_average_precision(torch.zeros(3, 2), torch.zeros(3)),
        lambda: metrics.mean_average_precision(torch.full((3, 2), math.nan), torch.ones(3, 2)),
        lambda: metrics.frame_mean_average_precision(torch.zeros(3, 2), torch.zeros(3, 2)),
        lambda: regression.mean_absolute_error(torch.zeros(3, 1), torch.zeros(3)),
        lambda: retrieval.retrieval_scores(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)),
        lambda: retrieval.recall_at_1(torch.zeros(7, 3), torch.zeros(7, 3)),
    ],
)
def test_what_does_not_fit_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError):
        call()
