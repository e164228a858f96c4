"""Labelled sounds in plain tars of ``KEY.{flac,wav,ogg,mp3}`` and ``KEY.json``, read where they lie.

These are the audio tars of X-ARES, and what any WebDataset writer makes. Nothing is extracted: a tar is walked once
over its headers, and a sound is read from its place when it is asked for. Unlike in the shards of
`auricle.data.shards`, the JSON may be any value (events come as a list), and what is left out is reported by name.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from auricle.data import shard_index
from auricle.data.shard_index import AUDIO_SUFFIXES
from auricle.errors import DataError


@dataclass(frozen=True, slots=True)
class TarAudio:
    """The encoded bytes of one sound inside a tar, read when asked for."""

    tar: Path
    name: str  # of the member
    offset: int  # of its contents, bytes
    size: int  # bytes

    def read(self) -> bytes:
        """The bytes of the audio file.

        Raises:
            DataError: the tar is gone or shorter than when it was walked.
        """
        return _pread(self.tar, self.name, self.offset, self.size)


class LabelledSound(NamedTuple):
    """One sample of a tar."""

    key: str  # unique in its tar
    audio: TarAudio
    label: Any  # the JSON as it is


class Refused(NamedTuple):
    """A member, or a sound, that was left out."""

    tar: Path
    member: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelTar:
    """The samples of one tar in the order of their audio, and what was left out."""

    path: Path
    sounds: tuple[LabelledSound, ...]
    refused: tuple[Refused, ...]

    def __len__(self) -> int:
        """Sounds."""
        return len(self.sounds)


def read_label_tar(path: str | Path) -> LabelTar:
    """Find the sounds and labels of a tar by walking its headers; audio is skipped over, labels are read.

    Left out, and listed in `LabelTar.refused`: names that are absolute or climb out, links, devices and folders, audio
    of more than 1 GiB, labels of more than 1 MiB, second members of one name, labels that are no JSON, and audio
    without a label or the reverse.

    Raises:
        DataError: no such file, no plain tar, truncated, or forged sizes.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no tar at {path}; expected a file of KEY.flac and KEY.json members")
    audio: dict[str, shard_index._Member] = {}
    stored: dict[str, shard_index._Member] = {}
    refused: list[Refused] = []
    for member in shard_index._members(path):
        stem, suffix = shard_index._split_name(member.name)
        table = audio if suffix in AUDIO_SUFFIXES else stored if suffix == "json" else None
        reason = shard_index._objection(member, suffix, table, stem)
        if reason is None and table is not None:
            table[stem] = member
        else:
            refused.append(Refused(path, member.name, str(reason)))
    sounds = []
    for key, sound in audio.items():
        found = stored.pop(key, None)
        try:
            label = _label(path, found)
        except DataError as error:
            refused.append(Refused(path, sound.name, str(error)))
        else:
            sounds.append(LabelledSound(key, TarAudio(path, sound.name, sound.offset, sound.size), label))
    refused += [Refused(path, label.name, "a label without audio") for label in stored.values()]
    return LabelTar(path, tuple(sounds), tuple(refused))


def stream_label_tars(folder: str | Path, pattern: str) -> Iterator[LabelledSound | Refused]:
    """The samples of the tars of a folder that match a pattern, in order of names, and what is left out of each.

    Raises:
        DataError: no tar matches, or see `read_label_tar`.
    """
    for tar in find_tars(folder, pattern):
        found = read_label_tar(tar)
        yield from found.sounds
        yield from found.refused


def find_tars(folder: str | Path, pattern: str) -> list[Path]:
    """Tars of a folder that match a file name pattern such as ``wds-audio-fold-1-*.tar``, sorted.

    Raises:
        DataError: none; the tars that are there are named.
    """
    folder = Path(folder)
    if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
        return found
    present = sorted(path.name for path in folder.glob("*.tar"))
    raise DataError(
        f"no tar {pattern} in {folder}; found {', '.join(present[:8]) or 'no tars at all'}. "
        "Download the record again, or give the folder the tars were unpacked to"
    )


def _label(tar: Path, stored: shard_index._Member | None) -> Any:
    if stored is None:
        raise DataError("audio without a label")
    try:
        return json.loads(_pread(tar, stored.name, stored.offset, stored.size))
    except (ValueError, RecursionError) as error:
        raise DataError(f"its label is no valid JSON ({error})") from None


def _pread(tar: Path, name: str, offset: int, size: int) -> bytes:
    try:
        with tar.open("rb") as file:
            contents = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise DataError(f"cannot read {name} of {tar} ({error.strerror}); was the tar moved while in use?") from None
    if len(contents) != size:
        raise DataError(f"{tar}: {name} has {len(contents)} of {size} bytes; the tar was cut short: fetch it again")
    return contents
