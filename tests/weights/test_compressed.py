"""Checkpoints with quantised weights, written here as their formats are documented, and read back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import LayoutMismatch
from auricle.files import write_json
from auricle.weights import load_midashenglm, safe
from auricle.weights.compressed import decompress, rows_from_int8, rows_to_int8
from auricle.weights.construct import LazyTensor, made
from auricle.weights.quantize import is_rounded

Parts = dict[str, Tensor]
GROUP = 32


def pack(values: Tensor, bits: int) -> Tensor:
    """Unsigned (R, C) → int32 (R, C · bits / 32), the lowest bits first, one value at a time."""
    each = 32 // bits
    words = torch.zeros(values.shape[0], -(-values.shape[1] // each), dtype=torch.int64)
    for column in range(values.shape[1]):
        words[:, column // each] |= values[:, column].long() << bits * (column % each)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def grid(weight: Tensor, bits: int, group: int, *, even: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Unsigned values (O, I), scale (O, groups) in float16 and zero point (O, groups)."""
    parts = weight.float().view(len(weight), -1, group)
    low, high = parts.amin(-1), parts.amax(-1)
    top = 2**bits - 1
    span = 2 * torch.maximum(high, -low) if even else high.clamp(min=0) - low.clamp(max=0)
    scale = (span / top).clamp(min=1e-4).half()
    zero = torch.full_like(scale, 2 ** (bits - 1)) if even else (-low.clamp(max=0) / scale).round().clamp(0, top)
    values = (parts / scale[..., None] + zero[..., None]).round().clamp(0, top).view_as(weight)
    return values, scale, zero


def plain(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    wide = [part.repeat_interleave(values.shape[1] // part.shape[1], 1).double() for part in (scale, zero)]
    return ((values.double() - wide[1]) * wide[0]).to(scale.dtype)


def packed(bits: int, *, even: bool, group: int | None = GROUP) -> Callable[[Tensor], tuple[Parts, Tensor]]:
    def write(weight: Tensor) -> tuple[Parts, Tensor]:
        values, scale, zero = grid(weight, bits, group or weight.shape[1], even=even)
        parts = {
            "weight_packed": pack(values, bits),
            "weight_scale": scale,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not even:
            parts["weight_zero_point"] = pack(zero.t(), bits).t().contiguous()
        return parts, plain(values, scale, zero)

    return write


def int_quantized(weight: Tensor) -> tuple[Parts, Tensor]:
    values, scale, zero = grid(weight, 8, weight.shape[1], even=True)
    parts = {"weight": (values - 128).to(torch.int8), "weight_scale": scale, "input_scale": torch.ones(1)}
    return parts, plain(values, scale, zero)


def float_quantized(weight: Tensor) -> tuple[Parts, Tensor]:
    scale = (weight.abs().amax(1, keepdim=True) / 448).bfloat16()
    stored = (weight / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scale}, (stored.double() * scale.double()).to(torch.bfloat16)


def fp8_blocks(weight: Tensor) -> tuple[Parts, Tensor]:
    # 48 divides no side of the layers: the last blocks are cut.
    rows, columns = (-(-n // 48) for n in weight.shape)
    scale = torch.rand(rows, columns) + 0.5
    wide = scale.repeat_interleave(48, 0)[: weight.shape[0]].repeat_interleave(48, 1)[:, : weight.shape[1]]
    stored = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale_inv": scale}, (stored.double() * wide.double()).float()


def gptq(form: str, *, ordered: bool) -> Callable[[Tensor], tuple[Parts, Tensor]]:
    def write(weight: Tensor) -> tuple[Parts, Tensor]:
        inputs = weight.shape[1]
        order = torch.arange(inputs) if ordered else torch.randperm(inputs, generator=torch.Generator().manual_seed(4))
        values, scale, zero = grid(weight[:, order], 4, GROUP, even=False)
        restored = plain(values, scale, zero)
        back = order.argsort()
        stored = (zero - 1) % 16 if form == "gptq" else zero
        parts = {
            "qweight": pack(values[:, back], 4).t().contiguous(),
            "qzeros": torch.zeros(0),
            "scales": scale.t().contiguous(),
            "g_idx": (back // GROUP).to(torch.int32),
        }
        # Inputs are along the rows of a qweight: packed down each column.
        return {**parts, "qzeros": pack(stored.t(), 4)}, restored[:, back]

    return write


COMPRESSED = {"quant_method": "compressed-tensors", "quantization_status": "compressed"}
LAYOUTS: dict[str, tuple[dict[str, Any], Callable[[Tensor], tuple[Parts, Tensor]]]] = {
    "pack-quantized-4": ({**COMPRESSED, "format": "pack-quantized"}, packed(4, even=True)),
    "pack-quantized-4-zero": ({**COMPRESSED, "format": "pack-quantized"}, packed(4, even=False)),
    "pack-quantized-8-rows": ({**COMPRESSED, "format": "pack-quantized"}, packed(8, even=False, group=None)),
    "int-quantized": ({**COMPRESSED, "format": "int-quantized"}, int_quantized),
    "float-quantized": ({**COMPRESSED, "format": "float-quantized"}, float_quantized),
    "fp8": ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [48, 48]}, fp8_blocks),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP}, gptq("gptq", ordered=True)),
    "gptq-act-order": ({"quant_method": "gptq", "bits": 4, "desc_act": True}, gptq("gptq", ordered=False)),
    "gptq-v2": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        gptq("gptq_v2", ordered=False),
    ),
}


@pytest.fixture(params=LAYOUTS)
def checkpoint(request: pytest.FixtureRequest, lm_folder: Path, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A folder of that layout, and the weights that it means."""
    settings, write = LAYOUTS[request.param]
    shutil.copytree(lm_folder, tmp_path / "lm")
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in safe.read_tensors(lm_folder).items():
        layer, _, part = name.rpartition(".")
        if part == "weight" and is_rounded(layer, "int8-dynamic") and "lm_head" not in layer:
            parts, meant[name] = write(tensor)
            stored |= {f"{layer}.{key}": value for key, value in parts.items()}
        else:
            stored[name] = tensor
    safe.write_tensors(tmp_path / "lm" / "model.safetensors", stored)
    config = json.loads((lm_folder / "config.json").read_text())
    write_json(tmp_path / "lm" / "config.json", {**config, "quantization_config": settings})
    return tmp_path / "lm", meant


def test_a_checkpoint_is_read_as_its_format_says(checkpoint: tuple[Path, dict[str, Tensor]], lm_folder: Path) -> None:
    folder, meant = checkpoint
    found, full = load_midashenglm(folder).model.state_dict(), load_midashenglm(lm_folder).model.state_dict()
    assert len(meant) == 14 + 4
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in meant.items())
    assert all(torch.equal(found[name], full[name]) for name in full if name not in meant)
    errors = [float((found[name] - full[name]).norm() / full[name].norm()) for name in meant]
    assert 0 < max(errors) < 0.2


@pytest.mark.parametrize("name", LAYOUTS)
def test_shape_and_type_are_known_before_a_weight_is_restored(name: str) -> None:
    settings, write = LAYOUTS[name]
    parts, meant = write(torch.randn(64, 96))
    found = decompress({f"a.{k}": v for k, v in parts.items()}, {"quantization_config": settings}, "x")["a.weight"]
    assert isinstance(found, LazyTensor)
    assert (found.shape, found.dtype) == (meant.shape, meant.dtype) == (made(found).shape, made(found).dtype)


def test_what_was_read_can_be_rounded_again(lm_folder: Path) -> None:
    stored, meant = packed(8, even=True, group=None)(torch.randn(64, 96))
    found = decompress(
        {f"a.{k}": v for k, v in stored.items()}, {"quantization_config": LAYOUTS["int-quantized"][0]}, "x"
    )
    assert found.keys() == {"a.weight"} and torch.equal(made(found["a.weight"]), meant)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "awq"}, "quantised by 'awq'; compressed-tensors, gptq, fp8 can be read"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised by 'bitsandbytes'"),
        ({}, "an unnamed method"),
        ({**COMPRESSED, "format": "nvfp4-pack-quantized"}, "nvfp4-pack-quantized compressed-tensors weights"),
        ({**COMPRESSED, "format": "dense", "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse compressed"),
        ({**COMPRESSED, "format": "pack-quantized", "transform_config": {"config_groups": {"u": 1}}}, "rotated"),
        ({"quant_method": "gptq", "bits": 3}, "GPTQ of 3 bits"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "fp8", "fmt": "e3m4"}, "'e3m4'"),
    ],
)
def test_other_ways_are_refused(lm_folder: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    shutil.copytree(lm_folder, tmp_path / "lm")
    config = json.loads((lm_folder / "config.json").read_text())
    write_json(tmp_path / "lm" / "config.json", {**config, "quantization_config": settings})
    with pytest.raises(LayoutMismatch, match=message):
        load_midashenglm(tmp_path / "lm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_scale": None}, "it has no 'weight_scale'"),
        ({"weight_shape": torch.tensor([64, 100])}, "12 words of 32 bits for 100 weights"),
        ({"weight_scale": torch.ones(63, 3).half()}, r"scale of shape \(63, 3\) for 64 rows"),
        ({"weight_noise": torch.ones(1)}, "unknown part weight_noise"),
    ],
)
def test_damaged_layers_are_named(changes: dict[str, Tensor | None], message: str) -> None:
    parts, _ = packed(4, even=True)(torch.randn(64, 96))
    given = {f"a.b.{k}": v for k, v in {**parts, **changes}.items() if v is not None}
    with pytest.raises(LayoutMismatch, match=message):
        made(decompress(given, {"quantization_config": LAYOUTS["pack-quantized-4"][0]}, "x")["a.b.weight"])


def test_groups_in_the_order_of_activations() -> None:
    weight = torch.randn(16, 96)
    order = torch.randperm(96)
    parts, meant = packed(4, even=True)(weight[:, order])
    back = order.argsort()
    values = pack(_unsigned(parts["weight_packed"])[:, back], 4)
    given = {**parts, "weight_packed": values, "weight_g_idx": (back // GROUP).to(torch.int32)}
    found = decompress(
        {f"a.{k}": v for k, v in given.items()}, {"quantization_config": LAYOUTS["pack-quantized-4"][0]}, "x"
    )
    assert torch.equal(made(found["a.weight"]), meant[:, back])


def _unsigned(words: Tensor) -> Tensor:
    return torch.stack([(words >> 4 * place) & 15 for place in range(8)], -1).flatten(1)


def test_numbers_without_a_scale_are_never_weights() -> None:
    config = {"quantization_config": LAYOUTS["int-quantized"][0]}
    for dtype in (torch.int8, torch.float8_e4m3fn):
        with pytest.raises(LayoutMismatch, match=r"a.weight is stored as .* without a scale"):
            decompress({"a.weight": torch.ones(4, 4).to(dtype)}, config, "x")


def test_settings_are_found_where_exporters_put_them() -> None:
    parts, meant = int_quantized(torch.randn(8, 64))
    given = {f"a.{k}": v for k, v in parts.items()}
    for config in (
        {"text_config": {"quantization_config": LAYOUTS["int-quantized"][0]}},
        {"compression_config": LAYOUTS["int-quantized"][0]},
    ):
        assert torch.equal(made(decompress(given, config, "x")["a.weight"]), meant)
    assert decompress(given, {"text_config": None}, "x").keys() == given.keys()


def test_full_weights_with_scales_of_a_rounding_to_come() -> None:
    weight = torch.randn(4, 4)
    given = {
        "a.weight": weight,
        "a.weight_scale": torch.ones(4, 1),
        "a.bias": torch.ones(4),
        "a.k_scale": torch.ones(1),
    }
    found = decompress(given, {"quantization_config": {**COMPRESSED, "format": "dense"}}, "x")
    assert found.keys() == {"a.weight", "a.bias"} and torch.equal(made(found["a.weight"]), weight)


@given(st.integers(2, 9), st.integers(64, 90), st.integers(0, 2**16))
def test_rows_of_int8_come_back_within_half_a_step(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(rows, columns, generator=generator) * 10 ** torch.empty(rows, 1).uniform_(
        -3, 3, generator=generator
    )
    tensors = {"weight": wide, "conv": wide.view(rows, 1, columns), "bias": wide[:, 0], "steps": torch.tensor(3)}
    packed = rows_to_int8(tensors)
    assert packed["weight"].dtype == packed["conv"].dtype == torch.int8
    assert packed["bias"] is tensors["bias"] and packed["steps"] is tensors["steps"]
    found = {name: made(tensor) for name, tensor in rows_from_int8(packed).items()}
    assert found.keys() == tensors.keys() and found["conv"].shape == (rows, 1, columns)
    step = wide.abs().amax(1, keepdim=True) / 127
    assert bool(((found["weight"] - wide).abs() <= 0.51 * step + 127 * step * 2**-11).all())


def test_a_row_of_zeros_stays_zero() -> None:
    found = rows_from_int8(rows_to_int8({"weight": torch.zeros(2, 64)}))
    assert not made(found["weight"]).any()


def test_int8_without_scales_is_left_alone() -> None:
    tensors = {"weight": torch.ones(2, 64, dtype=torch.int8), "other.row_scale": torch.ones(2, 1)}
    found = rows_from_int8(tensors)
    assert found["weight"] is tensors["weight"] and found["other.row_scale"] is tensors["other.row_scale"]
