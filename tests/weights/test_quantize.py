"""Rounded language models: which layers, how far from the full ones, and where it cannot be had."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from auricle.errors import ConfigError, LayoutMismatch, MissingExtra
from auricle.models.int8 import Int8Linear, has_int8_kernel
from auricle.weights import LoadedLM, load_midashenglm, quantize, safe, save_midashenglm
from auricle.weights.lm_layouts import read_midashenglm
from auricle.weights.quantize import SCHEMES, check_scheme, is_rounded, torchao_config

on_cpu = pytest.mark.skipif(not has_int8_kernel(), reason="no FBGEMM on this CPU")


@pytest.fixture(scope="module")
def full() -> LoadedLM:
    return load_midashenglm("auricle-tiny")


@pytest.fixture(scope="module", params=["int8", "int8-dynamic"])
def rounded(request: pytest.FixtureRequest) -> LoadedLM:
    return load_midashenglm("auricle-tiny", quantize=request.param)


@torch.inference_mode()
def logits(loaded: LoadedLM) -> Tensor:
    """Of two prompts with a clip each, (B, L, V) float32."""
    torch.manual_seed(0)
    clips = [0.1 * torch.randn(16_000), 0.1 * torch.randn(16_000)]
    audio = loaded.model.config.audio_token_id
    count = len(loaded.model.audio_tokens(clips[:1])[0])
    ids = torch.cat([torch.randint(5, 300, (2, 6)), torch.full((2, count), audio), torch.randint(5, 300, (2, 20))], 1)
    return loaded.model(ids, clips).float()


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@on_cpu
def test_decoder_and_head_are_rounded_and_with_activations_the_mlps(full: LoadedLM, rounded: LoadedLM) -> None:
    scheme = str(rounded.identity["quantize"])
    linear = {name for name, m in full.model.named_modules() if isinstance(m, nn.Linear)}
    ours = {name for name, m in rounded.model.named_modules() if isinstance(m, Int8Linear)}
    assert ours == {name for name in linear if is_rounded(name, scheme)}
    assert {name.split(".")[0] for name in linear - ours} == {"audio_encoder", "audio_projector"}
    mlps = {name for name in linear if name.startswith("audio_encoder") and ".mlp." in name}
    assert ours & mlps == (mlps if scheme == "int8-dynamic" else set())
    layers = len(full.model.decoder.model.layers)
    assert len(ours - mlps) == 7 * layers + 1 and len(mlps) == 2 * len(full.model.audio_encoder.blocks)
    kept = rounded.model.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in full.model.state_dict().items() if name in kept)
    assert set(full.model.state_dict()) - set(kept) == {f"{name}.weight" for name in ours} | {
        f"{name}.bias" for name in ours if getattr(full.model.get_submodule(name), "bias", None) is not None
    }


@on_cpu
def test_how_far_the_answers_move(full: LoadedLM, rounded: LoadedLM) -> None:
    wanted, found = logits(full), logits(rounded)
    bound = {"int8": 1e-3, "int8-dynamic": 5e-2}[str(rounded.identity["quantize"])]
    assert 1e-6 < distance(found, wanted) < bound
    assert (found.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9


@on_cpu
def test_identity_and_training(full: LoadedLM, rounded: LoadedLM) -> None:
    assert {k: v for k, v in rounded.identity.items() if k != "quantize"} == full.identity
    assert not any(p.requires_grad for p in rounded.model.parameters()) and not rounded.model.training
    assert rounded.model.decoder.device == torch.device("cpu")


@on_cpu
def test_a_rounded_model_is_not_saved(rounded: LoadedLM, tmp_path: Path) -> None:
    generation = {"eos_token_id": rounded.eos_token_ids[0], "pad_token_id": rounded.pad_token_id}
    with pytest.raises(ConfigError, match="is quantised, its full weights are gone"):
        save_midashenglm(
            tmp_path, rounded.model, rounded.tokenizer.to_str(), rounded.chat_template, generation=generation
        )
    assert not list(tmp_path.glob("*.safetensors"))


@on_cpu
def test_a_tied_head_becomes_a_copy(full: LoadedLM, rounded: LoadedLM) -> None:
    assert full.model.decoder.lm_head.weight is full.model.decoder.model.embed_tokens.weight
    assert isinstance(rounded.model.decoder.lm_head, Int8Linear)
    embeddings = rounded.model.decoder.model.embed_tokens.weight
    assert torch.equal(embeddings, full.model.decoder.model.embed_tokens.weight)


@on_cpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_policy(lm_folder: Path, dtype: str) -> None:
    plain = load_midashenglm(lm_folder, dtype=dtype)
    small = load_midashenglm(lm_folder, dtype=dtype, quantize="int8")
    for model in (plain.model, small.model):
        encoder = model.audio_encoder
        assert {t.dtype for t in encoder.init_bn.state_dict().values() if t.is_floating_point()} == {torch.float32}
        assert {b.dtype for b in encoder.front_end.buffers()} == {torch.float32}
        assert model.audio_projector.net[0].weight.dtype == getattr(torch, dtype)
        assert model.decoder.model.norm.weight.dtype == getattr(torch, dtype)
    found, wanted = small.model, load_midashenglm(lm_folder).model
    clips = [0.1 * torch.randn(9_000)]
    with torch.inference_mode():
        tokens = found.audio_tokens(clips)[0]
        assert tokens.dtype == getattr(torch, dtype)
        assert distance(tokens.float(), wanted.audio_tokens(clips)[0]) < 0.03


@on_cpu
def test_an_adapter_is_merged_before_rounding(lm_folder: Path, adapter_folder: Path) -> None:
    wanted = load_midashenglm(lm_folder, adapter=adapter_folder)
    found = load_midashenglm(lm_folder, adapter=adapter_folder, quantize="int8")
    ids = torch.arange(10, 40)[None]
    with torch.inference_mode():
        answers = [lm.model(ids, []) for lm in (found, wanted, load_midashenglm(lm_folder))]
    assert distance(answers[0], answers[1]) < 0.05 < distance(answers[1], answers[2])


@on_cpu
def test_wrong_shapes_and_broken_weights_are_named(lm_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(lm_folder, tmp_path / "lm")
    name = "decoder.model.layers.1.mlp.up_proj.weight"
    state = {k: v.clone() for k, v in safe.read_tensors(lm_folder).items()}
    for changed, error, message in (
        (state[name][:, :-1].contiguous(), LayoutMismatch, rf"{name} is \(256, 127\), expected \(256, 128\)"),
        (torch.full_like(state[name], torch.nan), ConfigError, "layers.1.mlp.up_proj: the weights hold NaN"),
    ):
        safe.write_tensors(tmp_path / "lm" / "model.safetensors", {**state, name: changed})
        with pytest.raises(error, match=message):
            load_midashenglm(tmp_path / "lm", quantize="int8")


def test_unknown_or_impossible_schemes(lm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="quantize is 'int2', expected one of int8, int8-dynamic, int4, fp8"):
        load_midashenglm(lm_folder, quantize="int2")
    for scheme in ("int4", "fp8"):
        with pytest.raises(ConfigError, match=f"{scheme} needs a CUDA device, this is 'cpu'"):
            load_midashenglm(lm_folder, quantize=scheme)
    monkeypatch.setattr(quantize, "has_int8_kernel", lambda: False)
    with pytest.raises(ConfigError, match="x86 CPU with AVX2"):
        load_midashenglm(lm_folder, quantize="int8")


def test_what_a_gpu_must_have(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ConfigError, match=r"capability 8.9 or more, this one has 8.0"):
        check_scheme("fp8", cuda, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for scheme in ("int4", "fp8"):
        with pytest.raises(ConfigError, match="needs dtype='bfloat16', got 'float32'"):
            check_scheme(scheme, cuda, torch.float32)
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    for scheme in SCHEMES:
        with pytest.raises(MissingExtra, match=r"auricle\[quantize\]"):
            check_scheme(scheme, cuda, torch.bfloat16)


def test_torchao_has_the_schemes() -> None:
    pytest.importorskip("torchao", reason="an extra", exc_type=ImportError)
    configs = [torchao_config(scheme) for scheme in SCHEMES]
    assert len({type(config) for config in configs}) == len(SCHEMES)
    assert "PerRow" in repr(configs[-1].granularity)


def test_plain_reading_is_unchanged(lm_folder: Path) -> None:
    stored = safe.read_tensors(lm_folder)
    assert all(torch.equal(tensor, stored[key]) for key, tensor in read_midashenglm(lm_folder).state.items())
