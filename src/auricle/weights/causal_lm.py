"""Plain causal language models, for scorers that read embeddings with one: the embedded decoder, or a folder's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from auricle.errors import ConfigError, MissingExtra, WeightsError
from auricle.models.qwen import QwenForCausalLM
from auricle.models.stock_decoder import Decoder, StockDecoder
from auricle.models.stock_networks import check_counts, load_network, plain_settings
from auricle.weights import safe
from auricle.weights.catalog import Source, fingerprint, resolve
from auricle.weights.compressed import decompress
from auricle.weights.construct import fill, made, on_meta
from auricle.weights.layouts import check_keys, check_sizes, reads_models
from auricle.weights.lm_layouts import qwen_config, qwen_settings, tie_head, without_computed
from auricle.weights.loaders import end_tokens, load_midashenglm, place_of, read_tokenizer
from auricle.weights.memory import check_memory, memory_need

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_OURS = ("qwen2", "qwen3")  # model types of `auricle.models.qwen`; others are transformers'


class CausalLM(NamedTuple):
    """A language model in evaluation mode, its tokens, and what it is."""

    model: Decoder
    tokenizer: Tokenizer
    end: str  # token that ends a text
    name: str  # as asked for
    sha256: str | None  # of the weights; None where hashing them would take too long


@reads_models
def load_causal_lm(
    name_or_path: str | Path = "auricle-tiny",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> CausalLM:
    """A language model from any name `catalog.resolve` knows.

    Args:
        name_or_path: a MiDashengLM (its decoder is taken), or a folder or hub id of the Hugging Face layout with
            safetensors weights, such as ``Qwen/Qwen2.5-0.5B``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16``; a published bfloat16 model runs in float32 too unless requested
            otherwise, because results of benchmarks must not depend on how a release is stored.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, or is no language model of that form.
        ConfigError: unknown dtype or device.
        MissingExtra: it is neither a MiDashengLM nor a Qwen2 or Qwen3, and transformers is not installed.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    config = safe.read_json(source.path / "config.json")
    if config.get("model_type") == "midashenglm":
        loaded = load_midashenglm(name_or_path, device=device, dtype=dtype, revision=revision)
        return _with_facts(loaded.model.decoder, loaded.tokenizer, loaded.eos_token_ids[0], source)
    model: Decoder
    if config.get("model_type") in _OURS:
        model = _load_qwen(source, config, kind, place)
    else:
        model = _load_stock(source, config, kind).to(place)
    tokenizer = read_tokenizer(source.path)
    return _with_facts(model.eval(), tokenizer, end_tokens(source.path, tokenizer)[0][0], source)


def _load_qwen(source: Source, config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> QwenForCausalLM:
    geometry = qwen_config(qwen_settings(config, source.name), source.name)
    _check_safetensors(source)
    state = without_computed(decompress(safe.read_stored(source.path), config, source.name))
    if geometry.tie_word_embeddings:
        tie_head(state, source.name)
    check_sizes(config, state, source.name)
    with on_meta():
        model = QwenForCausalLM(geometry)
    check_keys(state, model.state_dict(), source.name)
    smaller = {"dtype='bfloat16'": memory_need(state, torch.bfloat16, device)}
    check_memory(memory_need(state, dtype, device), device, source.name, smaller)
    fill(model, state, dtype, device, source.name)
    model.tie_weights()
    return model


def _check_safetensors(source: Source) -> None:
    """Weights must be safetensors, as of the other families."""
    try:
        files = safe.weight_files(source.path)
    except WeightsError as error:
        raise WeightsError(f"{source.name}: no causal language model that can be read ({error})") from error
    if wrong := [file.name for file in files if file.suffix != ".safetensors"]:
        raise WeightsError(f"{source.name}: the weights are {wrong[0]}, expected safetensors; convert them")


def _load_stock(source: Source, config: dict[str, Any], dtype: torch.dtype) -> StockDecoder:
    """A language model of transformers, of which config.json chooses the class and the geometry, but no code."""
    try:
        from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    except ImportError:
        raise MissingExtra(f"{source.name}: a language model other than Qwen2 and Qwen3", "transformers") from None
    family = config.get("model_type")
    if (
        not isinstance(family, str)
        or family not in CONFIG_MAPPING
        or CONFIG_MAPPING[family] not in MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        raise WeightsError(f"{source.name}: no causal language model that can be read (model_type is {family!r})")
    config_class: Any = CONFIG_MAPPING[family]
    network_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    # Recurrent networks keep more than keys and values, and fetch kernels from the hub.
    if network_class._is_stateful or hasattr(sys.modules[network_class.__module__], "lazy_load_kernel"):
        raise WeightsError(f"{source.name}: {family} is no plain decoder; give a Qwen2, Llama or alike")
    _check_safetensors(source)
    stored = decompress(safe.read_stored(source.path), config, source.name)
    tensors = {name: made(tensor) for name, tensor in without_computed(stored).items()}
    settings = plain_settings(config)
    check_counts(settings, len(tensors), source.name)
    try:
        geometry = config_class(**settings)
    except Exception as error:  # the library and its validators raise many kinds
        raise WeightsError(f"{source.name}: config.json describes no {family} ({error}); restore it") from error
    try:
        return StockDecoder(load_network(network_class, geometry, tensors, source.name, dtype))
    except ConfigError as error:
        raise WeightsError(f"{source.name}: {error}") from error


@reads_models
def load_text_tokenizer(name_or_path: str | Path = "auricle-tiny", *, revision: str | None = None) -> Tokenizer:
    """The tokenizer alone; arguments and errors as `load_causal_lm`."""
    return read_tokenizer(resolve(name_or_path, revision=revision).path)


def _with_facts(model: Decoder, tokenizer: Tokenizer, end_id: int, source: Source) -> CausalLM:
    return CausalLM(model, tokenizer, str(tokenizer.id_to_token(end_id)), source.name, fingerprint(source))
