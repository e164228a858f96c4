"""Plain causal language models, for judges that read embeddings with one: the embedded decoder, or a folder's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.errors import WeightsError
from auricle.weights import safe
from auricle.weights.catalog import Source, fingerprint, resolve
from auricle.weights.loaders import end_tokens, load_midashenglm, place_of, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class CausalLM(NamedTuple):
    """A language model in evaluation mode, its tokens, and what it is."""

    model: Any  # a transformers causal language model with ``model`` and ``lm_head``
    tokenizer: "Tokenizer"
    end: str  # token that ends a text
    name: str  # as asked for
    sha256: str | None  # of the weights; None where hashing them would take too long


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
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, or is no language model of that form.
        ConfigError: unknown dtype or device.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    if safe.read_json(source.path / "config.json").get("model_type") == "midashenglm":
        loaded = load_midashenglm(name_or_path, device=device, dtype=dtype, revision=revision)
        return _with_facts(loaded.model.decoder, loaded.tokenizer, loaded.eos_token_ids[0], source)
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.path, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=kind
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{source.name}: no causal language model that can be read ({error})") from error
    if not hasattr(model, "model") or not hasattr(model, "lm_head"):
        raise WeightsError(
            f"{source.name}: {type(model).__name__} keeps its layers elsewhere; give a Qwen2, Llama or alike"
        )
    tokenizer = read_tokenizer(source.path)
    return _with_facts(model.to(place).eval(), tokenizer, end_tokens(source.path, tokenizer)[0][0], source)


def load_text_tokenizer(name_or_path: str | Path = "auricle-tiny", *, revision: str | None = None) -> "Tokenizer":
    """The tokenizer alone; arguments and errors as `load_causal_lm`."""
    return read_tokenizer(resolve(name_or_path, revision=revision).path)


def _with_facts(model: Any, tokenizer: "Tokenizer", end_id: int, source: Source) -> CausalLM:
    return CausalLM(model, tokenizer, str(tokenizer.id_to_token(end_id)), source.name, fingerprint(source))
