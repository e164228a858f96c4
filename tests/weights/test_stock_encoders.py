"""Folders in the Hugging Face layout, written by the library itself as whole models or in its older names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle.errors import ConfigError, LayoutMismatch, UnsafeWeights, WeightsError
from auricle.models.dasheng import Dasheng
from auricle.models.encoders.random_encoders import STOCK_SETTINGS, random_encoder
from auricle.models.frame_model import DashengFrames, content_hash
from auricle.weights.catalog import entries
from auricle.weights.encoder_layouts import load_encoder_model
from auricle.weights.writers import save_dasheng

WHOLE = {
    "whisper-tiny": "WhisperForConditionalGeneration",
    "wav2vec2-tiny": "Wav2Vec2ForPreTraining",
    "wav2vec2-layer-tiny": "Wav2Vec2ForCTC",
    "hubert-tiny": "HubertForCTC",
    "wavlm-tiny": "WavLMForSequenceClassification",
    "data2vec-tiny": "Data2VecAudioForCTC",
    "ast-tiny": "ASTForAudioClassification",
}
CLIP = 0.1 * torch.randn(12_345, generator=torch.Generator().manual_seed(3))


def prefix_of(model: Any) -> str:
    return "model.encoder." if "Whisper" in type(model).__name__ else f"{model.base_model_prefix}."


def write(folder: Path, name: str) -> Any:
    """A whole model around the random encoder's weights, saved as transformers saves it; returns the encoder."""
    import transformers

    encoder: Any = random_encoder(name)
    settings, front_end = STOCK_SETTINGS[name]
    small = {"decoder_layers": 1, "decoder_ffn_dim": 64, "decoder_attention_heads": 2, "vocab_size": 60_000}
    config = type(encoder.network.config)(**settings | (small if name == "whisper-tiny" else {}))
    model = getattr(transformers, WHOLE[name])(config)
    prefix = prefix_of(model)
    own = {prefix + key: tensor for key, tensor in encoder.network.state_dict().items()}
    assert set(own) <= set(model.state_dict())
    model.load_state_dict(own, strict=False)
    model.save_pretrained(folder)
    if front_end:
        (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000, **front_end}))
    return encoder


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_give_their_encoder(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = write(tmp_path / "model", name)
    capfd.readouterr()
    loaded = load_encoder_model(tmp_path / "model")
    assert "".join(capfd.readouterr()) == ""  # no progress bar, no report
    with torch.inference_mode():
        assert torch.allclose(loaded.frames([CLIP])[0], encoder.frames([CLIP])[0], atol=1e-6)
    assert content_hash(loaded) == content_hash(load_encoder_model(tmp_path / "model"))


def test_older_names_and_pickled_tensors(tmp_path: Path) -> None:
    encoder = write(tmp_path / "model", "hubert-tiny")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for key, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(old, tmp_path / "model" / "pytorch_model.bin")
    with torch.inference_mode():
        frames = load_encoder_model(tmp_path / "model", layers=(1,)).frames([CLIP])[0]
        assert torch.allclose(frames, random_encoder("hubert-tiny", layers=(1,)).frames([CLIP])[0], atol=1e-6)
    assert encoder.layers == ()


def test_half_precision_is_near(tmp_path: Path) -> None:
    write(tmp_path / "model", "wav2vec2-layer-tiny")
    with torch.inference_mode():
        exact, coarse = (
            load_encoder_model(tmp_path / "model", dtype=dtype).frames([CLIP])[0] for dtype in ("float32", "bfloat16")
        )
    assert coarse.dtype == torch.float32 and not torch.equal(exact, coarse)
    assert torch.cosine_similarity(exact.mean(0), coarse.mean(0), dim=0) > 0.99


@pytest.mark.parametrize("name", WHOLE)
@torch.inference_mode()
def test_front_ends_as_transformers_5_stores_them(tmp_path: Path, name: str) -> None:
    write(tmp_path / "model", name)
    plain = load_encoder_model(tmp_path / "model").frames([CLIP])[0]
    apart = tmp_path / "model" / "preprocessor_config.json"
    front_end = json.loads(apart.read_text()) if apart.is_file() else {"sampling_rate": 16_000}
    nested = {"feature_extractor": front_end, "processor_class": "Wav2Vec2Processor"}
    (tmp_path / "model" / "processor_config.json").write_text(json.dumps(nested))
    apart.unlink(missing_ok=True)
    assert torch.equal(load_encoder_model(tmp_path / "model").frames([CLIP])[0], plain)
    nested["feature_extractor"] = {**front_end, "sampling_rate": 8_000}
    (tmp_path / "model" / "processor_config.json").write_text(json.dumps(nested))
    with pytest.raises(ConfigError, match="8000 Hz"):
        load_encoder_model(tmp_path / "model")


def test_what_must_be_known_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "model", "wavlm-tiny")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"neither preprocessor_config\.json nor .* do_normalize"):
        load_encoder_model(tmp_path / "model")


def test_damage_and_mixtures_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "model", "ast-tiny")
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    gone = next(key for key in tensors if key.endswith("position_embeddings"))
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, weights)
    with pytest.raises(LayoutMismatch, match="1 missing"):
        load_encoder_model(tmp_path / "model")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UnsafeWeights, match=r"model\.safetensors"):
        load_encoder_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="dtype"):
        load_encoder_model(tmp_path / "model", dtype="int8")


def test_a_dasheng_folder_is_still_one(tmp_path: Path, tiny: Dasheng) -> None:
    loaded = load_encoder_model(save_dasheng(tmp_path / "made", tiny))
    assert isinstance(loaded, DashengFrames) and loaded.network.config == tiny.config
    assert content_hash(loaded) == content_hash(DashengFrames(tiny))


def test_published_names_go_through_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    assert {"whisper-base", "wav2vec2-base", "hubert-base", "ast-audioset"} <= {entry.name for entry in entries()}
    with pytest.raises(WeightsError, match="openai/whisper-base@main: not in the local cache"):
        load_encoder_model("whisper-base")
    snapshot = tmp_path / "hub" / "models--openai--whisper-base" / "snapshots" / ("a" * 40)
    encoder = write(snapshot, "whisper-tiny")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    with torch.inference_mode():
        loaded = load_encoder_model("whisper-base").frames([CLIP])[0]
        assert torch.allclose(loaded, encoder.frames([CLIP])[0], atol=1e-6)
