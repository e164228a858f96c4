"""Every error a user of Auricle can meet.

::

    AuricleError
    ├── AudioError            audio could not be read
    │   ├── UnsupportedFormat not audio that this installation can decode
    │   ├── BrokenAudio       audio, but empty, damaged or with a wrong header
    │   ├── LimitExceeded     larger, longer, faster or wider than the Limits allow
    │   └── ClipTooShort      fewer samples than the front end needs
    ├── DataError             a manifest, shard or data set layout is not as described
    ├── WeightsError          weights could not be found, trusted or fitted
    │   ├── UnknownModel      no such name; near matches are listed
    │   ├── UnsafeWeights     the file holds code, or is not what its checksum says
    │   └── LayoutMismatch    keys or shapes differ from the architecture
    ├── ConfigError           a setting is out of range
    ├── PromptError           messages and audio do not fit together
    ├── EndpointError         a server of a model refused a request, or did not answer
    │   └── BudgetSpent       the requests, seconds or money allowed for it are used up
    ├── TrainingError         a run could not start, resume or continue
    ├── OutputError           a file or folder could not be written, or another run is writing it
    └── MissingExtra          an optional dependency is not installed

Each message says what was found, what was expected and how to fix it.
"""

from __future__ import annotations

import math
import numbers
import reprlib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_SHOWN = 8  # known names in a message


class AuricleError(Exception):
    """Base of all errors that are reported to users."""

    def __str__(self) -> str:
        """The message on one line: names in untrusted files must not control a terminal."""
        return visible(super().__str__())


def visible(text: str) -> str:
    """Text on one line, with control characters, and what turns the direction of text around, escaped."""
    return "".join(" " if c in "\r\n\t" else escaped(c) for c in text)


def escaped(character: str) -> str:
    """A character, or its escape where nobody sees it; joiners and spaces of any width stay, as words have them."""
    is_shown = character.isprintable() or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"
    return character if is_shown else repr(character)[1:-1]


class AudioError(AuricleError):
    """Audio could not be read."""


class UnsupportedFormat(AudioError):
    """Not audio that this installation can decode."""


class BrokenAudio(AudioError):
    """Audio, but empty, damaged or with a wrong header."""


class LimitExceeded(AudioError):
    """Input larger, longer, faster or wider than the `Limits` allow."""


class ClipTooShort(AudioError):
    """Fewer samples than the front end needs."""


class DataError(AuricleError):
    """A manifest, shard or data set layout is not as described."""


class WeightsError(AuricleError):
    """Weights could not be found, trusted or fitted."""


class UnknownModel(WeightsError):
    """No model of that name; near matches are listed."""


class UnsafeWeights(WeightsError):
    """The file holds code, or is not what its checksum says."""


class LayoutMismatch(WeightsError):
    """Keys or shapes differ from what the architecture needs."""


class ConfigError(AuricleError):
    """A setting is out of range."""


class PromptError(AuricleError):
    """Messages and audio do not fit together."""


class EndpointError(AuricleError):
    """A server of a model refused a request, or did not answer."""


class BudgetSpent(EndpointError):
    """The requests, seconds or money allowed for a server are used up."""


class TrainingError(AuricleError):
    """A run could not start, resume or continue."""


class OutputError(AuricleError):
    """A file or folder could not be written, or another run is writing it."""


class MissingExtra(AuricleError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """``what`` is missing; ``extra`` of the package installs it."""
        super().__init__(f"{what} needs an optional dependency: pip install 'auricle[{extra}]'")
        self._found = what, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """An error crosses from one process to another in pieces of its constructor."""
        return type(self), self._found


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
    expected: str = "",
) -> None:
    """Refuse a setting that is not a number in its range; NaN is in none.

    Args:
        name: of the setting.
        value: any object.
        least: smallest value.
        most: largest value.
        whole: integers alone; True and False are none.
        expected: what to say of the range; "": its ends.

    Raises:
        ConfigError: with the setting, what was found and what was expected.

    >>> check_number("window_s", 0.5, least=0.4, most=30)
    """
    kind = numbers.Integral if whole else numbers.Real
    if type(value) is not bool and isinstance(value, kind) and _is_between(value, least, most):
        return
    ends = [f"{word} {end:g}" for word, end in (("at least", least), ("at most", most)) if math.isfinite(end)]
    wanted = expected or " ".join(["a whole number" if whole else "a number", ", ".join(ends)]).strip()
    raise ConfigError(f"{name} is {reprlib.repr(value)}; expected {wanted}")


def _is_between(value: Any, least: float, most: float) -> bool:
    return bool(least <= value <= most)


def hint_names(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: near matches, and known names, of many the first."""
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{meant} Known: {', '.join(names[:_SHOWN])}{more}"
