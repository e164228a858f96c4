"""Members of tars of any origin: found without following what their headers claim, named, and checked."""

import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from auricle.audio.limits import Limits
from auricle.errors import DataError
from auricle.files import is_printable

AUDIO_SUFFIXES = frozenset({"flac", "wav", "ogg", "opus", "mp3"})
MAX_META_BYTES = 1 << 20  # facts of one clip; a larger JSON or text member is ignored
CLIP_LIMITS = Limits(max_bytes=1 << 30, max_seconds=4 * 3600.0)  # clips are read whole: 4 h are 0.9 GB of float32
_MAX_NAME = 512
_CHUNK = 1 << 20  # of zeros between two tars
_UNSAFE_NAME = re.compile(r"(^/)|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")

_EXTENDED_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]{1,64})=")


class TarMember(NamedTuple):
    """A member of a tar as its header states it; checked to be inside the file."""

    name: str
    offset: int  # of the contents, bytes
    size: int  # bytes
    is_file: bool  # not a link, device, folder or sparse file


def tar_members(tar: Path) -> Iterator[TarMember]:
    """Members of a plain tar in order, each size checked against the file.

    `tarfile` parses the headers; moving from one to the next is done here, because `TarFile` follows negative sizes
    backwards and treats a damaged header as the end of the archive. Tars one behind the other in a file are read as
    one, other bytes behind the end of a tar are not.

    Raises:
        DataError: compressed, truncated, or a wrong header.
    """
    file_size, position = tar.stat().st_size, 0
    extended: dict[str, Any] = {}
    with tar.open("rb") as file:
        while True:
            file.seek(position)
            block = file.read(tarfile.BLOCKSIZE)
            if block == bytes(tarfile.BLOCKSIZE):
                position = _behind_zeros(file, position)
                if not _starts_header(file.read(tarfile.BLOCKSIZE)):
                    return
                continue
            header = _parse_header(block, tar, position)
            start = position + tarfile.BLOCKSIZE
            size = extended.get("size", header.size)
            has_contents = header.isreg() or header.type in _EXTENDED_TYPES
            if (
                not 0 <= size <= file_size - start
                or (size and not has_contents)
                or header.type == tarfile.GNUTYPE_SPARSE
            ):
                raise DataError(
                    f"{tar}: member {header.name!r} of type {header.type!r} claims {size} bytes, which cannot be; the "
                    "tar is damaged or forged"
                )
            position = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if header.type in _EXTENDED_TYPES:
                extended = {**extended, **_read_extended(file, tar, header.type, size)}
                continue
            name = extended.get("path", header.name)
            yield TarMember(name, start, size, header.isreg() and not extended.get("sparse"))
            extended = {}


def _behind_zeros(file: BinaryIO, position: int) -> int:
    """Move to the first block that is not empty, or to the end of the file."""
    file.seek(position)
    while chunk := file.read(_CHUNK):
        if filled := len(chunk.lstrip(b"\0")):
            position += (len(chunk) - filled) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            break
        position += len(chunk)
    file.seek(position)
    return position


def _starts_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _parse_header(block: bytes, tar: Path, position: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DataError(
            f"{tar}: no tar header at byte {position} ({error}); shards are plain, uncompressed tars, complete with "
            "their end-of-archive blocks: download or write it again"
        ) from None


def _read_extended(file: BinaryIO, tar: Path, kind: bytes, size: int) -> dict[str, Any]:
    """What an extended header states about the next member: `path`, `size`, `sparse`."""
    if size > MAX_META_BYTES:
        raise DataError(f"{tar}: an extended header of {size} bytes; the tar is damaged or forged")
    stored = file.read(size)
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": stored.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found: dict[str, Any] = {}
    place = 0
    while kind == tarfile.XHDTYPE and (record := _PAX_RECORD.match(stored, place)):
        length, name = int(record[1]), record[2].decode("utf-8", "replace")
        value = stored[record.end() : place + length - 1]
        if length <= len(record[0]) or (name == "size" and not value.isdigit()):
            raise DataError(
                f"{tar}: an extended header with an impossible record {name!r}; the tar is damaged or forged"
            )
        if name == "path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif name == "size":
            found["size"] = int(value[:20])
        elif name.startswith("GNU.sparse"):
            found["sparse"] = True
        place += length
    return found


def split_member_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member: ``./a/b.c.FLAC`` -> (``a/b.c``, ``flac``)."""
    stem, _, suffix = name.removeprefix("./").rpartition(".")
    return stem, suffix.lower()


def described_by(audio: Iterable[str], described: Collection[str]) -> dict[str, str]:
    """The description of each clip, by keys of `split_member_name`.

    That of its own name; else that of the longest start of the name that ends before a dot and is of no other clip:
    ``ID.json`` describes ``ID.speech.flac``, as WebDataset has it.
    """
    keys = set(audio)
    found = {}
    for key in keys:
        name, folder = key, key.rpartition("/")[0]
        while name and name not in described and "." in name[len(folder) :]:
            name = name.rpartition(".")[0]
        if name and name in described and (name == key or name not in keys):
            found[key] = name
    return found


def member_objection(
    member: TarMember, table: Mapping[str, TarMember] | None, *, max_label_bytes: int = MAX_META_BYTES
) -> str | None:
    """Why a member is left out, or None.

    Args:
        member: of `tar_members`.
        table: members of its kind that were accepted before, by key; None if its suffix is not used.
        max_label_bytes: of a member that is not audio; audio has `CLIP_LIMITS`.
    """
    stem, suffix = split_member_name(member.name)
    if not member.is_file:
        return "no plain file"
    if not is_safe_name(member.name):
        return "unsafe name"
    if table is None:
        return "no audio, JSON or text"
    if member.size > (CLIP_LIMITS.max_bytes if suffix in AUDIO_SUFFIXES else max_label_bytes):
        return "too large"
    return "second member of the same name" if stem in table else None


def is_safe_name(name: str) -> bool:
    """Whether a name stays below the folder that it may be written to, and is text."""
    return not _UNSAFE_NAME.search(name) and len(name) <= _MAX_NAME and is_printable(name)
