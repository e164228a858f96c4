import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.models.qwen import QwenForCausalLM
from auricle.models.stock_decoder import StockDecoder
from auricle.weights import safe
from auricle.weights.causal_lm import load_causal_lm, load_text_tokenizer

TINY = {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Qwen2ForCausalLM(Qwen2Config(**TINY, **HEADS)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(load_text_tokenizer().to_str())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    return tmp_path


def test_the_embedded_decoder_is_there_offline() -> None:
    lm = load_causal_lm()
    assert not lm.model.training and lm.end == "<|im_end|>" and lm.name == "auricle-tiny"
    assert isinstance(lm.model, QwenForCausalLM)
    assert lm.model.lm_head.out_features == lm.tokenizer.get_vocab_size() and lm.sha256 is not None


def test_a_folder_of_another_family_is_read(folder: Path) -> None:
    lm = load_causal_lm(folder)
    assert lm.end == "<|endoftext|>" and lm.model.config.hidden_size == 32
    assert isinstance(lm.model, QwenForCausalLM)
    assert load_causal_lm(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ConfigError):
        load_causal_lm(folder, dtype="int3")


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (lambda: Qwen2ForCausalLM(Qwen2Config(**TINY, **HEADS)), QwenForCausalLM),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**TINY, **HEADS, tie_word_embeddings=True)), QwenForCausalLM),
        (lambda: Qwen3ForCausalLM(Qwen3Config(**TINY, **HEADS, head_dim=32)), QwenForCausalLM),
        (lambda: LlamaForCausalLM(LlamaConfig(**TINY, **HEADS)), StockDecoder),
    ],
)
@torch.inference_mode()
def test_every_family_says_what_transformers_says(folder: Path, network: Any, kind: type) -> None:
    stock = network().eval()
    stock.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    model = load_causal_lm(folder).model
    assert type(model) is kind and not model.training
    ids = torch.randint(1024, (2, 12), generator=torch.Generator().manual_seed(0))
    found = model.lm_head(model.decode(model.get_input_embeddings()(ids)))
    wanted = stock(ids).logits
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@torch.inference_mode()
def test_stored_frequencies_are_no_weights(folder: Path) -> None:
    """Old versions of transformers stored them with every layer."""
    wanted = load_causal_lm(folder).model.state_dict()
    stored = {name: tensor.clone() for name, tensor in safe.read_tensors(folder).items()}
    stored |= {
        name: torch.zeros(8) for name in ("model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq")
    }
    safe.write_tensors(folder / "model.safetensors", stored)
    found = load_causal_lm(folder).model.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"hidden_size": "32"}, "hidden_size is '32', expected a whole number"),
        ({"num_key_value_heads": 3}, "is impossible .*not a multiple"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is on"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'; only unscaled"),
        ({"intermediate_size": 64}, r"gate_proj.weight is \(48, 32\), expected \(64, 32\)"),
        ({"num_hidden_layers": 2}, "missing"),
    ],
)
def test_configurations_that_do_not_fit(folder: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(LayoutMismatch, match=message):
        load_causal_lm(folder)


def test_what_is_no_language_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_causal_lm(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no causal language model"):
        load_causal_lm(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, **HEADS))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        load_causal_lm(folder)


def test_an_encoder_is_no_language_model(folder: Path) -> None:
    config = BertConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(folder)
    with pytest.raises(WeightsError):
        load_causal_lm(folder)
