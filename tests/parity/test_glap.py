"""GLAP equals the released package: towers, rules of pooling, scores, tokens, and the retrieval metrics on top."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from auricle.metrics.retrieval import retrieval_scores
from auricle.models.glap import Glap, Pooling, score
from auricle.weights import load_glap
from auricle.weights.text_tokenizers import NllbTokenizer, nllb_languages

from .conftest import ROOTS

EMBEDDING = 2e-5  # absolute
SCORE = 2e-3  # absolute, of 100 x cosine
NAMES = {
    "framemean": "audio_emb_framemean",
    "v013": "audio_emb_v013",
    "zeropad": "audio_emb_framemean_zeropad",
}


class Golden:
    """Golden tensors with the sounds, texts and weights they were made from; the cut has five of the seven sounds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "golden.json").read_text())
        self.cases = json.loads((folder / "tokenizer_golden.json").read_text())["cases"]
        self.tensors = load_file(folder / "golden.safetensors")
        if (folder / "inputs.safetensors").is_file():
            self.tensors |= load_file(folder / "inputs.safetensors")
            self.spm = load_file(folder / "tokenizer.safetensors")["spm_model"].numpy().tobytes()
            self.waves = {i: self.tensors[f"wave_{i}"].float() / 32_768 for i in range(7)}
        else:
            self.spm = (folder / "spm.model").read_bytes()
            files = {int(file.stem[-1]): file for file in sorted((folder / "wav").iterdir())}
            self.waves = {i: torch.from_numpy(soundfile.read(f, dtype="float32")[0]) for i, f in files.items()}
        lengths = self.tensors["token_lengths"].tolist()
        self.tokens = [row[:n].tolist() for row, n in zip(self.tensors["token_ids"], lengths, strict=True)]

    def check(self, name: str, ours: Tensor, tolerance: float, rows: list[int] | None = None) -> None:
        golden = self.tensors[name] if rows is None else self.tensors[name][rows]
        assert ours.shape == golden.shape, f"{name}: {tuple(ours.shape)}, golden {tuple(golden.shape)}"
        worst = (ours - golden).abs().max().item()
        if path := os.environ.get("AURICLE_PARITY_LOG"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"tensor": f"glap.{name}", "error": worst}) + "\n")
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"


@pytest.fixture(scope="module", params=ROOTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param / "glap")


@pytest.fixture(scope="module")
def model(golden: Golden) -> Glap:
    return load_glap(golden.folder / "checkpoint.safetensors").model


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_front_end_is_that_of_the_checkpoint(golden: Golden, model: Glap) -> None:
    mel = model.audio_encoder.mel([golden.waves[1]])[0]
    golden.check("spec_1", model.audio_encoder.init_bn(mel[None])[0], EMBEDDING)


def test_frames(golden: Golden, model: Glap) -> None:
    for wave, frames in zip((1, 5), model.audio_encoder.encode([golden.waves[1], golden.waves[5]]), strict=True):
        golden.check(f"frames_{wave}", frames, EMBEDDING)


@pytest.mark.parametrize("pooling", NAMES)
def test_sounds(golden: Golden, model: Glap, pooling: Pooling) -> None:
    """Alone and in one batch, under 10 s and over."""
    assert {0, 1, 2, 4, 5} <= golden.waves.keys()
    together = model.embed_audio(list(golden.waves.values()), pooling=pooling)
    for (i, wave), embedding in zip(golden.waves.items(), together, strict=True):
        golden.check(f"{NAMES[pooling]}_{i}", embedding, EMBEDDING)
        golden.check(f"{NAMES[pooling]}_{i}", model.embed_audio([wave], pooling=pooling)[0], EMBEDDING)


def test_rules_differ_where_the_releases_did(golden: Golden, model: Glap) -> None:
    over = [golden.waves[4], golden.waves[5]]
    ours, v013, zeropad = (model.embed_audio(over, pooling=rule) for rule in NAMES)  # type: ignore[arg-type]
    for one, other in ((ours, v013), (ours, zeropad), (v013, zeropad)):
        # The clip of 10.08 s is one frame over: both old rules then keep the whole padded chunk.
        assert (one[1] - other[1]).abs().max() > 1e-3
    assert (ours[0] - v013[0]).abs().max() > 1e-3


def test_pooled_sounds(golden: Golden, model: Glap) -> None:
    pooled = model.pool_audio(list(golden.waves.values()), pooling="v013")
    for i, row in zip(golden.waves, pooled, strict=True):
        golden.check(f"audio_pooled_v013_{i}", row, EMBEDDING)


def test_reference_batch(golden: Golden, model: Glap) -> None:
    """The reference encodes the zeros that fill a batch, and its loudest clip sets the floor of all."""
    waves = [golden.waves[i] for i in range(3)]
    longest = max(map(len, waves))
    filled = [F.pad(wave, (0, longest - len(wave))) for wave in waves]
    ours = model.embed_audio(filled, pooling="v013", batch_floor=True)
    golden.check("audio_emb_batch_padded", ours, EMBEDDING)
    assert (ours - model.embed_audio(waves)).abs().max() > 0.05


def test_texts(golden: Golden, model: Glap) -> None:
    positions = model.text_encoder.positions
    assert isinstance(positions, Tensor)
    golden.check("pos_table", positions[:8], EMBEDDING)
    golden.check("text_pooled", model.pool_text(golden.tokens), EMBEDDING)
    golden.check("text_emb", model.embed_text(golden.tokens), EMBEDDING)
    for row, ids in enumerate(golden.tokens):
        golden.check("text_emb", model.embed_text([ids]), EMBEDDING, rows=[row])


def test_scores(golden: Golden, model: Glap) -> None:
    ours = score(model.embed_audio(list(golden.waves.values()), pooling="v013"), model.embed_text(golden.tokens))
    golden.check("scores_v013", ours, SCORE, rows=list(golden.waves))


def test_tokens(golden: Golden, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "small.model").write_bytes(golden.spm)
    tokenizer = NllbTokenizer(tmp_path / "small.model")
    assert len(golden.cases) == 7
    for case in golden.cases:
        assert tokenizer.encode([case["text"]], language=case["lang"]) == [case["ids"]]


def test_language_tags(golden: Golden) -> None:
    tags = {case["lang"]: case["ids"][0] for case in golden.cases}
    if (golden.folder / "nllb_lang_ids.json").is_file():
        tags = json.loads((golden.folder / "nllb_lang_ids.json").read_text())
        assert len(tags) == len(nllb_languages()) == 202
    assert tags == {code: 256_001 + nllb_languages().index(code) for code in tags}


@pytest.mark.parametrize("captions", [1, 5])
def test_retrieval_metrics(golden: Golden, captions: int) -> None:
    metrics = next(case for case in golden.facts["retrieval"] if case["num_caps"] == captions)["metrics"]
    audio, text = (golden.tensors[f"retr_{kind}_nc{captions}"] for kind in ("audio", "text"))
    owners = torch.arange(len(text)) // captions
    for found, expected in zip(
        retrieval_scores(F.normalize(audio[::captions]), F.normalize(text), owners), metrics.values(), strict=True
    ):
        assert 100 * found.r1 == pytest.approx(expected["r1"], abs=1e-9)
        assert 100 * found.r5 == pytest.approx(expected["r5"], abs=1e-9)
        assert 100 * found.r10 == pytest.approx(expected["r10"], abs=1e-9)
        assert 100 * found.map10 == pytest.approx(expected["mAP10"], abs=1e-9)
        assert found.mean_rank == pytest.approx(expected["meanr"])
        assert found.median_rank == pytest.approx(expected["medr"])
