"""Where the sounds of a task lie, and what is known about each.

==============================  =====================================================================================
manifest                        ``.jsonl``, ``.csv`` or ``.tsv``, see `auricle.data.manifest`; all its rows are of the
                                task
file of answers                 ``.jsonl`` of `auricle.evaluate.predictions`, told by ``dataset_name`` or
                                ``model_output`` in its first row; answers are not looked at
shards                          a ``.tar`` or a folder of them, see `auricle.data.shards`; what a clip does not know
                                makes it one of another task
==============================  =====================================================================================

Audio is looked for beside the file; ``FILE:FOLDER`` takes it from another folder.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from auricle.data.manifest import READERS, read_manifest, resolve_audio
from auricle.data.shards import ShardSet
from auricle.errors import DataError
from auricle.evaluate.predictions import read_bounded, read_line
from auricle.evaluate.question import SoundFile, sound_at

_OF_ANSWERS = ("dataset_name", "model_output")  # either makes a row one of a file of answers
_FIRST_LINE = 1 << 20  # characters


class Clip(NamedTuple):
    """A sound and what is known about it; one sound may come several times, each time with another question."""

    where: str  # for messages
    sound: SoundFile
    facts: Mapping[str, Any]


class Clips(NamedTuple):
    """All of a source, in its order."""

    clips: list[Clip]
    of_several_sets: bool  # clips without a fact belong to another set; else they are faulty


def read_clips(source: str | Path) -> Clips:
    """Sounds and facts of a source; see above.

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
            f"{source}: is no source of questions; expected {', '.join(READERS)}, a .tar or a folder of shards"
        )
    own = _of_answers if _is_of_answers(place) else _of_manifest
    return Clips(list(own(place, audio or place.parent)), of_several_sets=False)


def split_source(source: str | Path) -> tuple[Path, Path | None]:
    """Path and folder of audio from ``PATH`` or ``PATH:FOLDER``.

    Raises:
        DataError: nothing is there.
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


def _of_manifest(path: Path, audio: Path) -> Iterator[Clip]:
    for entry in read_manifest(path):
        is_inside = entry.audio.is_relative_to(path.parent)
        name = entry.audio.relative_to(path.parent).as_posix() if is_inside else str(entry.audio)
        sound = sound_at(audio / name if is_inside else entry.audio, name)
        yield Clip(f"{path}: {entry.id!r}", sound, entry.meta)


def _is_of_answers(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = next((line for line in iter(partial(file.readline, _FIRST_LINE), "") if line.strip()), "")
        row = json.loads(first)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and any(name in row for name in _OF_ANSWERS)


def _of_answers(path: Path, audio: Path) -> Iterator[Clip]:
    for number, line in enumerate(read_bounded(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = read_line(line, where)
        try:
            file = resolve_audio(number, row.get("audio"), audio)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        yield Clip(where, sound_at(file, row["audio"]), row)


def _of_shards(place: Path) -> Iterator[Clip]:
    shards = ShardSet(place)
    for number, key in enumerate(shards.keys()):
        sound = SoundFile(key, partial(shards.read_audio, number))
        yield Clip(f"{place}: clip {key!r}", sound, shards.read_meta(number))
