"""Dasheng: each official checkpoint layout ⇄ our state dict, key by key.

==================  ==========================================================================================
zenodo ``.pt``      ``{"model": …, "config": …}``; ``init_bn.1.*``, ``front_end.*`` buffers
Hugging Face        the same keys behind ``encoder.``, no front end, optional ``outputlayer.*``; ``config.json``
AudioSet            flat: the zenodo keys plus ``outputlayer.0/1.*``
MiDashengLM         the keys behind ``audio_encoder.``, ``init_bn.*`` without the ``1``
our training        ``encoder.*`` (and ``decoder.*``) of a `MaskedAutoencoder`, names as in `Dasheng`
==================  ==========================================================================================

The front end is computed, never loaded: checkpoints hold it rounded or not at all.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.errors import AuricleError, ConfigError, LayoutMismatch, WeightsError
from auricle.models.dasheng import PATCH_FRAMES, SIZES, Dasheng, DashengConfig
from auricle.models.stock_networks import check_counts
from auricle.weights import safe
from auricle.weights.construct import StoredTensor, made, on_meta

# Heads do not show in any tensor's shape: width -> heads of every released model and of ours.
HEADS = {size.embed_dim: size.num_heads for size in SIZES.values()}
# The front end and patches that a configuration may state; anything else is another network.
_FIXED: dict[str, object] = {
    "sample_rate": DASHENG_MEL.sample_rate,
    "sampling_rate": DASHENG_MEL.sample_rate,
    "n_fft": DASHENG_MEL.n_fft,
    "win_length": DASHENG_MEL.n_fft,
    "win_size": DASHENG_MEL.n_fft,
    "hop_length": DASHENG_MEL.hop_length,
    "hop_size": DASHENG_MEL.hop_length,
    "n_mels": DASHENG_MEL.num_mels,
    "f_min": DASHENG_MEL.f_min,
    "f_max": DASHENG_MEL.f_max,
    "center": True,
    "patch_size": [DASHENG_MEL.num_mels, PATCH_FRAMES],
    "patch_stride": [DASHENG_MEL.num_mels, PATCH_FRAMES],
    "input_channels": 1,
}
_WIDTHS = ("hidden_size", "intermediate_size", "vocab_size", "embed_dim")  # settings that are sizes of tensors
# Of the front end: official name -> that in `Dasheng`.
FRONT_END = {"front_end.0.spectrogram.window": "front_end.window", "front_end.0.mel_scale.fb": "front_end.filterbank"}
_ROUNDING = 1e-5  # of a stored window or filter; nearer ones are the formula's own
_MAX_DEPTH = 1000  # blocks; the largest release has 40
# Keys that belong to the rest of a whole model around the encoder.
_SURROUNDINGS = {"encoder.": ("decoder.", "outputlayer."), "audio_encoder.": ("audio_projector.", "decoder.")}


class DashengParts(NamedTuple):
    """An encoder read from any layout."""

    config: DashengConfig
    state: dict[str, StoredTensor]  # names of `Dasheng`


F = TypeVar("F", bound=Callable[..., Any])


def reads_models(read: F) -> F:
    """Decorate a reader whose first argument names a model: what it raises by accident is a fault of the model's files.

    Settings and tensors of others are wrong in more ways than checks foresee.
    """

    @wraps(read)
    def reader(*args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **kwargs)
        except AuricleError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            name = next(iter((*args, *kwargs.values())), "the model")
            raise WeightsError(
                f"{name}: its settings and tensors describe no model ({type(error).__name__}: {reason}); restore the "
                "files from where they came"
            ) from error

    return cast(F, reader)


def check_sizes(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor], source: str) -> None:
    """Refuse settings far larger than the tensors they come with, before a network is built.

    Raises:
        LayoutMismatch: more layers, or wider ones, than there could be.
    """
    check_counts(settings, len(tensors), source)
    widest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for key, value in settings.items():
        if key in _WIDTHS and isinstance(value, int) and value > widest:
            raise LayoutMismatch(f"{source}: {key} is {value}, but no tensor is wider than {widest}")


def read_dasheng(path: str | Path) -> DashengParts:
    """The encoder in a file or folder of any layout of this module.

    Raises:
        LayoutMismatch: the keys are no Dasheng's.
        ConfigError: the number of heads cannot be known.
        UnsafeWeights: the file holds code or is damaged.
    """
    path = Path(path)
    tensors, config = read_source(path)
    return dasheng_from(tensors, config, str(path))


def read_source(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Tensors of a file or folder, and the configuration beside or inside it ({} without one)."""
    config: dict[str, Any] = {}
    file = next(iter(safe.weight_files(path)))
    if file.suffix in safe.PICKLED:
        content = safe.read_pickled(file)
        tensors: dict[str, StoredTensor] = {**safe.tensors_of(content, file)}
        if isinstance(content.get("config"), Mapping):
            config = dict(content["config"])
    else:
        tensors = safe.read_stored(path)
        config = _metadata_config(file)
    return tensors, config or optional_json((path if path.is_dir() else path.parent) / "config.json")


def optional_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file, {} where there is none."""
    return safe.read_json(path) if os.path.lexists(path) else {}  # what is there, but no file, is refused


def dasheng_from(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], source: str) -> DashengParts:
    """Tensors of any layout and their configuration → geometry and state dict of `Dasheng`."""
    state, prefix = _strip(tensors, source)
    settings = _encoder_settings(config)
    _check_fixed(settings, source)
    if any(key in state for key in ("cls_token", "token_pos_embed")):
        raise LayoutMismatch(f"{source}: the encoder was trained with a class token; only mean pooling is supported")
    whole = prefix == "audio_encoder." or config.get("model_type") == "midashenglm_dasheng_encoder"
    ours = config.get("auricle") if isinstance(config.get("auricle"), Mapping) else {}
    assert isinstance(ours, Mapping)
    geometry = _geometry(state, settings, source)
    geometry["attend"] = "whole" if whole else ours.get("attend", "all")
    geometry["long_clips"] = ours.get("long_clips", "v009")
    state.setdefault("init_bn.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    built = DashengConfig(**geometry)
    with on_meta():
        expected = Dasheng(built).state_dict()
    check_keys(state, expected, source)
    return DashengParts(built, state)


def stored_front_end(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Window and mel filters of a checkpoint in the zenodo layout, by their names in `Dasheng`, if not the formula's.

    Those of GLAP and of the denoiser are taken from the checkpoint; {}: they are stored rounded, or not at all.
    """
    computed = LogMel()
    expected = {"front_end.window": computed.window, "front_end.filterbank": computed.filterbank}
    stored = {
        name: made(tensors[key])
        for key, name in FRONT_END.items()
        if key in tensors and tensors[key].dtype == torch.float32
    }
    differs = any(
        value.shape != expected[name].shape or (value - expected[name]).abs().max() > _ROUNDING
        for name, value in stored.items()
    )
    return {**stored} if len(stored) == len(expected) and differs else {}


def dasheng_to_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict → keys of the Hugging Face layout (``encoder.`` prefix, ``init_bn.1.``)."""
    return {
        key if key.startswith("outputlayer.") else "encoder." + _to_zenodo(key): value for key, value in state.items()
    }


def dasheng_to_zenodo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict → the prefix-free keys of the zenodo and AudioSet layouts, without the computed front end."""
    return {_to_zenodo(key): value for key, value in state.items()}


def dasheng_to_midashenglm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict → keys of MiDashengLM's encoder."""
    return {"audio_encoder." + key: value for key, value in state.items() if not key.startswith("outputlayer.")}


def dasheng_settings(config: DashengConfig) -> dict[str, Any]:
    """Our geometry → ``encoder_kwargs`` of an official ``config.json``."""
    fields = dataclasses.asdict(config)
    for own in ("attend", "long_clips"):
        del fields[own]
    if fields["outputdim"] is None:
        fields["outputdim"] = 527  # AudioSet's classes, as in every official file
    return {**fields, "patch_size": _FIXED["patch_size"], "patch_stride": _FIXED["patch_stride"]}


def check_keys(found: Iterable[str], expected: Iterable[str], source: str) -> None:
    """Compare two sets of keys.

    Raises:
        LayoutMismatch: naming a few of the missing and of the unexpected ones.
    """
    found, expected = set(found), set(expected)
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        parts = [
            f"{len(keys)} {what} ({_some(keys)})" for what, keys in (("missing", missing), ("unknown", unknown)) if keys
        ]
        raise LayoutMismatch(
            f"{source}: the tensors do not fit the architecture: {' and '.join(parts)}; check that config.json and the "
            "weights belong together"
        )


def _strip(tensors: Mapping[str, StoredTensor], source: str) -> tuple[dict[str, StoredTensor], str]:
    """Cut the prefix of the layout; leave out its surroundings and the front end."""
    prefix = next((p for p in ("audio_encoder.", "encoder.") if f"{p}patch_embed.proj.weight" in tensors), "")
    if f"{prefix}patch_embed.proj.weight" not in tensors:
        raise LayoutMismatch(
            f"{source}: no Dasheng encoder: expected patch_embed.proj.weight, alone or behind encoder. or "
            f"audio_encoder.; found {_some(sorted(tensors))}"
        )
    state: dict[str, StoredTensor] = {}
    for key, tensor in tensors.items():
        if prefix and not key.startswith(prefix):
            if not key.startswith(_SURROUNDINGS[prefix]):
                raise LayoutMismatch(
                    f"{source}: key {key} belongs neither to the encoder ({prefix}*) nor to a known head"
                )
            if prefix == "encoder." and key.startswith("outputlayer."):
                state[key] = tensor
            continue
        name = key.removeprefix(prefix)
        if not name.startswith("front_end."):
            state[re.sub(r"^init_bn\.1\.", "init_bn.", name)] = tensor
    return state, prefix


def _encoder_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's part of a configuration, wherever it is nested."""
    for key in ("audio_encoder_config", "encoder_kwargs", "encoder"):
        if isinstance(config.get(key), Mapping):
            return dict(config[key])
    return dict(config)


def _check_fixed(settings: Mapping[str, Any], source: str) -> None:
    for key, expected in _FIXED.items():
        found = settings.get(key)
        found = list(found) if isinstance(found, (list, tuple)) else found
        if found is not None and found != expected:
            raise LayoutMismatch(f"{source}: {key} is {found}, Dasheng's is {expected}: this is another network")


def _geometry(state: Mapping[str, StoredTensor], settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    width = state["patch_embed.proj.weight"].shape[0]
    blocks = {int(m[1]) for key in state if (m := re.match(r"blocks\.(\d{1,9})\.", key))}
    if len(blocks) > _MAX_DEPTH:
        raise LayoutMismatch(f"{source}: has {len(blocks)} blocks, expected at most {_MAX_DEPTH}")
    if empty := next((key for key, tensor in state.items() if not tensor.shape.numel()), None):
        raise LayoutMismatch(f"{source}: {empty} is empty; the checkpoint is damaged")
    for key in ("time_pos_embed", "blocks.0.mlp.fc1.weight"):
        if key not in state:
            raise LayoutMismatch(f"{source}: {key} is missing; the checkpoint is incomplete")
    scale = state.get("blocks.0.ls1.gamma")
    head = state.get("outputlayer.1.weight")
    return {
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": _heads(width, settings, source),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        # Only its presence matters: the gains are loaded.
        "init_values": None if scale is None else float(settings.get("init_values") or 1e-5),
        "target_length": PATCH_FRAMES * state["time_pos_embed"].shape[-1],
        "outputdim": None if head is None else head.shape[0],
    }


def _heads(width: int, settings: Mapping[str, Any], source: str) -> int:
    # A training configuration may be stored instead of the encoder's: believe it only where its width is the tensors'.
    stated = settings.get("num_heads")
    if isinstance(stated, int) and settings.get("embed_dim") == width:
        return stated
    if width in HEADS:
        return HEADS[width]
    if isinstance(stated, int) and "embed_dim" not in settings:
        return stated
    raise ConfigError(
        f"{source}: the weights are {width} wide and do not show the number of attention heads; put it into a "
        f'config.json beside them: {{"encoder_kwargs": {{"embed_dim": {width}, "num_heads": …}}}} '
        f"(known widths: {sorted(HEADS)})"
    )


def _metadata_config(file: Path) -> dict[str, Any]:
    """A configuration that a training checkpoint carries in its header under ``config``."""
    try:
        config = json.loads(safe.read_metadata(file).get("config", "{}"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _to_zenodo(key: str) -> str:
    return re.sub(r"^init_bn\.", "init_bn.1.", key)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
