"""Audio tokens of clips, by the content of the clip: a clip is encoded once, however many prompts ask about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class AudioCache:
    """Audio tokens (n, H) by the SHA-256 of the clip's samples; the least recently used are dropped.

    One cache belongs to one model, so its identity is no part of the keys; one thread at a time may use it.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most ``max_bytes``; 0: nothing."""
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, digests: Iterable[bytes]) -> dict[bytes, Tensor]:
        """Those of ``digests`` that are in the cache."""
        found = {digest: self._kept[digest] for digest in digests if digest in self._kept}
        for digest in found:
            self._kept.move_to_end(digest)
        return found

    def add(self, new: Mapping[bytes, Tensor]) -> None:
        """Keep audio tokens that are not in the cache yet."""
        for digest, tokens in new.items():
            if tokens.nbytes <= self.max_bytes:
                self._kept[digest] = tokens
                self.num_bytes += tokens.nbytes
        while self.num_bytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.num_bytes -= dropped.nbytes

    def clear(self) -> None:
        """Drop all."""
        self._kept.clear()
        self.num_bytes = 0
