"""A sound, and one thing that is asked about it."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from auricle.audio.limits import DEFAULT_LIMITS
from auricle.audio.sources import open_source
from auricle.errors import AudioError


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A sound that is asked about; nothing is read before it is needed."""

    name: str  # as it stands in files of answers
    read: Callable[[], bytes]  # the file as it lies; raises AudioError or DataError that names it

    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.read()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One thing asked about one sound."""

    sound: SoundFile
    prompt: str  # whole, as the model is asked
    field: str  # of the answer, see `auricle.evaluate.task.LanguageTask.prompts`; "": the only one
    row: Mapping[str, Any]  # of the file of answers without `model_output` and `model_name`: references, groups


class NamedBytes(io.BytesIO):
    """The bytes of a sound, under the name that messages and receipts give it."""

    def __init__(self, content: bytes, name: str) -> None:
        """Begin at the first byte."""
        super().__init__(content)
        self.name = name


def sound_at(path: Path, name: str) -> SoundFile:
    """The sound of a file, which need not be there before it is read."""
    return SoundFile(name, partial(_read, path))


def _read(path: Path) -> bytes:
    with open_source(path, DEFAULT_LIMITS) as opened:
        try:
            return opened.file.read()
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror or error}); check the disk") from None
