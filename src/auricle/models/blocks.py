"""Transformer blocks on packed clips.

Shape legend: M tokens of all clips laid end to end, D width, H heads, C width of one head. A packed batch is one (M, D)
matrix: every linear layer sees all clips at once and no padding exists; only attention looks at the spans.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Spans(NamedTuple):
    """``count`` neighbouring attention spans of ``length`` tokens each, starting at token ``start``."""

    start: int
    count: int
    length: int
    keys: int  # only the first ``keys`` tokens of each span may be attended to


def plan_spans(lengths: Sequence[int], keys: Sequence[int] | None = None) -> tuple[list[int], list[Spans]]:
    """Order spans so that equal ones are neighbours and share one attention call.

    Args:
        lengths: tokens of each span.
        keys: attendable tokens of each span; all of them by default.

    Returns:
        The order in which to lay the spans, and the groups of equal neighbours.
    """
    keys = list(lengths if keys is None else keys)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], keys[i]))
    groups: list[Spans] = []
    start = 0
    for i in order:
        last = groups[-1] if groups else None
        if last and (last.length, last.keys) == (lengths[i], keys[i]):
            groups[-1] = last._replace(count=last.count + 1)
        else:
            groups.append(Spans(start, 1, lengths[i], keys[i]))
        start += lengths[i]
    return order, groups


class _OneDnnLinear(torch.autograd.Function):
    """float32 linear layer through oneDNN: same arithmetic, 2–2.5 × the default BLAS on AVX-512 CPUs without MKL's favour."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        multiply = torch.ops.mkldnn._linear_pointwise
        rows = grad.reshape(-1, grad.shape[-1])
        to_x = multiply(grad, weight.t().contiguous(), None, "none", [], "") if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = multiply(rows.t(), x.reshape(-1, x.shape[-1]).t().contiguous(), None, "none", [], "")
        return to_x, to_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` on the fastest exact path: oneDNN for float32 on a CPU, else torch's own."""
    exact_cpu = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if _HAS_ONEDNN and exact_cpu and x.shape[0] > 1 and not torch.is_autocast_enabled("cpu"):
        return _OneDnnLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose float32 CPU path goes through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, D_in) → (…, D_out)."""
        return linear(x, self.weight, self.bias)


class LayerScale(nn.Module):
    """Learned per-channel gain of a residual branch (off in every released Dasheng)."""

    def __init__(self, width: int, init: float) -> None:
        """Start every gain at ``init``."""
        super().__init__()
        self.gamma = nn.Parameter(init * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention inside each span of a packed batch; fused qkv laid out [q | k | v] × heads."""

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        """Width must be a multiple of ``num_heads``."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, spans: Iterable[Spans]) -> Tensor:
        """(M, D) → (M, D)."""
        qkv = self.qkv(x)
        mixed = [self._attend(qkv, span) for span in spans]
        return self.proj(mixed[0] if len(mixed) == 1 else torch.cat(mixed))

    def _attend(self, qkv: Tensor, span: Spans) -> Tensor:
        rows = span.count * span.length
        if span.keys == 0:  # nothing may be attended to: the mixture is empty
            return qkv.new_zeros(rows, qkv.shape[1] // 3)
        part = qkv[span.start : span.start + rows]
        query, key, value = part.view(span.count, span.length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if span.keys < span.length:
            key, value = key[:, :, : span.keys], value[:, :, : span.keys]
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(rows, -1)


class Mlp(nn.Module):
    """Linear → exact (erf) GELU → Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        """Plain two-layer perceptron."""
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) → (M, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; LayerNorm eps 1e-6 (timm's ViT, as in Dasheng)."""

    def __init__(
        self, width: int, num_heads: int, *, mlp_ratio: float = 4.0, qkv_bias: bool = True, layer_scale: float | None = None
    ) -> None:
        """``layer_scale``: initial gain of both residual branches, or None for none."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls1: nn.Module = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ls2: nn.Module = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, spans: Sequence[Spans]) -> Tensor:
        """(M, D) → (M, D)."""
        x = x + self.ls1(self.attn(self.norm1(x), spans))
        return x + self.ls2(self.mlp(self.norm2(x)))
