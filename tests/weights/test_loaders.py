"""Names and paths → networks: precision, devices, tokenizers, odd but legal folders."""

import json
import shutil
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch

import auricle
from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.models.midashenglm import MiDashengLM
from auricle.weights import LoadedLM, load_dasheng, load_midashenglm, safe
from auricle.weights.construct import on_meta
from auricle.weights.lm_layouts import midashenglm_settings, qwen_config, text_settings
from auricle.weights.loaders import AudioTokens, device_of


@pytest.fixture(scope="module")
def lm(lm_folder: Path) -> LoadedLM:
    return load_midashenglm(lm_folder)


@pytest.fixture
def folder(lm_folder: Path, tmp_path: Path) -> Path:
    """A copy of the official folder to tamper with."""
    shutil.copytree(lm_folder, tmp_path / "lm")
    return tmp_path / "lm"


def edit(file: Path, **changes: object) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = {k: v.clone() for k, v in safe.read_tensors(folder).items()}
    state |= {key.replace("__", "."): value for key, value in changes.items() if value is not None}
    for key in (k.replace("__", ".") for k, v in changes.items() if v is None):
        state = {k: v for k, v in state.items() if not k.startswith(key)}
    safe.write_tensors(folder / "model.safetensors", state)


def equal(left: LoadedLM, right: LoadedLM) -> bool:
    ours, theirs = left.model.state_dict(), right.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours if "tracked" not in k)


def test_everything_around_the_model(lm: LoadedLM, lm_folder: Path) -> None:
    assert not lm.model.training
    assert lm.eos_token_ids == (550,) and lm.pad_token_id == 548
    assert lm.audio_tokens == AudioTokens("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
    assert lm.chat_template == (lm_folder / "chat_template.jinja").read_text()
    assert lm.tokenizer.token_to_id("<|AUDIO|>") == lm.model.config.audio_token_id == 551
    wanted = {"name": str(lm_folder), "path": str(lm_folder), "revision": None}
    assert lm.identity == {**wanted, "sha256": safe.sha256(lm_folder / "model.safetensors")}


def test_every_tensor_of_the_file_is_in_the_model(lm: LoadedLM, lm_folder: Path) -> None:
    stored = safe.read_tensors(lm_folder)
    ours = lm.model.state_dict()
    assert ours.keys() == {key for key in stored if ".front_end." not in key}
    assert all(torch.equal(ours[key], stored[key]) for key in ours)
    assert all(p.requires_grad for p in lm.model.parameters())


def test_front_end_is_never_loaded(folder: Path, lm: LoadedLM) -> None:
    rewrite(folder, audio_encoder__front_end__0__mel_scale__fb=torch.zeros(257, 64))
    found = load_midashenglm(folder)
    assert torch.equal(found.model.audio_encoder.front_end.filterbank, lm.model.audio_encoder.front_end.filterbank)
    rewrite(folder, audio_encoder__front_end=None, audio_encoder__init_bn__num_batches_tracked=None)
    assert equal(load_midashenglm(folder), lm)


def test_shards(folder: Path, lm: LoadedLM) -> None:
    state = safe.read_tensors(folder)
    safe.write_folder(folder, state, max_shard_bytes=1_000_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert equal(load_midashenglm(folder), lm)
    assert load_dasheng(folder).config.attend == "whole"


def test_tied_embeddings(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config={**config["text_config"], "tie_word_embeddings": True})
    with pytest.raises(LayoutMismatch, match="ties the output head"):
        load_midashenglm(folder)
    rewrite(folder, decoder__lm_head=None)
    for dtype in ("float32", "bfloat16"):
        decoder = load_midashenglm(folder, dtype=dtype).model.decoder
        assert decoder.lm_head.weight is decoder.model.embed_tokens.weight
    edit(folder / "config.json", text_config=config["text_config"])
    with pytest.raises(LayoutMismatch, match=r"1 missing \(decoder.lm_head.weight\)"):
        load_midashenglm(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "qwen2", "rope_scaling": None},
        {"model_type": None},
        {"rope_theta": None, "rope_scaling": None, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        {"rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}},
    ],
)
def test_ways_to_say_ordinary_positions(folder: Path, lm: LoadedLM, changes: dict[str, object]) -> None:
    text = {**json.loads((folder / "config.json").read_text())["text_config"], **changes}
    edit(folder / "config.json", text_config={k: v for k, v in text.items() if v is not None})
    found = load_midashenglm(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        assert torch.equal(found.model(ids, []), lm.model(ids, []))


def test_stored_frequencies_are_no_weights(folder: Path, lm: LoadedLM) -> None:
    names = ("decoder.model.rotary_emb.inv_freq", "decoder.model.layers.1.self_attn.rotary_emb.inv_freq")
    rewrite(folder, **{name.replace(".", "__"): torch.zeros(8) for name in names})
    assert equal(load_midashenglm(folder), lm)
    rewrite(folder, decoder__model__rotary_emb__other=torch.zeros(8))
    with pytest.raises(LayoutMismatch, match=r"1 unknown \(decoder.model.rotary_emb.other\)"):
        load_midashenglm(folder)


def is_mapped(tensor: torch.Tensor, folder: Path) -> bool:
    """Whether a tensor is in the pages of a file in ``folder``."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= tensor.data_ptr() < last:
            return name.startswith(str(folder))
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="asks Linux what is mapped")
@pytest.mark.parametrize("dtype", [None, "auto", "bfloat16"])
def test_a_bfloat16_checkpoint_stays_in_its_file(folder: Path, dtype: str | None) -> None:
    stored = {k: v.bfloat16() if v.is_floating_point() else v for k, v in safe.read_tensors(folder).items()}
    safe.write_folder(folder, stored, max_shard_bytes=1_000_000)
    found = load_midashenglm(folder, dtype=dtype).model
    for name, tensor in found.state_dict().items():
        if "init_bn" in name:
            assert tensor.dtype == torch.float32 or "tracked" in name
        else:
            assert tensor.dtype == torch.bfloat16 and is_mapped(tensor, folder), name
    full = load_midashenglm(folder, dtype="float32").model
    assert all(p.dtype == torch.float32 and not is_mapped(p, folder) for p in full.parameters())
    assert load_dasheng(folder, dtype=dtype).norm.weight.dtype == torch.bfloat16
    encoder = found.audio_encoder
    assert encoder.front_end.window.dtype == encoder.front_end.filterbank.dtype == torch.float32
    assert torch.equal(encoder.front_end.filterbank, full.audio_encoder.front_end.filterbank)


def test_the_embedded_model_is_float32() -> None:
    assert {p.dtype for p in load_midashenglm("auricle-tiny").model.parameters()} == {torch.float32}
    assert load_dasheng("auricle-tiny").norm.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 48},
        {"sliding_window": 100, "max_window_layers": 1},
        {"tie_word_embeddings": True},
        {"rope_theta": 1e4, "rms_norm_eps": 1e-5, "attention_dropout": 0.1, "initializer_range": 0.1},
    ],
)
def test_what_is_written_of_a_decoder_is_read_again(lm: LoadedLM, changes: dict[str, Any]) -> None:
    config = replace(lm.model.config.text, **changes)
    with on_meta():
        model = MiDashengLM(replace(lm.model.config, text=config))
    stated = json.loads(json.dumps(midashenglm_settings(model)))["text_config"]
    assert qwen_config(text_settings(stated, "x"), "x") == config
    assert stated["model_type"] == "qwen2_5_omni_text" and stated["hidden_act"] == "silu"
    assert sum(stated["rope_scaling"]["mrope_section"]) == config.head_dim // 2
    assert ("head_dim" in stated) == ("head_dim" in changes)


def test_a_configuration_without_sizes_is_named(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config={k: v for k, v in text.items() if k != "hidden_size"})
    with pytest.raises(LayoutMismatch, match="decoder's configuration has no hidden_size"):
        load_midashenglm(folder)


def test_other_decoders_are_refused() -> None:
    with pytest.raises(LayoutMismatch, match="'qwen4', expected qwen2_5_omni_text or qwen2 or qwen3"):
        text_settings({"model_type": "qwen4"}, "x")
    with pytest.raises(LayoutMismatch, match="'yarn'"):
        text_settings({"model_type": "qwen2", "rope_scaling": {"rope_type": "yarn", "factor": 4}}, "x")
    with pytest.raises(LayoutMismatch, match="None"):
        text_settings(None, "x")
    assert text_settings({"model_type": "qwen2", "rope_theta": 5e5}, "x") == {"rope_theta": 5e5}


def test_not_a_language_model(zenodo_file: Path, folder: Path) -> None:
    with pytest.raises(LayoutMismatch, match="name the folder"):
        load_midashenglm(zenodo_file)
    edit(folder / "config.json", model_type="dasheng")
    with pytest.raises(LayoutMismatch, match="'dasheng', expected 'midashenglm'"):
        load_midashenglm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json: not a readable JSON"):
        load_midashenglm(folder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_and_keeps_the_front_end(lm: LoadedLM, lm_folder: Path, dtype: str) -> None:
    found = load_midashenglm(lm_folder, dtype=dtype)
    encoder = found.model.audio_encoder
    assert encoder.front_end.window.dtype == encoder.front_end.filterbank.dtype == torch.float32
    assert {p.dtype for p in encoder.init_bn.parameters()} == {torch.float32}
    rest = {p.dtype for n, p in found.model.named_parameters() if "init_bn" not in n}
    assert rest == {getattr(torch, dtype)}
    wave = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = found.model.audio_tokens([wave])[0], lm.model.audio_tokens([wave])[0]
    assert torch.cosine_similarity(ours.float(), theirs, dim=-1).min() >= 0.999


def test_settings_out_of_range(lm_folder: Path) -> None:
    with pytest.raises(ConfigError, match="dtype is 'int8', expected one of float32, bfloat16, float16 or auto"):
        load_dasheng(lm_folder, dtype="int8")
    for device in ("toaster", "cuda:77"):
        with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
            load_dasheng(lm_folder, device=device)


def test_end_and_padding_from_elsewhere(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[550, 548], pad_token_id=None)
    found = load_midashenglm(folder)
    assert (found.eos_token_ids, found.pad_token_id) == ((550, 548), 548)
    (folder / "generation_config.json").unlink()
    found = load_midashenglm(folder)
    assert (found.eos_token_ids, found.pad_token_id) == ((550,), 548)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(WeightsError, match="no end-of-answer token"):
        load_midashenglm(folder)


def test_template_from_elsewhere(folder: Path) -> None:
    from auricle.weights.loaders import CHAT_TEMPLATE

    assert (folder / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    (folder / "chat_template.jinja").unlink()
    assert load_midashenglm(folder).chat_template == CHAT_TEMPLATE
    edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    assert load_midashenglm(folder).chat_template == "{{ messages }}"


def test_tokenizer_of_another_model(folder: Path) -> None:
    edit(folder / "config.json", audio_token_id=549)
    with pytest.raises(LayoutMismatch, match=r"token 551, .*audio_token_id is 549"):
        load_midashenglm(folder)
    edit(folder / "processor_config.json", audio_token="<|sound|>")
    with pytest.raises(LayoutMismatch, match=r"no <\|sound\|>"):
        load_midashenglm(folder)


def test_tokenizer_from_vocabulary_and_merges(folder: Path, lm: LoadedLM) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, added = content["model"]["vocab"], {t["content"]: t["id"] for t in content["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer.json").unlink()
    found = load_midashenglm(folder).tokenizer
    for text in ("A dog barks; it's raining 42 times!\n\n Über", "<|im_start|>user\n<|AUDIO|>hi<|im_end|>"):
        ours, theirs = found.encode(text), lm.tokenizer.encode(text)
        assert ours.ids == theirs.ids
        assert found.decode(ours.ids, skip_special_tokens=False) == lm.tokenizer.decode(
            theirs.ids, skip_special_tokens=False
        )
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 9999}))
    with pytest.raises(WeightsError, match="expected 9999"):
        load_midashenglm(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"neither tokenizer\.json nor vocab\.json"):
        load_midashenglm(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="is no tokenizer"):
        load_midashenglm(folder)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu") == device_of("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: asked.append(str(device)))
    assert device_of("auto") == torch.device("cuda") and asked == ["cuda"]
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="cannot be used"):
        device_of("gpu")


def test_everything_for_users_is_loaded_on_auto() -> None:
    for function in (auricle.load, auricle.load_encoder, auricle.load_aligner):
        assert signature(function).parameters["device"].default == "auto"
