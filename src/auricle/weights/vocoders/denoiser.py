"""Denoisers: the official checkpoint and our folders ⇄ `Denoiser`.

==================  ==========================================================================================
zenodo ``.pt``      ``{"config": …, "state_dict": …}``; ``feature_extractor.feat_encoder.*`` as in Dasheng's file with
                    its front end, ``second_encoder.*``, ``backbone.*``, ``head.*``
ours                the same keys in ``model.safetensors``, the front end left out where it is the formula's;
                    ``config.json`` holds the same sections without class paths, and ``encoder_kwargs``; it may
                    name an ``encoder`` with the hash of its tensors, which are then not stored
==================  ==========================================================================================

The official ``config`` names classes to be imported; here the names are compared with `_CLASSES`, and nothing is
imported.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.models.denoiser import Denoiser, DenoiserConfig
from auricle.models.frame_model import tensors_sha256
from auricle.weights import safe
from auricle.weights.catalog import Source, resolve
from auricle.weights.construct import StoredTensor, fill, on_meta
from auricle.weights.layouts import (
    FRONT_END,
    check_keys,
    dasheng_from,
    dasheng_settings,
    dasheng_to_zenodo,
    optional_json,
    read_source,
    reads_models,
    stored_front_end,
)
from auricle.weights.loaders import identity_of, load_dasheng, place_of

MODEL_TYPE = "dasheng_denoiser"  # of our config.json
DEFAULT = "auricle-tiny-denoiser"
# Official prefix of each part -> ours.
PREFIXES = {
    "feature_extractor.feat_encoder.": "encoder.",
    "second_encoder.": "denoise_encoder.",
    "backbone.": "backbone.",
    "head.": "head.",
}
_CLASSES = {
    "feature_extractor": "dasheng_denoiser.feature_extractors.DashengFeatures",
    "second_encoder": "dasheng_denoiser.models.DashengBlocks",
    "backbone": "vocos.models.VocosBackbone",
    "head": "vocos.heads.ISTFTHead",
}
_OFFICIAL_HEADS = {768: 8}  # of the denoise encoder: width -> heads, where no configuration states them
_FIXED = {"hop_length": SAMPLES_PER_TOKEN, "padding": "same", "dasheng_model": "dasheng_base"}


class DenoiserParts(NamedTuple):
    """A denoiser read from any layout."""

    config: DenoiserConfig
    state: dict[str, StoredTensor]  # names of `Denoiser`


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedDenoiser:
    """A denoiser and what a result states about it."""

    model: Denoiser  # in eval mode
    identity: dict[str, str | None]  # name, path, revision, sha256 (of the weights)


@reads_models
def load_denoiser(
    name_or_path: str | Path = DEFAULT, *, device: str = "cpu", dtype: str = "float32", revision: str | None = None
) -> LoadedDenoiser:
    """A denoiser in eval mode, from any name `catalog.resolve` knows and any layout of this module.

    Args:
        name_or_path: embedded name, hub id, folder or file.
        device: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``, see `auricle.weights.loaders.device_of`.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the networks; front end, input norm and inverse STFT stay
            float32.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: unknown dtype or device, or the number of attention heads cannot be known.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    tensors, config = read_source(source.path)
    tensors = {**tensors, **_shared_encoder(config, source.name)}
    parts = denoiser_from(tensors, config, source.name)
    with on_meta():
        model = Denoiser(parts.config)
    fill(model, parts.state, kind, place, source.name)
    return LoadedDenoiser(model=model.to(place).eval(), identity=identity_of(source))


def _shared_encoder(config: Mapping[str, Any], source: str) -> dict[str, StoredTensor]:
    """The tensors of an encoder that the configuration names instead of storing it, by official names."""
    name = config.get("encoder")
    if not isinstance(name, str):
        return {}
    state = load_dasheng(name).state_dict()
    found = tensors_sha256(state)
    if config.get("encoder_sha256") != found:
        raise WeightsError(
            f"{source}: was trained on another version of {name} (tensors {str(config.get('encoder_sha256'))[:12]}, "
            f"here {found[:12]}); install the release that holds both"
        )
    return {f"feature_extractor.feat_encoder.{key}": value for key, value in dasheng_to_zenodo(state).items()}


def is_denoiser(source: Source) -> bool:
    """Whether a source is a denoiser, by its settings or, of a single file, by its tensors."""
    if source.path.is_dir() and (source.path / "config.json").is_file():
        return optional_json(source.path / "config.json").get("model_type") == MODEL_TYPE
    return any(key.startswith("second_encoder.") for key in safe.read_stored(source.path))


def denoiser_from(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], source: str) -> DenoiserParts:
    """Tensors of either layout and their configuration → geometry and state dict of `Denoiser`.

    Raises:
        LayoutMismatch: the keys are no denoiser's, or the configuration describes another network.
        ConfigError: the number of heads cannot be known.
    """
    parts = _split(tensors, source)
    stated = _sections(config, source)
    encoder, state = dasheng_from(parts["encoder."], _encoder_config(config), source)
    front_end = stored_front_end(parts["encoder."])
    width = encoder.embed_dim
    built = DenoiserConfig(
        encoder=encoder,
        stored_front_end=bool(front_end),
        num_heads=_heads(width, stated["second_encoder"], source),
        **_geometry(parts, source),
    )
    _check_stated(built, stated, source)
    renamed = {f"encoder.{key}": tensor for key, tensor in {**state, **front_end}.items()}
    for prefix in list(PREFIXES.values())[1:]:
        renamed |= {prefix + key: tensor for key, tensor in parts[prefix].items()}
    with on_meta():
        expected = Denoiser(built).state_dict()
    check_keys(renamed, expected, source)
    return DenoiserParts(built, renamed)


def denoiser_to_official(model: Denoiser) -> dict[str, torch.Tensor]:
    """The tensors of a model by their official names; the encoder's front end only where it is not the formula's."""
    names = {ours: official for official, ours in FRONT_END.items()}
    encoder = {names.get(key, key): tensor for key, tensor in model.encoder.state_dict().items()}
    official = {f"feature_extractor.feat_encoder.{key}": value for key, value in dasheng_to_zenodo(encoder).items()}
    for theirs, ours in list(PREFIXES.items())[1:]:
        part = {key: value for key, value in model.state_dict().items() if key.startswith(ours)}
        official |= {theirs + key.removeprefix(ours): value for key, value in part.items()}
    return official


def denoiser_settings(config: DenoiserConfig) -> dict[str, Any]:
    """Our geometry → config.json: the official sections without class paths, and the encoder's settings."""
    width = config.encoder.embed_dim
    return {
        "architectures": ["Denoiser"],
        "model_type": MODEL_TYPE,
        "encoder_kwargs": dasheng_settings(config.encoder),
        "second_encoder": {
            "init_args": {"embedding_dims": width, "num_heads": config.num_heads, "num_layers": config.num_layers}
        },
        "backbone": {
            "init_args": {
                "input_channels": width,
                "dim": config.backbone_dim,
                "intermediate_dim": config.backbone_hidden_dim,
                "num_layers": config.backbone_layers,
            }
        },
        "head": {
            "init_args": {
                "dim": config.backbone_dim,
                "n_fft": config.n_fft,
                "hop_length": SAMPLES_PER_TOKEN,
                "padding": "same",
            }
        },
        "auricle": {"attend": config.encoder.attend, "long_clips": config.encoder.long_clips},
    }


def _split(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, dict[str, StoredTensor]]:
    """The tensors of each part, without its prefix."""
    parts: dict[str, dict[str, StoredTensor]] = {ours: {} for ours in PREFIXES.values()}
    for key, tensor in tensors.items():
        theirs = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if theirs is None:
            raise LayoutMismatch(
                f"{source}: key {key} belongs to no part of a denoiser; expected {', '.join(PREFIXES)}. Name a "
                "denoiser: the official checkpoint, a folder made by `auricle convert` or by training"
            )
        parts[PREFIXES[theirs]][key.removeprefix(theirs)] = tensor
    if missing := [theirs for theirs, ours in PREFIXES.items() if not parts[ours]]:
        raise LayoutMismatch(f"{source}: holds no {missing[0]}*, a part of every denoiser; download it again")
    return parts


def _sections(config: Mapping[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """The arguments that the configuration states for each part; refuses classes and settings of other networks."""
    found: dict[str, dict[str, Any]] = {}
    for part, expected in _CLASSES.items():
        section = config.get(part)
        section = section if isinstance(section, Mapping) else {}
        stated = section.get("class_path", expected)
        if stated != expected:
            raise LayoutMismatch(f"{source}: {part} is a {stated!r}, expected {expected}: this is another network")
        arguments = section.get("init_args")
        found[part] = dict(arguments) if isinstance(arguments, Mapping) else {}
        for key, value in _FIXED.items():
            if found[part].get(key, value) != value:
                raise LayoutMismatch(f"{source}: {part} has {key} {found[part][key]!r}, expected {value!r}")
    return found


def _encoder_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("encoder_kwargs", "auricle") if key in config}


def _heads(width: int, stated: Mapping[str, Any], source: str) -> int:
    heads = stated.get("num_heads", _OFFICIAL_HEADS.get(width))
    if not isinstance(heads, int) or heads < 1:
        raise ConfigError(
            f"{source}: the denoise encoder is {width} wide and does not show its attention heads; put "
            '{"second_encoder": {"init_args": {"num_heads": …}}} into a config.json beside the weights'
        )
    return heads


def _geometry(parts: Mapping[str, Mapping[str, StoredTensor]], source: str) -> dict[str, Any]:
    needed = {
        "denoise_encoder.": "blocks.0.mlp.fc1.weight",
        "backbone.": "convnext.0.pwconv1.weight",
        "head.": "out.weight",
    }
    for part, key in needed.items():
        if key not in parts[part] or parts[part][key].ndim != 2:
            raise LayoutMismatch(f"{source}: {part}{key} is missing or no matrix; the checkpoint is incomplete")
    mlp, pointwise, out = (parts[part][key] for part, key in needed.items())
    return {
        "num_layers": _count(parts["denoise_encoder."], "blocks"),
        "mlp_ratio": mlp.shape[0] / mlp.shape[1],
        "backbone_dim": pointwise.shape[1],
        "backbone_hidden_dim": pointwise.shape[0],
        "backbone_layers": _count(parts["backbone."], "convnext"),
        "n_fft": out.shape[0] - 2,
    }


def _count(state: Mapping[str, StoredTensor], stem: str) -> int:
    return len({match[1] for key in state if (match := re.match(rf"{stem}\.(\d{{1,9}})\.", key))})


def _check_stated(built: DenoiserConfig, stated: Mapping[str, Mapping[str, Any]], source: str) -> None:
    """Raise `LayoutMismatch` where the configuration states another size than the tensors have."""
    for part, section in denoiser_settings(built).items():
        if part not in _CLASSES:
            continue
        for key, found in section["init_args"].items():
            if key in stated[part] and stated[part][key] != found:
                raise LayoutMismatch(
                    f"{source}: {part} states {key} {stated[part][key]!r}, but the tensors have {found!r}; check that "
                    "configuration and weights belong together"
                )
