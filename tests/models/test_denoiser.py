"""The denoiser's own parts; equality with the reference is in tests/parity."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from auricle.errors import ConfigError
from auricle.models.dasheng import DashengConfig
from auricle.models.denoiser import Denoiser, DenoiserConfig, InverseSTFT, irfft_basis

SMALL = DenoiserConfig(
    encoder=DashengConfig(embed_dim=32, depth=1, num_heads=2),
    num_heads=2,
    num_layers=1,
    backbone_dim=16,
    backbone_hidden_dim=24,
    backbone_layers=2,
)


def test_parameters_of_the_released_geometry() -> None:
    with torch.device("meta"):
        model = Denoiser(DenoiserConfig())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count == {
        "encoder": 85_447_808,
        "denoise_encoder": 14_182_656,
        "backbone": 18_371_328,
        "head": 985_858,
    }
    assert sum(count.values()) == 118_987_650
    assert model.config.context_tokens == 28


def test_basis_is_the_inverse_fft() -> None:
    spectrum = torch.randn(5, 641, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    expected = torch.fft.irfft(spectrum, n=1280)
    found = torch.cat([spectrum.real, spectrum.imag], -1) @ irfft_basis(1280)
    assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize("n_fft", [1280, 2560])
def test_inverse_stft_undoes_an_stft(n_fft: int) -> None:
    """Framed with the same trimming, windowed, transformed and back."""
    transform = InverseSTFT(n_fft, 640)
    waveform = torch.randn(1, 640 * 12, generator=torch.Generator().manual_seed(0))
    trim = (n_fft - 640) // 2
    frames = nn.functional.pad(waveform, (trim, trim)).unfold(1, n_fft, 640) * transform.window
    spectrum = torch.fft.rfft(frames)
    back = transform(spectrum.real, spectrum.imag)
    assert back.shape == waveform.shape
    assert (back - waveform).abs().max() < 1e-5


def test_a_clip_is_the_same_in_any_batch() -> None:
    torch.manual_seed(0)
    model = Denoiser(SMALL).eval()
    clips = [0.1 * torch.randn(n) for n in (640, 16_000, 9_000, 16_000, 170_000)]
    with torch.no_grad():
        for alone, together in zip(clips, model(clips), strict=True):
            assert (model([alone])[0] - together).abs().max() < 1e-5


def test_encoder_is_frozen_and_the_rest_learns() -> None:
    model = Denoiser(SMALL)
    model([0.1 * torch.randn(16_000)])[0].square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(
        p.grad is not None for part in (model.denoise_encoder, model.backbone, model.head) for p in part.parameters()
    )


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="not a multiple of num_heads"):
        DenoiserConfig(num_heads=7)
    with pytest.raises(ConfigError, match="n_fft is 1000"):
        DenoiserConfig(n_fft=1000)


_EXPORT = """
import sys, torch
from auricle.models.denoiser import Denoiser, DenoiserConfig
from auricle.models.dasheng import DashengConfig
torch.manual_seed(0)
class Vocoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
    def forward(self, frames):
        return self.head(self.backbone(frames))
config = DenoiserConfig(encoder=DashengConfig(embed_dim=32, depth=1, num_heads=2), num_heads=2, num_layers=1,
                        backbone_dim=16, backbone_hidden_dim=24, backbone_layers=2)
vocoder = Vocoder(Denoiser(config)).eval().requires_grad_(False)
tokens = torch.export.Dim("tokens", min=2, max=10_000)
made = torch.onnx.export(vocoder, (torch.zeros(1, 9, 32),), dynamic_shapes=({1: tokens},), opset_version=18,
                         input_names=["frames"], output_names=["waveform"], dynamo=True, verbose=False)
made.save(sys.argv[1])
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for count in (3, 50, 211):
    frames = torch.randn(1, count, 32)
    found = torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])
    expected = vocoder(frames)
    assert found.shape == expected.shape == (1, 640 * count)
    assert (found - expected).abs().max() < 1e-6, (found - expected).abs().max()
"""


def test_vocoder_as_onnx(tmp_path: Path) -> None:
    """Backbone and inverse STFT in another runtime, at lengths that it was not exported with."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _EXPORT, str(tmp_path / "vocoder.onnx")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
