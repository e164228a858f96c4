"""The exported encoder equals the model's own, at every length, in torch.export and in ONNX."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from auricle.cli import checkpoints
from auricle.errors import ConfigError, MissingExtra, WeightsError
from auricle.models.dasheng import DashengConfig
from auricle.models.int8 import has_int8_kernel
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.models.qwen import QwenConfig
from auricle.weights import export, load_midashenglm
from auricle.weights.export import AudioGraph, export_audio, save_audio


def network(**changes: object) -> MiDashengLM:
    """A small model with a chunk of 0.8 s, so that short clips have several."""
    torch.manual_seed(5)
    encoder = DashengConfig(
        embed_dim=32,
        depth=2,
        num_heads=4,
        target_length=80,
        attend="whole",
        **changes,  # type: ignore[arg-type]
    )
    text = QwenConfig(
        vocab_size=600,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = MiDashengLM(MiDashengLMConfig(encoder=encoder, text=text, audio_token_id=599)).eval()
    bn = model.audio_encoder.init_bn
    bn.running_mean.uniform_(-40, 0)
    bn.running_var.uniform_(100, 400)
    return model


@pytest.fixture(scope="module")
def model() -> MiDashengLM:
    return network(init_values=0.5)


@pytest.fixture(scope="module")
def program(model: MiDashengLM) -> Callable[[Tensor], Tensor]:
    """The exported program, written and read again."""
    return export_audio(model).module()


@torch.no_grad()
def difference(model: MiDashengLM, run: Callable[[Tensor], Tensor], length: int) -> float:
    clip = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length))
    wanted, found = model.audio_tokens([clip])[0], run(clip)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@settings(max_examples=30, deadline=None)
@given(length=st.integers(3200, 60_000))
def test_the_program_computes_what_the_model_does(
    model: MiDashengLM, program: Callable[[Tensor], Tensor], length: int
) -> None:
    assert difference(model, program, length) < 1e-5


# One token; a token that is not wholly inside; a whole chunk; a chunk and one token that may attend to nothing.
@pytest.mark.parametrize("length", [3200, 3520, 6399, 12_800, 12_640 + 640, 13_120, 25_999])
def test_at_the_edges(model: MiDashengLM, program: Callable[[Tensor], Tensor], length: int) -> None:
    assert difference(model, program, length) < 1e-5


def test_silence_and_full_scale(model: MiDashengLM, program: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for clip in (torch.zeros(8000), torch.ones(8000), torch.sin(torch.arange(8000.0))):
            torch.testing.assert_close(program(clip), model.audio_tokens([clip])[0], rtol=1e-4, atol=1e-4)


def test_lengths_out_of_range_are_refused_by_the_program(program: Callable[[Tensor], Tensor]) -> None:
    for length in (3199, export.MAX_SAMPLES + 1):
        with pytest.raises((AssertionError, RuntimeError)):
            program(torch.zeros(length))


def test_the_graph_is_independent_of_the_model(model: MiDashengLM) -> None:
    graph = AudioGraph(model)
    ours = {p.data_ptr() for p in graph.parameters()}
    assert ours.isdisjoint({p.data_ptr() for p in model.parameters()})
    assert not any(p.requires_grad for p in graph.parameters())


def test_a_file_is_written_and_compared(lm_folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(checkpoints.export)
    result = CliRunner().invoke(app, [str(lm_folder), str(tmp_path / "encoder.pt2")])
    assert result.exit_code == 0, result.output
    assert "audio_tokens (n, 128) float32 at 5 Hz" in result.output and "of the model" in result.output
    loaded = load_midashenglm(lm_folder).model
    with pytest.MonkeyPatch.context() as patch:
        # Reading a program is torch's business; that this file holds one is ours.
        patch.setattr(export, "_PROBES", (9_999,))
        assert export._difference(loaded, torch.export.load(tmp_path / "encoder.pt2").module()) < 1e-5


def test_a_wrong_graph_is_not_handed_out(model: MiDashengLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PROBES", (3200,))
    assert export._difference(model, lambda clip: torch.zeros(2, 24)) == math.inf
    for wrong in (1.0, math.nan):
        monkeypatch.setattr(export, "_difference", lambda *_, wrong=wrong: wrong)
        monkeypatch.setattr(export, "export_audio", _Nothing)
        monkeypatch.setattr(torch.export, "save", lambda *_: None)
        with pytest.raises(WeightsError, match="differs from the model by"):
            save_audio(model, tmp_path / "a.pt2")


class _Nothing:
    def __init__(self, model: MiDashengLM) -> None:
        self.model = model

    def module(self) -> None:
        return None


def test_refusals(model: MiDashengLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"ends in .pt2 or .onnx"):
        save_audio(model, tmp_path / "a.bin")
    with pytest.raises(ConfigError, match="long_clips 'v009'"):
        AudioGraph(network(long_clips="v004"))
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"auricle\[onnx\]"):
        save_audio(model, tmp_path / "a.onnx")
    if has_int8_kernel():
        with pytest.raises(ConfigError, match="is quantised"):
            AudioGraph(load_midashenglm("auricle-tiny", quantize="int8").model)


def test_onnx(model: MiDashengLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="an extra")
    monkeypatch.setattr(export, "_PROBES", (3200, 9_999, 13_120, 30_000))
    written = save_audio(model, tmp_path / "a.onnx")
    assert written.difference is not None and written.difference < 1e-5
