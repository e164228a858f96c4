"""A denoiser that names its encoder instead of holding it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from auricle.errors import ConfigError, WeightsError
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.models.denoiser import Denoiser, DenoiserConfig
from auricle.weights import load_dasheng, save_dasheng
from auricle.weights.vocoders.denoiser import load_denoiser
from auricle.weights.writers import save_denoiser

SMALL = DashengConfig(embed_dim=32, depth=1, num_heads=2)
SIZES = DenoiserConfig(
    encoder=SMALL, num_heads=2, num_layers=1, backbone_dim=16, backbone_hidden_dim=16, backbone_layers=1
)


@pytest.fixture
def named(tmp_path: Path) -> tuple[str, Denoiser]:
    """An encoder's folder, and a denoiser that has that encoder."""
    folder = str(save_dasheng(tmp_path / "encoder", Dasheng(SMALL)))
    encoder = load_dasheng(folder)
    model = Denoiser(replace(SIZES, encoder=encoder.config)).eval()
    model.encoder.load_state_dict(encoder.state_dict())
    return folder, model


def test_it_is_the_model_without_the_encoders_tensors(named: tuple[str, Denoiser], tmp_path: Path) -> None:
    encoder, model = named
    whole = save_denoiser(tmp_path / "whole", model)
    small = save_denoiser(tmp_path / "small", model, encoder=encoder)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (small, whole)]
    assert sizes[0] < sizes[1] - 4 * sum(p.numel() for p in model.encoder.parameters()) + 1000
    clip = [torch.randn(8_000) * 0.1]
    with torch.no_grad():
        first, second, third = (each(clip)[0] for each in (model, *(load_denoiser(f).model for f in (whole, small))))
    assert torch.equal(first, second) and torch.equal(first, third)


def test_another_encoder_is_refused(named: tuple[str, Denoiser], tmp_path: Path) -> None:
    encoder, model = named
    folder = save_denoiser(tmp_path / "small", model, encoder=encoder)
    save_dasheng(encoder, Dasheng(SMALL))  # the name now means other weights
    with pytest.raises(WeightsError, match="was trained on another version of"):
        load_denoiser(folder)
    with pytest.raises(ConfigError, match="the model's tower is not"):
        save_denoiser(tmp_path / "other", model, encoder=encoder)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["encoder"] == encoder and len(settings["encoder_sha256"]) == 64
