"""Dasheng-Denoiser equals the released code: every stage, the waveform, the training losses and their gradients.

Reference: git `dasheng-denoiser` with PyPI `dasheng` 0.0.9 and `vocos` 0.1.0, float32 on a CPU.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from auricle.models.denoiser import Denoiser
from auricle.weights import load_denoiser

from .conftest import FIXTURES, ROOTS

EMBEDDING = 2e-5  # absolute
WAVEFORM = 2e-6  # absolute
GRADIENT = 1e-4  # of a norm, relative


class Golden:
    """Golden tensors with the sounds they were made from; the cut has three of the six sounds."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "golden.json").read_text())
        self.tensors = load_file(folder / "golden.safetensors")
        with safe_open(folder / "golden.safetensors", framework="pt") as handle:
            self.strides: dict[str, int] = json.loads((handle.metadata() or {}).get("strides", "{}"))
        if (folder / "inputs.safetensors").is_file():
            self.tensors |= load_file(folder / "inputs.safetensors")
            self.waves = {i: self.tensors[f"wave_{i}"].float() / 32_768 for i in range(6)}
        else:
            files = {int(file.stem[-1]): file for file in sorted(folder.glob("*.flac"))}
            self.waves = {i: torch.from_numpy(soundfile.read(f, dtype="float32")[0]) for i, f in files.items()}

    def check(self, name: str, ours: Tensor, tolerance: float) -> None:
        ours = ours[..., :: self.strides.get(name, 1)]
        golden = self.tensors[name]
        assert ours.shape == golden.shape, f"{name}: {tuple(ours.shape)}, golden {tuple(golden.shape)}"
        worst = (ours - golden).abs().max().item()
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"


@pytest.fixture(scope="module", params=ROOTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param / "denoiser")


@pytest.fixture
def model(golden: Golden, tmp_path: Path) -> Denoiser:
    """The golden weights, in a file laid out as the official one."""
    settings = json.loads((FIXTURES / "denoiser/config.json").read_text())
    classes = {
        "feature_extractor": "dasheng_denoiser.feature_extractors.DashengFeatures",
        "second_encoder": "dasheng_denoiser.models.DashengBlocks",
        "backbone": "vocos.models.VocosBackbone",
        "head": "vocos.heads.ISTFTHead",
    }
    config = {part: {"class_path": path, **settings.get(part, {})} for part, path in classes.items()}
    config["feature_extractor"]["init_args"] = {"dasheng_model": "dasheng_base"}
    config["encoder_kwargs"] = settings["encoder_kwargs"]  # the released one is of a known width
    state = load_file(FIXTURES / "denoiser/model.safetensors")
    torch.save({"config": config, "state_dict": state}, tmp_path / "checkpoint.pt")
    return load_denoiser(tmp_path / "checkpoint.pt").model


def test_every_stage(golden: Golden, model: Denoiser) -> None:
    assert {0, 1, 5} <= golden.waves.keys()  # a token, a second, over 10.08 s
    for i, wave in golden.waves.items():
        with torch.no_grad():
            noisy = model.encode([wave])
            clean = model.denoise_frames(noisy)
            golden.check(f"noisy_embedding_{i}", noisy[0].t(), EMBEDDING)
            golden.check(f"denoised_embedding_{i}", clean[0].t(), EMBEDDING)
            golden.check(f"waveform_{i}", model.vocode(clean[0][None])[0], WAVEFORM)
            if i == 1:
                hidden = model.backbone(clean[0][None])[0]
                golden.check("backbone_1", hidden, EMBEDDING)
                golden.check("head_linear_1", model.head.out(hidden), EMBEDDING)


def test_clips_in_one_call(golden: Golden, model: Denoiser) -> None:
    """Of any lengths: each as if alone."""
    with torch.no_grad():
        for i, waveform in zip(golden.waves, model(list(golden.waves.values())), strict=True):
            golden.check(f"waveform_{i}", waveform, WAVEFORM)
            assert len(waveform) == golden.facts["items"][i]["out"]


def test_head(golden: Golden, model: Denoiser) -> None:
    with torch.no_grad():
        golden.check("head_output", model.head(golden.tensors["head_input"][None])[0], WAVEFORM)


def test_padded_batch_by_the_reference_rule(golden: Golden, model: Denoiser) -> None:
    if "batch_waveform" not in golden.tensors:
        pytest.skip("only in the whole set")
    wave, longer = golden.waves[1], golden.waves[2]
    batch = torch.stack([F.pad(wave, (0, len(longer) - len(wave))), longer])
    with torch.no_grad():
        noisy = list(model.encoder(batch, batch_floor=True))
        golden.check("batch_waveform", model.vocode(torch.stack(model.denoise_frames(noisy))), WAVEFORM)


def test_losses_and_gradients(golden: Golden, model: Denoiser) -> None:
    facts = golden.facts["train"]
    clean = model.encode([golden.waves[1]])[0]
    found = model.denoise_frames(model.encode([golden.tensors["train_noisy"]]))[0]
    golden.check("train_denoised", found.t().detach(), EMBEDDING)
    assert F.l1_loss(found, clean).item() == pytest.approx(facts["l1"], rel=1e-5)
    loss = F.mse_loss(found, clean)
    assert loss.item() == pytest.approx(facts["mse"], rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    norms = {name: weight.grad.norm().item() for name, weight in model.denoise_encoder.named_parameters()}
    assert norms.keys() == facts["mse_grad_norms"].keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(facts["mse_grad_norms"][name], rel=GRADIENT), name
    assert all(weight.grad is None for weight in model.encoder.parameters()), "the encoder is frozen"
