"""Networks → folders in the official Hugging Face layouts, and any readable layout → such a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auricle.audio.logmel import DASHENG_MEL
from auricle.errors import ConfigError, WeightsError
from auricle.files import check_folder, remove_leftovers, write_bytes, write_json, write_text
from auricle.models.dasheng import Dasheng
from auricle.models.dasheng_tokenizer import DashengTokenizer
from auricle.models.denoiser import Denoiser
from auricle.models.frame_model import tensors_sha256
from auricle.models.glap import Glap
from auricle.models.midashenglm import MiDashengLM
from auricle.models.text import StockTextConfig
from auricle.weights import safe
from auricle.weights.cards import TRAINING_CLIPS, Card, read_license, render_card
from auricle.weights.catalog import Source, resolve
from auricle.weights.compressed import rows_to_int8
from auricle.weights.construct import is_float32
from auricle.weights.glap import read_text_tower
from auricle.weights.glap_layouts import glap_settings, glap_to_hub
from auricle.weights.layouts import dasheng_settings, dasheng_to_hub, reads_models
from auricle.weights.lm_layouts import midashenglm_settings, midashenglm_to_hub
from auricle.weights.loaders import DTYPES, AudioTokens, is_language_model, load_dasheng, load_midashenglm
from auricle.weights.text_tokenizers import TextTokenizer
from auricle.weights.vocoders.dasheng_tokenizer import (
    is_tokenizer,
    load_dasheng_tokenizer,
    tokenizer_settings,
    tokenizer_to_official,
)
from auricle.weights.vocoders.denoiser import denoiser_settings, denoiser_to_official, is_denoiser, load_denoiser

_SHARED_KEYS = ("model_type", "embed_size")  # of config.json, which do not describe the audio tower
INT8 = "int8"  # of matrices, with a scale for each row; the rest is float16, and loaded it is float32 all the same


def save_dasheng(folder: str | Path, model: Dasheng, *, dtype: str = "float32", card: Card | None = None) -> Path:
    """Write an encoder in the Hugging Face layout of ``mispeech/dasheng-base``: weights, configs and card.

    Args:
        folder: made if absent; files of the same names are replaced.
        model: on any device.
        dtype: of the stored floating-point tensors, or `INT8`; the input norm stays float32.
        card: facts for README.md.

    Returns:
        The folder.
    """
    folder = Path(folder)
    ours = {"attend": model.config.attend, "long_clips": model.config.long_clips}
    name = card.name if card else folder.name
    config = {
        "architectures": ["DashengModel"],
        "model_type": "dasheng",
        "name": name,
        "loss": "BCELoss",
        "encoder_kwargs": dasheng_settings(model.config),
        "torch_dtype": _declared(dtype),
        "auricle": ours,
    }
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, _stored(dasheng_to_hub(model.state_dict()), dtype))
        write_json(aside / "config.json", config)
        write_json(aside / "preprocessor_config.json", _dasheng_features())
        _write_card(aside, card or Card(name=name))
    return folder


def save_midashenglm(
    folder: str | Path,
    model: MiDashengLM,
    tokenizer_json: str,
    chat_template: str,
    *,
    dtype: str = "float32",
    card: Card | None = None,
    generation: Mapping[str, Any],
    audio_tokens: AudioTokens | None = None,
) -> Path:
    """Write a language model in the official layout: weights, configs, tokenizer, template and card.

    Args:
        folder: made if absent; files of the same names are replaced.
        model: on any device.
        tokenizer_json: contents of ``tokenizer.json``.
        chat_template: Jinja prompt template.
        dtype: of the stored floating-point tensors, or `INT8`; the input norm stays float32.
        card: facts for README.md.
        generation: contents of ``generation_config.json``; needs ``eos_token_id`` and ``pad_token_id``.
        audio_tokens: names of the tokens around and in place of a clip; MiDashengLM's by default.

    Returns:
        The folder.

    Raises:
        ConfigError: ``generation`` lacks a token, or the tokenizer does not know one.
    """
    folder = Path(folder)
    audio_tokens = audio_tokens or AudioTokens()
    words = _special_words(tokenizer_json, generation, audio_tokens)
    names = {
        "audio_token": audio_tokens.audio,
        "audio_bos_token": audio_tokens.bos,
        "audio_eos_token": audio_tokens.eos,
    }
    tokenizer_config = {
        "tokenizer_class": "Qwen2TokenizerFast",
        "model_max_length": model.decoder.config.max_position_embeddings,
        "pad_token": words["pad_token_id"],
        "eos_token": words["eos_token_id"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        **names,
        "extra_special_tokens": names,
    }
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, _stored(midashenglm_to_hub(model), dtype))
        write_json(aside / "config.json", {**midashenglm_settings(model), "torch_dtype": _declared(dtype)})
        write_json(aside / "generation_config.json", generation)
        write_json(aside / "preprocessor_config.json", _midashenglm_features())
        write_json(
            aside / "processor_config.json",
            {"processor_class": "MiDashengLMProcessor", **names, "model_subsampling": model.config.subsample_factor},
        )
        write_json(aside / "tokenizer_config.json", tokenizer_config)
        write_text(aside / "tokenizer.json", tokenizer_json)
        write_text(aside / "chat_template.jinja", chat_template)
        _write_card(aside, card or Card(name=folder.name))
    return folder


def save_glap(
    folder: str | Path,
    model: Glap,
    tokenizer: TextTokenizer | None = None,
    *,
    audio_encoder: str | None = None,
    text_encoder: str | None = None,
    dtype: str = "float32",
    card: Card | None = None,
) -> Path:
    """Write an audio–text model: the layout of ``mispeech/GLAP``, or ours where a tower is shared or a stock one.

    Args:
        folder: made if absent; files of the same names are replaced.
        model: on any device.
        tokenizer: of the text tower; not stored where that is shared.
        audio_encoder: name of an encoder that *is* the model's audio tower; it is named instead of stored.
        text_encoder: ``minilm``, or a hub id that *is* the model's text tower; it is named instead of stored.
        dtype: of the stored floating-point tensors, or `INT8`; front end, input norm and calibration stay float32.
        card: facts for README.md.

    Returns:
        The folder.

    Raises:
        ConfigError: a shared tower differs from the model's, or the text tower's tokenizer is not given.
    """
    folder = Path(folder)
    settings = glap_settings(model.config)
    if audio_encoder is not None:
        digest = _check_shared(model.audio_encoder, load_dasheng(audio_encoder).state_dict(), audio_encoder)
        ours = {"pooling": model.config.pooling, "project_text": model.config.project_text}
        settings = {key: value for key, value in settings.items() if key.startswith("text_") or key in _SHARED_KEYS}
        settings |= {"audio_encoder": audio_encoder, "audio_encoder_sha256": digest, "auricle": ours}
    if text_encoder is not None:
        _check_shared(model.text_encoder, read_text_tower(text_encoder)[0].state, text_encoder)
        settings = {key: value for key, value in settings.items() if not key.startswith("text_")}
        settings["text_encoder"] = text_encoder
    elif tokenizer is None and isinstance(model.config.text, StockTextConfig):
        raise ConfigError("the text tower is stored, but its tokenizer is not given; give it, or name text_encoder")
    elif tokenizer is not None:
        settings["auricle"] |= {"languages": list(tokenizer.languages)} if "text_encoder" in settings else {}
    tensors = glap_to_hub(model, audio=audio_encoder is None, text=text_encoder is None)
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, _stored(tensors, dtype))
        write_json(aside / "config.json", {**settings, "torch_dtype": _declared(dtype)})
        if text_encoder is None and tokenizer is not None:
            tokenizer.save(aside)
        _write_card(aside, card or Card(name=folder.name))
    return folder


def save_denoiser(
    folder: str | Path,
    model: Denoiser,
    *,
    dtype: str = "float32",
    encoder: str | None = None,
    card: Card | None = None,
) -> Path:
    """Write a denoiser: the official tensors as safetensors, settings and card.

    Args:
        folder: made if absent; files of the same names are replaced.
        model: on any device.
        dtype: of the stored floating-point tensors, or `INT8`; front end, input norm and window stay float32.
        encoder: name of an encoder that *is* the model's; it is named instead of stored.
        card: facts for README.md.

    Returns:
        The folder.

    Raises:
        ConfigError: the encoder of that name differs from the model's.
    """
    folder = Path(folder)
    settings, tensors = denoiser_settings(model.config), denoiser_to_official(model)
    if encoder is not None:
        digest = _check_shared(model.encoder, load_dasheng(encoder).state_dict(), encoder)
        settings |= {"encoder": encoder, "encoder_sha256": digest}
        tensors = {key: value for key, value in tensors.items() if not key.startswith("feature_extractor.")}
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, _stored(tensors, dtype))
        write_json(aside / "config.json", {**settings, "torch_dtype": _declared(dtype)})
        _write_card(aside, card or Card(name=folder.name))
    return folder


def save_dasheng_tokenizer(
    folder: str | Path, model: DashengTokenizer, *, dtype: str = "float32", card: Card | None = None
) -> Path:
    """Write a tokenizer in the official layout; arguments and result as of `save_denoiser`."""
    folder = Path(folder)
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, _stored(tokenizer_to_official(model), dtype))
        write_json(aside / "config.json", {**tokenizer_settings(model.config), "dtype": _declared(dtype)})
        _write_card(aside, card or Card(name=folder.name))
    return folder


@reads_models
def convert(src: str | Path, dst: str | Path, *, dtype: str = "float32", adapter: str | Path | None = None) -> Path:
    """Any readable model → a folder in the official Hugging Face layout.

    Args:
        src: name, hub id, folder or file, as for `resolve`.
        dst: folder to write; must be absent or empty.
        dtype: of the stored floating-point tensors.
        adapter: PEFT adapter to merge into a language model.

    Raises:
        WeightsError: ``src`` cannot be read, or ``dst`` is not empty.
        OutputError: ``dst`` cannot be written, or another process is writing it.
        UnsafeWeights: a text beside the weights is a link to a file elsewhere, which would be copied.
    """
    destination = Path(dst)
    for place in (destination.parent, destination):  # where a killed process leaves its temporary folder
        remove_leftovers(place)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise WeightsError(f"{destination}: exists and is not an empty folder; name another one")
    check_folder(destination)
    source = resolve(src)
    safe.check_links(source.path)
    origin = source.path.name if source.path == Path(source.name).expanduser() else source.name
    card = Card(
        name=destination.name,
        base_model=source.name if source.revision else None,
        summary=f"Converted from {origin}.",
        license=read_license(source.path),
    )
    if is_denoiser(source):
        if adapter is not None:
            raise ConfigError(f"{source.name}: a denoiser; adapters are merged into language models only")
        loaded = load_denoiser(source.path)
        return _with_training_clips(source, save_denoiser(destination, loaded.model, dtype=dtype, card=card))
    if is_tokenizer(source):
        if adapter is not None:
            raise ConfigError(f"{source.name}: a tokenizer; adapters are merged into language models only")
        tokenizer = load_dasheng_tokenizer(source.path)
        return save_dasheng_tokenizer(destination, tokenizer, dtype=dtype, card=card)
    if not is_language_model(source):
        if adapter is not None:
            raise ConfigError(f"{source.name}: an encoder; adapters are merged into language models only")
        written = save_dasheng(destination, load_dasheng(source.path), dtype=dtype, card=card)
        return _with_training_clips(source, written)
    lm = load_midashenglm(source.path, adapter=adapter)
    generation = {"eos_token_id": list(lm.eos_token_ids), "pad_token_id": lm.pad_token_id}
    if (source.path / "generation_config.json").is_file():
        generation = {**generation, **safe.read_json(source.path / "generation_config.json")}
    written = save_midashenglm(
        destination,
        lm.model,
        lm.tokenizer.to_str(pretty=True),
        lm.chat_template,
        dtype=dtype,
        card=card,
        generation=generation,
        audio_tokens=lm.audio_tokens,
    )
    return _with_training_clips(source, written)


def _with_training_clips(source: Source, folder: Path) -> Path:
    """The folder of a converted model, which was trained on what its source was trained on."""
    if (source.path / TRAINING_CLIPS).is_file():
        write_bytes(folder / TRAINING_CLIPS, (source.path / TRAINING_CLIPS).read_bytes())
    return folder


def _declared(dtype: str) -> str:
    """The data type that the configuration states: a reader of the official layout knows no int8."""
    return "float16" if dtype == INT8 else dtype


def _check_shared(tower: nn.Module, shared: Mapping[str, Tensor], name: str) -> str:
    """SHA-256 of a tower's tensors, if they are those of the shared one."""
    digest = tensors_sha256(
        {key: value.float() if value.is_floating_point() else value for key, value in shared.items()}
    )
    own = {key: value.float() if value.is_floating_point() else value for key, value in tower.state_dict().items()}
    if tensors_sha256(own) != digest:
        raise ConfigError(f"the model's tower is not {name}: it was trained, or cast to another type; store it instead")
    return digest


def _stored(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    if dtype == INT8:
        rounded = {key: tensor for key, tensor in tensors.items() if not is_float32(key)}
        return _stored({**tensors, **rows_to_int8(rounded)}, "float16")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join([*DTYPES, INT8])}")

    def cast(key: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        kind = torch.float32 if is_float32(key) else DTYPES[dtype]
        small = tensor.to(kind)
        if kind == torch.float16 and bool(small.isinf().any() & tensor.isfinite().all()):
            raise ConfigError(f"{key} holds values beyond float16's 65504; store float32 or bfloat16")
        return small

    return {key: cast(key, tensor) for key, tensor in tensors.items()}


def _write_card(folder: Path, card: Card) -> None:
    write_text(folder / "README.md", render_card(card))


def _special_words(tokenizer_json: str, generation: Mapping[str, Any], audio_tokens: AudioTokens) -> dict[str, str]:
    """Names of the ending and filling tokens; refuses a folder that could not be read again."""
    content = json.loads(tokenizer_json)
    by_id = {token["id"]: token["content"] for token in content.get("added_tokens", ())}
    by_id |= {number: word for word, number in content["model"]["vocab"].items() if number not in by_id}
    words = {}
    for key in ("eos_token_id", "pad_token_id"):
        number = generation.get(key)
        number = number[0] if isinstance(number, list) and number else number
        if number not in by_id:
            raise ConfigError(f"generation names {key} {number!r}, which the tokenizer does not know")
        words[key] = by_id[number]
    if absent := sorted(set(audio_tokens) - set(by_id.values())):
        raise ConfigError(f"the tokenizer does not know {absent[0]}; add it as a special token")
    return words


def _dasheng_features() -> dict[str, Any]:
    return {
        "feature_extractor_type": "DashengFeatureExtractor",
        "sampling_rate": DASHENG_MEL.sample_rate,
        "n_fft": DASHENG_MEL.n_fft,
        "win_size": DASHENG_MEL.n_fft,
        "hop_size": DASHENG_MEL.hop_length,
        "feature_size": DASHENG_MEL.num_mels,
        "f_min": DASHENG_MEL.f_min,
        "f_max": DASHENG_MEL.f_max,
        "center": True,
    }


def _midashenglm_features() -> dict[str, Any]:
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "processor_class": "MiDashengLMProcessor",
        "do_normalize": False,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": DASHENG_MEL.sample_rate,
    }
