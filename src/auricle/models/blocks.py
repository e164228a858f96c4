"""Transformer blocks on packed clips.

Shape legend: M tokens of all clips laid end to end, D width, H heads, C width of one head. A packed batch is one (M, D)
matrix: every linear layer sees all clips at once and no padding exists; only attention looks at the spans.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Spans(NamedTuple):
    """``repeats`` neighbouring attention spans of ``length`` tokens each; groups follow each other without gaps."""

    repeats: int
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
    for i in order:
        last = groups[-1] if groups else None
        if last and (last.length, last.keys) == (lengths[i], keys[i]):
            groups[-1] = last._replace(repeats=last.repeats + 1)
        else:
            groups.append(Spans(1, lengths[i], keys[i]))
    return order, groups


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_LINEAR_DTYPES = {torch.float32} if _HAS_ONEDNN else set()
_GELU_DTYPES = {*_LINEAR_DTYPES}  # torch's own bfloat16 product is oneDNN's already, but does not take the GELU along
# Whether this CPU multiplies bfloat16 itself; emulated, a product takes 50 times as long as in float32.
CPU_HAS_BFLOAT16: bool = _HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
if CPU_HAS_BFLOAT16:
    _GELU_DTYPES.add(torch.bfloat16)


def _suits_onednn(x: Tensor, weight: Tensor, dtypes: set[torch.dtype]) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype and x.dtype in dtypes and x.shape[0] > 1
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``activation(x @ weight.T + bias)`` through oneDNN; a transposed ``weight`` is read without a copy."""
    algorithm = "none" if activation == "gelu" else ""  # of the GELU: erf, not tanh
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)


class _OneDnnLinear(torch.autograd.Function):
    """float32 linear layer through oneDNN: on AVX-512 CPUs that the default BLAS knows badly, 2-2.5 × as fast."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        to_x = _multiply(grad, weight.t()) if ctx.needs_input_grad[0] else None
        to_weight = _multiply(rows.t(), x.reshape(-1, x.shape[-1]).t()) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` on the fastest exact path: oneDNN for float32 on a CPU, else torch's own."""
    if _suits_onednn(x, weight, _LINEAR_DTYPES):
        return _OneDnnLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Exact (erf) GELU of `linear`; on a CPU without gradients in one pass over memory."""
    if not torch.is_grad_enabled() and _suits_onednn(x, weight, _GELU_DTYPES):
        return _multiply(x, weight, bias, "gelu")
    return F.gelu(linear(x, weight, bias))


class Linear(nn.Linear):
    """`torch.nn.Linear` whose float32 CPU path goes through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, D_in) → (…, D_out)."""
        return linear(x, self.weight, self.bias)


class PatchEmbed(nn.Module):
    """Holds the convolution weights (D, 1, height, width) that turn a patch into a token."""

    def __init__(self, width: int, patch: tuple[int, int] = (16, 16)) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:
        """(P, height · width) → (P, D): the convolution as one matrix product; features are always float32."""
        weight = self.proj.weight
        return linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Unmasked attention (B, H, N, C) → (B, H, N, C)."""
    if query.device.type == "cpu" and (query.requires_grad or query.dtype == torch.bfloat16):
        # On a CPU two products and a softmax beat the fused kernel: 2-5 × backward, 1.6 × in bfloat16.
        return torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2), dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value)


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

    def forward(self, x: Tensor, spans: Sequence[Spans]) -> Tensor:
        """(M, D) → (M, D)."""
        qkv = self.qkv(x)
        if len(spans) == 1:
            return self.proj(self._attend(qkv, spans[0]))
        # One split, not a slice a span: the gradient of a slice is as large as the whole matrix.
        parts = qkv.split([span.repeats * span.length for span in spans])
        return self.proj(torch.cat([self._attend(part, span) for part, span in zip(parts, spans, strict=True)]))

    def _attend(self, qkv: Tensor, span: Spans) -> Tensor:
        rows = len(qkv)
        if span.keys == 0:  # nothing may be attended to: the mixture is empty
            return qkv.new_zeros(rows, qkv.shape[1] // 3)
        query, key, value = qkv.view(span.repeats, span.length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if span.keys < span.length:
            key, value = key[:, :, : span.keys], value[:, :, : span.keys]
        return attend(query, key, value).transpose(1, 2).reshape(rows, -1)


class Mlp(nn.Module):
    """Linear → exact (erf) GELU → Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) → (M, D)."""
        if type(self.fc1) is not Linear:  # an adapter took its place
            return self.fc2(F.gelu(self.fc1(x)))
        return self.fc2(linear_gelu(x, self.fc1.weight, self.fc1.bias))


class Block(nn.Module):
    """Pre-norm transformer block (timm's ViT, as in Dasheng)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        """``layer_scale``: initial gain of both residual branches, or None for none; ``eps``: of both LayerNorms."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls1: nn.Module = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ls2: nn.Module = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, spans: Sequence[Spans]) -> Tensor:
        """(M, D) → (M, D)."""
        x = x + self.ls1(self.attn(self.norm1(x), spans))
        return x + self.ls2(self.mlp(self.norm2(x)))
