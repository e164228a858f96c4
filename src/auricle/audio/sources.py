"""Sources: paths, bytes and file objects become one seekable binary file with a name and a size."""

from __future__ import annotations

import io
import os
import stat
from base64 import b64decode
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import numpy.typing as npt

from auricle.audio.facts import Clip
from auricle.audio.limits import Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import AudioError, ConfigError, UnsupportedFormat
from auricle.files import existing_path


class _Array(Protocol):
    """A numpy array, a torch tensor, or what numpy takes for one."""

    def __array__(self, *args: Any, **settings: Any) -> npt.NDArray[Any]: ...


class _Samples(Protocol):
    """Samples with their rate."""

    @property
    def data(self) -> Any: ...

    @property
    def sample_rate(self) -> Any: ...


class _Decoder(Protocol):
    """What gives its samples itself."""

    def get_all_samples(self) -> Any: ...


_Waveform: TypeAlias = _Array | list[float]
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Mapping[str, Any]
# Also waveforms, see `find_waveform`.
AudioSource: TypeAlias = (
    Source | Clip | _Array | tuple[_Waveform, float] | tuple[float, _Waveform] | _Samples | _Decoder
)

_CHUNK = 1 << 20  # bytes read from a pipe at once


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A seekable binary file, its name for messages and its size in bytes."""

    file: BinaryIO
    name: str
    size: int


class NamedBytes(io.BytesIO):
    """All bytes of a source that is no file, with its name for messages and receipts."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.name = name


def check_single(source: object, many: str) -> None:
    """Refuse several sources where one is expected.

    Args:
        source: see `AudioSource`.
        many: the method that takes several.

    Raises:
        ConfigError: it is a list, or another collection.
    """
    # One of a pair is the sampling rate, which may be a number of numpy.
    parts = source if isinstance(source, tuple) and len(source) == 2 else ()
    is_pair = any(isinstance(each, Real) or getattr(each, "ndim", None) == 0 for each in parts)
    if isinstance(source, list | tuple | set | frozenset | Generator) and not is_pair:
        raise ConfigError(f"the source is a {type(source).__name__}; expected one source. {many} takes several")


def check_several(sources: object, fix: str) -> None:
    """Refuse one source where several are expected: the characters of a path would be taken for paths.

    Raises:
        ConfigError: it is a path, bytes, a file object, a mapping or a clip, or cannot be iterated over.
    """
    one = (str, os.PathLike, bytes, bytearray, memoryview, Mapping, Clip)
    if isinstance(sources, one) or hasattr(sources, "read") or not hasattr(sources, "__iter__"):
        raise ConfigError(f"the sources are one {type(sources).__name__}; expected a list of them: {fix}")


def is_in_memory(source: Any) -> bool:
    """Whether a source is a `Clip` or what `find_waveform` knows, so that there is nothing to open."""
    decodes_itself = callable(getattr(source, "get_all_samples", None))
    return isinstance(source, Clip) or decodes_itself or find_waveform(source) is not None


def find_waveform(source: Any) -> tuple[Any, int] | None:
    """The array and its rate, Hz, of what holds a waveform; None: it is something else.

    Known are arrays and tensors at 16 kHz, pairs of an array and a rate in either order, mappings with ``array`` and
    ``sampling_rate``, and objects with ``data`` and ``sample_rate``, or which give such by ``get_all_samples()``.

    Raises:
        UnsupportedFormat: the rate is no number above 0.
    """
    if hasattr(source, "__array__"):
        return source, SAMPLE_RATE
    if callable(getattr(source, "get_all_samples", None)):
        source = source.get_all_samples()
    array, rate = None, None
    if isinstance(source, tuple) and len(source) == 2:
        array, rate = source[::-1] if isinstance(source[0], Real) else source
    elif isinstance(source, Mapping):
        array = source.get("array")
        rate = source.get("sampling_rate", source.get("sample_rate"))
    elif hasattr(source, "data") and hasattr(source, "sample_rate"):
        array, rate = source.data, source.sample_rate
    if array is None or isinstance(array, (str, bytes)) or not (hasattr(array, "__array__") or isinstance(array, list)):
        return None
    try:
        hz = int(rate or 0)
    except (TypeError, ValueError, OverflowError):
        hz = 0
    if hz <= 0:
        raise UnsupportedFormat(f"a waveform with a sample rate of {rate!r}; expected Hz, a whole number above 0")
    return array, hz


@contextmanager
def open_source(source: Any, limits: Limits) -> Iterator[OpenSource]:
    """Open ``source`` for reading; a file that was opened here is closed here, a given file object stays open.

    A file object is read as a whole, from its first byte; one that cannot seek is read into memory, at most
    ``limits.max_bytes``.

    Raises:
        AudioError: missing, unreadable or not a regular file.
        LimitExceeded: more bytes than the limits allow.
        UnsupportedFormat: an object of another type.
    """
    if isinstance(source, Mapping):
        source = _of_mapping(source)
    if isinstance(source, str):
        source = _of_url(source, limits)
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
        raise _unknown(source)


def _unknown(source: Any) -> UnsupportedFormat:
    expected = "expected a path, bytes, a binary file object, or, through as_clip, a waveform"
    if isinstance(source, (list, set, tuple)) or hasattr(source, "__next__"):
        return UnsupportedFormat(
            f"the source is a {type(source).__name__}; {expected}. Give several clips to a function for several, "
            "such as describe_many"
        )
    return UnsupportedFormat(f"a {type(source).__name__} is no source of audio; {expected}")


def _of_mapping(source: Mapping[str, Any]) -> Any:
    """The bytes of a row of a data set, or else its path."""
    found = source.get("bytes")
    found = source.get("path") if found is None else found
    if found is None:
        raise UnsupportedFormat(
            f"a mapping with the keys {', '.join(map(str, source)) or '(none)'}; expected bytes or path, or array and "
            "sampling_rate"
        )
    return found


def _of_url(name: str, limits: Limits) -> str | bytes:
    """The path of a ``file:`` URL, the bytes of a ``data:`` URL, and any other name as it is."""
    scheme = name[:5].lower()
    if scheme == "file:" and not os.path.lexists(name):
        parts = urlsplit(name)
        if parts.netloc not in ("", "localhost"):
            raise AudioError(f"{name}: names a file of another computer; copy it here and give its path")
        return url2pathname(parts.path)
    if scheme == "data:" and "," in name:
        head, _, body = name.partition(",")
        limits.check_bytes("<data URL>", len(body) * 3 // 4)
        if not head.lower().endswith(";base64"):
            return unquote_to_bytes(body)
        try:
            return b64decode(unquote(body).translate(str.maketrans("-_", "+/")) + "==", validate=False)
        except ValueError as error:
            raise AudioError(f"{name[:40]}…: is no base64 ({error}); encode the file again") from None
    return name


@contextmanager
def _open_path(path: Path, limits: Limits) -> Iterator[OpenSource]:
    name, path = str(path), existing_path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()  # fails where the folder cannot be listed either
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
