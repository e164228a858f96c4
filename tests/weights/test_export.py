"""The exported graph gives what the library gives, at every length, in torch.export and in ONNX."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from auricle.cli import checkpoints
from auricle.errors import ConfigError, MissingExtra, WeightsError
from auricle.models.dasheng import SAMPLES_PER_TOKEN, Dasheng, DashengConfig
from auricle.models.int8 import has_int8_kernel
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.models.qwen import QwenConfig
from auricle.weights import export, load_midashenglm, save_dasheng
from auricle.weights.export import AudioGraph, export_audio, library_output, save_audio
from auricle.weights.safe import sha256


def network(*, whole_tokens: bool = False, **changes: object) -> MiDashengLM:
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
    model = MiDashengLM(
        MiDashengLMConfig(encoder=encoder, text=text, audio_token_id=599, whole_tokens=whole_tokens)
    ).eval()
    bn = model.audio_encoder.init_bn
    bn.running_mean.uniform_(-40, 0)
    bn.running_var.uniform_(100, 400)
    return model


@pytest.fixture(scope="module")
def model() -> MiDashengLM:
    return network(init_values=0.5)


def encoder_alone() -> Dasheng:
    """An encoder whose tokens all see each other."""
    encoder = network(init_values=0.5).audio_encoder
    found = Dasheng(replace(encoder.config, attend="all")).eval()
    found.load_state_dict(encoder.state_dict())
    return found


KINDS: dict[str, Callable[[], MiDashengLM | Dasheng]] = {
    "tokens": network,
    "whole tokens": lambda: network(whole_tokens=True),
    "encoder of a language model": lambda: network().audio_encoder,
    "encoder": encoder_alone,
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[MiDashengLM | Dasheng, export.Run]:
    """A model and its exported program."""
    made = KINDS[request.param]()
    return made, export_audio(made).module()


@pytest.fixture(scope="module")
def program(model: MiDashengLM) -> export.Run:
    return export_audio(model).module()


@torch.no_grad()
def difference(model: MiDashengLM | Dasheng, run: export.Run, length: int) -> float:
    clip = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length))
    wanted, found = library_output(model, clip), run(clip)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 60_000))
def test_the_program_gives_what_the_library_gives_at_any_length(
    pair: tuple[MiDashengLM | Dasheng, export.Run], length: int
) -> None:
    assert difference(*pair, length) < 1e-5


# One sample; one token; one that is not wholly inside; a whole chunk; a chunk and a token that may attend to nothing.
@pytest.mark.parametrize("length", [1, 479, 480, 3199, 3200, 3520, 6399, 12_800, 12_640 + 640, 13_120, 25_999])
def test_at_the_edges(pair: tuple[MiDashengLM | Dasheng, export.Run], length: int) -> None:
    assert difference(*pair, length) < 1e-5


@pytest.mark.parametrize("length", [1, 3199, 3201, 16_001, 22_222])
def test_padding_in_the_graph_is_zeros_behind_the_clip(length: int) -> None:
    made = network(whole_tokens=True)
    graph, clip = AudioGraph(made).eval(), torch.linspace(-0.5, 0.5, length)
    padded = F.pad(clip, (0, -length % (5 * SAMPLES_PER_TOKEN)))
    assert graph.padded_length(length) == len(padded)
    torch.testing.assert_close(graph(clip), graph(padded))


def test_silence_and_full_scale(model: MiDashengLM, program: export.Run) -> None:
    with torch.no_grad():
        for clip in (torch.zeros(8000), torch.ones(8000), torch.sin(torch.arange(8000.0))):
            torch.testing.assert_close(program(clip), model.audio_tokens([clip])[0], rtol=1e-4, atol=1e-4)


def test_lengths_out_of_range_are_refused_by_the_program(program: export.Run) -> None:
    for length in (0, export.MAX_SAMPLES + 1):
        with pytest.raises((AssertionError, RuntimeError, IndexError)):
            program(torch.zeros(length))


def test_the_graph_is_independent_of_the_model(model: MiDashengLM) -> None:
    graph = AudioGraph(model)
    ours = {p.data_ptr() for p in graph.parameters()}
    assert ours.isdisjoint({p.data_ptr() for p in model.parameters()})
    assert not any(p.requires_grad for p in graph.parameters())


def cli(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(checkpoints.export)
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.output


def read_facts(file: Path) -> dict[str, str]:
    content = {export.FACTS: ""}
    torch.export.load(file, extra_files=content)
    found: dict[str, str] = json.loads(content[export.FACTS])
    return found


def test_a_file_is_written_and_compared(lm_folder: Path, tmp_path: Path) -> None:
    output = cli(str(lm_folder), str(tmp_path / "encoder.pt2"))
    assert "audio_tokens (n, 128) float32" in output and "of the model" in output
    loaded = load_midashenglm(lm_folder).model
    with pytest.MonkeyPatch.context() as patch:
        # Reading a program is torch's business; that this file holds one is ours.
        patch.setattr(export, "_PROBES", (9_999,))
        assert export._difference(loaded, torch.export.load(tmp_path / "encoder.pt2").module()) < 1e-5
    facts = read_facts(tmp_path / "encoder.pt2")
    assert (facts["sample_rate"], facts["hop_ms"], facts["name"]) == ("16000", "200", str(lm_folder))
    assert facts["weights_sha256"] == sha256(lm_folder)
    assert facts["license"] == "unknown"  # the folder has no card


@pytest.mark.parametrize("arguments", [("auricle-tiny-encoder",), ("auricle-tiny", "--frames")])
def test_an_encoder_is_exported_alone(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PROBES", (9_999,))
    record = json.loads(cli(*arguments, str(tmp_path / "frames.pt2"), "--json"))
    assert record["metadata"] == read_facts(tmp_path / "frames.pt2")
    assert (record["metadata"]["hop_ms"], record["metadata"]["license"]) == ("40", "apache-2.0")
    frames = torch.export.load(tmp_path / "frames.pt2").module()(torch.zeros(16_001))
    assert frames.shape == (25, 256)


def test_an_adapter_is_for_language_models(tmp_path: Path) -> None:
    save_dasheng(tmp_path / "encoder", encoder_alone())
    with pytest.raises(ConfigError, match="adapters are merged into language models only"):
        export.export_named(tmp_path / "encoder", tmp_path / "a.pt2", adapter=tmp_path)


def test_a_wrong_graph_is_not_handed_out(model: MiDashengLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PROBES", (3200,))
    assert export._difference(model, lambda clip: torch.zeros(2, 24)) == math.inf
    for wrong in (1.0, math.nan):
        monkeypatch.setattr(export, "_difference", lambda *_, wrong=wrong: wrong)
        monkeypatch.setattr(export, "export_audio", _Nothing)
        monkeypatch.setattr(torch.export, "save", lambda *_, **__: None)
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


@pytest.mark.parametrize("kind", ["whole tokens", "encoder"])
def test_onnx(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="an extra")
    import onnxruntime

    made = KINDS[kind]()
    lengths = torch.randint(1, 60_000, (20,), generator=torch.Generator().manual_seed(1)).tolist()
    monkeypatch.setattr(export, "_PROBES", (1, 479, 3200, 3201, 9_999, 13_120, 30_000, *lengths))
    written = save_audio(made, tmp_path / "a.onnx", {"license": "cc0-1.0"})
    assert written.difference is not None and written.difference < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    stated = session.get_modelmeta().custom_metadata_map
    assert stated == written.facts
    assert stated["license"] == "cc0-1.0"
    assert (
        stated["output"].split()[0]
        == session.get_outputs()[0].name
        == ("frames" if kind == "encoder" else "audio_tokens")
    )
