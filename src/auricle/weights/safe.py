"""Tensors in and out of files without running code in a file.

* ``.safetensors`` files and sharded folders are memory-mapped: nothing is read until a tensor is used.
* ``.pt`` / ``.pth`` / ``.bin`` go through torch's restricted unpickler; a file that names any other code is refused.
* Shard names of an index are hostile until checked.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from auricle.errors import LayoutMismatch, OutputError, UnsafeWeights, WeightsError
from auricle.files import atomic_folder, atomic_path, read_regular_text, write_json, write_text
from auricle.weights.compressed import rows_from_int8
from auricle.weights.construct import StoredTensor, made
from auricle.weights.pickle_scan import check_pickles

INDEX = "model.safetensors.index.json"
_WEIGHTS = (INDEX, "model*.safetensors")  # files that a newly written model replaces
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.safetensors|\.bin)")
SUMS = "SHA256SUMS"
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
# Classes of paths, as the pickles of several Pythons name them -> what is built in their place.
_PATHS: list[Any] = [
    (PurePosixPath, f"{module}.{name}")
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
]
_MAX_VIEWS = 8  # times that the tensors of a checkpoint may be larger than what it stores; tied ones are twice there
MAX_JSON_BYTES = 64 * 2**20  # an index of 100,000 tensors is under 10 MiB
MAX_HEADER_BYTES = 100 * 2**20  # the limit of the safetensors format itself
MAX_SHARD_BYTES = 4_000_000_000  # transformers' customary shard size


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file or folder, on the CPU, memory-mapped where the format allows.

    Args:
        path: a ``.safetensors`` or ``.pt``/``.pth``/``.bin`` file, or a folder with ``model.safetensors``, with
            ``model.safetensors.index.json`` and its shards, or with exactly one weights file. Of a pickled
            ``{"model": …}`` checkpoint the tensors of ``model`` are returned.

    Raises:
        UnsafeWeights: the file holds code, an impossible header or a shard name that leaves the folder.
        LayoutMismatch: an index and its shards disagree, or no tensors are found.
        WeightsError: no such file.
    """
    return {name: made(tensor) for name, tensor in read_stored(path).items()}


def read_stored(path: str | Path) -> dict[str, StoredTensor]:
    """As `read_tensors`, but matrices stored as int8 are made when they are needed."""
    path = Path(path)
    if path.is_dir():
        tensors: dict[str, StoredTensor] = {}
        for file, names in weight_files(path).items():
            found = _read_file(file)
            _check_shard(file, names, found, tensors)
            tensors.update(found)
        return tensors
    _refuse_lone_shards(path.parent, [path])
    return _read_file(path)


def weight_files(path: str | Path) -> dict[Path, set[str] | None]:
    """The weights files of a file or folder, each with the tensors its index promises (None without an index).

    Raises:
        UnsafeWeights: the index names a file outside the folder.
        WeightsError: there are no weights, several candidates, or shards without their index.
    """
    path = Path(path)
    if path.is_file():
        _refuse_lone_shards(path.parent, [path])
        return {path: None}
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder")
    if (path / INDEX).is_file():
        return _read_index(path)
    for name in ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return {path / name: None}
    named = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", *PICKLED))
    if lost := [p for p in named if p.is_symlink() and not p.exists()]:
        raise WeightsError(
            f"{lost[0]}: is a link to {lost[0].readlink()}, which is not there; download the model again, or repair it"
        )
    found = [p for p in named if p.is_file()]
    _refuse_lone_shards(path, found)
    if len(found) != 1:
        listing = ", ".join(p.name for p in found[:5]) or "none"
        raise WeightsError(
            f"{path}: expected model.safetensors, {INDEX} or exactly one weights file; "
            f"found {listing}: name the file itself"
        )
    return {found[0]: None}


def _refuse_lone_shards(folder: Path, files: Sequence[Path]) -> None:
    """Raise WeightsError where files are parts of a model without its index: nothing tells whether all are there."""
    shards = [match for file in files if (match := _SHARD.fullmatch(file.name)) and int(match[2]) > 1]
    if not shards:
        return
    name = f"{shards[0][1]}{shards[0][3]}.index.json"
    if (folder / name).is_file():
        raise WeightsError(f"{shards[0][0]} is one of {int(shards[0][2])} shards, expected all; name their folder")
    raise WeightsError(
        f"{folder}: index missing: found shards as {shards[0][0]}, expected {name} beside them; fetch it: "
        f"hf download REPOSITORY {name} --local-dir {folder}"
    )


def read_metadata(path: str | Path) -> dict[str, str]:
    """The string metadata of a ``.safetensors`` file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UnsafeWeights(
            f"{path}: not a readable safetensors file ({error}); download or export it again"
        ) from error


def read_pickled(path: str | Path, classes: Sequence[Any] = ()) -> dict[str, Any]:
    """The mapping in a torch checkpoint, read by the restricted unpickler (tensors, numbers, strings, containers).

    Paths of settings beside the weights become `PurePosixPath`, which can do nothing to a file.

    Args:
        path: of the file.
        classes: that it may hold besides, as for ``torch.serialization.safe_globals``.

    Raises:
        UnsafeWeights: the file names other code, asks for much more memory than it holds, or is damaged.
    """
    path = Path(path)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    allowed = [*_PATHS, *classes]
    names = [each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in allowed]
    check_pickles(path, names)
    with torch.serialization.safe_globals(allowed):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:
            raise UnsafeWeights(_pickle_complaint(path, error)) from error
    if not isinstance(content, dict):
        raise LayoutMismatch(
            f"{path}: holds a {type(content).__name__}, expected a dict of tensors or {{'model': dict}}"
        )
    return content


def tensors_of(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict of a torch checkpoint: the ``model`` or ``state_dict`` entry, or the mapping itself."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise LayoutMismatch(f"{path}: holds no tensors; its entries are {', '.join(map(str, list(content)[:5]))}")
    for name, tensor in tensors.items():
        # A stride of 0 lets a number stand for gigabytes.
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UnsafeWeights(f"{path}: {name} is a tensor of {tuple(tensor.shape)}, of which it holds a part")
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.nbytes for tensor in tensors.values()) > _MAX_VIEWS * sum(stored.values()):
        raise UnsafeWeights(f"{path}: its tensors show the same numbers again and again; export it again")
    return tensors


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        WeightsError: absent, too large or no JSON object.
    """
    path = Path(path)
    try:
        content = json.loads(read_regular_text(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a readable JSON file ({error}); restore it from the model's folder") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write one ``.safetensors`` file; see `auricle.files.atomic_write`."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata={"format": "pt", **(metadata or {})})


def model_folder(folder: str | Path) -> AbstractContextManager[Path]:
    """A folder to write a model into: an older model's weights go, other files stay; see `auricle.files`."""
    return atomic_folder(folder, last="config.json", stale=_WEIGHTS)


def write_folder(
    folder: str | Path, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Write ``model.safetensors``, or numbered shards and their index when there is more than one shard's worth.

    Raises:
        OutputError: they cannot be written, or a number of a model is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.itemsize > 1 and not torch.isfinite(tensor).all():
            raise OutputError(f"{folder}: not written, as {name} has NaN or infinities; check where it comes from")
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    with atomic_folder(folder, last=INDEX, stale=_WEIGHTS) as aside:
        for name, shard in zip(names, shards, strict=True):
            write_tensors(aside / name, shard)
        if len(shards) > 1:
            total = sum(tensor.nbytes for tensor in tensors.values())
            places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
            write_json(aside / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
            names.append(INDEX)
    return [Path(folder) / name for name in names]


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file; of a folder, that of its weights (of the lines ``HASH  NAME`` if several)."""
    path = Path(path)
    if path.is_dir():
        files = sorted(weight_files(path))
        if len(files) == 1:
            return sha256(files[0])
        lines = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: str | Path) -> None:
    """Write ``SHA256SUMS`` over every file of a folder, in the format of ``sha256sum``."""
    folder = Path(folder)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != SUMS and not p.name.startswith("."))
    write_text(folder / SUMS, "".join(f"{sha256(p)}  {p.name}\n" for p in files))


def verify_checksums(folder: str | Path) -> None:
    """Compare a folder with its ``SHA256SUMS``.

    Raises:
        UnsafeWeights: the list is absent, or a weights or settings file is missing, altered or not listed.
    """
    folder = Path(folder)
    if not (folder / SUMS).is_file():
        raise UnsafeWeights(f"{folder}: has no {SUMS}; install the package again")
    lines = (line.partition("  ") for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
    listed = {name: digest for digest, _, name in lines}
    present = {p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja")}
    for name in sorted({*listed, *present}):
        file = folder / plain_name(name, folder)
        found = sha256(file) if file.is_file() else "nothing"
        if found != listed.get(name):
            expected = listed.get(name, "no such file")
            raise UnsafeWeights(f"{file}: SHA-256 is {found}, expected {expected}; install the package again")


def check_links(folder: Path) -> None:
    """Refuse a model's folder whose texts would be copied from elsewhere: a link may lead to private files.

    Raises:
        UnsafeWeights: a file other than weights is a link out of the folder, or out of its repository in a hub cache.
    """
    if not folder.is_dir():
        return
    homes = (folder.resolve(), folder.absolute().parent.parent.resolve() / "blobs")
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", *PICKLED) or not file.is_symlink():
            continue
        if not any(file.resolve().is_relative_to(home) for home in homes):
            raise UnsafeWeights(
                f"{file}: is a link to {file.resolve()}, outside the folder; copy the file there if it belongs to the "
                "model"
            )


def plain_name(name: object, folder: Path) -> str:
    """A file name that stays inside its folder.

    Raises:
        UnsafeWeights: it has a separator, a drive, ``..`` or a control character.
    """
    if not isinstance(name, str) or not name or name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise UnsafeWeights(
            f"{folder}: names the file {name!r}, expected a plain name inside the folder; do not trust it"
        )
    return name


def _read_file(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix in PICKLED:
        return {**tensors_of(read_pickled(path), path)}
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: unknown weights file, expected .safetensors, .pt, .pth or .bin")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_header(path)
    try:
        return rows_from_int8(load_file(str(path), device="cpu"))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UnsafeWeights(f"{path}: damaged safetensors file ({error}); download or export it again") from error


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise UnsafeWeights(
            f"{path}: claims a header of {length} bytes in a file of {size}; not a safetensors file, or cut short: "
            "download or export it again"
        )


def _read_index(folder: Path) -> dict[Path, set[str] | None]:
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise LayoutMismatch(f"{folder / INDEX}: has no weight_map")
    files: dict[Path, set[str] | None] = {}
    for key, name in places.items():
        file = folder / plain_name(name, folder)
        if file.suffix != ".safetensors":
            raise UnsafeWeights(f"{folder / INDEX}: names {name!r}, expected a .safetensors shard")
        names = files.setdefault(file, set())
        assert names is not None
        names.add(key)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} of {len(files)} shards are absent ({missing[0]}): download them")
    return files


def _check_shard(file: Path, names: set[str] | None, found: Collection[str], before: Collection[str]) -> None:
    if names is not None and (wrong := sorted(names ^ set(found))):
        raise LayoutMismatch(f"{file}: the index and the shard disagree on {len(wrong)} tensors, e.g. {wrong[0]}")
    if twice := sorted(set(found) & set(before)):
        raise LayoutMismatch(f"{file}: {len(twice)} tensors are also in another shard, e.g. {twice[0]}")


def _pickle_complaint(path: Path, error: Exception) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not a zip archive, or damaged beyond listing
        names = []
    if names:
        return (
            f"{path}: the pickle needs code ({', '.join(sorted(names)[:5])}), expected tensors only; it was not "
            "run. Convert the file to safetensors where you trust it"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return (
        f"{path}: the restricted unpickler refused it ({reason}); it was not run. The file is damaged or holds code: "
        "download it again, or convert it to safetensors where you trust it"
    )
