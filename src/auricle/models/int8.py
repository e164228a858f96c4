"""Linear layers with int8 weights, for x86 CPUs.

Writing a token reads every weight once, so a weight of one byte instead of four is what makes it faster. torch's own
ways are no help where a CPU has neither AVX-512 nor VNNI: its weight-only product is slower than float32 (in bfloat16:
with many rows), and its dynamic one takes one scale for all rows, so that a row's result would depend on its
neighbours. Here each row is scaled to integers separately and multiplied by FBGEMM, exactly (int32 sums), so a row
gives the same bits in any batch. Figures: ``benchmarks/quantize.py``.

* Weights: int8, one scale an output channel, [-127, 127].
* Activations: integers in [-63, 63] of the row's largest value. 7 bits, because AVX2 adds two products in 16 bits:
  2 · 127 · 127 = 32,258 just fits. ``passes=2`` multiplies what the rounding left as well (in steps of 1/126): 14 bits,
  so that only the weights are rounded.

Shape legend: M rows of the input (any leading axes), I inputs, O outputs.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from auricle.errors import ConfigError

_PEAK = 63  # largest integer of an activation; with the zero point 64 the bytes are in [1, 127]
_ZERO = 64
_REST = 2 * _PEAK  # what rounding leaves is at most 1/2, hence again at most 63 in these units
_ROWS = 8192  # of a weight that are rounded at once
_LEAST = 1e-30  # of a row's scale, float32; a row of zeros stays zeros


def has_int8_kernel() -> bool:
    """Whether this build of torch on this CPU multiplies int8 weights through FBGEMM (x86-64 with AVX2).

    torch has announced the end of the tensor type that FBGEMM packs from (2.13, pytorch issue 184982); with a release
    that lacks it the answer is False, and `Int8Linear` refuses.
    """
    engines = torch.backends.quantized.supported_engines
    operator = hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
    creator = hasattr(torch, "_make_per_channel_quantized_tensor")
    return "fbgemm" in engines and operator and creator and "AVX" in torch.backends.cpu.get_cpu_capability()


class Int8Linear(nn.Module):
    """In place of `torch.nn.Linear`, without gradients; holds no parameters and adds nothing to a state dict."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, passes: int = 2) -> None:
        """Round a layer.

        Args:
            weight: (O, I) floating point, on the CPU, finite.
            bias: (O,), or None; kept as float32.
            passes: 2 rounds only the weights, 1 the activations as well, at half the products.

        Raises:
            ConfigError: no kernel for this CPU, or weights that are not finite.
        """
        super().__init__()
        if not has_int8_kernel():
            raise ConfigError("int8 needs torch with FBGEMM and an x86 CPU with AVX2; leave quantize off here")
        if passes not in (1, 2):
            raise ConfigError(f"passes is {passes}; expected 1 or 2")
        self.out_features, self.in_features = weight.shape
        self.passes = passes
        rows, scale = round_rows(weight)
        self._packed = _pack(rows, scale)
        self._bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) float32, bfloat16 or float16 → (…, O) of the same type."""
        rows = x.reshape(-1, self.in_features).float()
        if not len(rows):
            return x.new_empty(*x.shape[:-1], self.out_features)
        # Every operation counts here: with one row they take as long as a small product.
        scale = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True).div_(_PEAK).clamp_(min=_LEAST)
        scaled = rows / scale
        if self.passes == 1:
            product = _multiply(scaled, self._packed)
        else:
            rest = (scaled - scaled.round()).mul_(_REST)
            # One call for both: the weights are read once.
            high, low = _multiply(torch.cat([scaled, rest]), self._packed).chunk(2)
            product = torch.add(high, low, alpha=1 / _REST)
        product *= scale
        if self._bias is not None:
            product += self._bias
        return product.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, as `torch.nn.Linear` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, passes={self.passes}"


def round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, I) → int8 (O, I) and the float32 scale (O,) of each row; a row of zeros has scale 1.

    Raises:
        ConfigError: weights that are not finite.
    """
    parts = [_round(part) for part in weight.detach().split(_ROWS)]  # an output head is 2 GB in float32
    rounded, scale = (torch.cat(each) for each in zip(*parts, strict=True))
    if not bool(scale.isfinite().all()):
        raise ConfigError("the weights hold NaN or infinite values, which have no int8; check the checkpoint")
    return rounded, scale


def _round(weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.float()
    peak = torch.linalg.vector_norm(weight, torch.inf, dim=1)
    scale = torch.where(peak != 0, peak / 127, 1.0)
    return (weight / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def _pack(rows: Tensor, scale: Tensor) -> Any:
    """FBGEMM's own order of int8 (O, I); one byte a weight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the type is to go; see `has_int8_kernel`
        quantised = torch._make_per_channel_quantized_tensor(rows, scale, torch.zeros_like(scale, dtype=torch.int32), 0)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"  # the operator below is FBGEMM's only
    try:
        return torch.ops.quantized.linear_prepack(quantised, None)
    finally:
        torch.backends.quantized.engine = before


def _multiply(integers: Tensor, packed: Any) -> Tensor:
    """Float32 (M, I) in [-63, 63], rounded to integers, times packed weights → float32 (M, O)."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(integers, 1.0, _ZERO, packed)
