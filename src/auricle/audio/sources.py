"""Sources: paths, bytes and file objects become one seekable binary file with a name and a size."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy.typing as npt

from auricle.audio.facts import Clip
from auricle.audio.limits import Limits
from auricle.errors import AudioError, ConfigError, UnsupportedFormat


class _Array(Protocol):
    """A numpy array, a torch tensor, or what numpy takes for one."""

    def __array__(self, *args: Any, **settings: Any) -> npt.NDArray[Any]: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
# Also waveforms, alone at 16 kHz or in a pair with their sampling rate; see `auricle.audio.decode.as_clip`.
AudioSource: TypeAlias = Source | Clip | _Array | tuple[_Array, int]

_CHUNK = 1 << 20  # bytes read from a pipe at once


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A seekable binary file, its name for messages and its size in bytes."""

    file: BinaryIO
    name: str
    size: int


def check_single(source: object, many: str) -> None:
    """Refuse several sources where one is expected.

    Args:
        source: see `AudioSource`.
        many: the method that takes several.

    Raises:
        ConfigError: it is a list, or another collection.
    """
    # A waveform with its sampling rate, which may be a number of numpy.
    is_pair = (
        isinstance(source, tuple) and len(source) == 2 and not getattr(source[1], "ndim", isinstance(source[1], str))
    )
    if isinstance(source, list | tuple | set | frozenset | dict | Generator) and not is_pair:
        raise ConfigError(f"the source is a {type(source).__name__}; expected one source. {many} takes several")


def check_several(sources: object, single: str) -> None:
    """Refuse one source where several are expected: the characters of a path would be taken for paths.

    Raises:
        ConfigError: it is a path, bytes, a file object or a clip.
    """
    if isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | Clip) or hasattr(sources, "read"):
        raise ConfigError(f"the sources are one {type(sources).__name__}; expected a list of them. {single} takes one")


@contextmanager
def open_source(source: Source, limits: Limits) -> Iterator[OpenSource]:
    """Open ``source`` for reading; a file that was opened here is closed here, a given file object stays open.

    A file object is read as a whole, from its first byte; one that cannot seek is read into memory, at most
    ``limits.max_bytes``.

    Raises:
        AudioError: missing, unreadable or not a regular file.
        LimitExceeded: more bytes than the limits allow.
        UnsupportedFormat: an object of another type.
    """
    if isinstance(source, (str, os.PathLike)):
        with _open_path(Path(source), limits) as opened:
            yield opened
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        limits.check_bytes("<bytes>", len(data))
        yield OpenSource(io.BytesIO(data), "<bytes>", len(data))
    elif callable(getattr(source, "read", None)):
        yield _adopt(source, limits)
    else:
        raise UnsupportedFormat(
            f"a {type(source).__name__} is no source of audio; expected a path, bytes, a binary file object, "
            "or a waveform"
        )


@contextmanager
def _open_path(path: Path, limits: Limits) -> Iterator[OpenSource]:
    name = str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name}: is a folder; expected an audio file. Give the files inside it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name}: is not a regular file; open it yourself and give the file object")
        limits.check_bytes(name, status.st_size)
        file = path.open("rb")
    except FileNotFoundError:
        fix = "download it first" if "://" in name or name.startswith(("http:/", "https:/")) else "check the path"
        raise AudioError(f"{name}: no such file; {fix}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{name}: cannot be opened ({reason}); check the path and its permissions") from None
    with file:
        yield OpenSource(file, name, status.st_size)


def _adopt(file: BinaryIO, limits: Limits) -> OpenSource:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else f"<{type(file).__name__}>"
    try:
        seekable = getattr(file, "seekable", lambda: False)()
        if seekable:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if not isinstance(file.read(0), bytes):
                raise UnsupportedFormat(f"{name}: is opened as text; open it in binary mode, 'rb'")
            limits.check_bytes(name, size)
            return OpenSource(file, name, size)
        data = _read_all(file, name, limits)
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read ({error}); give an open, readable binary file") from None
    return OpenSource(io.BytesIO(data), name, len(data))


def _read_all(file: BinaryIO, name: str, limits: Limits) -> bytes:
    parts: list[bytes] = []
    total = 0
    while part := file.read(_CHUNK):
        if not isinstance(part, bytes):
            raise UnsupportedFormat(f"{name}: gives text; open it in binary mode")
        total += len(part)
        limits.check_bytes(name, total)
        parts.append(part)
    return b"".join(parts)
