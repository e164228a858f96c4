"""Low-rank updates of linear layers (LoRA, arXiv 2106.09685): a frozen layer and two small matrices beside it.

A layer ``W`` becomes ``W + alpha / r · B A`` with A (r, in) random and B (out, r) zero, so training starts from the
model as it is. Names and shapes are those of Hugging Face PEFT, see `auricle.weights.adapters`.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError, MissingExtra

ALL_LINEAR = "all-linear"


class LoraLinear(nn.Module):
    """A linear layer that stays as it is, with an update that learns."""

    base: nn.Module

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        """Put an update beside a layer.

        Args:
            base: frozen here.
            rank: r, >= 1.
            alpha: the update is scaled by alpha / r.
            dropout: share of the update's inputs that is dropped in training.
        """
        super().__init__()
        self.base = base.requires_grad_(False)
        # PEFT's start: A uniform as a linear layer's, B zero.
        self.lora_A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, base.in_features), a=math.sqrt(5)))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale, self.dropout = alpha / rank, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(…, D_in) → (…, D_out)."""
        out = self.base(x)
        kept = F.dropout(x.to(self.lora_A.dtype), self.dropout, self.training)
        return out + (F.linear(F.linear(kept, self.lora_A), self.lora_B) * self.scale).to(out.dtype)


def adapt(module: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0) -> list[str]:
    """Put a `LoraLinear` in the place of linear layers, in place.

    Args:
        module: the part to adapt; its output head (``lm_head``) is left alone, as PEFT does.
        targets: last names of the layers (``q_proj``), or `ALL_LINEAR` alone.
        rank: see `LoraLinear`.
        alpha: see `LoraLinear`.
        dropout: see `LoraLinear`.

    Returns:
        Names of the adapted layers.

    Raises:
        ConfigError: a target that no layer has.
    """
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and name != "lm_head"]
    known = sorted({name.rpartition(".")[2] for name in layers})
    if strange := set(targets) - {*known, ALL_LINEAR}:
        raise ConfigError(
            f"no linear layer is called {', '.join(sorted(strange))}; the layers are {', '.join(known)}, all of them "
            f"{ALL_LINEAR}"
        )
    chosen = [name for name in layers if ALL_LINEAR in targets or name.rpartition(".")[2] in targets]
    for name in chosen:
        parent, _, last = name.rpartition(".")
        layer: Any = module.get_submodule(name)
        setattr(module.get_submodule(parent), last, LoraLinear(layer, rank, alpha, dropout))
    return chosen


def updates(module: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Names and layers that were adapted."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLinear))


def quantize(module: nn.Module, bits: int, device: str) -> None:
    """Swap the frozen layers beneath updates for 4- or 8-bit ones, in place (QLoRA, arXiv 2305.14314).

    The numbers are rounded when the module moves to its GPU.

    Args:
        module: after `adapt`.
        bits: 4 (NF4, computed in bfloat16) or 8 (LLM.int8).
        device: the run's, which must be a CUDA one.

    Raises:
        ConfigError: another device, or another number of bits.
        MissingExtra: bitsandbytes is not installed.
    """
    if bits not in (4, 8):
        raise ConfigError(f"sft.quantize is {bits}; expected 4 or 8 bits, or 0 for none")
    if not device.startswith("cuda"):
        raise ConfigError(f"sft.quantize={bits} needs a CUDA device, this run is on {device!r}; use device=cuda, or 0")
    try:
        library: Any = importlib.import_module("bitsandbytes")
    except ImportError:
        raise MissingExtra(f"sft.quantize={bits} (bitsandbytes)", "qlora") from None
    for _, layer in updates(module):
        layer.base = _rounded(library, layer.base, bits)


def _rounded(library: Any, layer: nn.Module, bits: int) -> nn.Module:
    state = layer.state_dict()
    shape = (layer.in_features, layer.out_features)
    has_bias = "bias" in state
    if bits == 4:
        small = library.nn.Linear4bit(*shape, bias=has_bias, compute_dtype=torch.bfloat16, quant_type="nf4")
        small.weight = library.nn.Params4bit(state["weight"], requires_grad=False, quant_type="nf4")
    else:
        small = library.nn.Linear8bitLt(*shape, bias=has_bias, has_fp16_weights=False)
        small.weight = library.nn.Int8Params(state["weight"], requires_grad=False, has_fp16_weights=False)
    if has_bias:
        small.bias = nn.Parameter(state["bias"], requires_grad=False)
    return small
