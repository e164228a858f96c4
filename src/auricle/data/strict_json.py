"""JSON of strangers: no name twice in an object, no number that is none; and what of it goes into a message."""

import json
import reprlib
from collections.abc import Sequence
from typing import Any


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """The value of a text.

    Args:
        text: of a file or a line.
        allow_nan: take NaN and infinities, which are no JSON, as numbers.

    Raises:
        ValueError: no JSON, a name that stands twice in one object, or a constant that is not allowed.
        RecursionError: nested deeper than can be read.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=None if allow_nan else _no_constant)


def shorten(value: Any) -> str:
    """For a message: whatever a stranger wrote, on one line and of bounded length."""
    text = ascii(value[:60]) if isinstance(value, str) else ascii(reprlib.repr(value))[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
