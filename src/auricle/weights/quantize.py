"""Which layers of an audio language model may be rounded, to what, and where.

=================  ==================================================================================================
``int8``           weights in 8 bits; on a CPU through `Int8Linear`, on CUDA through torchao
``int8-dynamic``   weights in 8 bits and activations in 7 (CUDA: 8), one scale a row; faster, and rougher
``int4``           weights in 4 bits by groups of 128; CUDA with torchao, bfloat16. No CPU kernel of torch is faster
                   than float32 without AVX-512
``fp8``            weights and activations in float8 e4m3, one scale a row; CUDA of capability 8.9, torchao, bfloat16
=================  ==================================================================================================

Every scheme scales activations row by row, so that a prompt's result does not depend on its neighbours.

Rounded are the decoder's linear layers and its output head; with ``int8-dynamic`` and ``fp8`` also the encoder's MLPs.
(An encoder has hundreds of rows at once and is bound by products, not by reading weights: with weights alone rounded it
grew slower.) Projector, input norm, front end, the encoder's attention, norms and embeddings stay as they are. A head
tied to the embeddings is rounded as a copy: the table that words are looked up in keeps its values, and the two are
tied no more.

Measured: the CPU ways (``benchmarks/quantize.py``). The CUDA ways are written against torchao 0.18 and not run yet.
"""

import re
from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from auricle.errors import ConfigError, LayoutMismatch, MissingExtra
from auricle.models.int8 import Int8Linear, has_int8_kernel
from auricle.models.midashenglm import MiDashengLM
from auricle.weights.construct import StoredTensor, made

SCHEMES = ("int8", "int8-dynamic", "int4", "fp8")
_PASSES = {"int8": 2, "int8-dynamic": 1}  # what a CPU can do, and products per weight
_DECODER = re.compile(r"decoder\.(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)|lm_head)")
_ENCODER = re.compile(r"audio_encoder\.blocks\.\d+\.mlp\.fc[12]")
_DYNAMIC = ("int8-dynamic", "fp8")  # schemes that round activations
_FP8_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0
_GROUP = 128  # weights that share a scale in int4, as published W4A16 checkpoints


def is_rounded(layer: str, scheme: str) -> bool:
    """Whether a linear layer of a `MiDashengLM`, by its name, is rounded."""
    return bool(_DECODER.fullmatch(layer) or (scheme in _DYNAMIC and _ENCODER.fullmatch(layer)))


def check_scheme(scheme: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a scheme that this place cannot run.

    Raises:
        ConfigError: unknown, or the hardware, torch or the data type lacks what it needs.
        MissingExtra: torchao is not installed.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"quantize is {scheme!r}, expected one of {', '.join(SCHEMES)}")
    if device.type != "cuda":
        if scheme not in _PASSES:
            raise ConfigError(f"{scheme} needs a CUDA device, this is {device.type!r}; on a CPU there is int8")
        if device.type != "cpu" or not has_int8_kernel():
            raise ConfigError(
                f"{scheme} needs CUDA, or an x86 CPU with AVX2 and a build of torch with FBGEMM; leave it off here"
            )
        return
    if scheme == "fp8" and (found := torch.cuda.get_device_capability(device)) < _FP8_CAPABILITY:
        raise ConfigError(f"fp8 needs a GPU of compute capability 8.9 or more, this one has {found[0]}.{found[1]}")
    if scheme in ("int4", "fp8") and dtype != torch.bfloat16:
        raise ConfigError(f"{scheme} needs dtype='bfloat16', got {str(dtype).removeprefix('torch.')!r}")
    if find_spec("torchao") is None:
        raise MissingExtra(f"{scheme} on a GPU", "quantize")


def round_layers(model: MiDashengLM, state: MutableMapping[str, StoredTensor], scheme: str) -> None:
    """Put `Int8Linear` in place of a network's rounded layers, on a CPU, and take their tensors out of ``state``.

    One layer at a time, so that weights mapped from a file are never all in memory at full width.

    Raises:
        ConfigError: weights that are not finite.
        LayoutMismatch: a tensor has another shape than the network's.
    """
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or not is_rounded(name, scheme):
            continue
        weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias", None)
        if weight.shape != layer.weight.shape:
            raise LayoutMismatch(f"{name}.weight is {tuple(weight.shape)}, expected {tuple(layer.weight.shape)}")
        try:
            small = Int8Linear(made(weight), None if bias is None else made(bias), passes=_PASSES[scheme])
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        model.set_submodule(name, small)


def round_on_gpu(model: MiDashengLM, scheme: str) -> None:
    """Round a network on a CUDA device, in place, through torchao."""
    from torchao.quantization import quantize_

    def chosen(layer: nn.Module, name: str) -> bool:
        return isinstance(layer, nn.Linear) and is_rounded(name, scheme)

    quantize_(model, torchao_config(scheme), chosen)


def torchao_config(scheme: str) -> Any:
    """torchao's configuration of a scheme."""
    from torchao import quantization as ao

    if scheme == "int8":
        return ao.Int8WeightOnlyConfig()
    if scheme == "int8-dynamic":
        return ao.Int8DynamicActivationInt8WeightConfig()
    if scheme == "int4":
        return ao.Int4WeightOnlyConfig(group_size=_GROUP)
    # One scale for a whole batch, torchao's default, would make a prompt depend on its neighbours.
    return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())


def check_unrounded(model: nn.Module) -> None:
    """Refuse to write a rounded network: its full weights are gone.

    Raises:
        ConfigError: a layer is rounded.
    """
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear) or "torchao" in type(getattr(module, "weight", None)).__module__:
            raise ConfigError(f"{name} is quantised, its full weights are gone; load it without quantize to save it")
