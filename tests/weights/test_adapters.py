"""PEFT adapters merged without PEFT."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from auricle.errors import LayoutMismatch, WeightsError
from auricle.weights import adapters, convert, safe
from auricle.weights.adapters import merge_adapter
from auricle.weights.construct import LazyTensor, made
from auricle.weights.loaders import load_midashenglm

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


EVIL = ["((([a-z_.0-9]+)+)+)+!", r"(.*.*.*.*.*.*.*.*.*.*.*.*)+!", r"(\w|\w\w|.)*!"]


@pytest.mark.parametrize("pattern", EVIL)
@pytest.mark.parametrize("key", ["target_modules", "exclude_modules"])
def test_expressions_that_work_for_years(
    state: dict[str, Tensor], folder: Path, key: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "_TIMEOUT_S", 0.5)
    state["decoder.model.layers.0.self_attn.a_layer_with_a_long_name.weight"] = torch.zeros(2, 2)
    configure(folder, **{key: pattern})
    with pytest.raises(LayoutMismatch, match="works for more than"):
        merge_adapter(state, folder)


@pytest.mark.parametrize(
    ("pattern", "means"),
    [
        (r"^(?!.*lm_head).*(?:proj|q)$", True),
        (r".*\.(proj|q)", True),
        (r"encoder\.proj|decoder\.q", True),
        (r"(?i)ENCODER.PROJ|decoder[.]q", True),
        (r".*", False),
        (r".*(lm_head|proj|q)", False),
    ],
)
def test_expressions_mean_what_they_mean_to_peft(
    state: dict[str, Tensor], folder: Path, pattern: str, means: bool
) -> None:
    configure(folder, target_modules=pattern)
    if means:
        merge_adapter(state, folder)
    else:
        with pytest.raises(LayoutMismatch, match=r"no update for decoder\.lm_head"):
            merge_adapter(state, folder)


@pytest.mark.parametrize("value", [7, {"a": 1}, [["q"]], [None], "q" * 20_000])
def test_targets_that_are_no_names(state: dict[str, Tensor], folder: Path, value: object) -> None:
    configure(folder, target_modules=value)
    with pytest.raises(LayoutMismatch, match="no list of names"):
        merge_adapter(state, folder)


# --- tied embeddings

TARGETS = {
    "updated head": {"target_modules": ["lm_head"]},
    "updated head and layers": {"target_modules": ["lm_head", "q_proj"]},
    "own head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "own embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "own decoder": {"target_modules": ["audio_projector.net.0"], "modules_to_save": ["decoder"]},
}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Could not identify embedding layer")
@pytest.mark.parametrize("name", TARGETS)
@torch.inference_mode()
def test_adapters_of_tied_embeddings_equal_peft(tmp_path: Path, name: str) -> None:
    peft = pytest.importorskip("peft")
    plain = convert("auricle-tiny", tmp_path / "plain")
    base = load_midashenglm(plain).model
    assert base.decoder.config.tie_word_embeddings
    tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=4, **TARGETS[name]))
    generator = torch.Generator().manual_seed(0)
    for key, tensor in tuned.state_dict().items():
        if "lora_" in key or "modules_to_save" in key:
            tensor.copy_(tensor + 0.02 * torch.randn(tensor.shape, generator=generator))
    tuned.save_pretrained(tmp_path)
    ids = torch.arange(40).view(2, 20) + 300
    wanted = tuned.base_model.model.decoder(ids)
    loaded = load_midashenglm(plain, adapter=tmp_path).model
    assert (loaded.decoder(ids) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert (load_midashenglm(plain).model.decoder(ids) - wanted).abs().max() > 0.1
    folder = convert(plain, tmp_path / "merged", adapter=tmp_path)
    assert (load_midashenglm(folder).model.decoder(ids) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_forced_ties(tmp_path: Path) -> None:
    head = torch.zeros(5, 4)
    state = {"decoder.model.embed_tokens.weight": head, "decoder.lm_head.weight": head}
    low, high = torch.randn(1, 4), torch.randn(5, 1)
    safe.write_tensors(
        tmp_path / "adapter_model.safetensors",
        {f"base_model.model.decoder.lm_head.lora_{name}.weight": part for name, part in (("A", low), ("B", high))},
    )
    configure(tmp_path, r=1, target_modules=["lm_head"], ensure_weight_tying=True)
    with pytest.raises(LayoutMismatch, match="ensure_weight_tying"):
        merge_adapter(state, tmp_path)
    whole = {"base_model.model.decoder.model.embed_tokens.weight": torch.ones(5, 4)}
    safe.write_tensors(tmp_path / "adapter_model.safetensors", whole)
    configure(tmp_path, modules_to_save=["embed_tokens"], target_modules=None, ensure_weight_tying=True)
    merged = merge_adapter(state, tmp_path)
    assert merged["decoder.lm_head.weight"] is merged["decoder.model.embed_tokens.weight"] is not head
