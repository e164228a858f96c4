"""DashengTokenizer: the official folder ⇄ `DashengTokenizer`.

``encoder.{model,patch_embed,norm,front_end}.*`` · ``upsampler.*`` · ``decoder.{backbone,head}.*``; the front ends are
computed, never loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.models.dasheng_tokenizer import UPSAMPLE, DashengTokenizer, DashengTokenizerConfig
from auricle.weights.catalog import Source, resolve
from auricle.weights.construct import StoredTensor, fill, on_meta
from auricle.weights.layouts import (
    check_keys,
    dasheng_from,
    dasheng_to_tokenizer,
    optional_json,
    read_source,
    reads_models,
)
from auricle.weights.loaders import place_of

MODEL_TYPE = "dashengtokenizer"
_FIXED = {
    "n_mels_patch": 128,
    "hop_length": 160,
    "upsample_tokens": UPSAMPLE,
    "istft_hop": SAMPLES_PER_TOKEN // UPSAMPLE,
}


@reads_models
def load_dasheng_tokenizer(
    name_or_path: str | Path, *, device: str = "cpu", dtype: str = "float32", revision: str | None = None
) -> DashengTokenizer:
    """Encoder and decoder in eval mode, from a folder in the official layout.

    Args:
        name_or_path: hub id or folder.
        device: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``, see `auricle.weights.loaders.device_of`.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the networks; front ends, input norm and inverse STFT stay
            float32.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: unknown dtype or device.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    tensors, config = read_source(source.path)
    geometry, state = tokenizer_from(tensors, config, source.name)
    with on_meta():
        model = DashengTokenizer(geometry)
    fill(model, state, kind, place, source.name)
    return model.to(place).eval()


def is_tokenizer(source: Source) -> bool:
    """Whether a source is a folder of a DashengTokenizer, by its settings."""
    return source.path.is_dir() and optional_json(source.path / "config.json").get("model_type") == MODEL_TYPE


def tokenizer_from(
    tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], source: str
) -> tuple[DashengTokenizerConfig, dict[str, StoredTensor]]:
    """Tensors of the official layout and their configuration → geometry and state dict of `DashengTokenizer`.

    Raises:
        LayoutMismatch: other keys, or a configuration that describes another network.
    """
    for key, expected in _FIXED.items():
        if config.get(key, expected) != expected:
            raise LayoutMismatch(f"{source}: {key} is {config[key]!r}, expected {expected}: this is another network")
    encoder = dasheng_from({k: v for k, v in tensors.items() if k.startswith("encoder.")}, config, source)
    state = {f"encoder.{key}": tensor for key, tensor in encoder.state.items()}
    rest = {k: v for k, v in tensors.items() if not k.startswith("encoder.")}
    state |= {key.removeprefix("decoder."): tensor for key, tensor in rest.items()}
    shapes = {key: tensor.shape for key, tensor in state.items()}
    try:
        hidden, width = shapes["backbone.convnext.0.pwconv1.weight"]
        geometry = DashengTokenizerConfig(
            encoder=encoder.config,
            decoder_dim=width,
            decoder_hidden_dim=hidden,
            decoder_layers=len({key.split(".")[2] for key in state if key.startswith("backbone.convnext.")}),
            n_fft=shapes["head.out.weight"][0] - 2,
        )
    except (KeyError, ValueError, IndexError, ConfigError) as error:
        raise LayoutMismatch(f"{source}: no DashengTokenizer: {error}; download it again") from error
    with on_meta():
        empty = DashengTokenizer(geometry).state_dict()
    check_keys(state, empty, source)
    return geometry, state


def tokenizer_to_official(model: DashengTokenizer) -> dict[str, Tensor]:
    """The tensors of a model by their official names, without the computed front ends."""
    state = model.state_dict()
    encoder = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    own = ("backbone.", "head.")
    rest = {f"decoder.{key}" if key.startswith(own) else key: value for key, value in state.items()}
    return dasheng_to_tokenizer(encoder) | {k: v for k, v in rest.items() if not k.startswith("encoder.")}


def tokenizer_settings(config: DashengTokenizerConfig) -> dict[str, Any]:
    """Geometry → an official ``config.json``."""
    encoder = config.encoder
    return {
        "architectures": ["DashengTokenizerModel"],
        "model_type": MODEL_TYPE,
        **{key: getattr(encoder, key) for key in ("embed_dim", "depth", "num_heads")},
        "decoder_embed_dim": config.decoder_dim,
        "decoder_depth": config.decoder_layers,
        "decoder_intermediate_size": config.decoder_hidden_dim,
        "istft_n_fft": config.n_fft,
        **_FIXED,
    }
