"""libsndfile: wav, flac, ogg, opus, mp3, aiff and other plain containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import soundfile

from auricle.audio.facts import Block, Samples, block_frames
from auricle.errors import AudioError, BrokenAudio

_UNKNOWN_FRAMES = 1 << 62  # libsndfile's count where the header holds none
_MPEG_SLACK = 4 * 1152  # samples by which a length may count padding that the decoder drops


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
    """A file that libsndfile opens."""

    truncated = False

    def __init__(self, file: Any, container: str, name: str) -> None:
        """Open ``file``, which ``container`` names.

        Raises:
            BrokenAudio: libsndfile does not know the codec, or the header is damaged.
            AudioError: the file cannot be read.
        """
        file.seek(0)
        self._file, self._name, self.container = _Nameless(file), name, container
        try:
            self._handle = _Forward(self._file)
        except soundfile.LibsndfileError as error:
            self._file.check(name)
            raise BrokenAudio(
                error.error_string.strip().removeprefix("Error : ") or f"libsndfile error {error.code}"
            ) from None
        self.codec = str(self._handle.subtype)
        self.sample_rate, self.channels = int(self._handle.samplerate), int(self._handle.channels)
        self.frames = int(self._handle.frames) if self._handle.frames < _UNKNOWN_FRAMES else None
        self.slack = _MPEG_SLACK if self.codec.startswith("MPEG") else 0
        self.damaged = 0
        self.notes: list[str] = []

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield the samples from ``start`` to ``stop`` or to the end."""
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
                yield Block(self.sample_rate, block)
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
