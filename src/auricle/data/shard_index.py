"""The position of each clip in a tar shard: an index file beside the tar, built from untrusted tars of any origin.

Only audio, JSON and text members are read. Whatever else a tar can hold (pickles, links, devices, names outside the
folder) is never opened; how many were ignored, and why, is stored in the index.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.data.tar_members import (
    AUDIO_SUFFIXES,
    CLIP_LIMITS,
    TarMember,
    described_by,
    is_safe_name,
    member_objection,
    split_member_name,
    tar_members,
)
from auricle.data.untrusted_json import has_half_pair
from auricle.errors import AudioError, DataError
from auricle.files import write_bytes

MAX_CLIP_SAMPLES = int(CLIP_LIMITS.max_seconds) * 16_000

_FORMAT = "auricle-shard-index-1"
_COLUMNS = {
    "audio_offset": np.int64,
    "audio_size": np.int64,
    "meta_offset": np.int64,
    "meta_size": np.int64,  # 0 = no description
    "meta_is_json": np.uint8,
    "is_native": np.uint8,
    "num_samples": np.int64,  # at 16 kHz
    "digest": np.uint64,
    "key_size": np.int64,
    "key_bytes": np.uint8,
}
_FINGERPRINT_BYTES = 1 << 16


class Row(NamedTuple):
    """One clip of a shard; sizes and offsets in bytes, `num_samples` at 16 kHz."""

    key: str
    audio_offset: int
    audio_size: int
    meta_offset: int
    meta_size: int
    meta_is_json: int  # 1 = JSON, 0 = plain text
    is_native: int  # 1 = 16 kHz mono FLAC, which needs no resampling
    num_samples: int
    digest: int


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The clips of one tar, column by column, in the order of their audio."""

    tar: Path
    columns: Mapping[str, npt.NDArray[Any]]
    ignored: Mapping[str, int]  # reason -> members left out
    set_size: int | None = None  # tars of the set it was written with, if known

    def __len__(self) -> int:
        return len(self.columns["num_samples"])

    @property
    def num_samples(self) -> npt.NDArray[np.int64]:
        """(clips,) samples of each clip at 16 kHz."""
        return self.columns["num_samples"]

    def left_out(self) -> str:
        """What was ignored, in a sentence."""
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.ignored.items()))
        return f"{sum(self.ignored.values())} members are left out ({reasons})"

    def keys(self) -> list[str]:
        """The name of each clip."""
        text, ends = self.columns["key_bytes"].tobytes(), np.cumsum(self.columns["key_size"])
        return [text[end - size : end].decode() for end, size in zip(ends, self.columns["key_size"], strict=True)]

    def row(self, number: int) -> Row:
        """Everything about clip `number`."""
        values = {name: int(self.columns[name][number]) for name in Row._fields[1:]}
        end = int(self.columns["key_size"][: number + 1].sum())
        key = self.columns["key_bytes"][end - int(self.columns["key_size"][number]) : end].tobytes().decode()
        return Row(key, **values)


def index_path(tar: Path) -> Path:
    """The index file beside `tar`: hidden, so that readers of whole folders, such as Ray's, take the tars alone.

    An index of the name that was written before, which is not hidden, is used further.
    """
    before, now = tar.with_suffix(".index.safetensors"), tar.with_name(f".{tar.stem}.index.safetensors")
    return before if before.exists() and not now.exists() else now


def from_rows(tar: Path, rows: list[Row], ignored: Mapping[str, int], set_size: int | None = None) -> ShardIndex:
    """Columns from rows."""
    keys = [row.key.encode() for row in rows]
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.array([getattr(row, name) for row in rows], dtype=_COLUMNS[name]) for name in Row._fields[1:]
    }
    columns["key_size"] = np.array([len(key) for key in keys], dtype=np.int64)
    columns["key_bytes"] = np.frombuffer(b"".join(keys), dtype=np.uint8)
    return ShardIndex(tar, columns, dict(ignored), set_size)


def digest_of(audio: bytes, meta: bytes) -> int:
    """64-bit BLAKE2b of a clip's stored bytes."""
    return int.from_bytes(hashlib.blake2b(audio + meta, digest_size=8).digest(), "little")


def save(index: ShardIndex) -> None:
    """Write the index beside its tar.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    metadata = {"format": _FORMAT, "ignored": json.dumps(dict(index.ignored), sort_keys=True), **_tar_facts(index.tar)}
    if index.set_size is not None:
        metadata["shards"] = str(index.set_size)
    write_bytes(index_path(index.tar), to_bytes(dict(index.columns), metadata))


def load(tar: Path) -> ShardIndex:
    """Read the index beside `tar`.

    Raises:
        DataError: the index is damaged, or the tar has changed since it was written.
    """
    from safetensors import SafetensorError, safe_open

    path = index_path(tar)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            columns = {name: file.get_tensor(name) for name in _COLUMNS}
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"format is {metadata.get('format')!r}, expected {_FORMAT!r}")
        ignored = {str(reason): int(count) for reason, count in json.loads(metadata["ignored"]).items()}
        set_size = int(metadata["shards"]) if "shards" in metadata else None
        _check_columns(columns, tar.stat().st_size)
        index = ShardIndex(tar, columns, ignored, set_size)
        _check_keys(index.keys())
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a usable shard index ({error}); delete it and it is built again") from None
    _check_fresh(tar, path, metadata)
    return index


def build_index(tar: str | Path) -> ShardIndex:
    """Index a tar of any origin by reading it once from start to end; nothing is extracted or executed.

    A clip is an audio member (flac, wav, ogg, opus, mp3) with, optionally, a ``.json`` or else ``.txt`` member of the
    same name up to the last dot, or of its start up to another one, see `described_by`. Other members, and damaged
    ones, are left out and counted in `ignored`.

    Raises:
        DataError: `tar` is not a plain tar, is truncated, or states wrong sizes of its members.
    """
    tar = Path(tar)
    audio: dict[str, TarMember] = {}
    descriptions: dict[str, dict[str, TarMember]] = {"json": {}, "txt": {}}
    ignored: Counter[str] = Counter()
    for member in tar_members(tar):
        stem, suffix = split_member_name(member.name)
        table = audio if suffix in AUDIO_SUFFIXES else descriptions.get(suffix)
        reason = member_objection(member, table)
        if reason is None and table is not None:
            table[stem] = member
        else:
            ignored[str(reason)] += 1
    rows = []
    used = {kind: described_by(audio, table) for kind, table in descriptions.items()}
    with tar.open("rb") as file:
        for key, member in audio.items():
            kind = "json" if key in used["json"] else "txt"
            described = descriptions[kind][used[kind][key]] if key in used[kind] else None
            try:
                rows.append(_read_row(file, key, member, described))
            except (AudioError, DataError) as error:
                ignored[f"{type(error).__name__}: {error}"[:200]] += 1
    read = {*used["json"].values(), *(name for key, name in used["txt"].items() if key not in used["json"])}
    for table in descriptions.values():
        ignored["description without audio"] += len(table.keys() - read)
    return from_rows(tar, rows, +ignored)


def read_meta(stored: bytes, *, is_json: bool) -> dict[str, Any]:
    """A clip's description from its stored bytes; plain text becomes ``{"text": …}``.

    Raises:
        DataError: not UTF-8, not JSON, not a JSON object, or half of a surrogate pair in it.
    """
    if not stored:
        return {}
    try:
        meta = json.loads(stored) if is_json else {"text": stored.decode().strip()}
    except (ValueError, RecursionError) as error:
        raise DataError(f"the description is not valid {'JSON' if is_json else 'UTF-8'} ({error})") from None
    if not isinstance(meta, dict):
        raise DataError(f"the description is a JSON {type(meta).__name__}, expected an object with named facts")
    if broken := next((name for name, value in meta.items() if has_half_pair([name, value])), None):
        raise DataError(f"{broken!a} of the description holds half of a surrogate pair, expected valid characters")
    return meta


def _read_row(file: BinaryIO, key: str, audio: TarMember, described: TarMember | None) -> Row:
    file.seek(audio.offset)
    encoded, meta = file.read(audio.size), b""
    if described is not None:
        file.seek(described.offset)
        meta = file.read(described.size)
    is_json = described is not None and described.name.lower().endswith("json")
    read_meta(meta, is_json=is_json)
    native = native_samples(encoded)
    num_samples = native if native is not None else _probe_samples(encoded)
    if not 0 < num_samples <= MAX_CLIP_SAMPLES:
        raise DataError(f"a clip of {num_samples} samples; shards hold clips of 1 … {MAX_CLIP_SAMPLES}")
    return Row(
        key=key,
        audio_offset=audio.offset,
        audio_size=audio.size,
        meta_offset=described.offset if described else 0,
        meta_size=len(meta),
        meta_is_json=is_json,
        is_native=native is not None,
        num_samples=num_samples,
        digest=digest_of(encoded, meta),
    )


def native_samples(encoded: bytes) -> int | None:
    """Samples of a 16 kHz mono FLAC as its STREAMINFO states them (RFC 9639 section 8.2); None for anything else."""
    if encoded[:4] != b"fLaC" or len(encoded) < 42 or encoded[4] & 0x7F != 0:
        return None
    packed = int.from_bytes(encoded[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 bits per sample - 1, 36 samples
    rate, channels, samples = packed >> 44, (packed >> 41 & 7) + 1, packed & ((1 << 36) - 1)
    return samples if (rate, channels) == (16_000, 1) and samples else None


def _probe_samples(encoded: bytes) -> int:
    """Length at 16 kHz; by decoding if the header does not state it."""
    from auricle.audio.decode import decode, probe

    duration_s = probe(encoded, limits=CLIP_LIMITS).duration_s
    return len(decode(encoded, limits=CLIP_LIMITS).waveform) if duration_s is None else round(duration_s * 16_000)


def _tar_facts(tar: Path) -> dict[str, str]:
    """Size, time, and a hash of both ends of a tar, to detect that it changed."""
    stat = tar.stat()
    with tar.open("rb") as file:
        ends = file.read(_FINGERPRINT_BYTES)
        file.seek(max(0, stat.st_size - _FINGERPRINT_BYTES))
        ends += file.read(_FINGERPRINT_BYTES)
    return {
        "tar_size": str(stat.st_size),
        "tar_mtime_ns": str(stat.st_mtime_ns),
        "tar_fingerprint": hashlib.sha256(ends).hexdigest(),
    }


def _check_fresh(tar: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """A copied tar may have another time, but not another size or other ends; `ShardSet.read` checks each clip."""
    stat = tar.stat()
    if (metadata.get("tar_size"), metadata.get("tar_mtime_ns")) == (str(stat.st_size), str(stat.st_mtime_ns)):
        return
    facts = _tar_facts(tar)
    if any(metadata.get(name) != facts[name] for name in ("tar_size", "tar_fingerprint")):
        raise DataError(
            f"{tar} has changed since its index {path.name} was written; delete the index and it is built again"
        )


def _check_keys(keys: list[str]) -> None:
    """Raise ValueError unless every clip has a name of its own that could be a member's."""
    if wrong := next((key for key in keys if not is_safe_name(key)), None):
        raise ValueError(f"the key {wrong!r}")
    if "" in keys:
        raise ValueError("a clip without a key")
    if len(set(keys)) < len(keys):
        raise ValueError("two clips of one key")


def _check_columns(columns: Mapping[str, npt.NDArray[Any]], tar_size: int) -> None:
    """Raise ValueError unless every clip is inside the tar."""
    for name, dtype in _COLUMNS.items():
        wanted = len(columns["num_samples"]) if name != "key_bytes" else int(columns["key_size"].sum())
        if columns[name].dtype != dtype or columns[name].shape != (wanted,):
            raise ValueError(
                f"column {name} is {columns[name].dtype}{columns[name].shape}, expected {wanted} of {dtype.__name__}"
            )
    if any((columns[name] < 0).any() for name in _COLUMNS):
        raise ValueError("negative sizes")
    for kind in ("audio", "meta"):
        if (columns[f"{kind}_offset"] > tar_size - columns[f"{kind}_size"]).any():
            raise ValueError("clips beyond the end of the tar")
    if (columns["num_samples"] > MAX_CLIP_SAMPLES).any():
        raise ValueError("clips of impossible length")
