"""Probes of frozen embeddings: nearest neighbours, a linear classifier, and effective rank."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import ConfigError, DataError

Mode = Literal["cosine", "compat"]
_SIMILARITIES = 1 << 26  # in memory at once: 256 MB


def knn_predict(
    train: Tensor, labels: Tensor, test: Tensor, *, k: int = 10, temperature: float = 0.07, mode: Mode = "cosine"
) -> Tensor:
    """Weighted vote of the ``k`` nearest clips, votes weighing exp(similarity / temperature).

    Args:
        train: (n, D) embeddings.
        labels: (n,) int64 classes of ``train``.
        test: (m, D) embeddings.
        k: neighbours; 10 as in X-ARES.
        temperature: of the votes; 0.07 as in X-ARES.
        mode: see `knn_scores`.

    Returns:
        (m,) int64 classes.

    Raises:
        ConfigError: k or the temperature are not above 0, or no such mode.
        DataError: shapes that do not fit.
    """
    return knn_scores(train, labels, test, k=k, temperature=temperature, mode=mode).argmax(dim=1)


def knn_scores(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    k: int = 10,
    temperature: float = 0.07,
    mode: Mode = "cosine",
    num_classes: int | None = None,
) -> Tensor:
    """Share of each class in the vote of the ``k`` nearest clips, whose weights are softmax(similarity / temperature).

    Args:
        train: (n, D) embeddings.
        labels: (n,) int64 classes of ``train``.
        test: (m, D) embeddings.
        k: neighbours; all clips where there are fewer.
        temperature: of the votes.
        mode: ``cosine`` scales every clip to length 1. ``compat`` is the rule X-ARES released: queries at length 1, but
            every *feature* of the training clips divided by its norm over the training set (the matrix is transposed
            before it is normalised); published kNN scores were made with it.
        num_classes: C; None: the largest label + 1.

    Returns:
        (m, C) float32, rows sum to 1.

    Raises:
        ConfigError: k or the temperature are not above 0, or no such mode.
        DataError: shapes that do not fit, or a label outside the classes.
    """
    _check(train, labels, test)
    if k < 1 or temperature <= 0 or mode not in get_args(Mode):
        raise ConfigError(
            f"k is {k}, temperature {temperature}, mode {mode!r}; expected k >= 1, temperature > 0 and one of "
            f"{', '.join(get_args(Mode))}"
        )
    count = num_classes or int(labels.max()) + 1
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise DataError(f"labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {count - 1}")
    keys = F.normalize(train.float(), dim=0 if mode == "compat" else 1).t()
    queries = F.normalize(test.float(), dim=1)
    scores = torch.zeros(len(test), count, device=test.device)
    rows = max(1, _SIMILARITIES // len(train))
    for start in range(0, len(test), rows):
        nearest, index = (queries[start : start + rows] @ keys).topk(min(k, len(train)), dim=1)
        scores[start : start + rows].scatter_add_(1, labels[index], (nearest / temperature).softmax(dim=1))
    return scores


def linear_predict(train: Tensor, labels: Tensor, test: Tensor, *, decay: float = 1e-3) -> Tensor:
    """Logistic regression on standardised features, full-batch L-BFGS with ``decay`` × squared weights.

    Shapes as in `knn_predict`. Convex, hence the same answer for any seed.
    """
    _check(train, labels, test)
    mean, deviation = train.float().mean(0), train.float().std(0).clamp(min=1e-6)
    inputs, queries = (train.float() - mean) / deviation, (test.float() - mean) / deviation
    weight = torch.zeros(inputs.shape[1], int(labels.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weight + bias, labels) + decay * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call,arg-type,unused-ignore]
    return (queries @ weight + bias).argmax(dim=1).detach()


def effective_rank(embeddings: Tensor) -> float:
    """Exponential of the entropy of the singular values of centred embeddings (n, D).

    Between 1 (collapsed) and min(n, D). Source: Roy & Vetterli 2007; RankMe, arXiv 2210.02885.
    """
    values = torch.linalg.svdvals(embeddings.double() - embeddings.double().mean(0))
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * (shares + 1e-12).log()).sum()))


def _check(train: Tensor, labels: Tensor, test: Tensor) -> None:
    if len(train) != len(labels) or not len(train) or train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"embeddings {tuple(train.shape)} with {len(labels)} labels and test embeddings {tuple(test.shape)} do not "
            "fit; expected (n, D) with n > 0 labels, and (m, D)"
        )
