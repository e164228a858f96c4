"""Tar shards: ``NAME-000000.tar`` with ``KEY.flac`` (16 kHz mono, 16 bit) and ``KEY.json`` for each clip.

The files are plain uncompressed tars that any tar or WebDataset reader opens. Reading goes through a small index
(`auricle.data.shard_index`) and `os.pread`, so clips can be read in any order at equal cost.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.data import shard_index
from auricle.data.shard_index import Row, ShardIndex, build_index
from auricle.data.tar_members import CLIP_LIMITS, MAX_META_BYTES
from auricle.errors import AuricleError, DataError, OutputError
from auricle.files import atomic_folder, is_unfinished, locked, make_folder, remove_leftovers

__all__ = ["Record", "ShardSet", "ShardWriter", "build_index", "safe_key"]

SAMPLE_RATE = 16_000
_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # with ".flac" it fits the 100 bytes of a ustar name
_MAX_PEAK = 8.0  # resampling exceeds 1 a little; more means integers stored as floats


@dataclass(frozen=True, slots=True)
class Record:
    """One clip read from a shard."""

    key: str
    waveform: npt.NDArray[np.float32]  # (num_samples,) 16 kHz mono in [-1, 1]
    meta: dict[str, Any]


def safe_key(name: str) -> str:
    """`name` as a shard key: letters, digits, ``_`` and ``-``; a changed name gets a hash, so that none collide."""
    if _KEY.fullmatch(name):
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', name)[:80]}-{digest}"


class ShardWriter:
    """Writes clips as shards; all of them appear in `folder` on a clean exit, none after an exception.

    The same clips give the same bytes: no times, users or host names are stored. A set has one writer at a time; work
    that is spread over processes gives each its own name. What a killed writer published in part is replaced.
    """

    def __init__(self, folder: str | Path, name: str, *, max_bytes: int = 256 << 20) -> None:
        """Start a set of shards.

        Args:
            folder: created if missing.
            name: of the set, ``[A-Za-z0-9_-]``; files are ``NAME-000000.tar``, ``NAME-000001.tar``, …
            max_bytes: a shard is closed before it would outgrow this; a larger clip gets its own shard.

        Raises:
            DataError: a bad name, or shards of that name exist.
            OutputError: the folder cannot be written, or another run is writing shards of that name.
        """
        if not _KEY.fullmatch(name):
            raise DataError(f"shard name {name!r} must be 1–90 of the characters A–Z a–z 0–9 _ -")
        self.folder = make_folder(folder)
        self._resources = ExitStack()
        self._resources.enter_context(locked(self.folder / name))
        last, pattern = f"{name}-000000.tar", f"{name}-{'[0-9]' * 6}"
        was_killed = is_unfinished(self.folder, last)  # while it published: then what is there is no set
        remove_leftovers(self.folder)
        if (present := sorted(self.folder.glob(f"{pattern}.tar"))) and not was_killed:
            self._resources.close()
            raise DataError(f"{present[0]} exists already; choose another name or delete the old shards first")
        stale = (f"{pattern}.tar", f"{pattern}.index.safetensors") if was_killed else ()
        self._aside = self._resources.enter_context(atomic_folder(self.folder, last=last, stale=stale))
        self.name, self.max_bytes = name, max_bytes
        self._keys: set[str] = set()
        self._finished: list[list[Row]] = []
        self._rows: list[Row] = []
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the shards, or remove them after an exception."""
        if kind is None:
            self.close()
        else:
            if self._tar is not None:
                with suppress(OSError):  # of a full disk, which `error` reports already
                    self._tar.close()
            self._resources.__exit__(kind, error, trace)

    def write(self, key: str, waveform: npt.ArrayLike, meta: Mapping[str, Any]) -> None:
        """Append one clip.

        Args:
            key: unique name, see `safe_key`.
            waveform: (num_samples,) floats at 16 kHz in [-1, 1]; beyond that it is clipped, as 16 bits cannot hold it.
            meta: facts about the clip, JSON-serialisable.

        Raises:
            DataError: a bad or repeated key, not a finite mono waveform, or facts that JSON cannot hold.
        """
        if not _KEY.fullmatch(key) or key in self._keys:
            found = "was written before" if key in self._keys else "has other characters than A–Z a–z 0–9 _ -"
            raise DataError(f"shard key {key!r} {found}; keys are unique: safe_key() makes one from any name")
        audio, stored = _to_flac(key, waveform), _to_json(key, meta)
        needed = _blocks(len(audio)) + _blocks(len(stored))
        if self._tar is not None and self._rows and self._tar.offset + needed > self.max_bytes:
            self._finish_shard()
        if self._tar is None:
            self._tar = tarfile.open(self._path(len(self._finished)), "w:", format=tarfile.USTAR_FORMAT)
        audio_offset = _append(self._tar, f"{key}.flac", audio)
        meta_offset = _append(self._tar, f"{key}.json", stored)
        self._keys.add(key)
        self._rows.append(
            Row(
                key=key,
                audio_offset=audio_offset,
                audio_size=len(audio),
                meta_offset=meta_offset,
                meta_size=len(stored),
                meta_is_json=1,
                is_native=1,
                num_samples=np.shape(waveform)[0],
                digest=shard_index.digest_of(audio, stored),
            )
        )

    def close(self) -> None:
        """Publish everything written, the first shard last; a set without clips has no files."""
        with self._resources:
            if self._tar is not None:
                self._finish_shard()
            for number, rows in enumerate(self._finished):
                shard_index.save(shard_index.from_rows(self._path(number), rows, {}, len(self._finished)))
            self._finished = []

    def _path(self, number: int) -> Path:
        return self._aside / f"{self.name}-{number:06d}.tar"

    def _finish_shard(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._finished.append(self._rows)
        self._tar, self._rows = None, []


class ShardSet:
    """Clips of many shards under one numbering, ``0 … len - 1``, in the order of shards and of clips inside them.

    Reading keeps no open file and no position, so threads and forked processes may share one set.
    """

    def __init__(self, source: str | Path | Sequence[str | Path]) -> None:
        """Open shards; a missing index is built from its tar and written beside it if possible.

        Args:
            source: a folder of ``.tar`` files, one tar, or a list of either.

        Raises:
            DataError: no shard there, a damaged or incomplete set, or a tar that changed after it was indexed.
        """
        sources = [source] if isinstance(source, str | Path) else list(source)
        self.shards: list[ShardIndex] = [index for item in sources for index in _open(Path(item))]
        self._starts = np.cumsum([0, *(len(index) for index in self.shards)])
        self.num_samples: npt.NDArray[np.int64] = np.concatenate(
            [i.num_samples for i in self.shards] or [np.empty(0, np.int64)]
        )
        if not len(self):
            raise DataError(
                f"no clips in {', '.join(map(str, sources)) or 'an empty list'}; left out: {dict(self.ignored)}"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def ignored(self) -> Counter[str]:
        """Members of the tars that are not clips: reason -> count."""
        total: Counter[str] = Counter()
        for index in self.shards:
            total.update(index.ignored)
        return total

    @property
    def manifest_hash(self) -> str:
        """SHA-256 over keys, lengths and content hashes in order; the same however the clips are cut into shards."""
        digest = hashlib.sha256()
        for name in ("key_size", "key_bytes", "num_samples", "digest"):
            for index in self.shards:
                digest.update(index.columns[name].tobytes())
        return digest.hexdigest()

    def keys(self) -> list[str]:
        """The name of each clip."""
        return [key for index in self.shards for key in index.keys()]

    def read_meta(self, i: int) -> dict[str, Any]:
        """Only the facts of clip `i`, without decoding its audio; its hash is not checked."""
        index, row = self._locate(i)
        (stored,) = _pread(index.tar, (row.meta_offset, row.meta_size))
        with _named(index, row):
            return shard_index.read_meta(stored, is_json=bool(row.meta_is_json))

    def read(self, i: int) -> Record:
        """Clip `i`.

        Raises:
            IndexError: no such number.
            DataError: the shard changed or is damaged; the message names tar and clip.
        """
        index, row, audio, stored = self._stored(i)
        with _named(index, row):
            return Record(row.key, _decode(audio, row), shard_index.read_meta(stored, is_json=bool(row.meta_is_json)))

    def read_audio(self, i: int) -> bytes:
        """The audio file of clip `i`, not decoded.

        Raises:
            IndexError: no such number.
            DataError: the shard changed or is damaged; the message names tar and clip.
        """
        return self._stored(i)[2]

    def _stored(self, i: int) -> tuple[ShardIndex, Row, bytes, bytes]:
        """Position, audio and facts of clip `i`, checked by its hash."""
        index, row = self._locate(i)
        audio, stored = _pread(index.tar, (row.audio_offset, row.audio_size), (row.meta_offset, row.meta_size))
        if shard_index.digest_of(audio, stored) != row.digest:
            raise DataError(
                f"{index.tar}: clip {row.key!r} is not what the index states; the tar changed or is damaged: "
                "download it again, or delete its index to accept it"
            )
        return index, row, audio, stored

    def _locate(self, i: int) -> tuple[ShardIndex, Row]:
        if not 0 <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        shard = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.shards[shard], self.shards[shard].row(int(i - self._starts[shard]))


@contextmanager
def _named(index: ShardIndex, row: Row) -> Iterator[None]:
    """Add clip and tar to errors inside."""
    try:
        yield
    except AuricleError as error:
        raise DataError(f"{index.tar}: clip {row.key!r}: {error}") from error


def _open(source: Path) -> list[ShardIndex]:
    if not source.is_dir():
        if not source.is_file():
            raise DataError(f"{source} does not exist; expected a folder of shards or a .tar file")
        return [_open_tar(source)]
    indexes = [_open_tar(tar) for tar in sorted(source.glob("*.tar")) if not tar.name.startswith(".")]
    if not indexes:
        raise DataError(f"no .tar files in {source}; 'auricle data pack' writes shards")
    present = Counter(index.tar.stem.rpartition("-")[0] for index in indexes)
    for index in indexes:
        name = index.tar.stem.rpartition("-")[0]
        if index.set_size is not None and present[name] != index.set_size:
            raise DataError(
                f"{source} holds {present[name]} of the {index.set_size} shards of {name!r}; download the others, or "
                "list the files one by one"
            )
    return indexes


def _open_tar(tar: Path) -> ShardIndex:
    if shard_index.index_path(tar).exists():
        return shard_index.load(tar)
    index = build_index(tar)
    if index.ignored:
        warnings.warn(f"{tar}: {index.left_out()}", stacklevel=4)
    with suppress(OutputError):  # a read-only data set is indexed again by the next run
        shard_index.save(index)
    return index


def _pread(tar: Path, *places: tuple[int, int]) -> list[bytes]:
    try:
        descriptor = os.open(tar, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise DataError(f"cannot read {tar} ({error.strerror}); was the shard moved while in use?") from error
    try:
        return [os.pread(descriptor, size, offset) for offset, size in places]
    finally:
        os.close(descriptor)


def _decode(audio: bytes, row: Row) -> npt.NDArray[np.float32]:
    if not row.is_native:
        from auricle.audio.decode import decode

        return decode(audio, limits=CLIP_LIMITS).waveform
    import soundfile

    if shard_index.native_samples(audio) != row.num_samples:
        raise DataError(f"its FLAC header does not state the {row.num_samples} samples of the index")
    try:
        waveform, _ = soundfile.read(io.BytesIO(audio), dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"its FLAC is damaged ({error})") from None
    if waveform.shape != (row.num_samples,):
        raise DataError(f"its FLAC holds {len(waveform)} samples where its header states {row.num_samples}")
    return waveform


def _to_flac(key: str, waveform: npt.ArrayLike) -> bytes:
    """16-bit FLAC; the scale 32768 returns 16-bit sources exactly."""
    import soundfile

    samples = np.asarray(waveform)
    if samples.ndim != 1 or not len(samples) or samples.dtype.kind != "f":
        raise DataError(f"clip {key!r} is {samples.dtype}{samples.shape}, expected floats of shape (num_samples,)")
    if len(samples) > shard_index.MAX_CLIP_SAMPLES:
        raise DataError(
            f"clip {key!r} has {len(samples)} samples, a shard holds up to {shard_index.MAX_CLIP_SAMPLES}; cut it"
        )
    if not np.isfinite(samples).all() or np.abs(samples).max() > _MAX_PEAK:
        raise DataError(
            f"clip {key!r} has samples that are not finite or far outside [-1, 1]; expected a decoded waveform"
        )
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _to_json(key: str, meta: Mapping[str, Any]) -> bytes:
    try:
        stored = json.dumps(dict(meta), ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"facts of clip {key!r} cannot be stored as JSON: {error}") from None
    if len(stored) > MAX_META_BYTES:
        raise DataError(f"facts of clip {key!r} take {len(stored)} bytes, at most {MAX_META_BYTES} fit")
    return stored


def _blocks(size: int) -> int:
    return tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))


def _append(tar: tarfile.TarFile, name: str, contents: bytes) -> int:
    """Add a member without time or owner; returns where its contents start."""
    member = tarfile.TarInfo(name)
    member.size = len(contents)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(contents))
    return offset
