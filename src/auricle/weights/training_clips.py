"""What a model was trained on, clip by clip: acoustic fingerprints beside its weights, to compare test clips with.

``training_clips.json`` holds, for each data set, its number of clips and their fingerprints
(`auricle.audio.acoustic_fingerprint`) in base64. It is part of a model's card: converted models keep it.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auricle.audio.acoustic_fingerprint import BYTES, MAX_DIFFERENT_BITS, as_rows, different_bits
from auricle.errors import AuricleError, WeightsError
from auricle.files import write_json
from auricle.weights import safe
from auricle.weights.catalog import resolve

FILE = "training_clips.json"
FORMAT = "auricle-training-clips/1"
_ROWS = 1024  # clips compared at once


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
    path = Path(folder) / FILE
    write_json(path, {"format": FORMAT, "sets": content})
    return path


def read_training_clips(folder: str | Path) -> TrainingClips | None:
    """The fingerprints in a model's folder; None: there are none.

    Raises:
        WeightsError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    content = safe.read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, expected {FORMAT!r}")
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
