"""Arguments → audio sources: files, folders, globs and standard input."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from auricle.audio.limits import Limits

# Suffixes searched in folders; files without a suffix are recognised by content.
SUFFIXES = frozenset(
    ".wav .wave .w64 .rf64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf .voc .m4a .m4b .mp4 .aac "
    ".webm .mka .mkv .mov .wma .asf .amr .ac3 .wv .ape .tta .avi .flv".split()
)
STDIN = "-"
_MOST_PROBED = 256  # reading more headers only to show a total would take its time


def find_sources(arguments: Sequence[str]) -> list[str]:
    """Replace folders and globs by the audio files they contain, in order, each once.

    Raises:
        typer.BadParameter: a folder or glob without audio files.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        names = _names(argument)
        if not names:
            raise typer.BadParameter(f"no audio file in {argument!r}", param_hint="FILES")
        found.update(dict.fromkeys(names))
    return list(found)


def open_sources(arguments: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Names of the audio files that `find_sources` finds, and the source of each."""
    names = find_sources(arguments)
    return names, [open_source(name) for name in names]


class _Stdin(io.BytesIO):
    """All of standard input, with its name for messages and receipts."""

    name = STDIN


def open_source(name: str) -> Any:
    """The source of a name: the name, or the bytes of standard input, which are read at once.

    A thread that waits for standard input could not be interrupted.
    """
    if name != STDIN:
        return name
    from auricle.audio.limits import DEFAULT_LIMITS

    return _Stdin(sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1))


def audio_seconds(names: Sequence[str], limits: Limits) -> float | None:
    """Seconds of audio in files, as their headers state it; None where one does not, or where there are many files."""
    from auricle.audio.decode import probe
    from auricle.errors import AuricleError

    if STDIN in names or len(names) > _MOST_PROBED or limits.isolate:  # a process for each header takes its time
        return None
    total = 0.0
    for name in names:
        try:
            seconds = probe(name, limits=limits).duration_s
        except AuricleError:  # reported when the file is read
            continue
        if seconds is None:
            return None
        total += seconds
    return total


def _names(argument: str) -> list[str]:
    if argument == STDIN:
        return [STDIN]
    if os.path.isdir(argument):
        return sorted(_inside(argument))
    if glob.has_magic(argument) and not os.path.lexists(argument):
        return sorted(name for name in glob.glob(argument, recursive=True) if os.path.isfile(name))
    return [argument]  # if it is missing, reading it reports that


def _inside(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(where, name)
            if not name.startswith(".") and (path.suffix.lower() in SUFFIXES or (not path.suffix and _is_audio(path))):
                yield str(path)


def _is_audio(path: Path) -> bool:
    from auricle.audio.containers import sniff
    from auricle.errors import AudioError

    try:
        with path.open("rb") as file:
            sniff(file, path.stat().st_size, path.name)
    except (AudioError, OSError):
        return False
    return True
