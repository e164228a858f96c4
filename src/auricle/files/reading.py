"""Files of others, read with a bound on their size."""

import errno
import os
import stat
from pathlib import Path


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
