"""Files that are complete or absent: the one atomic writer, the one lock, and what both report to a user.

Files of others are read with a bound on their size: `read_regular`.

A file or folder is written into a hidden temporary folder beside its target, forced to disk, and renamed. After a kill
or a power cut the target has its old content or the new one. The temporary folder is locked while its process lives;
the next writer in the same place removes what dead processes left.

A target that is a symbolic link, a device or a pipe is refused: it is neither followed nor replaced.
"""

from auricle.files.failures import output_errors
from auricle.files.locks import locked, remove_all_leftovers, remove_leftovers
from auricle.files.names import existing_path, is_printable, safe_file_name
from auricle.files.reading import read_regular, read_regular_text
from auricle.files.writing import (
    append_bytes,
    atomic_folder,
    atomic_path,
    atomic_write,
    check_folder,
    check_writable,
    is_unfinished,
    make_folder,
    publish,
    sync,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "append_bytes",
    "atomic_folder",
    "atomic_path",
    "atomic_write",
    "check_folder",
    "check_writable",
    "existing_path",
    "is_printable",
    "is_unfinished",
    "locked",
    "make_folder",
    "output_errors",
    "publish",
    "read_regular",
    "read_regular_text",
    "remove_all_leftovers",
    "remove_leftovers",
    "safe_file_name",
    "sync",
    "write_bytes",
    "write_json",
    "write_text",
]
