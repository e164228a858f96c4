"""The two decoders behind one interface: soundfile for the common formats, PyAV for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import soundfile

from auricle.audio import mpeg
from auricle.audio.containers import HEAD_BYTES, Container, sniff
from auricle.audio.facts import Samples
from auricle.audio.integrity import is_chained_ogg, is_cut
from auricle.audio.limits import Limits
from auricle.audio.sources import OpenSource
from auricle.errors import AudioError, BrokenAudio, MissingExtra, UnsupportedFormat

_BLOCK_SAMPLES = 1 << 20  # frames x channels decoded at once: 4 MiB
_BLOCK_SECONDS = 60  # and not longer than this, so that low sample rates do not grow when resampled
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's count where the header holds none
_FOREIGN_CODEC = (1, 3, 4)  # libsndfile: format not recognised, malformed (to it), encoding not supported


class Reader(Protocol):
    """An opened source: its layout, and its samples block by block."""

    container: str
    codec: str
    sample_rate: int  # Hz
    channels: int
    frames: int | None  # samples per channel as declared; None: unknown
    slack: int  # samples per channel by which a correct header may overstate
    truncated: bool  # the container ends too early
    damaged: int  # places that could not be decoded so far

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Yield float32 (frames, channels) from sample ``start`` to ``stop`` or to the end."""


def block_frames(sample_rate: int, channels: int) -> int:
    """Samples per channel to decode at once."""
    return max(1, min(_BLOCK_SAMPLES // channels, _BLOCK_SECONDS * sample_rate))


@contextmanager
def open_reader(source: OpenSource, limits: Limits) -> Iterator[Reader]:
    """Sniff ``source`` and open it with the backend that can read it.

    Raises:
        UnsupportedFormat: no audio, or a codec that neither backend knows.
        BrokenAudio: audio, but its header cannot be read.
        LimitExceeded: sample rate or channels outside ``limits``.
        MissingExtra: PyAV is needed and not installed.
    """
    try:
        container, truncated, found = _inspect(source)
    except OSError as error:
        raise AudioError(f"{source.name}: reading failed ({error}); check the disk or the connection") from None
    reader: Any = None
    if container.backend == "soundfile":
        reader = _open_soundfile(source.file, container, source.name)
        if reader is not None and found is not None:
            reader = _with_true_length(reader, source, container, found)
    if reader is None:
        reader = _open_av(source.file, container, source.name)
    try:
        reader.truncated = truncated
        limits.check_layout(source.name, reader.sample_rate, reader.channels)
        yield reader
    finally:
        reader.close()


def _inspect(source: OpenSource) -> tuple[Container, bool, mpeg.MpegFrames | None]:
    """Container, whether it is truncated, and the frames if it is an mp3."""
    source.file.seek(0)
    container = sniff(source.file.read(HEAD_BYTES), source.name)
    if container.name == "mp3":
        found = mpeg.count_frames(source.file, source.size)
        return container, found is not None and found.is_cut, found
    if container.name == "ogg" and is_chained_ogg(source.file, source.size):
        container = Container("ogg", "av", "ogg")
    return container, is_cut(source.file, source.size, container.name), None


def _with_true_length(
    reader: SoundFileReader, source: OpenSource, container: Container, found: mpeg.MpegFrames
) -> SoundFileReader | None:
    """Open the mp3 again behind a corrected Info frame, where libsndfile finds it shorter than its frames."""
    if reader.frames is None or reader.frames >= found.num_samples - reader.slack:
        return reader
    corrected = mpeg.with_info_frame(source.file, found)
    if corrected is None:
        return reader
    reader.close()
    return _open_soundfile(corrected, container, source.name)


class _Nameless:
    """A file as libsndfile needs it.

    It has no name, because soundfile trusts a name that ends in .raw more than the content. It raises nothing, because
    an exception cannot cross C: a failed read ends the file, and `check` raises it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tell = file.tell
        self._error: Exception | None = None

    def seek(self, offset: int, whence: int = 0) -> None:
        with suppress(ValueError, OSError):  # damaged headers send libsndfile before the start
            self._file.seek(offset, whence)

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            self._error = error
            return b""

    def check(self, name: str) -> None:
        """Raise the error of a read."""
        if self._error is not None:
            raise AudioError(f"{name}: reading failed ({self._error}); check the disk or the connection") from None


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """Reads forward only: soundfile seeks after every read of a seekable file, which is slow and disturbs mp3."""

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """libsndfile: wav, flac, ogg, opus, mp3, aiff and other plain containers."""

    damaged = 0
    truncated = False

    def __init__(self, handle: _Forward, file: _Nameless, container: str, name: str) -> None:
        """Take over an open libsndfile handle on ``file``."""
        self._handle, self._file, self._name = handle, file, name
        self.container, self.codec = container, str(handle.subtype)
        self.sample_rate, self.channels = int(handle.samplerate), int(handle.channels)
        self.frames = int(handle.frames) if handle.frames < _UNKNOWN_FRAMES else None
        self.slack = 4 * 1152 if container == "mp3" else 0

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Yield float32 (frames, channels) from sample ``start`` to ``stop`` or to the end."""
        position, largest = start, block_frames(self.sample_rate, self.channels)
        if start:
            self._seek(start)
        while stop is None or position < stop:
            wanted = largest if stop is None else min(largest, stop - position)
            if stop is None and self.frames is not None and position < self.frames:
                wanted = min(largest, self.frames - position + 1)  # one more shows the end without another read
            block = self._read(position, wanted)
            position += len(block)
            if len(block):
                yield block
            if len(block) < wanted:
                return

    def _read(self, position: int, wanted: int) -> Samples:
        buffer = np.empty((wanted, self.channels), np.float32)
        try:
            block: Samples = self._handle.read(out=buffer)
        except soundfile.LibsndfileError:
            self.damaged += 1
            block = buffer[: min(max(self._handle.tell() - position, 0), wanted)]
        self._file.check(self._name)
        return block

    def _seek(self, start: int) -> None:
        try:
            self._handle.seek(start)
        except soundfile.LibsndfileError as error:
            where = f"{start / self.sample_rate:.3f} s"
            raise BrokenAudio(
                f"{self._name}: cannot be read from {where} on ({error.error_string.strip()}); read it from its start"
            ) from None

    def close(self) -> None:
        """Free the decoder."""
        self._handle.close()


def _open_soundfile(file: Any, container: Container, name: str) -> SoundFileReader | None:
    """None where libsndfile knows the container but not the codec, and FFmpeg may."""
    file.seek(0)
    plain = _Nameless(file)
    try:
        handle = _Forward(plain)
    except soundfile.LibsndfileError as error:
        plain.check(name)
        if error.code in _FOREIGN_CODEC and container.demuxer and _has_av():
            return None
        reason = error.error_string.strip().removeprefix("Error : ") or f"libsndfile error {error.code}"
        raise BrokenAudio(
            f"{name}: looks like {container.name}, but its header cannot be used ({reason}); "
            "expected a complete file. Download or export it again"
        ) from None
    return SoundFileReader(handle, plain, container.name, name)


def _has_av() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _open_av(file: Any, container: Container, name: str) -> Any:
    if not container.demuxer:
        raise UnsupportedFormat(f"{name}: {container.name} with a codec that is not supported; convert it to flac")
    if not _has_av():
        raise MissingExtra(f"{name}: {_KIND.get(container.name, container.name)} audio", "media")
    from auricle.audio.pyav import AvReader

    return AvReader(file, container, name)


_KIND = {"mp4": "m4a/aac", "aac": "m4a/aac", "matroska": "webm/mkv", "asf": "wma", "ogg": "this kind of ogg"}
