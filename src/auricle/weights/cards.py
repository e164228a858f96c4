"""Model cards: what a model was made from, measured at and cannot do, as README.md with YAML front matter.

What it was trained on, clip by clip, is beside it where it is known: ``training_clips.json`` holds, for each data set,
its number of clips and their acoustic fingerprints (`auricle.data.acoustic_fingerprint`) in base64.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.data.acoustic_fingerprint import BYTES, MAX_DIFFERENT_BITS, as_rows, different_bits
from auricle.errors import AuricleError, ConfigError, WeightsError
from auricle.files import read_regular_text, write_json
from auricle.weights import safe
from auricle.weights.catalog import resolve
from auricle.weights.layouts import optional_json

TRAINING_CLIPS = "training_clips.json"
_FORMAT = "auricle-training-clips/1"
_ROWS = 1024  # clips compared at once
_MAX_BYTES = 2**22  # of a README.md
# Auricle's settings in a model's generation_config.json.
MAX_AUDIO_KEY = "auricle_max_audio_s"  # longest clip the model was trained on, s
MAX_PROMPT_KEY = "auricle_max_prompt_s"  # the same for all clips of one prompt, where it was trained on several
NO_SPEECH_KEY = "auricle_no_speech_logprob"  # see `auricle.listen.no_speech.NoSpeechRule`
UNSURE_KEY = "auricle_unsure_below"  # mean probability of a token, 0 to 1, below which a result is called unsure
OPEN_SPEECH_KEY = "auricle_open_speech_below"  # see `auricle.listen.no_speech.is_open_speech`
_SETTINGS = (MAX_AUDIO_KEY, MAX_PROMPT_KEY, NO_SPEECH_KEY, UNSURE_KEY, OPEN_SPEECH_KEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """The facts of a model that its weights do not show."""

    name: str
    summary: str = ""  # one or two sentences
    license: str = "apache-2.0"  # identifier of the Hugging Face Hub
    datasets: tuple[str, ...] = ()  # each with its own licence, in words
    metrics: dict[str, Any] = field(default_factory=dict)  # name -> value or mapping, measured
    limits: tuple[str, ...] = ()  # what the model cannot do
    # what it was not trained for, by verb: transcribe, or schema for answers of a JSON schema; said when that is used
    verb_limits: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)  # training settings
    base_model: str | None = None  # what it was converted or trained from
    tags: tuple[str, ...] = ("audio",)


def render_card(card: Card) -> str:
    """The card as Markdown; `read_card` gives it back."""
    front = {
        "license": card.license,
        "tags": list(card.tags),
        "library_name": "auricle",
        **({"base_model": card.base_model} if card.base_model else {}),
        "auricle": {
            "name": card.name,
            "summary": card.summary,
            "datasets": list(card.datasets),
            "metrics": card.metrics,
            "limits": list(card.limits),
            **({"verb_limits": card.verb_limits} if card.verb_limits else {}),
            "seed": card.seed,
            "config": card.config,
        },
    }
    parts = [f"---\n{_yaml(front)}---\n", f"# {card.name}\n"]
    if card.summary:
        parts.append(f"{card.summary}\n")
    if card.datasets:
        parts.append(_bullets("Trained on", card.datasets))
    if card.metrics:
        rows = "\n".join(f"| {name} | {value} |" for name, value in card.metrics.items())
        parts.append(f"## Measured\n\n| metric | value |\n|---|---|\n{rows}\n")
    if card.limits or card.verb_limits:
        by_verb = (f"`{verb}`: {limit}" for verb, limit in card.verb_limits.items())
        parts.append(_bullets("What it cannot do", (*card.limits, *by_verb)))
    if card.config or card.seed is not None:
        settings = {"seed": card.seed, **card.config}
        parts.append(f"## Training\n\n```yaml\n{_yaml(settings)}```\n")
    return "\n".join(parts)


def read_card(folder: str | Path) -> Card:
    """The card in a model folder's README.md, written by this library or by anyone in the hub's format.

    Raises:
        WeightsError: no README.md, or its front matter is no YAML mapping.
    """
    import yaml

    path = Path(folder) / "README.md"
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; a model card is a README.md with YAML front matter")
    try:
        text = read_regular_text(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as text ({error}); download it again") from error
    _, _, rest = text.partition("---\n")
    front_text, closing, _ = rest.partition("\n---\n")
    try:
        front = yaml.load(front_text, Loader=yaml_loader()) if closing else {}
    except yaml.YAMLError as error:
        raise WeightsError(f"{path}: the front matter is no YAML ({error})") from error
    if not isinstance(front, dict):
        raise WeightsError(f"{path}: the front matter is a {type(front).__name__}, expected a mapping")
    own = front.get("auricle")
    own = own if isinstance(own, dict) else {}
    base = front.get("base_model")
    return Card(
        name=str(own.get("name", Path(folder).name)),
        summary=str(own.get("summary", "")),
        license=str(front.get("license", "unknown")),
        datasets=tuple(own.get("datasets") or front.get("datasets") or ()),
        metrics=dict(own.get("metrics") or {}),
        limits=tuple(own.get("limits") or ()),
        verb_limits={str(verb): str(limit) for verb, limit in (own.get("verb_limits") or {}).items()},
        seed=own.get("seed"),
        config=dict(own.get("config") or {}),
        base_model=str(base) if base else None,
        tags=tuple(front.get("tags") or ()),
    )


def read_license(path: Path) -> str:
    """The licence that the card in a model's folder states; ``unknown`` where there is no readable card."""
    try:
        return read_card(path).license
    except (WeightsError, OSError, ValueError):
        return "unknown"


def yaml_loader() -> Any:
    """The safe loader, in C where it was built: it takes a fifth of the time, and ends at a thousand levels."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _yaml(value: dict[str, Any]) -> str:
    """YAML whose innermost lists and mappings take a line each, so that a curve does not fill a page."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _bullets(title: str, lines: tuple[str, ...]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def stated_settings(folder: Path) -> dict[str, float]:
    """Auricle's settings in a model's ``generation_config.json``, by the keys above.

    Raises:
        ConfigError: a value is not a number.
    """
    file = folder / "generation_config.json"
    found = optional_json(file)
    stated = {key: found[key] for key in _SETTINGS if key in found}
    for key, value in stated.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{file}: {key} is {value!r}; expected a number")
    return stated


# --- training clips


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingClips:
    """The clips that a model was trained on, as far as they are known."""

    sets: tuple[str, ...]  # names of data sets
    rows: npt.NDArray[np.uint8]  # (n, 32) fingerprints of all of them

    def holds(self, fingerprints: Sequence[bytes | None]) -> list[bool]:
        """For each clip whether it is one of them; False where it has no fingerprint."""
        known = [number for number, found in enumerate(fingerprints) if found is not None]
        rows = as_rows([found for found in fingerprints if found is not None])
        held = [False] * len(fingerprints)
        for start in range(0, len(rows) if len(self.rows) else 0, _ROWS):
            nearest = different_bits(rows[start : start + _ROWS], self.rows).min(1)
            for number, bits in zip(known[start : start + _ROWS], nearest, strict=True):
                held[number] = bool(bits <= MAX_DIFFERENT_BITS)
        return held


def write_training_clips(folder: str | Path, sets: Mapping[str, Sequence[bytes]]) -> Path:
    """Write the fingerprints of data sets, by name, into a model's folder."""
    stored = {name: base64.b64encode(b"".join(own)).decode() for name, own in sets.items()}
    content = {name: {"clips": len(own), "fingerprints": stored[name]} for name, own in sets.items()}
    path = Path(folder) / TRAINING_CLIPS
    write_json(path, {"format": _FORMAT, "sets": content})
    return path


def read_training_clips(folder: str | Path) -> TrainingClips | None:
    """The fingerprints in a model's folder; None: there are none.

    Raises:
        WeightsError: the file is damaged.
    """
    path = Path(folder) / TRAINING_CLIPS
    if not path.is_file():
        return None
    content = safe.read_json(path)
    try:
        if content["format"] != _FORMAT:
            raise ValueError(f"format is {content['format']!r}, expected {_FORMAT!r}")
        stored = {name: base64.b64decode(own["fingerprints"], validate=True) for name, own in content["sets"].items()}
        rows = [as_rows([own]) for own in stored.values()]
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise WeightsError(f"{path}: no readable list of training clips ({error}); restore or delete it") from error
    return TrainingClips(sets=tuple(stored), rows=np.concatenate([np.zeros((0, BYTES), np.uint8), *rows]))


def training_clips(names: Iterable[str]) -> TrainingClips | None:
    """The training clips of models by their names, with those of an encoder that they share; None: not known.

    Nothing is downloaded. A name that is no model's has none.

    Raises:
        WeightsError: a list of training clips is damaged.
    """
    folders = [folder for name in names if (folder := _folder(name))]
    folders += [folder for own in folders if (folder := _folder(_shared_encoder(own)))]
    found = [own for folder in dict.fromkeys(folders) if (own := read_training_clips(folder))]
    if not found:
        return None
    sets = tuple(dict.fromkeys(name for each in found for name in each.sets))
    return TrainingClips(sets=sets, rows=np.concatenate([each.rows for each in found]))


def _folder(name: str) -> Path | None:
    try:
        return resolve(name, offline=True).path if name else None
    except AuricleError:
        return None


def _shared_encoder(folder: Path) -> str:
    """The encoder that an audio–text model names in place of a tower of its own; empty: none."""
    settings = folder / "config.json"
    name = safe.read_json(settings).get("audio_encoder") if settings.is_file() else None
    return name if isinstance(name, str) else ""
