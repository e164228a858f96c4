"""Files that are complete or absent: the one atomic writer, the one lock, and what both report to a user.

Files of others are read with a bound on their size: `read_regular`.

A file or folder is written into a hidden temporary folder beside its target, forced to disk, and renamed. After a kill
or a power cut the target has its old content or the new one. The temporary folder is locked while its process lives;
the next writer in the same place removes what dead processes left.

A target that is a symbolic link, a device or a pipe is refused: it is neither followed nor replaced.
"""

import errno
import fcntl
import glob
import json
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload

from auricle.errors import OutputError

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURNING = "\u202d\u202e"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_TEMPORARY = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.auricle-tmp")  # .NAME.PID-RANDOM.auricle-tmp
_MERGED = ".+."  # how the names of those start that are in the folder their files go to
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers report a failed write
_FIXES = {
    errno.ENOTDIR: "a part of its path is a file; name another folder",
    errno.EACCES: "change the permissions of its folder, or name another one",
    errno.EPERM: "change the permissions of its folder, or name another one",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.ENOSPC: "free some space, or name a folder on another disk",
    errno.EDQUOT: "free some of your quota, or name a folder on another disk",
    errno.EFBIG: "raise the limit on file sizes, or name a folder on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def safe_file_name(name: str) -> str:
    """A name for files and folders; two different names never share one."""
    safe = _UNSAFE.sub("-", name)[:80]
    return safe if safe == name else f"{safe}-{sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def is_printable(text: str, also: str = "") -> bool:
    """Whether a name can be shown as it is: no control characters, line separators, halves of surrogate pairs.

    Nor characters that turn the direction of others around, by which a name can look like another one. Unlike
    `str.isprintable`, spaces of all widths and joiners are accepted, which names in many languages have.

    Args:
        text: any.
        also: further characters to refuse.
    """
    return not any(each in _TURNING or each in also or unicodedata.category(each) in _UNPRINTABLE for each in text)


def existing_path(path: Path) -> Path:
    """The file of that name, or of its composed or decomposed form (é as one character or two) where that exists."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.parts[0])
    for part in path.parts[1:]:
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        found /= next((form for form in forms if os.path.lexists(found / form)), part)
    return found if os.path.lexists(found) else path


# --- reading


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """The content of a file of bounded size; devices and pipes, which have no end, are refused.

    Raises:
        OSError: it cannot be read, is larger, or no regular file.
    """
    # Opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return content


def read_regular_text(path: str | Path, max_bytes: int) -> str:
    """As `read_regular`, of UTF-8 with or without a byte order mark.

    Raises:
        OSError: see `read_regular`.
        ValueError: it is no UTF-8.
    """
    return read_regular(path, max_bytes).decode("utf-8-sig")


# --- writing


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
        with _temporary_folder(path) as folder:
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
        _clean_once(os.path.abspath(path.parent))  # of one that was killed before this folder was there
        merges = path.exists() and not fresh
        with _temporary_folder(path, inside=merges) as folder:
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
        with _temporary_folder(path):
            pass


def check_folder(path: str | Path) -> None:
    """Find out before long work whether `atomic_folder` could write a folder; it is not made.

    Raises:
        OutputError: see `atomic_write`.
    """
    path = Path(os.path.abspath(path))
    with output_errors(path):
        if path.is_dir():
            with _temporary_folder(path, inside=True):
                return
        _check_target(path, stat.S_ISDIR, "a folder")
        first = next(each for each in (path, *path.parents) if each.parent.exists())
        with _temporary_folder(first):
            pass


def sync(file: IO[Any]) -> None:
    """Force what was written to an open file to disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Report failures of the operating system to write ``path`` as `OutputError`; other exceptions pass."""
    path = Path(path)
    try:
        yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise OutputError(_explanation(path, error.errno, error.strerror or str(error))) from error
    except Exception as error:
        if not (found := _RUST_ERROR.search(str(error))):
            raise
        raise OutputError(_explanation(path, int(found[1]), os.strerror(int(found[1])))) from error


# --- locks


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
            raise OutputError(_explanation(path, error.errno, error.strerror or str(error))) from error
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
def _temporary_folder(target: Path, *, inside: bool = False) -> Iterator[Path]:
    """A hidden, locked folder beside or inside the target, removed in the end with what it still holds."""
    parent, start = (target, _MERGED) if inside else (target.parent, f".{safe_file_name(target.name)[:60]}.")
    _clean_once(os.path.abspath(parent))
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
        names[:] = [name for name in names if not _TEMPORARY.fullmatch(name)]


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary folders of dead processes; each process does this once by itself where it writes."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            descriptor = _open_locked(Path(entry.path))
            if descriptor is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(descriptor)


_clean_once = lru_cache(maxsize=1024)(remove_leftovers)


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


def is_unfinished(folder: str | Path, last: str) -> bool:
    """Whether an `atomic_folder` of ``last`` into this folder was killed before it ended; until `remove_leftovers`."""
    left = Path(folder).glob(f"{_MERGED}*.auricle-tmp/*/{glob.escape(last)}")
    return not (Path(folder) / last).exists() and any(left)


# --- errors


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about writing ``path``: it names no file, or this one, its temporary, or a folder above."""
    if error.errno is None or not isinstance(error.filename, str | bytes | os.PathLike | None):
        return False  # of a library that reads
    if error.filename is None:
        return True
    found, target = Path(os.path.abspath(os.fsdecode(error.filename))), Path(os.path.abspath(path))
    is_temporary = any(_TEMPORARY.fullmatch(part) for part in found.parts)
    return is_temporary or found == target or found in target.parents or target in found.parents


def _explanation(path: Path, code: int | None, reason: str) -> str:
    path = _final(path)
    place = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    fix = _FIXES.get(code or 0, "name another place")
    if code == errno.ENOENT and not path.parent.exists():
        reason, fix = f"there is no folder {path.parent}", "create it, or name another place"
    if code == errno.ENOSPC and place is not None:
        reason += f", {shutil.disk_usage(place).free / 1e6:,.0f} MB free in {place}"
    return f"{path}: cannot be written ({reason}); {fix}"


def _final(path: Path) -> Path:
    """Where a file goes that is in a temporary folder: beside the folder, or where that is to be merged, in it."""
    parts = list(path.parts)
    for index in reversed([index for index, part in enumerate(parts) if _TEMPORARY.fullmatch(part)]):
        del parts[index : index + (2 if parts[index].startswith(_MERGED) else 1)]
    return Path(*parts)
