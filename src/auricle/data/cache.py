"""Decoded clips kept in memory, for small sets that are read many times."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.data.shards import Record, ShardSet


class CachedClips:
    """A `ShardSet` that decodes each clip once, up to a limit of memory.

    Shards hold 16-bit FLAC, so the cached int16 samples are exact. Safe to read from several threads.
    """

    def __init__(self, clips: ShardSet, *, max_bytes: int = 4 << 30) -> None:
        """Start empty; at most ``max_bytes`` of samples are cached, other clips are decoded every time."""
        self.clips = clips
        self.room = max_bytes
        self.kept: dict[int, tuple[Record, npt.NDArray[np.int16]]] = {}  # the records without their waveforms

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def manifest_hash(self) -> str:
        """`ShardSet.manifest_hash`."""
        return self.clips.manifest_hash

    def read_meta(self, i: int) -> dict[str, Any]:
        """The facts of clip ``i``."""
        return self.clips.read_meta(i)

    def read(self, i: int) -> Record:
        """Clip ``i``, from memory when it was read before."""
        if i in self.kept:
            record, samples = self.kept[i]
            return replace(record, waveform=samples.astype(np.float32) / np.float32(32_768))
        record = self.clips.read(i)
        samples = np.round(record.waveform * 32_768).astype(np.int16)
        exact = np.array_equal(samples.astype(np.float32) / np.float32(32_768), record.waveform)
        if exact and samples.nbytes <= self.room:
            self.room -= samples.nbytes
            self.kept[i] = (replace(record, waveform=record.waveform[:0].copy()), samples)
        return record
