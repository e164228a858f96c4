"""Sources → clips: files and shards cut into pieces of at most ten seconds, each known by the hash of its samples."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from auricle.audio.decode import decode, probe
from auricle.audio.facts import Samples
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.segments import segments
from auricle.data.manifest import Entry
from auricle.data.shards import ShardSet, safe_key
from auricle.errors import AuricleError, DataError

CLIP_S = 10.0  # as the clips of ACAV100M and MECAT
LEAST_S = 1.0  # of the last piece of a source; a shorter one is part of the piece before it
_HASH_BYTES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file, or a clip of a tar shard."""

    id: str
    audio: str  # path of the file or tar
    place: int = -1  # number of the clip in the tar; -1: a file
    meta: Mapping[str, Any] = field(default_factory=dict)  # what the input states: licence, author, origin, …


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A clip of a source, or why there is none."""

    key: str
    source: Source
    clip_hash: str = ""  # BLAKE2b of the float32 samples; empty where they cannot be read
    start: int = 0  # samples at 16 kHz
    stop: int = 0
    is_whole: bool = True  # the only piece of its source
    error: str = ""

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.stop - self.start) / SAMPLE_RATE

    def to_json(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, default=str)  # the input may state NaN

    @classmethod
    def from_json(cls, line: str) -> "Piece":
        """Of `to_json`."""
        found = json.loads(line)
        return cls(**{**found, "source": Source(**found["source"])})


def sources_of(entries: Iterable[Entry]) -> list[Source]:
    """Files of a manifest or a folder."""
    return [Source(id=entry.id, audio=str(entry.audio), meta=entry.meta) for entry in entries]


def sources_of_shards(shards: ShardSet) -> list[Source]:
    """Clips of tar shards, under their keys."""
    return [
        Source(id=key, audio=str(index.tar), place=place, meta=_meta(index.tar, place))
        for index in shards.shards
        for place, key in enumerate(index.keys())
    ]


def cut(source: Source, clip_s: float = CLIP_S, limits: Limits = DEFAULT_LIMITS) -> list[Piece]:
    """The pieces of a source; one with an error where it cannot be read."""
    try:
        length = _length(source, clip_s, limits)
        spans = segments(length, length_s=clip_s, min_s=min(LEAST_S, clip_s))
        if not spans:
            raise DataError(f"{source.audio}: holds no samples; leave it out")
        is_whole = len(spans) == 1
        pieces = [
            Piece(key=_key(source.id, span, is_whole), source=source, start=span[0], stop=span[1], is_whole=is_whole)
            for span in spans
        ]
        return [_hashed(piece, limits) for piece in pieces]
    except AuricleError as error:
        return [Piece(key=safe_key(source.id), source=source, error=str(error))]


def read_piece(piece: Piece, limits: Limits = DEFAULT_LIMITS) -> Samples:
    """The waveform (N,) of a piece.

    Raises:
        AuricleError: the source cannot be read any more, or is another one.
    """
    waveform = _read(piece, limits)
    if _hash(waveform) != piece.clip_hash:
        raise DataError(f"{piece.source.audio}: changed since it was first read; choose a new output folder")
    return waveform


def unique_keys(pieces: Sequence[Piece]) -> list[Piece]:
    """The same pieces, those with a key that was given before under another one."""
    seen: dict[str, int] = {}
    found = []
    for piece in pieces:
        number = seen[piece.key] = seen.get(piece.key, 0) + 1
        found.append(piece if number == 1 else replace(piece, key=safe_key(f"{piece.key[:70]}_again{number}")))
    return found


def _key(name: str, span: tuple[int, int], is_whole: bool) -> str:
    """Of a part as in MECAT: ``ID_START_STOP`` in seconds."""
    if is_whole:
        return safe_key(name)
    start, stop = (f"{each / SAMPLE_RATE:.2f}".replace(".", "_") for each in span)
    return safe_key(f"{name}_{start}_{stop}")


def _length(source: Source, clip_s: float, limits: Limits) -> int:
    if source.place >= 0:
        return int(_shard(source.audio).num_samples[source.place])
    seconds = probe(source.audio, limits=limits).duration_s
    if seconds is None or seconds <= clip_s:  # what short files state is often a little wrong
        return len(decode(source.audio, limits=limits).waveform)
    return round(seconds * SAMPLE_RATE)


def _hashed(piece: Piece, limits: Limits) -> Piece:
    try:
        waveform = _read(piece, limits)
        return replace(piece, clip_hash=_hash(waveform), stop=piece.start + len(waveform))
    except AuricleError as error:
        return replace(piece, error=str(error))


def _read(piece: Piece, limits: Limits) -> Samples:
    source = piece.source
    if source.place >= 0:
        return _shard(source.audio).read(source.place).waveform[piece.start : piece.stop]
    if piece.is_whole:
        return decode(source.audio, limits=limits).waveform
    start_s, stop_s = piece.start / SAMPLE_RATE, piece.stop / SAMPLE_RATE
    return decode(source.audio, start_s=start_s, stop_s=stop_s, limits=limits).waveform


def _hash(waveform: Samples) -> str:
    return blake2b(waveform.tobytes(), digest_size=_HASH_BYTES).hexdigest()


@lru_cache(maxsize=64)
def _shard(tar: str) -> ShardSet:
    return ShardSet([Path(tar)])


def _meta(tar: Path, place: int) -> dict[str, Any]:
    try:
        return _shard(str(tar)).read_meta(place)
    except AuricleError:
        return {}  # reported when the clip is read
