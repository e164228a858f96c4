"""Errors of predicted numbers: lower is better. Source: ignite, which X-ARES uses. Legend: n items, K outputs."""

from torch import Tensor

from auricle.errors import DataError


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> float:
    """Σ over items and outputs of |output − target| / n, in [0, ∞).

    Args:
        outputs: (n, K) of any dtype; computed in float64.
        targets: (n, K).

    Raises:
        DataError: shapes that differ, or no items.

    >>> import torch
    >>> mean_absolute_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]]))
    3.5

    Source: ignite `MeanAbsoluteError`. Differs from: scikit-learn, which averages over outputs too.
    """
    return float(_differences(outputs, targets).abs().sum() / len(outputs))


def mean_squared_error(outputs: Tensor, targets: Tensor) -> float:
    """Σ over items and outputs of (output − target)² / n, in [0, ∞); otherwise as `mean_absolute_error`.

    Source: ignite `MeanSquaredError`.
    """
    return float(_differences(outputs, targets).square().sum() / len(outputs))


def _differences(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.shape != targets.shape or not outputs.numel():
        raise DataError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}; expected the same shape, not empty"
        )
    return outputs.double() - targets.double()
