"""Low-rank updates of linear layers (LoRA, arXiv 2106.09685), injected by Hugging Face PEFT."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from auricle.errors import ConfigError, MissingExtra

ALL_LINEAR = "all-linear"


def adapt(module: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0) -> list[str]:
    """Put updates beside linear layers, in place; everything else in the module is frozen.

    Args:
        module: the part to adapt; its output head (``lm_head``) is left alone, as PEFT does.
        targets: last names of the layers (``q_proj``), or `ALL_LINEAR` alone.
        rank: r, >= 1.
        alpha: the updates are scaled by alpha / r.
        dropout: share of the updates' inputs that is dropped in training.

    Returns:
        Names of the adapted layers.

    Raises:
        ConfigError: a target that no layer has.
        MissingExtra: peft is not installed.
    """
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and name != "lm_head"]
    known = sorted({name.rpartition(".")[2] for name in layers})
    if unknown := set(targets) - {*known, ALL_LINEAR}:
        raise ConfigError(
            f"no linear layer is called {', '.join(sorted(unknown))}; the layers are {', '.join(known)}, all of them "
            f"{ALL_LINEAR}"
        )
    chosen = [name for name in layers if ALL_LINEAR in targets or name.rpartition(".")[2] in targets]
    peft = _library("peft", "low-rank updates (peft)", "train")
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    peft.inject_adapter_in_model(settings, module)
    for parameter in (parameter for pair in updates(module).values() for parameter in pair):
        parameter.data = parameter.data.float()  # peft gives them the type of the frozen weights
    return chosen


def updates(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The parameters A (r, in) and B (out, r) of each adapted layer."""
    return {name: (layer.lora_A["default"].weight, layer.lora_B["default"].weight) for name, layer in _adapted(module)}


def _adapted(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in module.named_modules() if hasattr(layer, "lora_A")]


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
    library = _library("bitsandbytes", f"sft.quantize={bits} (bitsandbytes)", "qlora")
    for _, layer in _adapted(module):
        layer.base_layer = _rounded(library, layer.base_layer, bits)


def _library(name: str, what: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(what, extra) from None


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
