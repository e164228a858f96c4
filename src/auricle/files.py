"""Names of files made of names of other things."""

import re
from hashlib import sha256

_SAFE_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def safe_file_name(name: str) -> str:
    """A name for files and folders; two different names never share one."""
    safe = _SAFE_NAME.sub("-", name)[:80]
    return safe if safe == name else f"{safe}-{sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
