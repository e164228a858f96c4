"""Labelled clips in plain tars of ``KEY.{flac,wav,ogg,mp3}`` and ``KEY.json``: read in place, and written.

These are the audio tars of X-ARES, and what any WebDataset writer makes. Nothing is extracted: the headers of a tar are
read once, and a clip is read when it is needed. Unlike in the shards of `auricle.data.shards`, the JSON may be any
value (events are a list), audio keeps its bytes, and what is left out is reported by name.
"""

import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from auricle.data.tar_members import (
    AUDIO_SUFFIXES,
    CLIP_LIMITS,
    TarMember,
    described_by,
    member_objection,
    split_member_name,
    tar_members,
)
from auricle.errors import AudioError, DataError
from auricle.files import atomic_folder, is_unfinished, locked, make_folder

MAX_LABEL_BYTES = 8 << 20  # the notes of the longest recordings of MAESTRO take more than 1 MiB
MAX_TAR_BYTES = 1 << 30  # of one written tar, where the pattern allows several

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # with ".flac" it fits the 100 bytes of a ustar name
_OVERHEAD = 4 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # two headers, padding, and the end of a tar
_BITS = {"PCM_S8": 16, "PCM_U8": 16, "ULAW": 16, "ALAW": 16, "PCM_16": 16, "PCM_24": 24}


@dataclass(frozen=True, slots=True)
class TarAudio:
    """The encoded bytes of one clip inside a tar, read when needed."""

    tar: Path
    name: str  # of the member
    offset: int  # of its contents, bytes
    size: int  # bytes

    def read(self) -> bytes:
        """The bytes of the audio file.

        Raises:
            DataError: the tar is missing or shorter than when it was indexed.
        """
        return _pread(self.tar, self.name, self.offset, self.size)


class LabelledClip(NamedTuple):
    """One clip of a tar."""

    key: str  # unique in its tar
    audio: TarAudio
    label: Any  # any JSON value


class LabelledFile(NamedTuple):
    """An audio file and its label, to be written to a tar."""

    key: str  # letters, digits, _ and -; unique in its tars
    path: Path
    label: Any  # JSON-serialisable


class Refused(NamedTuple):
    """A member, or a clip, that was left out."""

    tar: Path
    member: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelTar:
    """The clips of one tar in the order of their audio, and what was left out."""

    path: Path
    clips: tuple[LabelledClip, ...]
    refused: tuple[Refused, ...]

    def __len__(self) -> int:
        return len(self.clips)


def read_label_tar(path: str | Path) -> LabelTar:
    """Find the clips and labels of a tar by its headers; audio is skipped, labels are read.

    Left out, and listed in `LabelTar.refused`: absolute names and those that leave the folder, links, devices and
    folders, audio of more than 1 GiB, labels of more than 8 MiB, repeated names, labels that are not JSON, and audio
    without a label or the reverse.

    Raises:
        DataError: no such file, not a plain tar, truncated, or forged sizes.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no tar at {path}; expected a file of KEY.flac and KEY.json members")
    audio: dict[str, TarMember] = {}
    stored: dict[str, TarMember] = {}
    refused: list[Refused] = []
    for member in tar_members(path):
        stem, suffix = split_member_name(member.name)
        table = audio if suffix in AUDIO_SUFFIXES else stored if suffix == "json" else None
        reason = member_objection(member, table, max_label_bytes=MAX_LABEL_BYTES)
        if reason is None and table is not None:
            table[stem] = member
        else:
            refused.append(Refused(path, member.name, str(reason)))
    clips = []
    used = described_by(audio, stored)
    for key, member in audio.items():
        try:
            label = _label(path, stored[used[key]] if key in used else None)
        except DataError as error:
            refused.append(Refused(path, member.name, str(error)))
        else:
            clips.append(LabelledClip(key, TarAudio(path, member.name, member.offset, member.size), label))
    without = stored.keys() - used.values()
    refused += [Refused(path, label.name, "a label without audio") for key, label in stored.items() if key in without]
    return LabelTar(path, tuple(clips), tuple(refused))


def stream_label_tars(folder: str | Path, pattern: str) -> Iterator[LabelledClip | Refused]:
    """The clips of the tars of a folder that match a pattern, in order of names, and what is left out of each.

    Raises:
        DataError: no tar matches, or see `read_label_tar`.
    """
    for tar in find_tars(folder, pattern):
        found = read_label_tar(tar)
        yield from found.clips
        yield from found.refused


def find_tars(folder: str | Path, pattern: str) -> list[Path]:
    """Tars of a folder that match a file name pattern such as ``wds-audio-fold-1-*.tar``, sorted.

    Raises:
        DataError: none; the tars that are present are named.
    """
    folder = Path(folder)
    if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
        return found
    present = sorted(path.name for path in folder.glob("*.tar"))
    raise DataError(
        f"no tar {pattern} in {folder}; found {', '.join(present[:8]) or 'no tars at all'}. "
        "Download the record again, or give the folder the tars were unpacked to"
    )


def write_label_tars(
    folder: str | Path,
    sets: Mapping[str, Iterable[LabelledFile]],
    *,
    max_bytes: int = MAX_TAR_BYTES,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write clips and their labels as plain tars: all of them appear in the folder, or none.

    Audio keeps its bytes; only other formats than flac, wav, ogg, opus or mp3 (such as .au) become FLAC, sample for
    sample. The same clips give the same tars.

    Args:
        folder: created if missing.
        sets: pattern of file names, see `find_tars` -> clips in order. Its ``*`` becomes the number of the tar; a
            pattern without one gives one tar of any size.
        max_bytes: a tar is closed before it would outgrow this; a larger clip gets its own.
        progress: called with 1 after each clip.

    Returns:
        The tars, in order.

    Raises:
        DataError: tars of these patterns exist; a key that is repeated or has other characters; audio that is missing,
            empty or too large to be read again; a label that is not JSON or larger than 8 MiB.
        OutputError: the folder cannot be written, or another run is writing tars there.
        AudioError: audio that must become FLAC and cannot.
    """
    folder = Path(folder)
    if not folder.parent.exists():
        make_folder(folder.parent)
    last = _tar_name(next(iter(sets), ""), 0)
    with locked(folder):
        was_killed = bool(last) and is_unfinished(folder, last)  # while it published: then what is there is no set
        present = [path for pattern in sets for path in folder.glob(pattern)]
        if present and not was_killed:
            raise DataError(f"{present[0]} exists already; delete the old tars first, or write to another folder")
        with atomic_folder(folder, last=last, stale=tuple(sets) if was_killed else ()) as aside:
            made = [
                tar for pattern, clips in sets.items() for tar in _write_set(aside, pattern, clips, max_bytes, progress)
            ]
    return [folder / tar.name for tar in made]


def _write_set(
    folder: Path, pattern: str, clips: Iterable[LabelledFile], max_bytes: int, progress: Callable[[int], None] | None
) -> Iterator[Path]:
    """Write tars one after the other; each is yielded when it is closed."""
    keys: set[str] = set()
    waiting = iter(clips)
    clip = next(waiting, None)
    for number in itertools.count():
        if clip is None:
            return
        path = folder / _tar_name(pattern, number)
        with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as tar:
            while clip is not None:
                if not _KEY.fullmatch(clip.key) or clip.key in keys:
                    raise DataError(
                        f"key {clip.key!r} of {clip.path} is taken, or has other characters than A–Z a–z 0–9 _ -"
                    )
                label = _to_json(clip)
                with _open_audio(clip.path) as (suffix, size, audio):
                    if tar.offset and "*" in pattern and tar.offset + size + len(label) + _OVERHEAD > max_bytes:
                        break
                    _add(tar, f"{clip.key}.{suffix}", size, audio)
                _add(tar, f"{clip.key}.json", len(label), io.BytesIO(label))
                keys.add(clip.key)
                if progress is not None:
                    progress(1)
                clip = next(waiting, None)
        yield path


def _tar_name(pattern: str, number: int) -> str:
    """``fold-1-*.tar`` -> ``fold-1-000000.tar``, ``train*.tar`` -> ``train-000000.tar``."""
    stem, star, tail = pattern.partition("*")
    return f"{stem}{'' if stem.endswith(('-', '_')) else '-'}{number:06d}{tail}" if star else pattern


def _add(tar: tarfile.TarFile, name: str, size: int, contents: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)  # without time, user or host
    member.size = size
    tar.addfile(member, contents)


def _to_json(clip: LabelledFile) -> bytes:
    try:
        stored = json.dumps(clip.label, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the label of {clip.path} cannot be stored as JSON ({error})") from None
    if len(stored) > MAX_LABEL_BYTES:
        raise DataError(f"the label of {clip.path} takes {len(stored):,} bytes, at most {MAX_LABEL_BYTES:,} are read")
    return stored


@contextmanager
def _open_audio(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Suffix, size and bytes of a clip as written to a tar."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in AUDIO_SUFFIXES:
        contents = _as_flac(path)
        yield "flac", len(contents), io.BytesIO(contents)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); is the data set complete?") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= CLIP_LIMITS.max_bytes:
            raise DataError(f"{path} has {size:,} bytes, expected 1 … {CLIP_LIMITS.max_bytes:,}")
        yield suffix, size, file


def _as_flac(path: Path) -> bytes:
    import soundfile

    out = io.BytesIO()
    try:
        with soundfile.SoundFile(path) as file:
            bits = _BITS.get(file.subtype) if file.format != "RAW" else None  # any bytes named .au are RAW
            if bits is None:
                raise AudioError(f"{path} is {file.format} {file.subtype}, which FLAC cannot hold; convert it to wav")
            soundfile.write(out, file.read(dtype="int32"), file.samplerate, format="FLAC", subtype=f"PCM_{bits}")
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path} cannot be read as audio ({error}); convert it to wav") from None
    return out.getvalue()


def _label(tar: Path, stored: TarMember | None) -> Any:
    if stored is None:
        raise DataError("audio without a label")
    try:
        return json.loads(_pread(tar, stored.name, stored.offset, stored.size))
    except (ValueError, RecursionError) as error:
        raise DataError(f"its label is not valid JSON ({error})") from None


def _pread(tar: Path, name: str, offset: int, size: int) -> bytes:
    try:
        with tar.open("rb") as file:
            contents = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise DataError(f"cannot read {name} of {tar} ({error.strerror}); was the tar moved while in use?") from None
    if len(contents) != size:
        raise DataError(f"{tar}: {name} has {len(contents)} of {size} bytes; the tar is truncated: download it again")
    return contents
