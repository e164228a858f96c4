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
    ├── TrainingError         a run could not start, resume or continue
    ├── OutputError           a file or folder could not be written, or another run is writing it
    └── MissingExtra          an optional dependency is not installed

Each message says what was found, what was expected and how to fix it.
"""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 8  # known names in a message


class AuricleError(Exception):
    """Base of all errors that are reported to users."""


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


class TrainingError(AuricleError):
    """A run could not start, resume or continue."""


class OutputError(AuricleError):
    """A file or folder could not be written, or another run is writing it."""


class MissingExtra(AuricleError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """``what`` is missing; ``extra`` of the package installs it."""
        super().__init__(f"{what} needs an optional dependency: pip install 'auricle[{extra}]'")


def hint_names(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: near matches, and known names, of many the first."""
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{meant} Known: {', '.join(names[:_SHOWN])}{more}"
