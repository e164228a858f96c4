"""The clips of a source of questions, and what is known about each.

==============================  =====================================================================================
manifest                        ``.jsonl``, ``.csv`` or ``.tsv``, see `auricle.data.manifest`; all its rows belong to
                                the task
file of predictions             ``.jsonl`` of `auricle.evaluate.predictions`, recognised by ``dataset_name`` or
                                ``model_output`` in its first row; predictions are ignored
shards                          a ``.tar`` or a folder of them, see `auricle.data.shards`; a clip without the facts of
                                the task belongs to another one
==============================  =====================================================================================

Audio is looked for beside the file; ``FILE:FOLDER`` takes it from another folder.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from auricle.audio.limits import DEFAULT_LIMITS
from auricle.audio.sources import open_source
from auricle.data.manifest import READERS, read_manifest, resolve_audio
from auricle.data.shards import ShardSet
from auricle.data.tar_members import AUDIO_SUFFIXES
from auricle.data.untrusted_json import parse_json, parse_object, read_text
from auricle.errors import AudioError, DataError

_OF_PREDICTIONS = ("dataset_name", "model_output")  # either makes a row one of a file of predictions
_FIRST_LINE = 1 << 20  # characters


@dataclass(frozen=True, slots=True)
class AudioFile:
    """The audio of a clip, which is read when it is needed."""

    name: str  # in files of predictions
    read: Callable[[], bytes]  # the bytes of the file; raises AudioError or DataError that names it
    path: Path | None = None  # where it is a file of its own

    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.read()).hexdigest()


class NamedBytes(io.BytesIO):
    """The bytes of an audio file, with the name that messages and receipts give it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


class Clip(NamedTuple):
    """An audio file and what is known about it; one file may be given several times, each with another question."""

    where: str  # for messages
    audio: AudioFile
    facts: Mapping[str, Any]


class Clips(NamedTuple):
    """All clips of a source, in its order."""

    clips: list[Clip]
    of_several_sets: bool  # clips without a fact belong to another set; else they are faulty


def read_clips(source: str | Path) -> Clips:
    """Audio files and facts of a source; see above.

    Raises:
        DataError: there is no such source, or it cannot be understood.
    """
    place, audio = split_source(source)
    if place.is_dir() or place.suffix.lower() == ".tar":
        if audio is not None:
            raise DataError(f"{source}: shards hold their audio; leave out {audio}")
        return Clips(list(_of_shards(place)), of_several_sets=True)
    if place.suffix.lower() not in READERS:
        raise DataError(
            f"{source}: is not a source of questions; expected {', '.join(READERS)}, a .tar or a folder of shards"
        )
    read = _of_predictions if _is_of_predictions(place) else _of_manifest
    return Clips(list(read(place, audio or place.parent)), of_several_sets=False)


def split_source(source: str | Path) -> tuple[Path, Path | None]:
    """Path and folder of audio from ``PATH`` or ``PATH:FOLDER``.

    Raises:
        DataError: one of them does not exist.
    """
    whole = Path(source)
    if whole.exists():
        return whole, None
    place, sign, audio = str(source).rpartition(":")
    if not sign or not Path(place).exists():
        raise DataError(f"{source}: does not exist; expected a file, a folder of shards, or PATH:FOLDER of its audio")
    if not Path(audio).is_dir():
        raise DataError(f"{source}: there is no folder {audio or 'without a name'}; expected that of the audio")
    return Path(place), Path(audio)


def read_audio_folder(folder: Path) -> dict[str, AudioFile]:
    """Audio files of a folder by clip: those of its tars, or files named after their clip."""
    if any(folder.glob("*.tar")):
        shards = ShardSet(folder)
        return {key: AudioFile(key, partial(shards.read_audio, at)) for at, key in enumerate(shards.keys())}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in AUDIO_SUFFIXES)
    return {path.stem: audio_file(path, path.name) for path in reversed(paths)}


def audio_file(path: Path, name: str) -> AudioFile:
    """The audio of a file, which need not exist before it is read."""
    return AudioFile(name, partial(_read, path), path)


def _read(path: Path) -> bytes:
    with open_source(path, DEFAULT_LIMITS) as opened:
        try:
            return opened.file.read()
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror or error}); check the disk") from None


def _of_manifest(path: Path, audio: Path) -> Iterator[Clip]:
    for entry in read_manifest(path):
        is_inside = entry.audio.is_relative_to(path.parent)
        name = entry.audio.relative_to(path.parent).as_posix() if is_inside else str(entry.audio)
        file = audio_file(audio / name if is_inside else entry.audio, name)
        yield Clip(f"{path}: {entry.id!r}", file, entry.meta)


def _is_of_predictions(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = next((line for line in iter(partial(file.readline, _FIRST_LINE), "") if line.strip()), "")
        row = parse_json(first, allow_nan=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    except ValueError:
        return False
    return isinstance(row, dict) and any(name in row for name in _OF_PREDICTIONS)


def _of_predictions(path: Path, audio: Path) -> Iterator[Clip]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse_object(line, where)
        try:
            file = resolve_audio(number, row.get("audio"), audio)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        yield Clip(where, audio_file(file, row["audio"]), row)


def _of_shards(place: Path) -> Iterator[Clip]:
    shards = ShardSet(place)
    for number, key in enumerate(shards.keys()):
        audio = AudioFile(key, partial(shards.read_audio, number))
        yield Clip(f"{place}: clip {key!r}", audio, shards.read_meta(number))
