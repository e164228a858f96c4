"""Arguments → audio sources: files, folders, globs and standard input."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from auricle.cli.output import warn

if TYPE_CHECKING:
    from auricle.audio.limits import Limits

# Suffixes searched in folders; files without a suffix are recognised by content.
SUFFIXES = frozenset(
    ".wav .wave .w64 .rf64 .bw64 .flac .ogg .oga .ogx .spx .opus .mp3 .mp2 .mpga .aif .aiff .aifc .au .snd .caf .voc "
    ".nist .sph .m4a .m4b .m4r .aac .adts .wma .asf .amr .ac3 .eac3 .dts .wv .ape .tta .weba .webm .mka "
    ".mkv .mp4 .m4v .mov .3gp .3ga .3g2 .mpg .mpeg .ts .ogv .avi .flv".split()
)
STDIN = "-"
_MOST_KINDS = 5  # of files left out, in a message
_MOST_PROBED = 256  # reading more headers only to show a total would take its time


def find_sources(arguments: Sequence[str], *, must_exist: bool = False) -> list[str]:
    """Replace folders and globs by the audio files they contain, in order, each once.

    What is left out of folders is counted on standard error. A folder that cannot be listed stays in the list: reading
    it reports why.

    Args:
        arguments: of the command line.
        must_exist: refuse a name that is neither a file nor a folder; else reading it reports that.

    Raises:
        typer.BadParameter: a folder or glob without audio files, or a missing file.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        if must_exist and argument != STDIN and not glob.has_magic(argument) and not os.path.exists(argument):
            raise typer.BadParameter(f"there is no {argument!r}; check the path", param_hint="FILES")
        names = _names(argument)
        if not names:
            raise typer.BadParameter(f"no audio file in {argument!r}", param_hint="FILES")
        found.update(dict.fromkeys(names))
    return list(found)


def open_sources(arguments: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Names of the audio files that `find_sources` finds, and the source of each."""
    names = find_sources(arguments)
    return names, [open_source(name) for name in names]


def open_source(name: str) -> Any:
    """The source of a name: the name, or all bytes of standard input or of a pipe, which are read at once.

    A thread that waits for them could not be interrupted.

    Raises:
        typer.BadParameter: standard input is closed.
    """
    from auricle.audio.limits import DEFAULT_LIMITS
    from auricle.audio.sources import NamedBytes

    most = DEFAULT_LIMITS.max_bytes + 1
    if name == STDIN:
        if sys.stdin is None:
            raise typer.BadParameter("standard input is closed", param_hint="FILES")
        return NamedBytes(STDIN, sys.stdin.buffer.read(most))
    if not _is_pipe(name):
        return name
    with open(name, "rb") as pipe:
        return NamedBytes(name, pipe.read(most))


def _is_pipe(name: str) -> bool:
    """Whether it is the end of a pipe, such as a shell's ``<(command)`` or /dev/stdin."""
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


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
        return _inside(argument)
    if not glob.has_magic(argument) or os.path.lexists(argument):
        return [argument]  # if it is missing, reading it reports that
    # Brackets that match nothing belong to a name, as in "[live] *.mp3".
    found = glob.glob(argument, recursive=True) or glob.glob(argument.replace("[", "[[]"), recursive=True)
    folders = [name for name in found if os.path.isdir(name)] if not argument.endswith("**") else []
    return sorted({name for name in found if os.path.isfile(name)}.union(*map(_inside, folders)))


def _inside(folder: str) -> list[str]:
    """Audio files below a folder, and folders that cannot be listed; a folder behind several links is searched once."""
    found: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: found.append(error.filename)):
        seen.add(os.path.realpath(where))
        left_out["hidden"] += sum(name.startswith(".") for name in (*folders, *files))
        below = [os.path.join(where, name) for name in folders if not name.startswith(".")]
        folders.clear()
        for inner in sorted(below, key=lambda inner: (os.path.islink(inner), inner)):
            if (real := os.path.realpath(inner)) not in seen:
                seen.add(real)
                folders.append(os.path.basename(inner))
        for path in (Path(where, name) for name in files if not name.startswith(".")):
            if not (path.is_file() or path.is_symlink()):
                left_out["no regular file"] += 1
            elif path.suffix.lower() in SUFFIXES or (not path.suffix and _is_audio(path)):
                found.append(str(path))
            else:
                left_out[path.suffix.lower() or "without suffix"] += 1
    if left_out := +left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common(_MOST_KINDS))
        rest = ", …" if len(left_out) > _MOST_KINDS else ""
        warn(f"{folder}: left out as no audio: {kinds}{rest}")
    return sorted(found)


def _is_audio(path: Path) -> bool:
    from auricle.audio.containers import sniff
    from auricle.errors import AudioError

    try:
        with path.open("rb") as file:
            sniff(file, path.stat().st_size, path.name)
    except (AudioError, OSError):
        return False
    return True
