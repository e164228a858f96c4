"""Names, paths and hub ids → models; safe readers and writers of each official layout; the embedded family."""

from importlib import import_module
from typing import Any

# Offered lazily, because torch and the hub client are slow to import.
_HOMES = {
    "AudioTokens": "loaders",
    "Card": "cards",
    "Entry": "catalog",
    "LoadedGlap": "glap",
    "LoadedLM": "loaders",
    "Source": "catalog",
    "convert": "writers",
    "entries": "catalog",
    "load_dasheng": "loaders",
    "load_glap": "glap",
    "load_midashenglm": "loaders",
    "read_card": "cards",
    "resolve": "catalog",
    "save_dasheng": "writers",
    "save_glap": "writers",
    "save_midashenglm": "writers",
}
__all__ = [
    "AudioTokens",
    "Card",
    "Entry",
    "LoadedGlap",
    "LoadedLM",
    "Source",
    "convert",
    "entries",
    "load_dasheng",
    "load_glap",
    "load_midashenglm",
    "read_card",
    "resolve",
    "save_dasheng",
    "save_glap",
    "save_midashenglm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
