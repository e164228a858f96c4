"""Names of files: safe to write, safe to show, and found in either form of Unicode."""

import os
import re
import unicodedata
from hashlib import sha256
from pathlib import Path

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURNING = "\u202d\u202e"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


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
