"""Names → places: the embedded family, published models on the Hugging Face Hub, local folders and files.

Published models are fetched through ``huggingface_hub`` (its cache, its offline mode, its own check of each download
against the hub's hash); only tensors, settings and tokenizers are fetched, never code. torch is
imported only where files are read: listing names is quick.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from auricle.errors import UnknownModel, UnsafeWeights, WeightsError
from auricle.weights.known_models import ENTRIES, CatalogEntry

# Everything a model folder needs. No *.py, and no pickles.
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".mp4", ".aiff")  # the usual ones
_SHOWN = 8  # names in a message, where none is near
_HASH = re.compile(r"[0-9a-f]{64}")
MAX_HASHED_BYTES = 4_000_000_000  # hashing more would take longer than loading it


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a model's files are."""

    name: str  # as given
    path: Path  # folder or single file
    revision: str | None = None  # commit on the hub
    sha256: str | None = None  # of the weights, where already known
    is_part: bool = False  # the name means the encoder alone of the language model that is there


def entries() -> tuple[CatalogEntry, ...]:
    """All models known by name."""
    return ENTRIES


def is_ready(entry: CatalogEntry) -> bool:
    """Whether the model's settings are on this machine (embedded, or in the hub's cache)."""
    if entry.where or entry.unavailable:
        return False
    if entry.repo is None:
        return (_embedded(entry) / "config.json").is_file()
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(entry.repo, "config.json", cache_dir=_cache(None), revision=entry.revision)
    return isinstance(found, str)


def resolve(
    name: str | Path, *, revision: str | None = None, offline: bool | None = None, cache_dir: str | Path | None = None
) -> Source:
    """Find a model's files, downloading them if they are published and absent.

    Args:
        name: an embedded name, a published name, any ``owner/model`` id of the hub, a folder or a weights file.
        revision: branch, tag or commit on the hub; the catalogue's pin, else ``main``, by default.
        offline: True uses the cache alone; None follows ``HF_HUB_OFFLINE``.
        cache_dir: the hub's cache; ``HF_HUB_CACHE`` or its default place by default.

    Raises:
        UnknownModel: no such name, folder or repository; near matches are listed.
        WeightsError: not in the cache while offline, or the download failed.
        UnsafeWeights: the files do not match their checksum.
    """
    text = str(name)
    entry = next((e for e in ENTRIES if text.lower() in (e.name, (e.repo or e.name).lower())), None)
    if entry is not None and entry.repo is None and not entry.where and not entry.unavailable:
        return _resolve_embedded(entry)
    path = Path(text).expanduser()
    if path.exists():
        _check_folder(path)
        return Source(name=text, path=path)
    if entry is not None and entry.repo is None:
        raise UnknownModel(_elsewhere(entry))
    if entry is not None:
        assert entry.repo is not None
        source = _resolve_hub(text, entry.repo, revision or entry.revision, offline, cache_dir)
        if entry.sha256 and revision in (None, entry.revision):
            _check_hash(source, entry.sha256)
        return source
    if (
        isinstance(name, str)
        and _HUB_ID.fullmatch(text)
        and not path.suffix.lower().startswith((".pt", ".safetensors"))
    ):
        return _resolve_hub(text, text, revision, offline, cache_dir)
    raise UnknownModel(_unknown(text))


def fingerprint(source: Source) -> str | None:
    """SHA-256 of the source's weights; from the hub cache's own file names where it knows them, else computed.

    None for files over `MAX_HASHED_BYTES` in a local folder: hashing them would take longer than loading.
    """
    from auricle.weights import safe

    if source.sha256:
        return source.sha256
    files = list(safe.weight_files(source.path))
    if len(files) == 1 and (known := _cached_hash(files[0])) is not None:
        return known
    if sum(file.stat().st_size for file in files) > MAX_HASHED_BYTES:
        return None
    return safe.sha256(source.path)


def _cached_hash(file: Path) -> str | None:
    """The hash that the hub's cache names a file by; a link elsewhere may be named by anyone."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blob, cache = file.resolve(), Path(_cache(None) or HF_HUB_CACHE).expanduser().resolve()
    # CACHE/models--OWNER--NAME/snapshots/COMMIT/FILE is a link to CACHE/models--OWNER--NAME/blobs/HASH.
    is_cached = blob.parent == file.parent.parent.parent.resolve() / "blobs" and blob.parent.parent.parent == cache
    return blob.name if file.is_symlink() and is_cached and _HASH.fullmatch(blob.name) else None


def _embedded(entry: CatalogEntry) -> Path:
    return Path(str(resources.files("auricle.weights"))) / "embedded" / (entry.within or entry.name)


def _resolve_embedded(entry: CatalogEntry) -> Source:
    from auricle.weights import safe

    folder = _embedded(entry)
    if not folder.is_dir():
        raise UnknownModel(
            f"{entry.name} belongs to this package, but {folder} is absent: install a release that holds it, or "
            "train it with recipes/tiny and name the resulting folder"
        )
    safe.verify_checksums(folder)
    return Source(name=entry.name, path=folder, is_part=entry.within is not None)


def _resolve_hub(
    name: str, repo: str, revision: str | None, offline: bool | None, cache_dir: str | Path | None
) -> Source:
    try:
        path = snapshot(repo, PATTERNS, revision=revision, offline=offline, cache_dir=cache_dir)
    except NoRepository as error:
        raise UnknownModel(_unknown(name)) from error
    _check_complete(path, f"{repo}@{revision or 'main'}")
    return Source(name=name, path=path, revision=path.name)


class NoRepository(UnknownModel):
    """The hub has no repository of that name."""


def snapshot(
    repo: str,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    offline: bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Download those files of a repository that match patterns, unless they are in the hub's cache.

    Args: as of `resolve`.

    Raises:
        UnknownModel: no such repository (`NoRepository`) or revision.
        WeightsError: not in the cache while offline, or the download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if offline is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
    where = f"{repo}@{revision or 'main'}"
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=_cache(cache_dir),
                local_files_only=offline,
                allow_patterns=list(patterns),
            )
        )
    except GatedRepoError as error:
        raise WeightsError(f"{where}: access must be granted by its owner; accept its terms and log in") from error
    except RevisionNotFoundError as error:
        raise UnknownModel(
            f"{where}: the repository has no such revision; name a branch, tag or commit of it"
        ) from error
    except LocalEntryNotFoundError as error:
        state = "offline mode is on" if offline else "the hub could not be reached"
        raise WeightsError(
            f"{where}: not in the local cache and {state}; run `hf download {repo}` where there is a network, or "
            "name a local folder"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NoRepository(f"{repo}: the hub has no such repository, or it is private; check the name") from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{where}: download failed ({error}); try again or name a local folder") from error


def _elsewhere(entry: CatalogEntry) -> str:
    """Why a model cannot be fetched, and the conditions of its licence."""
    if entry.unavailable:
        return f"{entry.name} is not available: {entry.unavailable}"
    caution = f" Note that {entry.caution}." if entry.caution else ""
    return (
        f"{entry.name} is not fetched from here.{caution} Its weights ({entry.license}) are offered by {entry.where}; "
        "download them and give the file's or folder's path instead of the name"
    )


def _check_folder(path: Path) -> None:
    """A folder without a model is refused with what it is, where that can be seen.

    Raises:
        UnknownModel: it holds neither settings nor weights.
    """
    if not path.is_dir():
        return
    inside = sorted(each.name for each in path.iterdir())
    if "config.json" in inside or any(name.endswith(_WEIGHTS) for name in inside):
        return
    if (path / "model" / "config.json").is_file():
        raise UnknownModel(f"{path} is the folder of a run; its model is {path / 'model'}")
    if audio := [name for name in inside if Path(name).suffix.lower() in _AUDIO]:
        raise UnknownModel(f"{path} holds audio ({audio[0]}), no model; name a model, and give audio as FILES")
    found = ", ".join(inside[:3]) or "nothing"
    raise UnknownModel(f"{path} holds {found}; expected a model's folder, with config.json and its weights")


def _check_complete(path: Path, where: str) -> None:
    """An interrupted download or a repository in another format must not pass as a model."""
    if not (path / "config.json").is_file():
        raise WeightsError(
            f"{where}: the snapshot {path} has no config.json; download it again, it is no model otherwise"
        )
    if not any(path.glob("*.safetensors")):
        raise WeightsError(
            f"{where}: the snapshot {path} has no .safetensors weights; only these are read from the hub. Where its "
            "owner offers pytorch_model.bin alone, download it and the .json files into a folder and name that"
        )


def _check_hash(source: Source, expected: str) -> None:
    from auricle.weights import safe

    found = safe.sha256(source.path)
    if found != expected:
        raise UnsafeWeights(
            f"{source.name}: SHA-256 is {found}, expected {expected}; delete {source.path} and try again"
        )


def _cache(cache_dir: str | Path | None) -> str | Path | None:
    return cache_dir or os.environ.get("HF_HUB_CACHE") or None


def _unknown(name: str) -> str:
    names = [e.name for e in ENTRIES] + [e.repo for e in ENTRIES if e.repo]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names[:_SHOWN])} and more;"
    return f"{name!r} is no model name, folder or file; {hint} `auricle models` lists all {len(ENTRIES)}"
