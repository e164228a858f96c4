"""What is written in the official layouts reads back bit for bit, here and elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from auricle.errors import ConfigError, UnsafeWeights, WeightsError
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.weights import (
    Card,
    convert,
    load_dasheng,
    load_midashenglm,
    read_card,
    safe,
    save_dasheng,
    save_midashenglm,
)
from auricle.weights.cards import training_clips


def same(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def official(folder: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_file(folder / "model.safetensors").items() if ".front_end." not in k}


def test_encoder_round_trip(tmp_path: Path, tiny: Dasheng) -> None:
    save_dasheng(tmp_path / "a", tiny, card=Card(name="mine", limits=("recognises nothing",)))
    found = load_dasheng(tmp_path / "a")
    assert found.config == tiny.config and same(found, tiny)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    keys = set(load_file(tmp_path / "a" / "model.safetensors"))
    assert "encoder.init_bn.1.running_mean" in keys and all(key.startswith("encoder.") for key in keys)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["model_type"] == "dasheng" and config["encoder_kwargs"]["num_heads"] == 4
    assert read_card(tmp_path / "a").limits == ("recognises nothing",)


def test_every_setting_of_an_encoder_survives(tmp_path: Path) -> None:
    config = DashengConfig(
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=2.0,
        qkv_bias=False,
        init_values=0.25,
        target_length=80,
        outputdim=5,
        long_clips="v004",
        attend="whole",
    )
    model = Dasheng(config)
    found = load_dasheng(save_dasheng(tmp_path, model))
    assert found.config == config and same(found, model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(tmp_path: Path, tiny: Dasheng, dtype: str) -> None:
    save_dasheng(tmp_path, tiny, dtype=dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {str(v.dtype) for k, v in stored.items() if "init_bn" not in k} == {f"torch.{dtype}"}
    found = load_dasheng(tmp_path)
    assert torch.equal(found.init_bn.running_var, tiny.init_bn.running_var)
    assert torch.equal(found.norm.weight, tiny.norm.weight.to(getattr(torch, dtype)).float())
    with pytest.raises(ConfigError, match="dtype is 'int4'"):
        save_dasheng(tmp_path, tiny, dtype="int4")
    tiny.norm.weight.data.fill_(1e6)
    if dtype == "float16":
        with pytest.raises(ConfigError, match="65504"):
            save_dasheng(tmp_path, tiny, dtype=dtype)


def test_int8_files_are_half_as_large_and_load_as_float32(tmp_path: Path, tiny: Dasheng) -> None:
    save_dasheng(tmp_path / "int8", tiny, dtype="int8")
    save_dasheng(tmp_path / "half", tiny, dtype="float16")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("int8", "half")]
    assert sizes[0] < 0.8 * sizes[1]  # tiny's positions, which stay float16, weigh much
    assert json.loads((tmp_path / "int8" / "config.json").read_text())["torch_dtype"] == "float16"
    found = load_dasheng(tmp_path / "int8")
    clip = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = found.encode([clip])[0], tiny.encode([clip])[0]
    assert torch.nn.functional.cosine_similarity(one, other, dim=-1).mean() > 0.999
    assert all(value.dtype == torch.float32 for value in found.state_dict().values() if value.is_floating_point())


def test_language_model_round_trip_keeps_official_names(tmp_path: Path, lm_folder: Path) -> None:
    lm = load_midashenglm(lm_folder)
    generation = {"eos_token_id": [550, 548], "pad_token_id": 548, "do_sample": False}
    save_midashenglm(
        tmp_path / "b", lm.model, (lm_folder / "tokenizer.json").read_text(), "{{ messages }}", generation=generation
    )
    found = load_midashenglm(tmp_path / "b")
    assert same(found.model, lm.model)
    assert found.model.config == lm.model.config
    assert (found.eos_token_ids, found.pad_token_id, found.chat_template) == ((550, 548), 548, "{{ messages }}")
    ours, theirs = load_file(tmp_path / "b" / "model.safetensors"), official(lm_folder)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "b", lm_folder))
    assert ours["audio_encoder_config"] == theirs["audio_encoder_config"]
    differing = {k for k in theirs["text_config"] if ours["text_config"].get(k) != theirs["text_config"][k]}
    assert differing == {"sliding_window", "max_window_layers"}  # not used, so not kept
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (tmp_path / "b", lm_folder))
        assert {k: ours[k] for k in ours.keys() & theirs.keys()} == {k: theirs[k] for k in ours.keys() & theirs.keys()}


def test_written_tokenizer_opens_in_transformers(tmp_path: Path, lm_folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    convert(lm_folder, tmp_path / "b")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "b")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (550, 548)
    assert tokenizer.encode("<|AUDIO|>", add_special_tokens=False) == [551]


def test_tied_model_is_written_without_its_head(tmp_path: Path, lm_folder: Path) -> None:
    from dataclasses import replace

    from auricle.models.midashenglm import MiDashengLM

    config = load_midashenglm(lm_folder).model.config
    model = MiDashengLM(replace(config, text=replace(config.text, tie_word_embeddings=True)))
    generation = {"eos_token_id": 550, "pad_token_id": 548}
    save_midashenglm(tmp_path, model, (lm_folder / "tokenizer.json").read_text(), "", generation=generation)
    assert "decoder.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert same(load_midashenglm(tmp_path).model, model)


@pytest.mark.parametrize(
    ("generation", "message"),
    [({"pad_token_id": 548}, "eos_token_id None"), ({"eos_token_id": 5000, "pad_token_id": 548}, "eos_token_id 5000")],
)
def test_a_folder_that_could_not_be_read_is_not_written(
    tmp_path: Path, lm_folder: Path, generation: dict[str, int], message: str
) -> None:
    lm = load_midashenglm(lm_folder)
    with pytest.raises(ConfigError, match=message):
        save_midashenglm(tmp_path, lm.model, lm.tokenizer.to_str(), "", generation=generation)
    assert not list(tmp_path.iterdir())


def test_convert_an_encoder(tmp_path: Path, zenodo_file: Path) -> None:
    convert(zenodo_file, tmp_path / "a")
    assert same(load_dasheng(tmp_path / "a"), load_dasheng(zenodo_file))
    assert str(zenodo_file.parent) not in (tmp_path / "a" / "README.md").read_text()
    with pytest.raises(WeightsError, match="not an empty folder"):
        convert(zenodo_file, tmp_path / "a")
    with pytest.raises(ConfigError, match="language models only"):
        convert(zenodo_file, tmp_path / "b", adapter=tmp_path)


def test_convert_a_language_model(tmp_path: Path, lm_folder: Path, adapter_folder: Path) -> None:
    convert(lm_folder, tmp_path / "a", adapter=adapter_folder)
    found = load_midashenglm(tmp_path / "a")
    assert same(found.model, load_midashenglm(lm_folder, adapter=adapter_folder).model)
    generation = json.loads((tmp_path / "a" / "generation_config.json").read_text())
    assert generation["do_sample"] is False
    convert(lm_folder, tmp_path / "half", dtype="bfloat16")
    whole, half = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("a", "half"))
    assert half < 0.52 * whole


def test_encoder_cut_out_of_a_language_model_stays_itself(tmp_path: Path, lm_folder: Path) -> None:
    encoder = load_dasheng(lm_folder)
    found = load_dasheng(save_dasheng(tmp_path, encoder))
    assert found.config == encoder.config and found.config.attend == "whole" and same(found, encoder)


def test_overwriting_the_folder_a_model_was_loaded_from(tmp_path: Path, lm_folder: Path) -> None:
    shutil.copytree(lm_folder, tmp_path / "a")
    lm = load_midashenglm(tmp_path / "a")
    kept = lm.model.decoder.lm_head.weight.detach().clone()
    save_midashenglm(
        tmp_path / "a",
        lm.model,
        lm.tokenizer.to_str(),
        lm.chat_template,
        generation={"eos_token_id": 550, "pad_token_id": 548},
    )
    assert torch.equal(lm.model.decoder.lm_head.weight, kept)
    assert same(load_midashenglm(tmp_path / "a").model, lm.model)


def test_large_models_are_sharded(tmp_path: Path, tiny: Dasheng, monkeypatch: pytest.MonkeyPatch) -> None:
    write = safe.write_folder
    monkeypatch.setattr(safe, "write_folder", lambda folder, tensors: write(folder, tensors, max_shard_bytes=10**6))
    save_dasheng(tmp_path, tiny)
    assert (tmp_path / safe.INDEX).is_file()
    assert same(load_dasheng(tmp_path), tiny)


def test_an_embedded_encoder_is_converted_without_its_language_model(tmp_path: Path) -> None:
    written = convert("auricle-tiny-encoder", tmp_path / "encoder")
    assert json.loads((written / "config.json").read_text())["model_type"] == "dasheng"
    assert same(load_dasheng(written), load_dasheng("auricle-tiny-encoder"))
    assert read_card(written).license == "apache-2.0"
    assert training_clips([str(written)]) is not None


def test_the_name_of_an_encoder_is_no_language_model() -> None:
    with pytest.raises(WeightsError, match=r"auricle-tiny-encoder is an encoder, .* name auricle-tiny,"):
        load_midashenglm("auricle-tiny-encoder")


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"])
def test_nothing_is_copied_from_behind_a_link(lm_folder: Path, tmp_path: Path, name: str) -> None:
    folder, private = tmp_path / "model", tmp_path / "private"
    shutil.copytree(lm_folder, folder)
    private.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(private)
    with pytest.raises(UnsafeWeights, match=r"is a link to .*private, outside the folder"):
        convert(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (folder / name).unlink()
    (folder / "README.md").symlink_to("config.json")  # inside
    convert(folder, tmp_path / "new")
