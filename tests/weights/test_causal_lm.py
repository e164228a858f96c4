import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, Qwen2Config, Qwen2ForCausalLM

from auricle.errors import ConfigError, WeightsError
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
    assert lm.model.lm_head.out_features == lm.tokenizer.get_vocab_size() and lm.sha256 is not None


def test_a_folder_of_another_family_is_read(folder: Path) -> None:
    lm = load_causal_lm(folder)
    assert lm.end == "<|endoftext|>" and lm.model.config.hidden_size == 32
    assert load_causal_lm(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ConfigError):
        load_causal_lm(folder, dtype="int3")


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
