"""Tiny audio language models of `transformers` with random weights, built offline with their own processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers: Any = pytest.importorskip("transformers", reason="needs the extra transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

CONTROLS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|AUDIO|> <|audio_bos|> <|audio_eos|> <|IMAGE|> <|VIDEO|> <|vision_bos|> "
    "<|vision_eos|> <sound> <|sound_bos|> <|sound_eos|> <|pad|> <|begin_of_audio|> <|end_of_audio|>"
).split()
_QWEN = "<|audio_bos|><|AUDIO|><|audio_eos|>"
PLACEHOLDERS = {
    "qwen2_audio": _QWEN,
    "qwen2_5_omni": _QWEN,
    "qwen3_omni_moe": _QWEN,
    "qwen3_asr": _QWEN,
    "audioflamingo3": "<sound>",
    "musicflamingo": "<sound>",
    "glmasr": "<|begin_of_audio|><|pad|><|end_of_audio|>",
}
ANSWERING = [name for name in PLACEHOLDERS if name != "qwen3_asr"]
_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}PLACE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% if loop.last and "
    "continue_final_message %}{% else %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    """One token for each byte, and the control tokens of all classes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    named = {f"{name}_token": f"<|{name.upper()}|>" for name in ("audio", "image", "video")}
    named |= {f"{name}_token": f"<|{name}|>" for name in ("audio_bos", "audio_eos", "vision_bos", "vision_eos")}
    found = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )
    found.add_tokens(CONTROLS, special_tokens=True)
    return found


def write_stock(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a model of a class with its processor, as its checkpoints are laid out."""
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(name) for name in CONTROLS}
    torch.manual_seed(seed)
    network = _network(kind, ids).eval()
    network.generation_config.eos_token_id = ids["<|im_end|>"]
    network.generation_config.pad_token_id = ids["<|endoftext|>"]
    network.save_pretrained(folder)
    template = _TURNS.replace("PLACE", PLACEHOLDERS[kind])
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    if "omni" in kind:
        extractor.save_pretrained(folder)
        words.chat_template = template
        words.save_pretrained(folder)
        _nest(folder, kind)
    else:
        _processor_class(kind)(extractor, words, chat_template=template).save_pretrained(folder)
    return folder


def _nest(folder: Path, kind: str) -> None:
    """Settings and names of tensors as in a whole Omni checkpoint, of which the thinker is a part."""
    from safetensors.torch import load_file, save_file

    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "thinker_config": inner}))
    tensors = load_file(folder / "model.safetensors")
    whole = {f"thinker.{name}": tensor for name, tensor in tensors.items()}
    save_file({**whole, "talker.some.weight": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})


def _processor_class(kind: str) -> Any:
    from auricle.listen.other_models.stock_classes import STOCK_CLASSES

    return getattr(transformers, STOCK_CLASSES[kind].processor)


def _network(kind: str, ids: dict[str, int]) -> Any:
    text: dict[str, Any] = {
        "vocab_size": 280,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 32_768,
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "bos_token_id": None,
        "initializer_range": 1.0,  # so that answers differ
    }
    qwen = {
        "num_mel_bins": 128,
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "initializer_range": 0.3,
    }
    plain = {
        "num_mel_bins": 128,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    if kind == "qwen2_audio":
        config = transformers.Qwen2AudioConfig(
            audio_config={**qwen, "model_type": "qwen2_audio_encoder"},
            text_config={**text, "model_type": "qwen2"},
            audio_token_index=ids["<|AUDIO|>"],
        )
        return transformers.Qwen2AudioForConditionalGeneration(config)
    if kind == "qwen3_asr":
        config = transformers.Qwen3ASRConfig(
            audio_config={**qwen, "output_dim": 32, "downsample_hidden_size": 16},
            text_config={**text, "model_type": "qwen3"},
            audio_token_id=ids["<|AUDIO|>"],
        )
        return transformers.Qwen3ASRForConditionalGeneration(config)
    if kind == "audioflamingo3":
        config = transformers.AudioFlamingo3Config(
            audio_config=plain, text_config={**text, "model_type": "qwen2"}, audio_token_id=ids["<sound>"]
        )
        return transformers.AudioFlamingo3ForConditionalGeneration(config)
    if kind == "musicflamingo":
        config = transformers.MusicFlamingoConfig(
            audio_config={**plain, "model_type": "audioflamingo3_encoder"},
            text_config={**text, "model_type": "qwen2"},
            audio_token_id=ids["<sound>"],
            audio_bos_token_id=ids["<|sound_bos|>"],
            audio_eos_token_id=ids["<|sound_eos|>"],
        )
        return transformers.MusicFlamingoForConditionalGeneration(config)
    if kind == "glmasr":
        config = transformers.GlmAsrConfig(
            audio_config={**plain, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
            text_config={**text, "model_type": "llama"},
            audio_token_id=ids["<|pad|>"],
        )
        return transformers.GlmAsrForConditionalGeneration(config)
    return _omni(kind, ids, text, qwen)


def _omni(kind: str, ids: dict[str, int], text: dict[str, Any], audio: dict[str, Any]) -> Any:
    is_second = kind == "qwen2_5_omni"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
    suffix = "index" if is_second else "id"
    shared = {f"{name}_token_{suffix}": ids[f"<|{name.upper()}|>"] for name in ("audio", "image", "video")}
    shared |= {
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
    }
    if is_second:
        config = transformers.Qwen2_5OmniThinkerConfig(
            audio_config={**audio, "output_dim": 32},
            vision_config=vision,
            text_config={**text, "rope_parameters": rope},
            **shared,
        )
        return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config)
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    config = transformers.Qwen3OmniMoeThinkerConfig(
        audio_config={**audio, "output_dim": 32, "downsample_hidden_size": 16},
        vision_config={**vision, "deepstack_visual_indexes": [0]},
        text_config={**text, **experts, "rope_parameters": {**rope, "mrope_interleaved": True}},
        **shared,
    )
    return transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config)
