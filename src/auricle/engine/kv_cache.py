"""Keys and values of the rows that are being answered, and of prefixes of prompts that may be used again.

Shape legend: B rows, K key–value heads, R room (slots a row), C width of one head, P prompt tokens.
A key–value cache is one tensor (layers, 2, B, K, R, C), see `auricle.models.qwen_attention`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from auricle.models.stock_decoder import Decoder

BLOCK = 16  # tokens that are kept and found together; a new prompt computes at most 15 again
_ROOM = 128  # slots that the cache of rows grows by at least


class Rows:
    """The cache of B rows: the first B of a growing number, so that all rows are one view without a gap.

    One rectangle for all rows, because on a CPU one masked attention call over 16 rows of mixed lengths takes half as
    long as a call a row (0.5 against 1.0 ms for 16 rows of up to 200 slots, 2 × 64 wide).
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.cache = decoder.new_cache(0, 0)
        self.lengths: list[int] = []  # slots in use, of each row

    def join(self, cache: Tensor, length: int, room: int) -> None:
        """Add a row that starts with the first ``length`` slots of a cache (layers, 2, 1, K, ≥ length, C).

        ``room``: slots it will need at most.
        """
        row = len(self.lengths)
        self._grow(row + 1, room)
        self.cache[:, :, row, :, :length] = cache[:, :, 0, :, :length]
        # What an earlier row left is masked; but a NaN would pass the mask.
        self.cache[:, :, row, :, length:].zero_()
        self.lengths.append(length)

    def leave(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            self.cache[:, :, row, :, :length] = self.cache[:, :, last, :, :length]
            self.cache[:, :, row, :, length:].zero_()
            self.lengths[row] = length
        self.lengths.pop()

    def clear(self) -> None:
        """Remove all rows and free the cache."""
        self.lengths = []
        self.cache = self._decoder.new_cache(0, 0)

    def num_bytes(self, batch: int, room: int) -> int:
        """Size of the cache once it holds ``batch`` rows of up to ``room`` slots."""
        rows, slots = self._shape(batch, room)
        layers, _, _, heads, _, width = self.cache.shape
        return layers * 2 * rows * heads * slots * width * self.cache.element_size()

    def _shape(self, batch: int, room: int) -> tuple[int, int]:
        rows, slots = self.cache.shape[2], self.cache.shape[4]
        if batch > rows:
            rows = 1 << (batch - 1).bit_length()
        return rows, max(slots, -(-room // _ROOM) * _ROOM)

    def _grow(self, batch: int, room: int) -> None:
        rows, slots = self._shape(batch, room)
        if (rows, slots) == (self.cache.shape[2], self.cache.shape[4]):
            return
        grown = self._decoder.new_cache(rows, slots)
        used = len(self.lengths)
        grown[:, :, :used, :, : self.cache.shape[4]] = self.cache[:, :, :used]
        self.cache = grown


class PrefixCache:
    """Keys and values of prefixes of prompts, in blocks; the least recently used are dropped."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most ``max_bytes``; 0: nothing."""
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()

    def __contains__(self, name: bytes) -> bool:
        return name in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, names: Sequence[bytes]) -> int:
        """How many blocks at the start of a chain are there."""
        count = 0
        while count < len(names) and names[count] in self._blocks:
            count += 1
        return count

    def read(self, names: Sequence[bytes], cache: Tensor) -> None:
        """Copy blocks that are there to the start of a cache (layers, 2, 1, K, R, C)."""
        if names:
            blocks = [self._blocks[name] for name in names]
            cache[:, :, 0, :, : BLOCK * len(names)] = torch.cat(blocks, dim=3)
            # The last one first: without its start a chain is worth nothing.
            for name in reversed(names):
                self._blocks.move_to_end(name)

    def write(self, names: Sequence[bytes], first: int, cache: Tensor) -> None:
        """Keep the blocks of a cache from the ``first``-th to the end of ``names``."""
        for index in reversed(range(first, len(names))):
            if names[index] not in self._blocks:
                block = cache[:, :, 0, :, index * BLOCK : (index + 1) * BLOCK].clone()
                if block.nbytes > self.max_bytes:
                    return
                self._blocks[names[index]] = block
                self.num_bytes += block.nbytes
        while self.num_bytes > self.max_bytes:
            _, dropped = self._blocks.popitem(last=False)
            self.num_bytes -= dropped.nbytes

    def clear(self) -> None:
        """Drop all."""
        self._blocks.clear()
        self.num_bytes = 0


def name_blocks(tokens: np.ndarray) -> list[bytes]:
    """Names of the whole blocks of a prompt: each stands for its tokens and all before them.

    Args:
        tokens: what each token is, (P, …) of any integers.
    """
    names, name = [], b""
    rows = np.ascontiguousarray(tokens)
    for start in range(0, len(rows) - BLOCK + 1, BLOCK):
        name = hashlib.sha256(name + rows[start : start + BLOCK].tobytes()).digest()
        names.append(name)
    return names
