"""No configuration chooses code: not attention kernels, expert implementations, remote classes or quantisers."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BertConfig,
    BertModel,
    JambaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Wav2Vec2Config,
    Wav2Vec2Model,
)
from transformers.integrations import hub_kernels

from auricle.errors import LayoutMismatch, WeightsError
from auricle.models.stock_decoder import StockDecoder
from auricle.weights.causal_lm import load_causal_lm, load_text_tokenizer
from auricle.weights.encoder_layouts import load_encoder_model
from auricle.weights.sentence_encoders import load_sentence_encoder

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
REMOTE = "stranger/kernel"
CHOICES: dict[str, dict[str, Any]] = {
    "attention": {"_attn_implementation": REMOTE, "attn_implementation": REMOTE},
    "internal attention": {"_attn_implementation_internal": REMOTE, "_attn_implementation_autoset": False},
    "paged attention": {"attn_implementation": f"paged|{REMOTE}"},
    "experts": {"experts_implementation": REMOTE, "_experts_implementation": REMOTE},
    "renamed attention": {"attribute_map": {"mine": "_attn_implementation"}, "mine": REMOTE},
    "nested": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "_attn_implementation": REMOTE},
        "sub_configs": {"text_config": "stranger"},
    },
    "remote class": {
        "auto_map": {
            name: "code.Remote" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
        }
    },
    "pipeline": {"custom_pipelines": {"text-generation": {"impl": "code.Remote", "pt": ["AutoModelForCausalLM"]}}},
    "kernels": {"use_kernels": True, "kernel_config": {"RMSNorm": f"{REMOTE}:RMSNorm"}},
}


def plant(folder: Path, choice: dict[str, Any]) -> Path:
    """A configuration with a choice, and code beside it that leaves a mark if it runs."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **choice}))
    mark = folder / "mark"
    for name in ("code", "modeling", "configuration", "kernel", "__init__"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Remote: ...\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(choice))
    return mark


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What transformers would fetch from the hub and run."""
    found: list[Any] = []
    for name in ("get_kernel", "load_and_register_attn_kernel", "lazy_load_kernel"):
        monkeypatch.setattr(hub_kernels, name, lambda *given, **_: found.append(given))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LlamaForCausalLM(LlamaConfig(**TINY, vocab_size=1024, num_key_value_heads=1)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(load_text_tokenizer().to_str())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    return tmp_path


@pytest.mark.parametrize("choice", CHOICES)
def test_of_a_language_model(folder: Path, choice: str, asked: list[Any]) -> None:
    mark = plant(folder, CHOICES[choice])
    model = load_causal_lm(folder).model
    assert isinstance(model, StockDecoder)
    assert model.config._attn_implementation == "sdpa"
    assert not mark.exists() and asked == []


@pytest.mark.parametrize("choice", CHOICES)
def test_of_an_encoder(tmp_path: Path, choice: str, asked: list[Any]) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**TINY, conv_dim=[8], conv_stride=[5], conv_kernel=[10])).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, **CHOICES[choice]}))
    mark = plant(tmp_path, CHOICES[choice])
    load_encoder_model(tmp_path)
    assert not mark.exists() and asked == []


@pytest.mark.parametrize("choice", CHOICES)
def test_of_a_text_encoder(tmp_path: Path, choice: str, asked: list[Any]) -> None:
    BertModel(BertConfig(**TINY, vocab_size=1024)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(load_text_tokenizer().to_str())
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "code.Remote", "path": ""}]))
    mark = plant(tmp_path, CHOICES[choice])
    load_sentence_encoder(str(tmp_path))
    assert not mark.exists() and asked == []


def test_an_adapter_in_the_folder_leads_nowhere_else(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": REMOTE, "peft_type": "LORA"}))
    assert isinstance(load_causal_lm(folder).model, StockDecoder)


@pytest.mark.parametrize("method", ["bitsandbytes", "quanto", "awq", "hqq", "unknown"])
def test_a_quantiser_is_not_imported(folder: Path, method: str) -> None:
    plant(folder, {"quantization_config": {"quant_method": method}})
    with pytest.raises(LayoutMismatch, match=f"quantised by '{method}'"):
        load_causal_lm(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**JambaConfig(**TINY, vocab_size=64, num_key_value_heads=1).to_dict()}, "no plain decoder"),
        ({"model_type": "stranger"}, "model_type is 'stranger'"),
        ({"model_type": ["llama"]}, "model_type is"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
        ({"hidden_size": 10**9}, "a network of|describes no"),
        ({"num_attention_heads": 0}, "describes no|do not fit"),
        ({"vocab_size": 2**40}, "a network of"),
    ],
)
def test_another_network_is_refused_before_it_is_built(folder: Path, changes: dict[str, Any], message: str) -> None:
    plant(folder, changes)
    with pytest.raises(WeightsError, match=message):
        load_causal_lm(folder)
