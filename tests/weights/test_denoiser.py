"""Denoisers in and out: the official layout, our folders, and what is neither."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle.errors import ConfigError, LayoutMismatch, UnsafeWeights, WeightsError
from auricle.models.dasheng import DashengConfig
from auricle.models.denoiser import Denoiser, DenoiserConfig
from auricle.weights import convert, load_denoiser, read_card, save_denoiser

FIXTURE = Path(__file__).parents[1] / "fixtures" / "denoiser"
CLIP = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))


def official(tmp_path: Path, **changes: Any) -> Path:
    """A file laid out as the official checkpoint; ``changes``: of its sections."""
    settings = json.loads((FIXTURE / "config.json").read_text())
    config: dict[str, Any] = {
        "encoder_kwargs": settings["encoder_kwargs"],
        "feature_extractor": {
            "class_path": "dasheng_denoiser.feature_extractors.DashengFeatures",
            "init_args": {"dasheng_model": "dasheng_base"},
        },
        "second_encoder": {"class_path": "dasheng_denoiser.models.DashengBlocks", **settings["second_encoder"]},
        "backbone": {"class_path": "vocos.models.VocosBackbone", **settings["backbone"]},
        "head": {"class_path": "vocos.heads.ISTFTHead", **settings["head"]},
    }
    for part, change in changes.items():
        config[part] = {**config[part], **change}
    path = tmp_path / "checkpoint.pt"
    torch.save({"config": config, "state_dict": load_file(FIXTURE / "model.safetensors")}, path)
    return path


def output(model: Denoiser) -> torch.Tensor:
    with torch.inference_mode():
        return model([CLIP])[0]


def test_official_layout_is_our_folder(tmp_path: Path) -> None:
    loaded = load_denoiser(official(tmp_path))
    assert torch.equal(output(loaded.model), output(load_denoiser(FIXTURE).model))
    assert loaded.identity["sha256"]


def test_no_class_of_a_checkpoint_is_imported(tmp_path: Path) -> None:
    path = official(tmp_path, head={"class_path": "os.system"})
    with pytest.raises(LayoutMismatch, match=r"head is a 'os.system', expected vocos.heads.ISTFTHead"):
        load_denoiser(path)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"config": {}, "state_dict": load_file(FIXTURE / "model.safetensors"), "x": print}, tmp_path / "a.pt")
    with pytest.raises(UnsafeWeights):
        load_denoiser(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        ("head", {"hop_length": 320}, "hop_length 320, expected 640"),
        ("head", {"padding": "center"}, "padding 'center', expected 'same'"),
        ("second_encoder", {"num_heads": 4, "num_layers": 3}, "num_layers 3, but the tensors have 2"),
        ("feature_extractor", {"dasheng_model": "dasheng_12B"}, "dasheng_model 'dasheng_12B'"),
    ],
)
def test_settings_of_another_network_are_refused(
    tmp_path: Path, part: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayoutMismatch, match=message):
        load_denoiser(official(tmp_path, **{part: {"init_args": arguments}}))


def test_unknown_heads_and_foreign_tensors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not show its attention heads"):
        load_denoiser(official(tmp_path, second_encoder={"init_args": {}}))
    tensors = load_file(FIXTURE / "model.safetensors")
    for name, changed, message in (
        ("more", {**tensors, "discriminator.x": torch.zeros(1)}, "belongs to no part of a denoiser"),
        ("less", {k: v for k, v in tensors.items() if not k.startswith("head.")}, r"holds no head\.\*"),
        ("cut", {k: v for k, v in tensors.items() if "convnext.1.norm" not in k}, "2 missing"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((FIXTURE / "config.json").read_text())
        save_file(changed, tmp_path / name / "model.safetensors")
        with pytest.raises(LayoutMismatch, match=message):
            load_denoiser(tmp_path / name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 0.05), ("int8", 0.05)])
def test_round_trip(tmp_path: Path, dtype: str, tolerance: float) -> None:
    torch.manual_seed(0)
    config = DenoiserConfig(
        encoder=DashengConfig(embed_dim=32, depth=1, num_heads=2),
        num_heads=2,
        num_layers=1,
        backbone_dim=16,
        backbone_hidden_dim=24,
        backbone_layers=2,
    )
    model = Denoiser(config).eval()
    save_denoiser(tmp_path / "a", model, dtype=dtype)
    again = load_denoiser(tmp_path / "a").model
    assert again.config == config
    assert not any("front_end" in key for key in load_file(tmp_path / "a" / "model.safetensors"))
    expected = output(model)
    assert (output(again) - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_stored_front_end_is_kept(tmp_path: Path) -> None:
    model = load_denoiser(FIXTURE).model
    assert model.config.stored_front_end
    again = load_denoiser(save_denoiser(tmp_path / "a", model)).model
    assert torch.equal(output(again), output(model))


def test_front_end_and_inverse_stft_stay_float32() -> None:
    model = load_denoiser(FIXTURE, dtype="bfloat16").model
    window = model.head.istft.window
    assert window.dtype == model.head.istft.basis.dtype == torch.float32
    assert torch.equal(window, load_denoiser(FIXTURE).model.head.istft.window)
    assert output(model).dtype == torch.float32
    assert torch.equal(model.to(torch.float16).head.istft.window, window)


def test_convert(tmp_path: Path) -> None:
    folder = convert(official(tmp_path), tmp_path / "out")
    assert torch.equal(output(load_denoiser(folder).model), output(load_denoiser(FIXTURE).model))
    assert read_card(folder).summary == "Converted from checkpoint.pt."
    with pytest.raises(ConfigError, match="a denoiser; adapters"):
        convert(FIXTURE, tmp_path / "other", adapter="x")


def test_an_encoder_is_no_denoiser() -> None:
    with pytest.raises(WeightsError, match="belongs to no part of a denoiser"):
        load_denoiser("auricle-tiny-encoder")
