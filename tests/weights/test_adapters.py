"""PEFT adapters merged without PEFT."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from auricle.errors import LayoutMismatch, WeightsError
from auricle.weights import safe
from auricle.weights.adapters import merge_adapter
from auricle.weights.construct import LazyTensor, made

LAYERS = {"encoder.proj.weight": (6, 4), "decoder.q.weight": (4, 4), "decoder.lm_head.weight": (5, 4)}
HIGH = "base_model.model.encoder.proj.lora_B.weight"


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: torch.randn(shape) for key, shape in LAYERS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    tensors = {}
    for layer in ("encoder.proj", "decoder.q"):
        rows, columns = LAYERS[f"{layer}.weight"]
        tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(2, columns)
        tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(rows, 2)
    safe.write_tensors(tmp_path / "adapter_model.safetensors", tensors)
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, **changes: object) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["proj", "q"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "fan_in_fan_out": False, **changes}))


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 3.0), (True, 6 / math.sqrt(2))])
def test_merge(state: dict[str, Tensor], folder: Path, stabilised: bool, scale: float) -> None:
    configure(folder, use_rslora=stabilised)
    tensors = safe.read_tensors(folder)
    before = state["encoder.proj.weight"].clone()
    merged = merge_adapter(state, folder)
    for layer in ("encoder.proj", "decoder.q"):
        low, high = (tensors[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        wanted = state[f"{layer}.weight"].double() + scale * high.double() @ low.double()
        assert isinstance(merged[f"{layer}.weight"], LazyTensor)  # no sum is made before it is needed
        assert torch.allclose(made(merged[f"{layer}.weight"]).double(), wanted, atol=1e-5)
    assert merged["decoder.lm_head.weight"] is state["decoder.lm_head.weight"]
    assert torch.equal(state["encoder.proj.weight"], before)


def test_half_precision_is_merged_in_float32(state: dict[str, Tensor], folder: Path) -> None:
    half = {key: value.bfloat16() for key, value in state.items()}
    merged = made(merge_adapter(half, folder)["encoder.proj.weight"])
    wanted = made(merge_adapter({k: v.float() for k, v in half.items()}, folder)["encoder.proj.weight"])
    assert merged.dtype == torch.bfloat16 and torch.equal(merged, wanted.bfloat16())


@pytest.mark.parametrize("key", ["decoder.lm_head.weight", "decoder.lm_head.modules_to_save.weight"])
def test_whole_modules(state: dict[str, Tensor], folder: Path, key: str) -> None:
    configure(folder, modules_to_save=["lm_head"])
    tensors = {k: v.clone() for k, v in safe.read_tensors(folder).items()}
    safe.write_tensors(folder / "adapter_model.safetensors", {**tensors, f"base_model.model.{key}": torch.ones(5, 4)})
    assert torch.equal(made(merge_adapter(state, folder)["decoder.lm_head.weight"]), torch.ones(5, 4))


@pytest.mark.parametrize("target", [r"encoder\.proj|decoder\.q", "all-linear", ["encoder.proj", "q"]])
def test_targets(state: dict[str, Tensor], folder: Path, target: object) -> None:
    configure(folder, target_modules=target)
    merge_adapter(state, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "'LOHA' adapter"),
        ({"use_dora": True}, "uses use_dora"),
        ({"fan_in_fan_out": True}, "uses fan_in_fan_out"),
        ({"rank_pattern": {"q": 4}}, "uses rank_pattern"),
        ({"bias": "all"}, "bias=all"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"invented_in_2030": 1}, "invented_in_2030"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"r": 3}, r"update of decoder.q is \(4, 2\) @ \(2, 4\)"),
        ({"target_modules": ["proj", "q", "lm_head"]}, "no update for decoder.lm_head"),
        ({"target_modules": "("}, "no regular expression"),
    ],
)
def test_what_is_not_plain_is_refused(
    state: dict[str, Tensor], folder: Path, changes: dict[str, object], message: str
) -> None:
    configure(folder, **changes)
    with pytest.raises(LayoutMismatch, match=message):
        merge_adapter(state, folder)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (HIGH, "only one of lora_A and lora_B"),
        ("base_model.model.encoder.gone.lora_A.weight", "only one"),
        ("base_model.model.encoder.proj.lora_magnitude_vector", "unknown tensor"),
        ("base_model.model.decoder.embed.lora_embedding_A", "unknown tensor"),
    ],
)
def test_strange_tensors_are_refused(state: dict[str, Tensor], folder: Path, key: str, message: str) -> None:
    tensors = {k: v.clone() for k, v in safe.read_tensors(folder).items()}
    if key in tensors:
        del tensors[key]
    else:
        tensors[key] = torch.ones(2, 2)
    safe.write_tensors(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(LayoutMismatch, match=message):
        merge_adapter(state, folder)


def test_another_model(state: dict[str, Tensor], folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    del state["decoder.q.weight"]
    with pytest.raises(LayoutMismatch, match="made for another model"):
        merge_adapter(state, folder)
    with pytest.raises(WeightsError, match="no adapter_config"):
        merge_adapter(state, tmp_path_factory.mktemp("empty"))


def test_official_adapter_agrees_with_peft_arithmetic(lm_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    base = safe.read_tensors(lm_folder)
    merged = merge_adapter(base, adapter_folder)
    changed = {key for key in base if not torch.equal(base[key], made(merged[key]))}
    assert len(changed) == 20
    shutil.copytree(adapter_folder, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    config["exclude_modules"] = ["fc1"]
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    assert merge_adapter(base, tmp_path / "a").keys() == base.keys()
