"""Embeddings on disk, addressed by content: a clip that was encoded is never encoded again.

A store is a folder ``ROOT/ENCODER/TRANSFORM/`` of segments, each a safetensors file that is written to a temporary name
and renamed, so a kill at any moment costs only what was not flushed. The key within is the SHA-256 of the clip's bytes;
encoder and transform (crop rule and version of the front end) are part of the folder's name. Change any of the three
and the embedding is a new one.

Each embedding has a checksum: one that a disk has changed is reported, and its clip is encoded anew.
"""

import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from auricle.errors import DataError
from auricle.files import atomic_path, make_folder, write_text

VERSION = "1"  # of decoding, resampling and pooling; a change that moves embeddings raises it


@dataclass(frozen=True, slots=True)
class Pieces:
    """The embedding of one clip: a row for each of its k pieces (one, unless the task has crops)."""

    pooled: Tensor  # (k, D) float32, the mean over the valid frames of each piece
    lengths: Tensor  # (k,) int64, valid frames
    frames: tuple[Tensor, ...] | None = None  # k × (T_i, D) float16


class Store:
    """Embeddings of one encoder under one transform.

    Pooled rows are in memory (a million clips of 768 numbers are 3 GB); frames are read from disk when needed.
    """

    def __init__(self, root: str | Path, encoder: str, transform: str, *, frames: bool = False) -> None:
        """Open or create the folder and read what is there.

        Args:
            root: of all stores.
            encoder: hash of the weights and configuration.
            transform: of a clip before it is encoded, in words.
            frames: whether frames are kept beside the pooled rows.

        Raises:
            DataError: a segment cannot be read.
        """
        self.folder = Path(root) / encoder[:16] / sha256(f"{VERSION} {transform}".encode()).hexdigest()[:16]
        write_text(make_folder(self.folder) / "transform.txt", f"{transform}\n")
        self.frames = frames
        self._kept: dict[str, Pieces] = {}
        self._on_disk: dict[str, list[tuple[Path, int, bytes]]] = {}  # segments, first frame, checksum of frames
        self._fresh: dict[str, Pieces] = {}
        damaged: dict[str, Path] = {}
        for segment in sorted(self.folder.glob("*.safetensors")):
            damaged |= dict.fromkeys(self._read(segment), segment)
        _report({digest: segment for digest, segment in damaged.items() if digest not in self._kept})

    def __contains__(self, digest: str) -> bool:
        """Whether the clip is there and undamaged, with frames if this store keeps them."""
        if digest not in self._kept or not self.frames or digest in self._fresh:
            return digest in self._kept
        places, damaged = self._on_disk.get(digest, []), None
        while places and not self._is_whole(digest):
            damaged, *_ = places.pop()
        if damaged is not None and not places:
            _report({digest: damaged})
        return bool(places)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: str) -> Pieces:
        """The pieces of a clip; frames are read from disk if this store keeps them.

        Raises:
            DataError: the frames cannot be read, or are not those that were written.
        """
        if digest in self._fresh or not self.frames:
            return self._fresh.get(digest, self._kept[digest])
        pieces = self._kept[digest]
        segment, start, wanted = self._on_disk[digest][-1]
        try:
            with safe_open(segment, "pt") as file:
                # A copy, since a slice keeps the whole segment mapped.
                rows = file.get_slice("frames")[start : start + int(pieces.lengths.sum())].clone()
        except (SafetensorError, OSError) as error:
            raise _unreadable(segment, error) from error
        if _checksum(digest, rows) != wanted:
            raise _unreadable(segment, f"the frames of {digest[:12]} are not those that were written")
        return Pieces(pieces.pooled, pieces.lengths, rows.split(pieces.lengths.tolist()))

    def _is_whole(self, digest: str) -> bool:
        try:
            self.get(digest)
        except DataError:
            return False
        return True

    def add(self, digest: str, frames: Sequence[Tensor]) -> None:
        """Pool the frames (T_i, D) of each piece of a clip and keep the rows; written by the next `flush`."""
        pooled = torch.stack([piece.float().mean(0) for piece in frames])
        lengths = torch.tensor([len(piece) for piece in frames])
        kept = tuple(piece.half() for piece in frames) if self.frames else None
        self._fresh[digest] = Pieces(pooled, lengths, kept)
        self._kept[digest] = Pieces(pooled, lengths)

    def flush(self) -> None:
        """Write the clips added since the last flush as one segment."""
        if not self._fresh:
            return
        digests, pieces = list(self._fresh), list(self._fresh.values())
        tensors = {
            "digests": torch.tensor([list(bytes.fromhex(digest)) for digest in digests], dtype=torch.uint8),
            "counts": torch.tensor([len(each.lengths) for each in pieces]),
            "lengths": torch.cat([each.lengths for each in pieces]),
            "pooled": torch.cat([each.pooled for each in pieces]),
        }
        both = list(zip(digests, pieces, strict=True))
        tensors["sums"] = _table(_checksum(digest, each.lengths, each.pooled) for digest, each in both)
        if self.frames:
            tensors["frames"] = torch.cat([frame for each in pieces for frame in each.frames or ()])
            tensors["frame_sums"] = _table(_checksum(digest, *(each.frames or ())) for digest, each in both)
        segment = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with atomic_path(segment) as aside:
            save_file(tensors, aside)
        self._fresh = {}
        if self.frames:
            self._index(segment, digests, [int(each.lengths.sum()) for each in pieces], tensors["frame_sums"])

    def _read(self, segment: Path) -> list[str]:
        """Keep what a segment holds; returns the clips whose embedding is damaged."""
        try:
            with safe_open(segment, "pt") as file:
                names = set(file.keys())
                digests = [bytes(row).hex() for row in file.get_tensor("digests").numpy()]
                counts = file.get_tensor("counts").tolist()
                lengths, pooled = file.get_tensor("lengths").split(counts), file.get_tensor("pooled").split(counts)
                sums = file.get_tensor("sums") if "sums" in names else _table(b"" for _ in digests)
                if "sums" in names and ("frames" in names) != ("frame_sums" in names):
                    raise ValueError("frames without checksums, or the reverse")
                if self.frames and "frame_sums" in names:
                    self._index(segment, digests, [int(own.sum()) for own in lengths], file.get_tensor("frame_sums"))
            rows = list(zip(digests, pooled, lengths, sums, strict=True))
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise _unreadable(segment, error) from error
        found = {
            digest: Pieces(own, frames)
            for digest, own, frames, wanted in rows
            if _checksum(digest, frames, own) == bytes(wanted.numpy())
        }
        self._kept |= found
        return [digest for digest in digests if digest not in found]

    def _index(self, segment: Path, digests: Sequence[str], totals: Sequence[int], sums: Tensor) -> None:
        start = 0
        for digest, total, wanted in zip(digests, totals, sums, strict=True):
            self._on_disk.setdefault(digest, []).append((segment, start, bytes(wanted.numpy())))
            start += total


def _checksum(digest: str, *tensors: Tensor) -> bytes:
    """Of the rows of a clip, and of its name."""
    total = blake2b(bytes.fromhex(digest), digest_size=16)
    for tensor in tensors:
        total.update(tensor.contiguous().numpy().tobytes())
    return total.digest()


def _table(sums: Iterable[bytes]) -> Tensor:
    return torch.tensor([list(each) for each in sums], dtype=torch.uint8)


def _report(damaged: Mapping[str, Path]) -> None:
    for segment in dict.fromkeys(damaged.values()):
        count = list(damaged.values()).count(segment)
        warnings.warn(f"{segment}: {count} embeddings are damaged; their clips are encoded anew", stacklevel=3)


def _unreadable(segment: Path, reason: object) -> DataError:
    return DataError(f"{segment}: no readable segment ({reason}); delete it, its clips are encoded anew")
