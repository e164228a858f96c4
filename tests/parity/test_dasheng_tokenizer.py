"""DashengTokenizer equals the published code: tokens, waveforms, front end; and its own rules where that one errs.

Reference: a copy of the remote code of mispeech/dashengtokenizer (random weights, float32 on a CPU). Whether it is the
hub's newest revision is not known.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import auricle
from auricle.errors import LayoutMismatch
from auricle.models import DashengTokenizer
from auricle.weights import convert, load_dasheng_tokenizer
from auricle.weights.export import export_audio

from .conftest import Golden

SYSTEM = "dasheng_tokenizer"
LOG_MEL, TOKENS, WAVEFORM = 1e-3, 1e-4, 1e-5  # absolute


@pytest.fixture
def model(golden: Golden) -> DashengTokenizer:
    return load_dasheng_tokenizer(golden.folder)


def clip(golden: Golden, name: str) -> Tensor:
    count, start = golden.facts["cases"][name]
    return golden["wave_int16"][start : start + count].float() / 32_768


def test_tokens_and_waveforms(golden: Golden, model: DashengTokenizer) -> None:
    names = list(golden.facts["cases"])
    with torch.inference_mode():
        for name, tokens in zip(names, model.encode([clip(golden, name) for name in names]), strict=True):
            stride = 1 if golden.facts["cases"][name][0] <= 80_000 else 4  # of the tokens that are kept
            golden.check(f"{name}.embeddings", tokens[None, ::stride], TOKENS)
            waveform = model.decode(tokens[None])[0]
            assert len(waveform) == golden.facts["samples_out"][name]
            if f"{name}.audio" in golden:
                golden.check(f"{name}.audio", waveform[None], WAVEFORM)
            else:
                golden.check(f"{name}.audio_every16", waveform[None, ::16], WAVEFORM)


def test_front_end(golden: Golden, model: DashengTokenizer) -> None:
    assert model.encoder.acoustic is not None
    golden.check("0.5s.acoustic_logmel", model.encoder.acoustic.front_end(clip(golden, "0.5s")), LOG_MEL)


def test_a_clip_in_company_is_the_clip_alone(golden: Golden, model: DashengTokenizer) -> None:
    """The reference differs by 0.3 in both cases."""
    wave = golden["wave_int16"].float() / 32_768
    with torch.inference_mode():
        golden.check("batch.item0_alone", model.encode([wave[40_000:60_000], wave[100_000:148_000]])[0][None], TOKENS)
        quiet, loud = wave[:16_000] * 1e-5, wave[16_000:32_000]
        golden.check("quiet.item0_alone", model.encode([quiet, loud])[0][None], TOKENS)


@pytest.mark.parametrize("count", [480, 512, 513, 5000, 16_000, 16_639, 161_281])
def test_reconstructions_are_as_long_as_the_clip(golden: Golden, model: DashengTokenizer, count: int) -> None:
    waveform = model.reconstruct(golden["wave_int16"][:count].float() / 32_768)
    assert waveform.shape == (count,) and waveform.isfinite().all()


def test_its_tokens_are_an_encoder_of_auricle(golden: Golden, model: DashengTokenizer) -> None:
    sound = clip(golden, "1s")
    encoder = auricle.load_encoder(str(golden.folder))
    with torch.inference_mode():
        wanted = model.encode([sound])[0]
    torch.testing.assert_close(encoder.encode([sound.numpy()])[0][0], wanted, atol=1e-5, rtol=0)
    with pytest.raises(auricle.errors.ConfigError, match="acoustic branch, which reads waveforms"):
        model.encoder.encode_mels([torch.zeros(64, 101)], [16_000])
    with pytest.raises(auricle.errors.ConfigError, match="an acoustic branch cannot be exported"):
        export_audio(model.encoder)


def test_what_is_converted_is_what_was_read(golden: Golden, model: DashengTokenizer, tmp_path: Path) -> None:
    written = convert(golden.folder, tmp_path / "out")
    again = load_dasheng_tokenizer(written)
    assert again.config == model.config
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    stated, official = (json.loads((place / "config.json").read_text()) for place in (written, golden.folder))
    assert official.items() <= {**stated, "dtype": "float32"}.items()


def test_other_networks_are_refused(golden: Golden, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(golden.folder / name, tmp_path / name)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"istft_hop": 640}))
    with pytest.raises(LayoutMismatch, match="istft_hop is 640, expected 320"):
        load_dasheng_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["upsampler.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(LayoutMismatch, match=r"1 missing \(upsampler\.bias\)"):
        load_dasheng_tokenizer(tmp_path)
