"""Names and paths → networks, ready to run; how tensors get into them is in `auricle.weights.construct`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.files import read_regular, read_regular_text
from auricle.models.dasheng import Dasheng
from auricle.models.int8 import has_int8_kernel
from auricle.models.midashenglm import MiDashengLM
from auricle.weights import safe
from auricle.weights.adapters import merge_adapter
from auricle.weights.catalog import Source, fingerprint, resolve
from auricle.weights.chat_template import MAX_TEMPLATE_BYTES
from auricle.weights.construct import fill, on_meta, own_dtype
from auricle.weights.layouts import optional_json, read_dasheng, reads_models
from auricle.weights.lm_layouts import LMParts, read_midashenglm, with_state
from auricle.weights.memory import MemoryNeed, check_memory, memory_need
from auricle.weights.quantize import check_scheme, is_rounded, round_layers, round_on_gpu
from auricle.weights.text_tokenizers import MAX_TOKENIZER_BYTES, check_sizes, open_tokenizer, tokenizer_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from auricle.weights.processor import PromptWriter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"  # data type: the checkpoint's, bfloat16 where it is stored so, else float32; device: see `device_of`
# The authors' prompt format: audio and text parts in the order given, each turn between <|im_start|> and <|im_end|>.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2's pre-tokeniser, for folders that hold vocab.json and merges.txt alone.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class AudioTokens(NamedTuple):
    """Names of the tokens around and in place of a clip."""

    bos: str = "<|audio_bos|>"
    audio: str = "<|AUDIO|>"
    eos: str = "<|audio_eos|>"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedLM:
    """A language model with everything around it."""

    model: MiDashengLM  # in eval mode
    tokenizer: "Tokenizer"
    chat_template: str  # Jinja; comes from the folder, so render it in a sandbox
    eos_token_ids: tuple[int, ...]  # any of them ends an answer
    pad_token_id: int
    audio_tokens: AudioTokens
    identity: dict[str, str | None]  # name, path, revision, sha256 (of the weights), adapter


def prompt_writer(loaded: LoadedLM) -> "PromptWriter":
    """Writes messages as prompts, by the model's template, tokenizer and rule for audio tokens."""
    from auricle.weights.processor import PromptWriter

    config = loaded.model.config
    return PromptWriter(
        loaded.tokenizer,
        loaded.chat_template,
        audio_token_id=config.audio_token_id,
        subsample_factor=config.subsample_factor,
        whole_tokens=config.whole_tokens,
    )


@reads_models
def load_dasheng(
    name_or_path: str | Path, *, device: str = "cpu", dtype: str | None = None, revision: str | None = None
) -> Dasheng:
    """An encoder in eval mode, from any name `resolve` knows and any layout of `layouts`.

    Args:
        name_or_path: embedded or published name, hub id, folder or file.
        device: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``, see `device_of`.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the network; front end and input norm stay float32. None or
            ``auto``: the checkpoint's own, bfloat16 where it is stored so, else float32.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, or does not fit into memory.
        ConfigError: unknown dtype or device, or the number of attention heads cannot be known.
    """
    stated, place = _dtype(dtype), device_of(device)
    source = resolve(name_or_path, revision=revision)
    config, state = read_dasheng(source.path)
    kind = stated or own_dtype(state)
    smaller = {"dtype='bfloat16'": memory_need(state, torch.bfloat16, place)}
    check_memory(memory_need(state, kind, place), place, source.name, smaller)
    with on_meta():
        model = Dasheng(config)
    fill(model, state, kind, place, source.name)
    return model.to(place).eval()


def is_language_model(source: Source) -> bool:
    """Whether a source is an audio language model, and is named as a whole rather than for its encoder."""
    settings = source.path / "config.json"
    return not source.is_part and settings.is_file() and safe.read_json(settings).get("model_type") == "midashenglm"


@reads_models
def load_midashenglm(
    name_or_path: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
) -> LoadedLM:
    """A language model with tokenizer, template and identity, from any name `resolve` knows.

    Args:
        name_or_path: embedded or published name, hub id or folder in the official layout.
        device: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``, see `device_of`.
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the network; front end and input norm stay float32. None or
            ``auto``: the checkpoint's own, bfloat16 where it is stored so, else float32.
        revision: branch, tag or commit on the hub.
        adapter: folder of a PEFT adapter to merge.
        quantize: ``int8``, ``int8-dynamic``, ``int4`` or ``fp8``, see `auricle.weights.quantize`; the model can then
            neither be trained nor saved.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, is an encoder, or does not fit into memory.
        ConfigError: unknown dtype, device or ``quantize``, or one that this hardware cannot run.
        MissingExtra: ``quantize`` on a GPU needs torchao.
    """
    stated, place = _dtype(dtype), device_of(device)
    if quantize is not None:
        check_scheme(quantize, place, stated or torch.bfloat16)
    source = resolve(name_or_path, revision=revision)
    if source.is_part:
        raise WeightsError(
            f"{source.name} is an encoder, expected an audio language model: name {source.path.name}, whose part it is"
        )
    parts = read_midashenglm(source.path)
    kind = stated or own_dtype(parts.state)
    if quantize is not None:
        check_scheme(quantize, place, kind)
    if adapter is not None:
        parts = with_state(parts, merge_adapter(parts.state, adapter))
    _check_memory(parts, kind, place, quantize, source.name)
    model = _assemble(parts, kind, place, quantize, source.name)
    folder = source.path
    tokenizer = read_tokenizer(folder)
    eos, pad = end_tokens(folder, tokenizer)
    return LoadedLM(
        model=model,
        tokenizer=tokenizer,
        chat_template=read_chat_template(folder),
        eos_token_ids=eos,
        pad_token_id=pad,
        audio_tokens=_audio_tokens(folder, tokenizer, parts.config.audio_token_id),
        identity={**identity_of(source, adapter), **({} if quantize is None else {"quantize": quantize})},
    )


def place_of(dtype: str, device: str) -> tuple[torch.dtype, torch.device]:
    """What the names of a data type and a device stand for; ``auto`` is float32 here.

    Raises:
        ConfigError: an unknown data type, or a device that cannot be used.
    """
    return _dtype(dtype) or torch.float32, device_of(device)


def identity_of(source: Source, adapter: str | Path | None = None) -> dict[str, str | None]:
    """What a result states about its model: name, path, revision, sha256 of the weights and of an adapter."""
    identity = {
        "name": source.name,
        "path": str(source.path),
        "revision": source.revision,
        "sha256": fingerprint(source),
    }
    return identity if adapter is None else {**identity, "adapter_sha256": safe.sha256(adapter)}


def read_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer in ``tokenizer.json``, or built from ``vocab.json`` and ``merges.txt`` as Qwen2's.

    Raises:
        WeightsError: neither is there, or they are damaged.
    """
    file = folder / "tokenizer.json"
    if not os.path.lexists(file):
        return _qwen2_tokenizer(folder)
    try:
        content = read_regular(file, MAX_TOKENIZER_BYTES)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); download it again") from error
    return open_tokenizer(content, str(file))


def read_chat_template(folder: Path) -> str:
    """The Jinja prompt template of a folder; the authors' published format where it has none.

    Raises:
        WeightsError: its file is no text of bounded size.
    """
    file = folder / "chat_template.jinja"
    if os.path.lexists(file):
        try:
            return read_regular_text(file, MAX_TEMPLATE_BYTES)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{file}: cannot be read as text ({error}); download it again") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = optional_json(folder / name).get("chat_template")
        if isinstance(template, str):
            return template.removeprefix("\ufeff")
    return CHAT_TEMPLATE


def end_tokens(folder: Path, tokenizer: "Tokenizer") -> tuple[tuple[int, ...], int]:
    """Ids that end an answer, and the id that fills a batch.

    Raises:
        WeightsError: the folder's files name no end.
    """
    generation, model, words = (
        optional_json(folder / name) for name in ("generation_config.json", "config.json", "tokenizer_config.json")
    )
    text = model.get("text_config") or {}

    def named(key: str) -> int | None:
        word = words.get(key)
        word = word.get("content") if isinstance(word, dict) else word
        return tokenizer.token_to_id(word) if isinstance(word, str) else None

    stated = (generation.get("eos_token_id"), model.get("eos_token_id"), text.get("eos_token_id"), named("eos_token"))
    eos = next((e for e in stated if e is not None), None)
    if eos is None:
        raise WeightsError(
            f"{folder}: no end-of-answer token in generation_config.json or tokenizer_config.json; add one"
        )
    ids = tuple(eos if isinstance(eos, list) else [eos])
    if not ids:
        raise WeightsError(f"{folder}: eos_token_id is {eos!r}, expected a token's number or a list of some")
    fills = (generation.get("pad_token_id"), named("pad_token"), ids[0])
    fill = next(p for p in fills if p is not None)
    size = text.get("vocab_size", model.get("vocab_size", tokenizer.get_vocab_size()))
    if wrong := [end for end in (*ids, fill) if type(end) is not int or not 0 <= end < size]:
        raise WeightsError(f"{folder}: {wrong[0]!r} ends or fills answers, expected one of {size} tokens")
    return ids, fill


def _assemble(
    parts: LMParts, dtype: torch.dtype, device: torch.device, quantize: str | None, source: str
) -> MiDashengLM:
    """The network, filled, on its device and in eval mode."""
    model, state = parts.empty, parts.state
    if quantize is not None and device.type == "cpu":
        round_layers(model, state, quantize)
    fill(model, state, dtype, device, source)
    # A rounded output head is a copy of the embeddings, no longer tied to them.
    if isinstance(model.decoder.lm_head, nn.Linear):
        model.decoder.tie_weights()
    if quantize is not None:
        if device.type != "cpu":
            round_on_gpu(model, quantize)
        model.requires_grad_(False)
    return model.to(device).eval()


def _check_memory(parts: LMParts, dtype: torch.dtype, device: torch.device, quantize: str | None, source: str) -> None:
    """Refuse what does not fit into memory, with the ways of loading that need less."""

    def need(dtype: torch.dtype, quantize: str | None) -> MemoryNeed:
        def is_small(key: str) -> bool:
            return quantize is not None and is_rounded(key.rpartition(".")[0], quantize)

        # On a GPU the layers are rounded where they are, so that all are there at full width first.
        return memory_need(parts.state, dtype, device, is_small if device.type == "cpu" else lambda key: False)

    smaller = {"dtype='bfloat16'": need(torch.bfloat16, None)}
    if quantize is None and device.type == "cpu" and has_int8_kernel():
        smaller["quantize='int8'"] = need(dtype, "int8")
        smaller["dtype='bfloat16' and quantize='int8'"] = need(torch.bfloat16, "int8")
    check_memory(need(dtype, quantize), device, source, smaller)


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None or name == AUTO:
        return None
    if not isinstance(name, str) or name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}, expected one of {', '.join(DTYPES)} or {AUTO}")
    return DTYPES[name]


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: it cannot be used.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); try 'cpu'") from error
    return device


def _audio_tokens(folder: Path, tokenizer: "Tokenizer", audio_token_id: int) -> AudioTokens:
    settings = {**optional_json(folder / "tokenizer_config.json"), **optional_json(folder / "processor_config.json")}
    names = AudioTokens(
        *(str(settings.get(key, default)) for key, default in zip(_AUDIO_KEYS, AudioTokens(), strict=True))
    )
    if absent := [name for name in names if tokenizer.token_to_id(name) is None]:
        raise LayoutMismatch(f"{folder}: the tokenizer has no {absent[0]}; it does not belong to this model")
    if tokenizer.token_to_id(names.audio) != audio_token_id:
        raise LayoutMismatch(
            f"{folder}: {names.audio} is token {tokenizer.token_to_id(names.audio)}, config.json's audio_token_id is "
            f"{audio_token_id}: tokenizer and weights do not belong together"
        )
    return names


_AUDIO_KEYS = ("audio_bos_token", "audio_token", "audio_eos_token")


def _qwen2_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        raise WeightsError(f"{folder}: neither tokenizer.json nor vocab.json with merges.txt; download the tokenizer")
    try:
        lines = read_regular_text(merges, MAX_TOKENIZER_BYTES).splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{merges}: cannot be read as text ({error}); download it again") from error
    pairs: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    numbers = safe.read_json(vocab)
    check_sizes({"model": {"vocab": numbers}}, str(vocab))
    with tokenizer_errors(str(folder)):
        tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=pairs))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = optional_json(folder / "added_tokens.json")
    listed = optional_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    added |= {token["content"]: int(number) for number, token in listed.items()}
    for word, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False)])
        if tokenizer.token_to_id(word) != number:
            raise WeightsError(f"{folder}: {word} became token {tokenizer.token_to_id(word)}, expected {number}")
    return tokenizer
