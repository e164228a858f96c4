"""Embeddings on disk, addressed by content: a clip that was encoded is never encoded again.

A store is a folder ``ROOT/ENCODER/TRANSFORM/`` of segments, each a safetensors file that is written to a temporary name
and renamed, so a kill at any moment costs only what was not flushed. The key within is the SHA-256 of the clip's bytes;
encoder and transform (crop rule and version of the front end) are part of the folder's name. Change any of the three
and the embedding is a new one.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
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
        self._on_disk: dict[str, tuple[Path, int]] = {}  # segment and first frame
        self._fresh: dict[str, Pieces] = {}
        for segment in sorted(self.folder.glob("*.safetensors")):
            self._read(segment)

    def __contains__(self, digest: str) -> bool:
        """Whether the clip is there, with frames if this store keeps them."""
        return digest in self._kept and (not self.frames or digest in self._on_disk or digest in self._fresh)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: str) -> Pieces:
        """The pieces of a clip; frames are read from disk if this store keeps them."""
        if digest in self._fresh or not self.frames:
            return self._fresh.get(digest, self._kept[digest])
        pieces = self._kept[digest]
        segment, start = self._on_disk[digest]
        with safe_open(segment, "pt") as file:
            # A copy, since a slice keeps the whole segment mapped.
            rows = file.get_slice("frames")[start : start + int(pieces.lengths.sum())].clone()
        return Pieces(pieces.pooled, pieces.lengths, rows.split(pieces.lengths.tolist()))

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
        if self.frames:
            tensors["frames"] = torch.cat([frame for each in pieces for frame in each.frames or ()])
        segment = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with atomic_path(segment) as aside:
            save_file(tensors, aside)
        self._fresh = {}
        self._index(segment, digests, [len(each.lengths) for each in pieces], tensors["lengths"], self.frames)

    def _read(self, segment: Path) -> None:
        try:
            with safe_open(segment, "pt") as file:
                digests = [bytes(row).hex() for row in file.get_tensor("digests").numpy()]
                counts = file.get_tensor("counts").tolist()
                lengths, pooled = file.get_tensor("lengths"), file.get_tensor("pooled")
                has_frames = "frames" in set(file.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{segment}: no readable segment ({error}); delete it, its clips are encoded anew"
            ) from error
        rows = zip(digests, pooled.split(counts), lengths.split(counts), strict=True)
        for digest, own, frames in rows:
            self._kept[digest] = Pieces(own, frames)
        self._index(segment, digests, counts, lengths, has_frames)

    def _index(
        self, segment: Path, digests: Sequence[str], counts: Sequence[int], lengths: Tensor, has_frames: bool
    ) -> None:
        if not has_frames:
            return
        totals = [int(part.sum()) for part in lengths.split(list(counts))]
        start = 0
        for digest, total in zip(digests, totals, strict=True):
            self._on_disk[digest] = (segment, start)
            start += total
