"""General audio understanding: speech, sound and music through one ear."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auricle.audio.decode import decode
    from auricle.errors import AuricleError
    from auricle.infer.aligner import load_aligner
    from auricle.infer.encoder import load_encoder
    from auricle.infer.listener import load
    from auricle.infer.results import Description

__version__ = "0.1.0"

__all__ = ["AuricleError", "Description", "__version__", "decode", "load", "load_aligner", "load_encoder"]

# Made on demand: torch alone takes longer to import than `auricle --help` may take.
_HOMES = {
    "AuricleError": "auricle.errors",
    "Description": "auricle.infer.results",
    "decode": "auricle.audio.decode",
    "load": "auricle.infer.listener",
    "load_aligner": "auricle.infer.aligner",
    "load_encoder": "auricle.infer.encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
