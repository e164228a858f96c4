import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics import classification, regression
from auricle.metrics.classification import equal_error_rate


def scored(seed: int, n: int = 30, classes: int = 4, levels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of few levels, hence many ties, and targets of which each class has both."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, classes)) < 0.4
    targets[0], targets[1] = True, False
    return torch.tensor(rng.integers(levels, size=(n, classes)) / levels), torch.tensor(targets.astype(np.int64))


SEEDS = st.integers(0, 10_000)


@settings(max_examples=25)
@given(SEEDS)
def test_rankings_depend_on_neither_scale_nor_order(seed: int) -> None:
    scores, targets = scored(seed)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    for metric in (classification.mean_average_precision, classification.roc_auc, classification.d_prime):
        expected = pytest.approx(metric(scores, targets), abs=1e-12)
        assert metric(scores * 7 - 3, targets) == expected
        assert metric(scores[order], targets[order]) == expected


def test_known_rankings() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    targets = torch.tensor([[1], [0], [1], [0]])
    assert classification.mean_average_precision(scores, targets) == pytest.approx((1 + 2 / 3) / 2)
    assert classification.roc_auc(scores, targets) == pytest.approx(0.75)
    assert classification.d_prime(scores, targets) == pytest.approx(0.6744898 * math.sqrt(2), abs=1e-6)
    assert classification.d_prime(scores, (scores > 0.75).long()) == math.inf
    assert classification.equal_error_rate(scores[:, 0], targets[:, 0]) == pytest.approx(0.5)


def test_a_class_without_positives_counts_as_zero() -> None:
    scores, targets = torch.rand(6, 2), torch.zeros(6, 2)
    targets[:, 0] = 1
    assert classification.mean_average_precision(scores, targets) == pytest.approx(0.5)
    assert math.isnan(classification.roc_auc(scores, targets))
    assert math.isnan(classification.d_prime(scores, targets))
    with pytest.raises(DataError, match="both labels; found 6 of 1 and 0 of 0"):
        classification.equal_error_rate(scores[:, 0], targets[:, 0])


def test_equal_error_rate_of_separated_scores() -> None:
    scores, labels = torch.arange(10.0), (torch.arange(10) > 6).long()
    assert classification.equal_error_rate(scores, labels) == 0.0
    assert classification.equal_error_rate(-scores, labels) == 1.0
    assert classification.equal_error_rate(torch.zeros(10), labels) == 0.5  # one threshold, between all and nothing


def test_equal_error_rate_keeps_the_first_threshold() -> None:
    """As scikit-learn does, also where the first corner of the curve is on a straight line."""
    scores = torch.tensor([0, 1, 2, 2, 3, 3, 2, 1, 3, 0, 1]) / 7
    labels = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1])
    assert equal_error_rate(scores, labels) == pytest.approx(0.6388888888888888)


def test_accuracy_counts_the_largest_output() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([0, 12, 13, 5]), 30).float()
    labels = torch.tensor([0, 0, 0, 17])
    assert classification.accuracy(logits, labels) == 0.25


def test_errors_are_summed_over_outputs() -> None:
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert regression.mean_absolute_error(outputs, targets) == pytest.approx((1 + 2 + 4) / 2)
    assert regression.mean_squared_error(outputs, targets) == pytest.approx((1 + 4 + 16) / 2)
