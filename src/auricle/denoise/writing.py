"""Audio files that are complete or absent, written block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from auricle.audio.facts import Facts, Samples
from auricle.errors import ConfigError, OutputError
from auricle.files import atomic_path

# Suffix -> format and, for samples of 16, 24 and more bits, the subtype of libsndfile.
_FORMATS = {
    ".wav": ("WAV", "PCM_16", "PCM_24", "FLOAT"),
    ".wave": ("WAV", "PCM_16", "PCM_24", "FLOAT"),
    ".w64": ("W64", "PCM_16", "PCM_24", "FLOAT"),
    ".aiff": ("AIFF", "PCM_16", "PCM_24", "FLOAT"),
    ".aif": ("AIFF", "PCM_16", "PCM_24", "FLOAT"),
    ".caf": ("CAF", "PCM_16", "PCM_24", "FLOAT"),
    ".au": ("AU", "PCM_16", "PCM_24", "FLOAT"),
    ".flac": ("FLAC", "PCM_16", "PCM_24", "PCM_24"),
    ".ogg": ("OGG", "VORBIS", "VORBIS", "VORBIS"),
    ".opus": ("OGG", "OPUS", "OPUS", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III", "MPEG_LAYER_III", "MPEG_LAYER_III"),
}
SUFFIXES = tuple(_FORMATS)
_DEPTHS = {"PCM_24": 2, "PCM_32": 3, "FLOAT": 3, "DOUBLE": 3}  # of the source; others have 16 bits
_MAX_WAV_BYTES = 4_000_000_000  # of samples; sizes in the header of WAV have 32 bits, in that of RF64 64
_BLOCK = 1 << 16  # samples of a channel at once: libsndfile's Vorbis and Opus encoders use the stack


class AudioWriter:
    """An open file; blocks that exceed full scale are cut where the format has integers."""

    def __init__(self, file: soundfile.SoundFile, path: Path) -> None:
        """Take an open file, whose final name is ``path``."""
        self._file, self._path = file, path
        self._has_full_scale = file.subtype not in ("FLOAT", "DOUBLE")
        self.num_cut = 0

    def write(self, samples: Samples) -> None:
        """Write a block (N, C).

        Raises:
            OutputError: the disk is full, or failed.
        """
        if self._has_full_scale:
            self.num_cut += int(np.count_nonzero(np.abs(samples) > 1.0))
            samples = np.clip(samples, -1.0, 1.0)
        try:
            for at in range(0, len(samples), _BLOCK):
                self._file.write(samples[at : at + _BLOCK])
        except (soundfile.LibsndfileError, AssertionError) as error:  # the latter where fewer samples were written
            raise _failed(self._path, error) from error


@contextmanager
def open_writer(path: Path, facts: Facts) -> Iterator[AudioWriter]:
    """A file of the rate and channels of a source; it takes its name when the block ends without an exception.

    Raises:
        ConfigError: the format is not known, or cannot hold the audio.
        OutputError: it cannot be written.
    """
    name, *subtypes = _format_of(path)
    subtype = subtypes[max(0, _DEPTHS.get(facts.codec, 1) - 1)]
    size = None if facts.duration_s is None else facts.duration_s * facts.sample_rate * facts.channels * 4
    if name == "WAV" and (size is None or size > _MAX_WAV_BYTES):
        name = "RF64"
    with atomic_path(path) as temporary:
        try:
            file = soundfile.SoundFile(temporary, "w", facts.sample_rate, facts.channels, subtype, format=name)
        except soundfile.LibsndfileError as error:
            raise ConfigError(
                f"{path}: {path.suffix} cannot hold {facts.channels} channels at {facts.sample_rate:,} Hz "
                f"({error.error_string.strip()}); name a .wav file"
            ) from error
        writer = AudioWriter(file, path)
        try:
            yield writer
        finally:
            try:
                file.close()
            except soundfile.LibsndfileError as error:
                raise _failed(path, error) from error


def _format_of(path: Path) -> tuple[str, ...]:
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise ConfigError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    return found


def _failed(path: Path, error: Exception) -> OutputError:
    reason = str(error).splitlines()[0] if str(error) else "fewer samples were taken than given"
    return OutputError(f"{path}: cannot be written ({reason}); free some space, or name a place on another disk")
