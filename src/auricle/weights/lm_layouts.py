"""MiDashengLM: the official checkpoint layout ⇄ our state dict and geometry.

``audio_encoder.*`` · ``audio_projector.net.{0,2}.*`` · ``decoder.{model.*,lm_head.weight}``, with or without the front
end's buffers, batch counter and (where the embeddings are tied) output head. Source: ``config.json`` and weights of
mispeech/midashenglm-7b as read by vLLM's ``midashenglm.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.models.qwen import QwenConfig
from auricle.weights import safe
from auricle.weights.compressed import decompress
from auricle.weights.construct import StoredTensor, made, on_meta
from auricle.weights.layouts import check_keys, check_sizes, dasheng_from, dasheng_settings, dasheng_to_midashenglm
from auricle.weights.quantize import check_unrounded

# Qwen3, and decoders whose 1-D positions make them an ordinary Qwen2; a text_config without model_type is one of these.
TEXT_MODELS = ("qwen2_5_omni_text", "qwen2", "qwen3")
_OLD_TYPE = "miaudiollm"  # of the first revisions on the hub
# Fields of a configuration of Qwen2 or Qwen3 that shape the network, by the names of `QwenConfig` (but hidden_act).
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_dropout",
    "initializer_range",
)
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
_WINDOW = {"sliding_window": 4096, "max_window_layers": 28}  # and their defaults; nothing without use_sliding_window
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
# Rotary frequencies, which older versions of transformers stored: they are computed from rope_theta.
_COMPUTED = re.compile(r"(decoder\.)?model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


class LMParts(NamedTuple):
    """A language model read from a folder."""

    config: MiDashengLMConfig
    state: dict[str, StoredTensor]  # names of `MiDashengLM`; with tied embeddings the head is the same tensor
    empty: MiDashengLM  # without weights, on the meta device


def read_midashenglm(folder: str | Path) -> LMParts:
    """The language model in an official folder; quantised weights are restored, see `auricle.weights.compressed`.

    Raises:
        LayoutMismatch: another kind of model, keys that do not fit it, or an unknown way to quantise.
        UnsafeWeights: a file holds code or is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LayoutMismatch(
            f"{folder}: a MiDashengLM is a folder with config.json, weights and tokenizer; name the folder"
        )
    config = safe.read_json(folder / "config.json")
    _check_kind(config, str(folder))
    text = qwen_config(text_settings(config.get("text_config"), str(folder)), str(folder))
    tensors = decompress(safe.read_stored(folder), config, str(folder))
    check_sizes({name: getattr(text, name) for name in _SIZES}, tensors, str(folder))
    return _midashenglm_from(tensors, config, text, str(folder))


def with_state(parts: LMParts, state: dict[str, StoredTensor]) -> LMParts:
    """The same model with other tensors; where the head is no longer that of the embeddings, they are tied no more."""
    text = parts.config.text
    if not text.tie_word_embeddings or state[f"decoder.{_HEAD}"] is state[f"decoder.{_EMBEDDING}"]:
        return parts._replace(state=state)
    config = replace(parts.config, text=replace(text, tie_word_embeddings=False))
    with on_meta():
        return LMParts(config, state, MiDashengLM(config))


def text_settings(config: object, source: str) -> dict[str, Any]:
    """``text_config`` of a checkpoint → keyword arguments of `QwenConfig`; M-RoPE becomes ordinary RoPE.

    Raises:
        LayoutMismatch: a decoder other than Qwen2's and Qwen3's, a Qwen3 without ``head_dim``, or stretched positions.
    """
    kind = config.get("model_type", TEXT_MODELS[0]) if isinstance(config, Mapping) and config else None
    if not isinstance(config, Mapping) or kind not in TEXT_MODELS:
        raise LayoutMismatch(
            f"{source}: the decoder is {kind!r}, expected {' or '.join(TEXT_MODELS)}; take a release with one of these"
        )
    if kind == "qwen3" and config.get("head_dim") is None:
        raise LayoutMismatch(f"{source}: text_config of a Qwen3 has no head_dim; restore config.json")
    return qwen_settings(config, source)


def _check_kind(config: Mapping[str, Any], source: str) -> None:
    kind, names = str(config.get("model_type")), str(config.get("architectures"))
    if kind == _OLD_TYPE or "DashengQwen25Omni" in names:
        raise LayoutMismatch(
            f"{source}: model_type is {kind!r}: a first revision of the release, whose files are named otherwise; "
            "take the newest one"
        )
    if "spatial" in (kind + names).lower():
        raise LayoutMismatch(
            f"{source}: a spatial model ({kind}), which hears two channels; its network was not published. Take a "
            "MiDashengLM of one channel"
        )
    if kind != "midashenglm":
        raise LayoutMismatch(f"{source}: model_type is {config.get('model_type')!r}, expected 'midashenglm'")


def qwen_settings(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``config.json`` of a Qwen2 or Qwen3 → keyword arguments of `QwenConfig`.

    Raises:
        LayoutMismatch: positions that are stretched, or parts that `auricle.models.qwen` does not have.
    """
    settings = {key: config[key] for key in _TEXT_FIELDS if config.get(key) is not None}
    if settings.pop("hidden_act", "silu") != "silu":
        raise LayoutMismatch(f"{source}: hidden_act is {config['hidden_act']!r}, expected 'silu' as every Qwen's")
    if config.get("use_sliding_window"):
        settings |= {key: config.get(key, default) for key, default in _WINDOW.items()}
    if config.get("model_type") == "qwen3":
        if config.get("attention_bias"):
            raise LayoutMismatch(f"{source}: attention_bias is on, which no Qwen3 has")
        settings |= {"qkv_bias": False, "qk_norm": True}
        settings.setdefault("head_dim", 128)  # the class's default
    theta = config.get("rope_theta")
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if isinstance(rope, Mapping):
            kind = rope.get("rope_type", rope.get("type", "default"))
            if kind not in ("default", "mrope"):
                raise LayoutMismatch(f"{source}: {key} of type {kind!r}; only unscaled positions are supported")
            theta = rope.get("rope_theta", theta)
    settings["rope_theta"] = float(theta if theta is not None else 1e6)
    return settings


def qwen_config(settings: Mapping[str, Any], source: str) -> QwenConfig:
    """The geometry of `qwen_settings`.

    Raises:
        LayoutMismatch: a size is missing, or impossible.
    """
    settings = {"num_key_value_heads": settings.get("num_attention_heads"), **settings}
    required = [field.name for field in fields(QwenConfig) if field.default is MISSING]
    if missing := [name for name in required if settings.get(name) is None]:
        raise LayoutMismatch(f"{source}: the decoder's configuration has no {', '.join(missing)}; restore config.json")
    if wrong := [name for name in required if type(settings[name]) is not int]:
        raise LayoutMismatch(f"{source}: the decoder's {wrong[0]} is {settings[wrong[0]]!r}, expected a whole number")
    try:
        return QwenConfig(**settings)
    except (ConfigError, TypeError, ValueError) as error:
        raise LayoutMismatch(f"{source}: the decoder's configuration is impossible ({error})") from error


def without_computed(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors of a decoder but for its rotary frequencies."""
    return {key: tensor for key, tensor in tensors.items() if not _COMPUTED.fullmatch(key)}


def tie_head(state: dict[str, StoredTensor], source: str, prefix: str = "") -> None:
    """Let the output head of a decoder with tied embeddings be their tensor, in place.

    Raises:
        LayoutMismatch: a head is stored that differs.
    """
    embedding = state.get(prefix + _EMBEDDING)
    if embedding is None:
        return
    head = state.get(prefix + _HEAD, embedding)
    if head is not embedding and not torch.equal(made(head), made(embedding)):
        raise LayoutMismatch(
            f"{source}: config.json ties the output head to the embeddings, but {prefix}{_HEAD} differs from them"
        )
    state[prefix + _HEAD] = embedding


def midashenglm_to_hub(model: MiDashengLM) -> dict[str, Tensor]:
    """Our state dict → official keys; a tied output head is left out, as transformers does.

    Raises:
        ConfigError: the model was loaded with ``quantize``.
    """
    check_unrounded(model)
    state = model.state_dict()
    encoder = {k.removeprefix("audio_encoder."): v for k, v in state.items() if k.startswith("audio_encoder.")}
    rest = {k: v for k, v in state.items() if not k.startswith("audio_encoder.")}
    if model.decoder.config.tie_word_embeddings:
        rest.pop(f"decoder.{_HEAD}", None)
    return {**dasheng_to_midashenglm(encoder), **rest}


def midashenglm_settings(model: MiDashengLM) -> dict[str, Any]:
    """Geometry of a model → an official ``config.json``."""
    encoder = dasheng_settings(model.config.encoder)
    return {
        "architectures": ["MiDashengLMModel"],
        "model_type": "midashenglm",
        "audio_token_id": model.config.audio_token_id,
        "subsample_factor": model.config.subsample_factor,
        "auricle": {"whole_tokens": model.config.whole_tokens},
        "audio_encoder_config": {
            "model_type": "midashenglm_dasheng_encoder",
            **encoder,
            "input_channels": 1,
            "drop_rate": 0.0,
            "attn_drop_rate": 0.0,
            "f_min": 0.0,
            "f_max": 8000.0,
            "center": True,
            "win_length": 512,
            "hop_length": 160,
            "sample_rate": 16000,
            "n_fft": 512,
            "n_mels": 64,
        },
        "text_config": _text_to_hub(model.decoder.config),
    }


def _text_to_hub(config: QwenConfig) -> dict[str, Any]:
    stated = {**asdict(config), "hidden_act": "silu"}
    settings = {key: stated[key] for key in _TEXT_FIELDS}
    if config.sliding_window is not None:
        settings |= {key: stated[key] for key in _WINDOW}
    settings |= {"use_sliding_window": config.sliding_window is not None, "rope_theta": config.rope_theta}
    if config.qk_norm:
        return {"model_type": "qwen3", **settings, "attention_bias": False, "rope_scaling": None, "use_cache": True}
    if config.head_dim == config.hidden_size // config.num_attention_heads:
        del settings["head_dim"]  # as the official files, which leave it unsaid
    # Readers of the official files expect the sections of a 3-D position; with 1-D positions they change nothing.
    half = config.head_dim // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    return {
        "model_type": "qwen2_5_omni_text",
        **settings,
        "rope_scaling": {"mrope_section": sections, "rope_type": "default", "type": "default"},
        "use_cache": True,
    }


def _midashenglm_from(
    tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], text: QwenConfig, source: str
) -> LMParts:
    encoder = dasheng_from(tensors, config, source)
    state = without_computed({key: value for key, value in tensors.items() if not key.startswith("audio_encoder.")})
    state |= {"audio_encoder." + key: value for key, value in encoder.state.items()}
    if text.tie_word_embeddings:
        tie_head(state, source, "decoder.")
    geometry = MiDashengLMConfig(
        encoder=encoder.config,
        text=text,
        subsample_factor=int(config.get("subsample_factor", 5)),
        audio_token_id=int(config.get("audio_token_id", 151_646)),
        whole_tokens=bool((config.get("auricle") or {}).get("whole_tokens", False)),
    )
    with on_meta():
        empty = MiDashengLM(geometry)
    check_keys(state, empty.state_dict(), source)
    return LMParts(geometry, state, empty)
