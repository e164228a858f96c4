"""Damaged weights end in an error, never in NaN, a label or an empty answer; other clips are not harmed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle import load, load_aligner, load_encoder
from auricle.encode import Embedding
from auricle.errors import OutputError, WeightsError
from auricle.files import write_json
from auricle.weights import convert, safe

CLIP = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)
MODEL = Path(__file__).resolve().parents[1] / "fixtures" / "midashenglm" / "model"


@pytest.fixture(params=["nan", "inf"])
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path, str], Path]:
    def make(model: Path, part: str) -> Path:
        folder = tmp_path / "damaged"
        shutil.copytree(model, folder)
        (folder / "SHA256SUMS").unlink(missing_ok=True)
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        name = next(name for name in tensors if part in name and tensors[name].is_floating_point())
        tensors[name].flatten()[0] = float(request.param)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return make


PARTS = ["q_proj.weight", "layers.1.mlp.up_proj", "audio_projector.net.0.weight", "lm_head", "blocks.0.attn.qkv.weight"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_damaged_weights_are_not_loaded(damage: Any, part: str, dtype: str | None) -> None:
    folder = damage(MODEL, part)
    with pytest.raises(WeightsError, match=f"{part}.* has NaN or infinities"):
        load(str(folder), dtype=dtype)
    if "attn" in part:
        with pytest.raises(WeightsError, match=r"qkv\.weight has NaN or infinities"):
            load_encoder(str(folder))


@pytest.mark.parametrize("part", ["decoder.lm_head.weight", "decoder.model.norm.weight", "audio_projector.net.2.bias"])
def test_what_a_language_model_makes(part: str) -> None:
    """Sums may overflow though all weights are finite."""
    model = load(str(MODEL))
    model.loaded.model.get_parameter(part).data.fill_(float("nan"))
    for use in (
        lambda: model.describe(CLIP, max_new_tokens=3),
        lambda: model.ask(CLIP, "What?", max_new_tokens=3),
        lambda: model.choose(CLIP, "What?", ["dog", "cat"]),
        lambda: model.transcribe(CLIP),
    ):
        with pytest.raises(WeightsError, match="has NaN or infinities"):
            use()


def test_what_an_encoder_makes() -> None:
    encoder = load_encoder(str(MODEL))
    encoder.model.network.norm.weight.data.fill_(float("inf"))  # type: ignore[attr-defined]
    for use in (lambda: encoder(CLIP), lambda: encoder.encode([CLIP]), lambda: encoder.embed([CLIP])):
        with pytest.raises(WeightsError, match="has NaN or infinities"):
            use()
    assert [type(result) for result in encoder.embed_many([CLIP])] == [WeightsError]


def test_one_clip_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("random:dasheng-tiny")
    whole = encoder.model.frames

    def frames(waveforms: Any) -> list[torch.Tensor]:
        pairs = zip(waveforms, whole(waveforms), strict=True)
        return [found * (float("nan") if len(wave) > 9_000 else 1) for wave, found in pairs]

    monkeypatch.setattr(encoder.model, "frames", frames)
    results = encoder.embed_many([CLIP, np.tile(CLIP, 2), CLIP])
    assert [type(result) for result in results] == [Embedding, WeightsError, Embedding]


@pytest.mark.parametrize("part", ["audio", "text"])
def test_aligners(part: str) -> None:
    aligner = load_aligner()
    tower = getattr(aligner.model, f"{part}_projection", None) or getattr(aligner.model, f"{part}_encoder")
    weight = next(weight for weight in tower.parameters() if weight.is_floating_point())
    before = weight.data.clone()
    weight.data.fill_(float("nan"))
    try:
        use = (lambda: aligner.audio([CLIP])) if part == "audio" else (lambda: aligner.text(["a dog"]))
        for each in (use, lambda: aligner.score([CLIP], ["a dog"])):
            with pytest.raises(WeightsError, match="has NaN or infinities"):
                each()
    finally:
        weight.data.copy_(before)


def test_nothing_damaged_is_written(damage: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"q_proj\.weight has NaN"):
        convert(damage(MODEL, "q_proj.weight"), tmp_path / "new")
    with pytest.raises(OutputError, match="a has NaN"):
        safe.write_folder(tmp_path / "new", {"a": torch.tensor([float("nan")])})
    with pytest.raises(OutputError, match="NaN or infinite"):
        write_json(tmp_path / "a.json", {"a": [float("nan")]})
    assert not (tmp_path / "new").exists() and not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1.0])
def test_settings_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    config = json.loads((MODEL / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="rms_norm_eps"):
        load(str(tmp_path / "model"))
