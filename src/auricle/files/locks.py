"""The one lock, and temporary folders that are locked while their process lives."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from auricle.errors import OutputError
from auricle.files.failures import MERGED, TEMPORARY, explanation
from auricle.files.names import safe_file_name


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes, and other callers in this one, from writing a file or folder.

    The lock is a hidden file in the folder, or beside the file. It ends with the process, however that ends; where a
    file system has no locks, there is none.

    Raises:
        OutputError: another process holds it, or the hidden file cannot be made.
    """
    path = Path(path)
    file = path / ".lock" if path.is_dir() else path.with_name(f".{safe_file_name(path.name)}.lock")
    descriptor = _lock_file(file, path)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _lock_file(file: Path, path: Path) -> int:
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(explanation(path, error.errno, error.strerror or str(error))) from error
        try:
            if not _try_lock(descriptor):
                holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "unknown"
                raise OutputError(
                    f"{path}: another run is writing here ({holder}); wait for its end, or name another place"
                )
            # A holder that has just ended may have removed the file: then this lock protects nothing.
            if file.exists() and os.path.samestat(file.stat(), os.fstat(descriptor)):
                with suppress(OSError):  # on a full disk the lock holds without a name
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """False: another one holds the lock. True where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


# --- temporary folders


@contextmanager
def temporary_folder(target: Path, *, inside: bool = False) -> Iterator[Path]:
    """A hidden, locked folder beside or inside the target, removed in the end with what it still holds."""
    parent, start = (target, MERGED) if inside else (target.parent, f".{safe_file_name(target.name)[:60]}.")
    clean_once(os.path.abspath(parent))
    while True:
        folder = parent / f"{start}{os.getpid()}-{secrets.token_hex(4)}.auricle-tmp"
        folder.mkdir(0o700)
        descriptor = _open_locked(folder)
        if descriptor is not None:
            break
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def remove_all_leftovers(folder: str | Path) -> None:
    """As `remove_leftovers`, of a folder and all below it, where a run may find its work done and write nothing."""
    for where, names, _ in os.walk(folder):
        remove_leftovers(where)
        names[:] = [name for name in names if not TEMPORARY.fullmatch(name)]


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary folders of dead processes; each process does this once by itself where it writes."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not TEMPORARY.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            descriptor = _open_locked(Path(entry.path))
            if descriptor is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(descriptor)


clean_once = lru_cache(maxsize=1024)(remove_leftovers)


def _open_locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process holds it or removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _try_lock(descriptor) and folder.exists():
        return descriptor
    os.close(descriptor)
    return None
