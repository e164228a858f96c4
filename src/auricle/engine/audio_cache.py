"""Audio tokens of clips, by the content of the clip: a clip is encoded once, however many prompts ask about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from auricle.audio.resample import SAMPLE_RATE
from auricle.models.midashenglm import audio_token_count

if TYPE_CHECKING:
    from torch import Tensor

    from auricle.models.midashenglm import MiDashengLM

_TEXT_TOKENS = 64  # of a prompt, beside its audio


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


def cache_sizes_mb(lm: MiDashengLM, max_audio_s: float, num_prompts: int) -> tuple[float, float]:
    """Megabytes of the audio tokens, and of the keys and values, of prompts with ``max_audio_s`` seconds of audio."""
    text, size = lm.decoder.config, lm.decoder.dtype.itemsize
    width, heads = int(text.hidden_size or 0), int(text.num_attention_heads or 1)
    shared = int(text.num_key_value_heads or heads) / heads  # of the width, by grouped-query attention
    audio = audio_token_count(int(max_audio_s * SAMPLE_RATE), lm.config.subsample_factor)
    token_bytes = 2 * int(text.num_hidden_layers or 1) * width * shared * size
    return num_prompts * audio * width * size / 1e6, num_prompts * (audio + _TEXT_TOKENS) * token_bytes / 1e6
