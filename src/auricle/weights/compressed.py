"""Checkpoints with quantised weights → ordinary tensors, by ``quantization_config`` of their ``config.json``.

======================  ==============================================================================================
``compressed-tensors``  ``pack-quantized`` (``weight_packed``: 2, 4 or 8 bits in int32, ``weight_shape``),
                        ``int-quantized`` and ``float-quantized`` (int8 or float8 ``weight``); ``weight_scale`` of a
                        tensor, row, group or block, ``weight_zero_point``, ``weight_g_idx``
``gptq``                ``qweight``, ``qzeros``, ``scales``, ``g_idx`` of 2, 4 or 8 bits, both checkpoint formats
``fp8``                 float8 ``weight`` with ``weight_scale``, or ``weight_scale_inv`` of blocks
======================  ==============================================================================================

What is read has the data type of its scales and every bit of the stored weights: activations are not rounded. Any other
way to quantise is refused. Sources: the documentation of compressed-tensors (whose own reader gives the same bits),
AutoGPTQ's layout, and transformers' fine-grained FP8.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from auricle.errors import LayoutMismatch
from auricle.weights.construct import LazyTensor, StoredTensor, made

ROW_SCALE = ".row_scale"  # behind the name of a matrix that is stored as int8 by `rows_to_int8`
_FORMATS = ("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_BITS = (2, 4, 8)  # widths that fill 32 bits without a rest, which all versions of the packers lay alike
# What stays behind of a layer: ranges of activations and of the key-value memory, which are not rounded here.
_DROPPED = ("input_scale", "input_zero_point", "output_scale", "output_zero_point", "k_scale", "v_scale")
_HALVES = (torch.float16, torch.bfloat16, torch.float32)


def decompress(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], source: str) -> dict[str, StoredTensor]:
    """Tensors of a checkpoint with ``NAME.weight`` in place of its quantised forms; without quantisation, as they are.

    The weights are restored when they are needed, one at a time.

    Raises:
        LayoutMismatch: quantised in a way that cannot be read, or tensors that do not fit each other; where that shows
            only in restoring a weight, then.
    """
    settings = _settings(config)
    if settings is None:
        return dict(tensors)
    method = str(settings.get("quant_method", "")).lower()
    if method not in _METHODS:
        raise LayoutMismatch(
            f"{source}: quantised by {method or 'an unnamed method'!r}; {', '.join(_METHODS)} can be read. Take the "
            "checkpoint with full weights, and quantize= to make it small"
        )
    check, marks, restore = _METHODS[method]
    check(settings, source)
    groups, rest = _by_layer(tensors, marks)
    for layer, parts in groups.items():
        rest[f"{layer}.weight"] = _later(restore, parts, settings, f"{source}: {layer}")
    for name, tensor in rest.items():
        if name.endswith(".weight") and tensor.dtype not in _HALVES:
            raise LayoutMismatch(f"{source}: {name} is stored as {tensor.dtype} without a scale; download it again")
    return rest


def _later(restore: "_Restore", parts: dict[str, Tensor], settings: Mapping[str, Any], source: str) -> LazyTensor:
    """The weight of a layer, restored when it is needed."""

    def make() -> Tensor:
        with _understood(source):
            return restore(dict(parts), settings)

    with _understood(source):
        return LazyTensor(_shape(parts, settings), _dtype(parts), make)


@contextmanager
def _understood(source: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, RuntimeError) as error:
        raise LayoutMismatch(
            f"{source} is not quantised as config.json states ({_reason(error)}); download it again"
        ) from error


def _shape(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> torch.Size:
    """Outputs and inputs of a layer."""
    if "qweight" in parts:
        words, outputs = parts["qweight"].shape
        return torch.Size((outputs, words * 32 // int(settings["bits"])))
    if "weight_packed" in parts:
        outputs, inputs = (int(n) for n in parts["weight_shape"])
        return torch.Size((outputs, inputs))
    return parts["weight"].shape


def _dtype(parts: Mapping[str, Tensor]) -> torch.dtype:
    """The type of a restored weight: that of its scales, or its own where it is stored at full width."""
    if "weight" in parts and parts["weight"].dtype in _HALVES:
        return parts["weight"].dtype
    names = ("scales", "weight_scale_inv", "weight_scale")
    scale = next((parts[name] for name in names if name in parts), None)
    if scale is None:
        raise KeyError(names[-1])
    return scale.dtype if scale.dtype in _HALVES else torch.float32


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for place in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "compression_config"):
            if isinstance(place.get(key), Mapping):
                return place[key]
    return None


def _by_layer(
    tensors: Mapping[str, StoredTensor], marks: Iterable[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, StoredTensor]]:
    """Quantised layers with their parts, and all other tensors. ``marks`` are parts that only quantised layers have."""
    quantised = {name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in marks}
    groups: dict[str, dict[str, Tensor]] = {layer: {} for layer in quantised}
    rest: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        if layer in groups and part != "bias":
            groups[layer][part] = made(tensor)
        elif part not in _DROPPED:
            rest[name] = tensor
    return groups, rest


def _check_compressed(settings: Mapping[str, Any], source: str) -> None:
    form = str(settings.get("format", "dense"))
    sparsity = (settings.get("sparsity_config") or {}).get("format", "dense")
    if form not in _FORMATS or sparsity != "dense" or settings.get("transform_config"):
        what = form if form not in _FORMATS else "sparse" if sparsity != "dense" else "rotated"
        raise LayoutMismatch(f"{source}: {what} compressed-tensors weights; {', '.join(_FORMATS)} can be read")


def _check_gptq(settings: Mapping[str, Any], source: str) -> None:
    bits, form = settings.get("bits"), settings.get("checkpoint_format", "gptq")
    if bits not in _BITS or form not in ("gptq", "gptq_v2"):
        raise LayoutMismatch(
            f"{source}: GPTQ of {bits} bits in {form!r}; 2, 4 or 8 bits in gptq or gptq_v2 can be read"
        )


def _check_fp8(settings: Mapping[str, Any], source: str) -> None:
    if settings.get("fmt", "e4m3") not in ("e4m3", "e5m2"):
        raise LayoutMismatch(f"{source}: float8 of format {settings['fmt']!r}; e4m3 and e5m2 can be read")


def _from_compressed(parts: dict[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    parts = {part: tensor for part, tensor in parts.items() if part not in _DROPPED}
    scale, zero = parts.pop("weight_scale"), parts.pop("weight_zero_point", None)
    order = parts.pop("weight_g_idx", None)
    if "weight_packed" in parts:
        packed = parts.pop("weight_packed")
        shape = [int(n) for n in parts.pop("weight_shape")]
        bits = _bits(packed.shape[-1], shape[-1])
        weight = _unpack(packed, bits)[:, : shape[1]] - 2 ** (bits - 1)
        if zero is not None and zero.dtype == torch.int32:
            # Packed along the rows, unlike the weights.
            zero = _unpack(zero.t().contiguous(), bits).t()[: shape[0]] - 2 ** (bits - 1)
    else:
        weight = parts.pop("weight")
    if parts:
        raise ValueError(f"unknown part {sorted(parts)[0]}")
    if weight.dtype in _HALVES:  # stored at full width, with the scales of a rounding to come
        return weight
    return _scaled(weight, scale, zero, order, _blocks(settings))


def _from_gptq(parts: dict[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    bits = int(settings["bits"])
    weight = _unpack(parts["qweight"].t().contiguous(), bits)  # packed along the inputs, (O, I)
    zero = _unpack(parts["qzeros"], bits).t()
    if settings.get("checkpoint_format", "gptq") == "gptq":
        zero = (zero + 1) & (2**bits - 1)  # the first format stores one less
    return _scaled(weight, parts["scales"].t(), zero, parts.get("g_idx"), None)


def _from_fp8(parts: dict[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    scale = parts["weight_scale_inv"] if "weight_scale_inv" in parts else parts["weight_scale"]
    size = settings.get("weight_block_size")
    return _scaled(parts["weight"], scale, None, None, (int(size[0]), int(size[1])) if size else None)


def _scaled(
    weight: Tensor, scale: Tensor, zero: Tensor | None, order: Tensor | None, blocks: tuple[int, int] | None
) -> Tensor:
    """(weight - zero) · scale: weight (O, I); scale and zero (), (1,), (O,), (O, 1), (O, groups) or of blocks."""
    rows, columns = weight.shape
    kind = scale.dtype if scale.dtype in _HALVES else torch.float32
    grids = []
    for grid in (scale, zero):
        if grid is None:
            continue
        grid = grid.float()
        grid = grid.reshape(1, 1) if grid.numel() == 1 else grid[:, None] if grid.ndim == 1 else grid
        if grid.shape[0] not in (1, rows):
            if blocks is None:
                raise ValueError(f"scale of shape {tuple(grid.shape)} for {rows} rows")
            grid = grid.repeat_interleave(blocks[0], 0)[:rows].repeat_interleave(blocks[1], 1)[:, :columns]
        elif grid.shape[1] not in (1, columns):
            if order is not None and int(order.min()) >= 0:
                grid = grid[:, order.long()]
            else:
                grid = grid.repeat_interleave(-(-columns // grid.shape[1]), 1)[:, :columns]
        grids.append(grid)
    values = weight.float()
    return ((values if zero is None else values - grids[1]) * grids[0]).to(kind)


def _unpack(packed: Tensor, bits: int) -> Tensor:
    """int32 (R, C) → unsigned values (R, C · 32 / bits) as int32, the lowest bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    return ((packed[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)


def _bits(words: int, columns: int) -> int:
    for bits in _BITS:
        if -(-columns * bits // 32) == words:
            return bits
    raise ValueError(f"{words} words of 32 bits for {columns} weights; 2, 4 or 8 bits can be read")


def _blocks(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    for group in (settings.get("config_groups") or {}).values():
        size = ((group.get("weights") or {}) if isinstance(group, Mapping) else {}).get("block_structure")
        if isinstance(size, list) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]


_Restore: TypeAlias = Callable[[dict[str, Tensor], Mapping[str, Any]], Tensor]
_METHODS: dict[str, tuple[Callable[[Mapping[str, Any], str], None], tuple[str, ...], _Restore]] = {
    "compressed-tensors": (_check_compressed, ("weight_scale", "weight_packed"), _from_compressed),
    "gptq": (_check_gptq, ("qweight", "qzeros", "scales"), _from_gptq),
    "fp8": (_check_fp8, ("weight_scale", "weight_scale_inv"), _from_fp8),
}


# --- matrices stored as int8 by this package


def rows_to_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with a float16 scale for each row under ``NAME.row_scale``: an error of up to 0.4 % of the row's
    largest value, at half the size of float16. Everything else stays as it is.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.shape[0] < 2 or tensor[0].numel() < 64:
            packed[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / 127).half().clamp(min=1e-7)
        packed[name] = (rows / scale.float()).round().clamp(-127, 127).to(torch.int8).view_as(tensor)
        packed[f"{name}{ROW_SCALE}"] = scale
    return packed


def rows_from_int8(tensors: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    """The float32 matrices of `rows_to_int8`, made when they are needed; other tensors as they are."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(f"{name}{ROW_SCALE}")
        if name.endswith(ROW_SCALE) and name.removesuffix(ROW_SCALE) in tensors:
            continue
        if scale is None or tensor.dtype != torch.int8 or not tensor.ndim or scale.shape != (len(tensor), 1):
            found[name] = tensor
        else:
            found[name] = LazyTensor(tensor.shape, torch.float32, partial(_scaled_rows, tensor, scale))
    return found


def _scaled_rows(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows.flatten(1).float() * scale.float()).view(rows.shape)
