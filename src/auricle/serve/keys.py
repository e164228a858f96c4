"""API keys: read from a file, kept as SHA-256 alone, compared in constant time."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from auricle.errors import ConfigError
from auricle.files import read_regular_text

_MAX_BYTES = 1 << 20  # of a file of keys
_LEAST = 16  # characters of a key: what is shorter can be guessed
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


def read_keys(path: Path) -> dict[str, bytes]:
    """Read keys, one a line: the key, or ``sha256:`` and its hash; in front of either a name and a space, if wanted.

    Returns:
        SHA-256 by name; keys without one are called key1, key2, …

    Raises:
        ConfigError: unreadable, empty, or with a key that is too short, or given twice.
    """
    try:
        lines = read_regular_text(path, _MAX_BYTES).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); expected a text file with one API key a line") from None
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        *name, key = words
        if len(name) > 1 or not all(_NAME.fullmatch(each) for each in name):
            raise ConfigError(f"{path}: line {number} is no key; expected KEY or NAME KEY")
        label = name[0] if name else f"key{len(found) + 1}"
        hashed = _HASHED.fullmatch(key)
        if hashed is None and len(key) < _LEAST:
            raise ConfigError(f"{path}: the key of line {number} is too short; expected {_LEAST} characters or more")
        digest = bytes.fromhex(hashed[1]) if hashed else sha256(key.encode()).digest()
        if label in found or digest in found.values():
            raise ConfigError(f"{path}: the key or name of line {number} is given twice; leave one out")
        found[label] = digest
    if not found:
        raise ConfigError(f"{path}: holds no key; expected one a line")
    return found


def find_key(keys: Mapping[str, bytes], header: str | None) -> str | None:
    """The name of the key in an ``Authorization`` header; None: it is none of them.

    Every key is compared, whichever fits, so that the time tells nothing.
    """
    scheme, _, given = (header or "").partition(" ")
    digest = sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
    fitting = [name for name, known in keys.items() if hmac.compare_digest(digest, known)]
    return fitting[0] if fitting and scheme.lower() == "bearer" else None
