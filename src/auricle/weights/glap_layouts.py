"""GLAP: each checkpoint layout ⇄ our geometry and state dict.

==================  ==========================================================================================
zenodo ``.pt``      ``{"model": …, "config": …}``; ``audio_encoder.model.*`` with the front end, as in Dasheng's file,
                    ``text_encoder.model.*``, ``audio_proj.{0,2}.*``, ``text_proj.{0,2}.*``
Hugging Face        the same keys in ``model.safetensors``; flat ``config.json`` (``audio_embed_dim``, …)
ours                either tower may be named in ``config.json`` instead of stored, and the text tower may be a stock
                    one (``text_encoder.network.*``); ``logit_scale``, ``logit_bias`` where scores are calibrated
==================  ==========================================================================================

Towers are found by a tensor that only they have, so that a prefix around the whole model, or none, is no matter.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from auricle.audio.logmel import DASHENG_MEL
from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.models.dasheng import PATCH_FRAMES, DashengConfig
from auricle.models.encoders.pieces import strip
from auricle.models.glap import Glap, GlapConfig
from auricle.models.sonar import SonarConfig
from auricle.models.text import StockTextConfig, TextConfig
from auricle.weights.construct import made, skip_init
from auricle.weights.layouts import (
    FRONT_END,
    check_keys,
    dasheng_from,
    dasheng_settings,
    dasheng_to_zenodo,
    stored_front_end,
)

# A tensor that shows the prefix of a part.
_AUDIO, _SONAR, _STOCK = "patch_embed.proj.weight", "encoder_frontend.embed.weight", "text_encoder.network."
_HEAD = "audio_proj.0.weight"
_HEADS = {1024: 16}  # of SONAR: width -> heads, which do not show in any tensor's shape
# Loss parameters and fixed positions that a training state or another release may hold.
_SPARE = re.compile(r"(.*\.)?(criterion|loss|loss_fn|pos_encoder)\..*|temperature|bias")


class Shared(NamedTuple):
    """A tower that is stored elsewhere."""

    config: Any  # DashengConfig or TextConfig
    state: Mapping[str, Tensor]  # names of `Dasheng` or of the text tower


class GlapParts(NamedTuple):
    """A model read from any layout."""

    config: GlapConfig
    state: dict[str, Tensor]  # names of `Glap`


def glap_from(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    source: str,
    *,
    audio: Shared | None = None,
    text: Shared | None = None,
) -> GlapParts:
    """Tensors of any layout and their configuration → geometry and state dict of `Glap`.

    Args:
        tensors: as stored.
        config: content of config.json, or of the checkpoint's ``config``; {}: none.
        source: for messages.
        audio: the audio tower, where ``tensors`` hold none.
        text: the text tower, where ``tensors`` hold none.

    Raises:
        LayoutMismatch: a part is missing, doubled or unknown, or a shape does not fit.
        ConfigError: the number of heads cannot be known.
    """
    root = _prefix(tensors, _HEAD, source)
    if root is None:
        raise LayoutMismatch(
            f"{source}: no GLAP: expected *{_HEAD} among the tensors; found {', '.join(sorted(tensors)[:4]) or 'none'}"
        )
    rest = dict(tensors)
    state = {
        key.removeprefix(root): rest.pop(key)
        for key in list(rest)
        if key.startswith((f"{root}audio_proj.", f"{root}text_proj.", f"{root}logit_"))
    }
    ours = config.get("auricle") if isinstance(config.get("auricle"), Mapping) else {}
    assert isinstance(ours, Mapping)
    audio_config, audio_state = audio or _audio_tower(rest, config, ours, source)
    text_config, text_state = text or _text_tower(rest, config, source)
    if unknown := [key for key in rest if not _SPARE.fullmatch(key)]:
        raise LayoutMismatch(
            f"{source}: {len(unknown)} tensors belong to no part of a GLAP ({', '.join(sorted(unknown)[:3])}); "
            "where config.json names a shared tower, its tensors must not be stored too"
        )
    state |= {f"audio_encoder.{key}": value for key, value in audio_state.items()}
    state |= {f"text_encoder.{key}": value for key, value in text_state.items()}
    built = GlapConfig(
        audio=audio_config,
        text=text_config,
        pooling=ours.get("pooling", "framemean"),
        project_text=bool(ours.get("project_text", True)),
        stored_front_end="audio_encoder.front_end.window" in state,
        **_projection_dims(state, source),
    )
    with skip_init():
        expected = Glap(built).state_dict()
    check_keys(state.keys() - {"logit_scale", "logit_bias"}, expected, source)
    if ("logit_scale" in state) != ("logit_bias" in state):
        raise LayoutMismatch(f"{source}: holds one of logit_scale and logit_bias; probabilities need both")
    return GlapParts(built, state)


def glap_to_hub(model: Glap, *, audio: bool = True, text: bool = True) -> dict[str, Tensor]:
    """State dict of the chosen towers → official keys (those of ours where there are none)."""
    state = model.state_dict()
    parts = {name: strip(state, f"{name}.") for name in ("audio_encoder", "text_encoder")}
    stored = {k: v for k, v in state.items() if not k.startswith(tuple(f"{name}." for name in parts))}
    if audio:
        names = {ours: official for official, ours in FRONT_END.items()}
        own = {names.get(key, key): value for key, value in dasheng_to_zenodo(parts["audio_encoder"]).items()}
        stored |= {f"audio_encoder.model.{key}": value for key, value in own.items()}
    if text:
        prefix = "text_encoder." if isinstance(model.config.text, StockTextConfig) else "text_encoder.model."
        stored |= {f"{prefix}{key}": value for key, value in parts["text_encoder"].items()}
    return stored


def glap_settings(config: GlapConfig) -> dict[str, Any]:
    """Our geometry → ``config.json``: official keys, and what they cannot express under ``auricle``."""
    audio = config.audio
    settings: dict[str, Any] = {
        "model_type": "glap",
        "audio_embed_dim": audio.embed_dim,
        "audio_depth": audio.depth,
        "audio_num_heads": audio.num_heads,
        "patch_size": [DASHENG_MEL.num_mels, PATCH_FRAMES],
        "patch_stride": [DASHENG_MEL.num_mels, PATCH_FRAMES],
        "target_length": audio.target_length,
        "sample_rate": DASHENG_MEL.sample_rate,
        "embed_size": config.embed_dim,
    }
    ours: dict[str, Any] = {
        "pooling": config.pooling,
        "project_text": config.project_text,
        "attend": audio.attend,
        "audio": dasheng_settings(audio),
    }
    text = config.text
    if isinstance(text, SonarConfig):
        settings |= {
            "text_vocab_size": text.vocab_size,
            "text_model_dim": text.width,
            "text_num_layers": text.depth,
            "text_num_heads": text.num_heads,
            "text_ffn_inner_dim": text.hidden,
            "text_max_seq_len": text.max_tokens,
            "text_pad_idx": 0,
            "text_dropout_p": 0.1,
        }
    else:
        settings["text_encoder"] = {
            **text.settings,
            "auricle": {"max_tokens": text.max_tokens, "normalise": text.normalise},
        }
    return {**settings, "auricle": ours}


def text_config_from(settings: Mapping[str, Any]) -> StockTextConfig:
    """``text_encoder`` of a config.json of ours → the geometry of a stock text tower."""
    own = settings.get("auricle") or {}
    plain = {key: value for key, value in settings.items() if key != "auricle"}
    return StockTextConfig(
        settings=plain, max_tokens=int(own.get("max_tokens", 0)), normalise=bool(own.get("normalise", False))
    )


def stock_text_state(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of a `transformers` folder → names of `StockText`; ``prefix`` is that of a whole model around it."""
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)} or tensors
    # Positions are counted, and the pooler reads the first token alone: neither is part of a mean over tokens.
    return {
        f"network.{key}": value
        for key, value in own.items()
        if not key.startswith("pooler.") and not key.endswith("position_ids")
    }


def _audio_tower(
    rest: dict[str, Tensor], config: Mapping[str, Any], ours: Mapping[str, Any], source: str
) -> tuple[DashengConfig, dict[str, Tensor]]:
    prefix = _prefix(rest, _AUDIO, source)
    if prefix is None:
        raise LayoutMismatch(
            f"{source}: holds no audio tower (*{_AUDIO}), and config.json names none; download it again"
        )
    own = {key.removeprefix(prefix): rest.pop(key) for key in list(rest) if key.startswith(prefix)}
    found, state = dasheng_from(own, {"encoder": _audio_settings(config, ours), "auricle": ours}, source)
    state |= stored_front_end(own)
    return found, {name: made(tensor) for name, tensor in state.items()}


def _audio_settings(config: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    for stated in (ours.get("audio"), config.get("audio")):
        if isinstance(stated, Mapping):
            return dict(stated)
    names = {"audio_embed_dim": "embed_dim", "audio_num_heads": "num_heads"}
    fixed = ("patch_size", "patch_stride", "sample_rate")
    settings = {ours: config[official] for official, ours in names.items() if official in config}
    return settings | {key: config[key] for key in fixed if key in config}


def _text_tower(
    rest: dict[str, Tensor], config: Mapping[str, Any], source: str
) -> tuple[TextConfig, dict[str, Tensor]]:
    stock = next((key[: key.index(_STOCK)] + "text_encoder." for key in rest if _STOCK in key), None)
    sonar = _prefix(rest, _SONAR, source)
    prefix = stock if stock is not None else sonar
    if prefix is None or (stock is not None and sonar is not None):
        found = "two text towers" if prefix is not None else f"no text tower (*{_SONAR}), and config.json names none"
        raise LayoutMismatch(f"{source}: holds {found}; download it again")
    state = {
        key.removeprefix(prefix): rest.pop(key)
        for key in list(rest)
        if key.startswith(prefix) and not _SPARE.fullmatch(key)
    }
    if stock is None:
        return _sonar_geometry(state, config, source), state
    settings = config.get("text_encoder")
    if not isinstance(settings, Mapping):
        raise WeightsError(f"{source}: config.json has no text_encoder to describe text_encoder.network.*; restore it")
    return text_config_from(settings), state


def _sonar_geometry(state: Mapping[str, Tensor], config: Mapping[str, Any], source: str) -> SonarConfig:
    inner = "encoder.layers.0.ffn.inner_proj.weight"
    if inner not in state:
        raise LayoutMismatch(f"{source}: {inner} of the text tower is missing; the checkpoint is incomplete")
    nested = config.get("text") if isinstance(config.get("text"), Mapping) else {}
    assert isinstance(nested, Mapping)
    vocab_size, width = state[_SONAR].shape
    heads = config.get("text_num_heads", nested.get("num_heads", _HEADS.get(width)))
    if heads is None:
        raise ConfigError(
            f"{source}: the text tower is {width} wide and does not show its attention heads; put "
            '{"text_num_heads": …} into a config.json beside the weights'
        )
    depth = {int(m[1]) for key in state if (m := re.match(r"encoder\.layers\.(\d+)\.", key))}
    return SonarConfig(
        vocab_size=vocab_size,
        width=width,
        depth=len(depth),
        num_heads=int(heads),
        hidden=state[inner].shape[0],
        max_tokens=int(config.get("text_max_seq_len", nested.get("max_seq_len", SonarConfig().max_tokens))),
    )


def _projection_dims(state: Mapping[str, Tensor], source: str) -> dict[str, int]:
    second = state.get("audio_proj.2.weight")
    if second is None or second.ndim != 2:
        raise LayoutMismatch(f"{source}: audio_proj.2.weight is missing or no matrix; the checkpoint is incomplete")
    return {"embed_dim": second.shape[0], "hidden_dim": second.shape[1]}


def _prefix(tensors: Mapping[str, Tensor], end: str, source: str) -> str | None:
    """The prefix of the one name that ends so; None: there is none."""
    found = [key.removesuffix(end) for key in tensors if key == end or key.endswith(f".{end}")]
    if len(found) > 1:
        raise LayoutMismatch(
            f"{source}: *{end} is found {len(found)} times ({found[0]}, {found[1]}); expected one model"
        )
    return found[0] if found else None
