"""MiDashengLM: the official checkpoint layout ⇄ our state dict and geometry.

``audio_encoder.*`` · ``audio_projector.net.{0,2}.*`` · ``decoder.{model.*,lm_head.weight}``, with or without the front
end's buffers, batch counter and (where the embeddings are tied) output head. Source: ``config.json`` and weights of
mispeech/midashenglm-7b as read by vLLM's ``midashenglm.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from auricle.errors import LayoutMismatch
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.weights import safe
from auricle.weights.compressed import decompress
from auricle.weights.layouts import check_keys, dasheng_from, dasheng_settings, dasheng_to_midashenglm, unset
from auricle.weights.quantize import check_unrounded

if TYPE_CHECKING:
    from transformers import Qwen2Config

# Decoders whose 1-D positions make them an ordinary Qwen2.
TEXT_MODELS = ("qwen2_5_omni_text", "qwen2")
# What of a text configuration shapes the network; all else is bookkeeping.
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
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "attention_dropout",
    "initializer_range",
)
_WINDOW = ("use_sliding_window", "sliding_window", "max_window_layers")  # nothing without the first
_EMBEDDING = "decoder.model.embed_tokens.weight"
_HEAD = "decoder.lm_head.weight"


class LMParts(NamedTuple):
    """A language model read from a folder."""

    config: MiDashengLMConfig
    state: dict[str, Tensor]  # names of `MiDashengLM`; with tied embeddings the head is the same tensor


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
    if config.get("model_type") != "midashenglm":
        raise LayoutMismatch(f"{folder}: model_type is {config.get('model_type')!r}, expected 'midashenglm'")
    text = text_settings(config.get("text_config"), str(folder))
    tensors = decompress(safe.read_tensors(folder), config, str(folder))
    return _midashenglm_from(tensors, config, text, str(folder))


def text_settings(config: object, source: str) -> dict[str, Any]:
    """``text_config`` of a checkpoint → keyword arguments of `transformers.Qwen2Config`; M-RoPE becomes ordinary RoPE.

    Raises:
        LayoutMismatch: a decoder other than Qwen2's, or positions that are stretched.
    """
    if not isinstance(config, Mapping) or config.get("model_type") not in TEXT_MODELS:
        kind = config.get("model_type") if isinstance(config, Mapping) else None
        raise LayoutMismatch(
            f"{source}: the decoder is {kind!r}, expected {' or '.join(TEXT_MODELS)}; "
            "the 0.6B releases (Qwen3) are not supported"
        )
    settings = {key: config[key] for key in _fields_of(config) if config.get(key) is not None}
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
        rest.pop(_HEAD, None)
    return {**dasheng_to_midashenglm(encoder), **rest}


def midashenglm_settings(model: MiDashengLM) -> dict[str, Any]:
    """Geometry of a model → an official ``config.json``."""
    encoder = dasheng_settings(model.config.encoder)
    text = model.decoder.config
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
        "text_config": _text_to_hub(text),
    }


def _fields_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    return _TEXT_FIELDS if config.get("use_sliding_window") else tuple(f for f in _TEXT_FIELDS if f not in _WINDOW)


def _text_to_hub(text: "Qwen2Config") -> dict[str, Any]:
    stated = text.to_dict()
    fields = {key: stated[key] for key in _fields_of(stated) if stated.get(key) is not None}
    rope = text.rope_parameters
    theta = rope["rope_theta"] if isinstance(rope, Mapping) else text.rope_theta
    # Readers of the official files expect the sections of a 3-D position; with 1-D positions they change nothing.
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    scaling = {"mrope_section": sections, "rope_type": "default", "type": "default"}
    return {
        "model_type": "qwen2_5_omni_text",
        "use_sliding_window": False,
        **fields,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "use_cache": True,
    }


def _midashenglm_from(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], text: dict[str, Any], source: str
) -> LMParts:
    encoder = dasheng_from(tensors, config, source)
    state = {key: value for key, value in tensors.items() if not key.startswith("audio_encoder.")}
    state |= {"audio_encoder." + key: value for key, value in encoder.state.items()}
    if text.get("tie_word_embeddings"):
        embedding = state.get(_EMBEDDING)
        head = state.get(_HEAD, embedding)
        if embedding is not None and head is not None and head is not embedding and not torch.equal(head, embedding):
            raise LayoutMismatch(
                f"{source}: config.json ties the output head to the embeddings, but {_HEAD} differs from them"
            )
        if embedding is not None:
            state[_HEAD] = embedding
    geometry = MiDashengLMConfig(
        encoder=encoder.config,
        text=text,
        subsample_factor=int(config.get("subsample_factor", 5)),
        audio_token_id=int(config.get("audio_token_id", 151_646)),
        whole_tokens=bool((config.get("auricle") or {}).get("whole_tokens", False)),
    )
    with unset():
        expected = MiDashengLM(geometry).state_dict()
    check_keys(state, expected, source)
    return LMParts(geometry, state)
