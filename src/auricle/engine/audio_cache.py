"""Prompts → decoder inputs, every clip encoded once, however many prompts ask about it.

Shape legend: N samples, n audio tokens of a clip, L prompt tokens, H decoder width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from auricle.engine.request import PromptLike
from auricle.errors import PromptError
from auricle.models.midashenglm import audio_token_count

if TYPE_CHECKING:
    from auricle.models.midashenglm import MiDashengLM


@dataclass(frozen=True, slots=True, eq=False)
class ReadPrompt:
    """A prompt whose clips are known by their content."""

    ids: tuple[int, ...]
    clips: tuple[Tensor, ...]
    digests: tuple[bytes, ...]  # SHA-256 of each clip's samples
    spans: tuple[tuple[int, int], ...]  # first audio token of each clip, and their number, among all of the prompt
    places: np.ndarray  # (L,) int64: which audio token of the prompt stands there; -1: none

    def tokens(self) -> np.ndarray:
        """What decides the keys and values of each token: (L, 4) int64, id, two parts of its clip's hash, place in it.

        Half of a SHA-256 is taken: 128 bits are beyond chance.
        """
        table = np.zeros((len(self.ids), 4), dtype=np.int64)
        table[:, 0] = self.ids
        audio = self.places >= 0
        if audio.any():
            facts = [
                (*np.frombuffer(digest[:16], dtype=np.int64), index)
                for digest, (_, count) in zip(self.digests, self.spans, strict=True)
                for index in range(count)
            ]
            table[audio, 1:] = np.array(facts, dtype=np.int64)[self.places[audio]]
        return table


def read_prompt(lm: MiDashengLM, prompt: PromptLike) -> ReadPrompt:
    """Hash a prompt's clips and find their places.

    Raises:
        PromptError: the number of placeholders is not the number of audio tokens.
    """
    config = lm.config
    counts = [
        audio_token_count(clip.shape[-1], config.subsample_factor, whole_tokens=config.whole_tokens)
        for clip in prompt.clips
    ]
    audio = np.array(prompt.input_ids, dtype=np.int64) == config.audio_token_id
    if int(audio.sum()) != sum(counts):
        raise PromptError(
            f"the prompt holds {int(audio.sum())} audio placeholders, its {len(counts)} clips give {sum(counts)} audio "
            "tokens: expand each <|AUDIO|> to audio_token_count(clip) copies"
        )
    starts = np.cumsum([0, *counts]).tolist()
    return ReadPrompt(
        tuple(prompt.input_ids),
        tuple(prompt.clips),
        tuple(hashlib.sha256(clip.detach().cpu().contiguous().numpy().tobytes()).digest() for clip in prompt.clips),
        tuple(zip(starts, counts, strict=False)),
        np.where(audio, audio.cumsum() - 1, -1),
    )


class AudioCache:
    """Audio tokens (n, H) of one model's clips, by the SHA-256 of the samples; the longest unused are dropped.

    One cache belongs to one model, so its identity is no part of the keys; one thread at a time may use it.
    """

    def __init__(self, lm: MiDashengLM, max_bytes: int) -> None:
        """Keep at most ``max_bytes``; 0: nothing."""
        self.max_bytes, self.num_bytes = max_bytes, 0
        self.encoded = 0  # clips that went through the encoder so far
        self._lm = lm
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def audio_tokens(self, clips: dict[bytes, Tensor]) -> dict[bytes, Tensor]:
        """Clips (N_i,) by their hash → audio tokens (n_i, H); all that are not there are encoded together, packed."""
        missing = [digest for digest in clips if digest not in self._kept]
        found = {digest: self._kept[digest] for digest in clips if digest in self._kept}
        for digest in found:
            self._kept.move_to_end(digest)
        if missing:
            device = self._lm.decoder.device
            new = self._lm.audio_tokens([clips[digest].to(device) for digest in missing])
            self.encoded += len(missing)
            # A part of the packed matrix would keep all of it alive.
            found |= {digest: tokens.clone() for digest, tokens in zip(missing, new, strict=True)}
            self._keep({digest: found[digest] for digest in missing})
        return found

    def _keep(self, new: dict[bytes, Tensor]) -> None:
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

    def embed(self, prompts: Sequence[tuple[ReadPrompt, int]]) -> list[Tensor]:
        """Decoder inputs (L_i - start_i, H) of prompts from a token on; only clips that reach there are heard."""
        wanted: dict[bytes, Tensor] = {}
        for prompt, start in prompts:
            for clip in _heard(prompt, start):
                wanted[prompt.digests[clip]] = prompt.clips[clip]
        tokens = self.audio_tokens(wanted)
        return [self._place(prompt, start, tokens) for prompt, start in prompts]

    def _place(self, prompt: ReadPrompt, start: int, tokens: dict[bytes, Tensor]) -> Tensor:
        device = self._lm.decoder.device
        ids = torch.tensor(prompt.ids[start:], dtype=torch.long, device=device)
        embeddings = self._lm.decoder.get_input_embeddings()(ids)
        clips = _heard(prompt, start)
        if clips:
            places = torch.from_numpy(prompt.places[start:]).to(device)
            audio = torch.cat([tokens[prompt.digests[clip]] for clip in clips]).to(embeddings.dtype)
            first = prompt.spans[clips[0]][0]
            embeddings = embeddings.clone()
            embeddings[places >= 0] = audio[places[places >= 0] - first]
        return embeddings


def _heard(prompt: ReadPrompt, start: int) -> list[int]:
    """Clips with audio tokens at or behind ``start``."""
    behind = prompt.places[start:]
    behind = behind[behind >= 0]
    return [] if not len(behind) else [i for i, (first, count) in enumerate(prompt.spans) if first + count > behind[0]]
