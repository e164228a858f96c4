"""What frozen embeddings know: nearest neighbours, a linear classifier, and their rank."""

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import DataError


def knn_predict(train: Tensor, labels: Tensor, test: Tensor, *, k: int = 10, temperature: float = 0.07) -> Tensor:
    """Weighted vote of the ``k`` nearest clips by cosine, votes weighing exp(cosine / temperature).

    Args:
        train: (n, D) embeddings.
        labels: (n,) int64 classes of ``train``.
        test: (m, D) embeddings.
        k: neighbours; 10 as in X-ARES.
        temperature: of the votes; 0.07 as in X-ARES.

    Returns:
        (m,) int64 classes.
    """
    _check(train, labels, test)
    similarity = F.normalize(test.float(), dim=1) @ F.normalize(train.float(), dim=1).t()
    nearest, index = similarity.topk(min(k, len(train)), dim=1)
    votes = torch.zeros(len(test), int(labels.max()) + 1)
    votes.scatter_add_(1, labels[index], (nearest / temperature).exp())
    return votes.argmax(dim=1)


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
