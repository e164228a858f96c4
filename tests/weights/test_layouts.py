"""Every official layout of an encoder, read and written key by key."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch
from auricle.files import write_json
from auricle.models.dasheng import Dasheng
from auricle.models.mae import MAEConfig, MaskedAutoencoder
from auricle.weights import layouts, load_dasheng, safe
from auricle.weights.layouts import dasheng_to_hub, dasheng_to_midashenglm, dasheng_to_zenodo, read_dasheng


def same(model: Dasheng, state: dict[str, Tensor]) -> bool:
    ours = model.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[key], state[key]) for key in ours)


def with_front_end(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Buffers as old checkpoints hold them; the values must not matter."""
    names = ("front_end.0.spectrogram.window", "front_end.0.mel_scale.fb")
    return {**state, f"{prefix}{names[0]}": torch.zeros(512), f"{prefix}{names[1]}": torch.zeros(257, 64)}


def test_zenodo_file(zenodo_file: Path) -> None:
    model = load_dasheng(zenodo_file)
    assert (model.config.embed_dim, model.config.depth, model.config.num_heads) == (96, 3, 4)
    assert not model.training and model.config.attend == "all"
    stored = torch.load(zenodo_file, weights_only=True)["model"]
    written = dasheng_to_zenodo(model.state_dict())
    assert written.keys() == {key for key in stored if not key.startswith("front_end.")}
    assert all(torch.equal(written[key], stored[key]) for key in written)


def test_zenodo_file_with_a_training_configuration(tmp_path: Path, tiny: Dasheng) -> None:
    config = {"train_data": ["a.tar"], "optimizer": "AdamW8bit", "num_heads": 8, "model_args": {"embed_dim": 1}}
    torch.save({"model": with_front_end(dasheng_to_zenodo(tiny.state_dict())), "config": config}, tmp_path / "a.pt")
    found = read_dasheng(tmp_path / "a.pt")
    assert found.config == tiny.config
    assert same(tiny, found.state)


@pytest.mark.parametrize("with_prefix", [True, False])
def test_hub_folder_and_audioset_file(tmp_path: Path, tiny: Dasheng, with_prefix: bool) -> None:
    head = {"outputlayer.0.weight": torch.ones(256), "outputlayer.0.bias": torch.zeros(256)}
    head |= {"outputlayer.1.weight": torch.randn(527, 256), "outputlayer.1.bias": torch.randn(527)}
    state = dasheng_to_hub(tiny.state_dict()) if with_prefix else with_front_end(dasheng_to_zenodo(tiny.state_dict()))
    safe.write_tensors(tmp_path / "model.safetensors", {**state, **head})
    model = load_dasheng(tmp_path / "model.safetensors")
    assert model.config.outputdim == 527
    assert same(model, {**tiny.state_dict(), **head})
    frames = model.encode([torch.randn(1600), torch.randn(3200)])
    wanted = torch.stack([f.mean(0) for f in frames])
    wanted = torch.nn.functional.layer_norm(wanted, (256,)) @ head["outputlayer.1.weight"].T
    assert torch.allclose(model.logits(frames), wanted + head["outputlayer.1.bias"], atol=1e-4)


def test_training_checkpoint(tmp_path: Path, tiny: Dasheng) -> None:
    mae = MaskedAutoencoder(tiny, MAEConfig(embed_dim=32, depth=1, num_heads=2))
    safe.write_tensors(tmp_path / "step.safetensors", mae.state_dict())
    found = read_dasheng(tmp_path / "step.safetensors")
    assert found.config == tiny.config and same(tiny, found.state)


@pytest.mark.parametrize("buffers", [True, False])
def test_encoder_of_midashenglm(tmp_path: Path, tiny: Dasheng, buffers: bool) -> None:
    state = dasheng_to_midashenglm(tiny.state_dict())
    del state["audio_encoder.init_bn.num_batches_tracked"]
    state |= {"audio_projector.net.0.weight": torch.zeros(1), "decoder.lm_head.weight": torch.zeros(1)}
    safe.write_tensors(tmp_path / "a.safetensors", with_front_end(state, "audio_encoder.") if buffers else state)
    model = load_dasheng(tmp_path / "a.safetensors")
    assert model.config.attend == "whole"
    assert same(model, tiny.state_dict())
    assert model.front_end.window.sum() > 1 and model.front_end.filterbank.sum() > 1


def test_encoder_of_the_official_folder(lm_folder: Path) -> None:
    model = load_dasheng(lm_folder)
    assert model.config.attend == "whole" and model.config.embed_dim == 96 and model.config.outputdim is None


def test_layer_scale_and_missing_bias_are_seen(tmp_path: Path) -> None:
    from auricle.models.dasheng import DashengConfig

    model = Dasheng(DashengConfig(embed_dim=256, depth=2, num_heads=4, init_values=0.1, qkv_bias=False, mlp_ratio=2.0))
    safe.write_tensors(tmp_path / "model.safetensors", dasheng_to_hub(model.state_dict()))
    found = load_dasheng(tmp_path)
    assert (found.config.qkv_bias, found.config.mlp_ratio, found.config.depth) == (False, 2.0, 2)
    assert found.config.init_values is not None and same(found, model.state_dict())


def test_heads(tmp_path: Path, zenodo_file: Path) -> None:
    state = safe.read_tensors(zenodo_file)
    torch.save({"model": state}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"96 wide .*num_heads"):
        read_dasheng(tmp_path / "a.pt")
    torch.save({"model": state, "config": {"embed_dim": 12, "num_heads": 3}}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="96 wide"):
        read_dasheng(tmp_path / "a.pt")
    torch.save({"model": state}, tmp_path / "a.pt")
    (tmp_path / "config.json").write_text(json.dumps({"encoder_kwargs": {"embed_dim": 96, "num_heads": 2}}))
    assert read_dasheng(tmp_path / "a.pt").config.num_heads == 2
    (tmp_path / "config.json").write_text(json.dumps({"encoder_kwargs": {"embed_dim": 96, "num_heads": 5}}))
    with pytest.raises(ConfigError, match="not a multiple"):
        read_dasheng(tmp_path / "a.pt")
    assert layouts.HEADS == {256: 4, 768: 12, 1280: 16, 1536: 24}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.bias"), r"1 missing \(norm.bias\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown \(extra\)"),
        (lambda s: s.pop("patch_embed.proj.weight"), "no Dasheng encoder"),
        (lambda s: s.pop("time_pos_embed"), "time_pos_embed is missing"),
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "1 missing"),
        (lambda s: s.update(cls_token=torch.zeros(1, 1, 96)), "class token"),
        (lambda s: s.update(norm_bias=torch.zeros(1), a=torch.zeros(1)), "2 unknown"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, zenodo_file: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    content = torch.load(zenodo_file, weights_only=True)
    change(content["model"])
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(LayoutMismatch, match=message):
        read_dasheng(tmp_path / "a.pt")


def test_wrong_shapes_are_named(tmp_path: Path, zenodo_file: Path) -> None:
    content = torch.load(zenodo_file, weights_only=True)
    content["model"]["norm.bias"] = torch.zeros(97)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(LayoutMismatch, match=r"norm.bias is \(97,\), expected \(96,\)"):
        load_dasheng(tmp_path / "a.pt")


@pytest.mark.parametrize("setting", [{"n_mels": 128}, {"hop_length": 320}, {"f_max": 7600}, {"patch_size": [16, 16]}])
def test_another_front_end_is_refused(tmp_path: Path, tiny: Dasheng, setting: dict[str, object]) -> None:
    safe.write_tensors(tmp_path / "model.safetensors", dasheng_to_hub(tiny.state_dict()))
    write_json(tmp_path / "config.json", {"model_type": "dasheng", "encoder_kwargs": setting})
    with pytest.raises(LayoutMismatch, match=f"{next(iter(setting))} is .* another network"):
        read_dasheng(tmp_path)


def test_strange_neighbours_are_refused(tmp_path: Path, tiny: Dasheng) -> None:
    state = {**dasheng_to_hub(tiny.state_dict()), "text_encoder.w": torch.zeros(1)}
    safe.write_tensors(tmp_path / "model.safetensors", state)
    with pytest.raises(LayoutMismatch, match=r"text_encoder\.w"):
        read_dasheng(tmp_path)
