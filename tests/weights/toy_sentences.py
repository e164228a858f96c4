"""A sentence encoder and an error detector with random weights, in folders of the official layouts."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from auricle.files import write_json
from auricle.weights.safe import write_tensors

WORDS = "a an the dog cat rain music barks plays falls loud none no musical elements speech man woman says".split()
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "vocab_size": len(WORDS) + 4,
}


def write_tokenizer(folder: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))


def bert(seed: int) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(BertConfig(**SHAPE)).eval()


def write_encoder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", bert(0).state_dict())
    write_json(folder / "config.json", {"model_type": "bert", **SHAPE})
    write_tokenizer(folder)
    return folder


def write_detector(folder: Path) -> tuple[Path, BertModel, torch.nn.Linear]:
    """As the release stores it, a pickle of a dict with the state dict."""
    folder.mkdir(parents=True)
    network, head = bert(1), torch.nn.Linear(16, 5)
    torch.nn.init.normal_(head.weight, std=2.0)
    state = {f"encoder.{name}": value for name, value in network.state_dict().items()}
    state |= {f"clf.{name}": value for name, value in head.state_dict().items()}
    content = {"model_type": "bert-base-uncased", "num_classes": 5, "state_dict": state}
    torch.save(content, folder / "echecker_clotho_audiocaps_base.ckpt")
    write_json(folder / "config.json", {"model_type": "bert", **SHAPE})
    write_tokenizer(folder)
    return folder, network, head
