"""The one atomic writer of files and folders."""

import glob
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload

from auricle.errors import OutputError
from auricle.files.failures import MERGED, output_errors
from auricle.files.locks import clean_once, temporary_folder


@overload
def atomic_write(path: str | Path, mode: Literal["wb"] = "wb") -> AbstractContextManager[BinaryIO]: ...
@overload
def atomic_write(path: str | Path, mode: Literal["w"]) -> AbstractContextManager[TextIO]: ...
@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[Any]:
    """A file to write that takes the name ``path`` when the block ends without an exception.

    Args:
        path: in a folder that exists. A file there is replaced; its permissions are those of a new file.
        mode: "wb", or "w" for UTF-8 text whose line ends are written unchanged.

    Raises:
        OutputError: the disk is full or read-only, the folder is missing or forbidden, the name is too long, or there
            is a folder, link or device of that name.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As `atomic_write`, for libraries that open a file by its name: the temporary name, which has the same suffix.

    Files that the library writes beside it, such as external data of ONNX, are moved with it.
    """
    path = Path(path)
    with output_errors(path):
        _check_target(path, stat.S_ISREG, "a regular file")
        with temporary_folder(path) as folder:
            temporary = folder / path.name
            mode = _new_file(temporary)
            yield temporary
            written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
            for file in written:
                _to_disk(file, mode)
            for file in written:
                os.replace(file, path.parent / file.name)
        _sync_folder(path.parent)


@contextmanager
def atomic_folder(
    path: str | Path, *, fresh: bool = False, last: str = "", stale: Sequence[str] = ()
) -> Iterator[Path]:
    """A folder to fill that takes the name ``path`` when the block ends without an exception; made with those above it.

    Where ``path`` is a folder already, it stays (it may be mounted): when all files are on disk, they are moved into it
    one by one. A kill in between cannot leave a readable mixture of old and new if readers need the file ``last``, and
    `is_unfinished` tells of it.

    Args:
        path: the folder.
        fresh: an older folder is replaced as a whole; a kill in between may leave none.
        last: name of a file that is removed first and moved last.
        stale: patterns of file names; older files of such names go.

    Raises:
        OutputError: see `atomic_write`; or another process has made the folder since the block began.
    """
    path = Path(path)
    with output_errors(path):
        _check_target(path, stat.S_ISDIR, "a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        clean_once(os.path.abspath(path.parent))  # of one that was killed before this folder was there
        merges = path.exists() and not fresh
        with temporary_folder(path, inside=merges) as folder:
            temporary = folder / Path(os.path.abspath(path)).name
            mode = _new_file(folder / ".mode")
            temporary.mkdir()
            yield temporary
            for where, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    _to_disk(Path(where, name), mode)
                _sync_folder(Path(where))
            if merges:
                _merge(temporary, path, last, stale)
            else:
                if path.exists() and fresh:
                    path.rename(folder / ".replaced")
                try:
                    temporary.rename(path)
                except OSError as error:
                    if not path.exists():
                        raise
                    raise OutputError(f"{path}: another run has written it meanwhile; name another place") from error
        _sync_folder(path.parent)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file; see `atomic_write`."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text; see `atomic_write`."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented by two spaces, with a final newline; see `atomic_write`."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise OutputError(f"{path}: not written, as a number in it is NaN or infinite; check the settings") from error
    write_text(path, text + "\n")


def publish(file: str | Path, target: str | Path) -> None:
    """Force a complete file to disk and rename it, in one file system; see `atomic_write`."""
    file, target = Path(file), Path(target)
    with output_errors(target):
        _check_target(target, stat.S_ISREG, "a regular file")
        _to_disk(file)
        os.replace(file, target)
        _sync_folder(target.parent)


def append_bytes(path: str | Path, content: bytes) -> None:
    """Add to the end of a file and force it to disk; after a kill, a part of the content may be there."""
    path = Path(path)
    with output_errors(path):
        _check_target(path, stat.S_ISREG, "a regular file")
        with path.open("ab") as file:
            file.write(content)
            sync(file)


def make_folder(path: str | Path) -> Path:
    """Create a folder and those above it, if absent.

    Raises:
        OutputError: see `atomic_write`.
    """
    path = Path(path)
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(path: str | Path) -> None:
    """Find out before long work whether `atomic_write` could write a file.

    Raises:
        OutputError: see `atomic_write`.
    """
    path = Path(path)
    with output_errors(path):
        _check_target(path, stat.S_ISREG, "a regular file")
        with temporary_folder(path):
            pass


def check_folder(path: str | Path) -> None:
    """Find out before long work whether `atomic_folder` could write a folder; it is not made.

    Raises:
        OutputError: see `atomic_write`.
    """
    path = Path(os.path.abspath(path))
    with output_errors(path):
        if path.is_dir():
            with temporary_folder(path, inside=True):
                return
        _check_target(path, stat.S_ISDIR, "a folder")
        first = next(each for each in (path, *path.parents) if each.parent.exists())
        with temporary_folder(first):
            pass


def sync(file: IO[Any]) -> None:
    """Force what was written to an open file to disk."""
    file.flush()
    os.fsync(file.fileno())


def is_unfinished(folder: str | Path, last: str) -> bool:
    """Whether an `atomic_folder` of ``last`` into this folder was killed before it ended; until `remove_leftovers`."""
    left = Path(folder).glob(f"{MERGED}*.auricle-tmp/*/{glob.escape(last)}")
    return not (Path(folder) / last).exists() and any(left)


def _check_target(path: Path, is_right: Any, expected: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        kinds = {stat.S_ISLNK: "a symbolic link", stat.S_ISDIR: "a folder", stat.S_ISREG: "a file"}
        found = next((name for test, name in kinds.items() if test(mode)), "a device, pipe or socket")
        raise OutputError(f"{path}: is {found}, expected {expected} or a new name; name another place")


def _new_file(path: Path) -> int:
    """Make an empty file; its permissions, as the umask says."""
    path.touch(exist_ok=False)
    return stat.S_IMODE(path.stat().st_mode)


def _to_disk(file: Path, mode: int = 0) -> None:
    """Force a file to disk, with at least these permissions: some libraries make theirs private."""
    if file.is_symlink():
        return
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        now = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if now | mode != now:
            os.fchmod(descriptor, now | mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _merge(new: Path, folder: Path, last: str, stale: Sequence[str]) -> None:
    files = [path.relative_to(new) for path in sorted(new.rglob("*")) if not path.is_dir()]
    if last:
        (folder / last).unlink(missing_ok=True)
    for path in {path for pattern in stale for path in folder.glob(pattern)} - {folder / file for file in files}:
        path.unlink()
    _sync_folder(folder)
    for file in sorted(files, key=lambda file: str(file) == last):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / file, folder / file)
    _sync_folder(folder)
