"""What a user reads when the operating system refuses to write."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auricle.errors import OutputError

TEMPORARY = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.auricle-tmp")  # .NAME.PID-RANDOM.auricle-tmp
MERGED = ".+."  # how the names of those start that are in the folder their files go to
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


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Report failures of the operating system to write ``path`` as `OutputError`; other exceptions pass."""
    path = Path(path)
    try:
        yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise OutputError(explanation(path, error.errno, error.strerror or str(error))) from error
    except Exception as error:
        if not (found := _RUST_ERROR.search(str(error))):
            raise
        raise OutputError(explanation(path, int(found[1]), os.strerror(int(found[1])))) from error


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about writing ``path``: it names no file, or this one, its temporary, or a folder above."""
    if error.errno is None or not isinstance(error.filename, str | bytes | os.PathLike | None):
        return False  # of a library that reads
    if error.filename is None:
        return True
    found, target = Path(os.path.abspath(os.fsdecode(error.filename))), Path(os.path.abspath(path))
    is_temporary = any(TEMPORARY.fullmatch(part) for part in found.parts)
    return is_temporary or found == target or found in target.parents or target in found.parents


def explanation(path: Path, code: int | None, reason: str) -> str:
    """Why ``path`` cannot be written, and what to do about it."""
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
    for index in reversed([index for index, part in enumerate(parts) if TEMPORARY.fullmatch(part)]):
        del parts[index : index + (2 if parts[index].startswith(MERGED) else 1)]
    return Path(*parts)
