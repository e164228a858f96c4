"""Prompts, checked once: they fit their clips and the model's context, and their clips are hashed.

Shape legend: N samples, n audio tokens of a clip, L prompt tokens, H decoder width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from auricle.engine.kv_cache import name_blocks
from auricle.errors import PromptError
from auricle.models.midashenglm import audio_token_count

if TYPE_CHECKING:
    from auricle.engine.request import PromptLike
    from auricle.models.midashenglm import MiDashengLM


@dataclass(frozen=True, slots=True, eq=False)
class CheckedPrompt:
    """A prompt that passed `check_prompt`."""

    ids: tuple[int, ...]  # L
    clips: tuple[Tensor, ...] = ()  # (N_i,) each
    digests: tuple[bytes, ...] = ()  # SHA-256 of each clip's samples
    spans: tuple[tuple[int, int], ...] = ()  # of each clip its first audio token and their number, within the prompt
    places: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # (L,) int64: index of the audio token at each place; -1: none
    blocks: Sequence[bytes] = ()  # names of the token blocks that other prompts may share, see `name_blocks`

    def clips_from(self, start: int) -> list[int]:
        """Indices of the clips with audio tokens at or after place ``start``."""
        rest = self.places[start:]
        rest = rest[rest >= 0]
        return [i for i, (first, count) in enumerate(self.spans) if first + count > rest[0]] if len(rest) else []


def check_prompt(lm: MiDashengLM, prompt: PromptLike, max_new_tokens: int, *, share: bool = True) -> CheckedPrompt:
    """Check a prompt, hash its clips and find their places; the context must have room for ``max_new_tokens`` more.

    With ``share`` its blocks are named, so that prompts with the same prefix share keys and values.

    Raises:
        PromptError: it is empty, it leaves no room for the answer in the context, or the number of placeholders is not
            the number of audio tokens.
    """
    check_room(lm, prompt, max_new_tokens)
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
    digests = tuple(hashlib.sha256(clip.detach().cpu().numpy().tobytes()).digest() for clip in prompt.clips)
    places = np.where(audio, audio.cumsum() - 1, -1)
    # The last token is always computed: the first token of the answer comes from its hidden state.
    table = _token_table(prompt.input_ids, digests, counts, places)[: -1 if share else 0]
    return CheckedPrompt(
        tuple(prompt.input_ids),
        tuple(prompt.clips),
        digests,
        tuple(zip(np.cumsum([0, *counts]).tolist(), counts, strict=False)),
        places,
        name_blocks(table),
    )


def check_room(lm: MiDashengLM, prompt: PromptLike, max_new_tokens: int) -> None:
    """Raise `PromptError` where a prompt is empty, or does not fit into the context of the decoder with its answer."""
    if not prompt.input_ids:
        raise PromptError("a prompt is empty; expected at least one token")
    context = lm.decoder.config.max_position_embeddings
    if len(prompt.input_ids) + max_new_tokens > context:
        raise PromptError(
            f"the prompt has {len(prompt.input_ids)} tokens and asks for {max_new_tokens} more; "
            f"the model's context holds {context}. Shorten the audio or text, or lower max_new_tokens"
        )


def place_tokens(lm: MiDashengLM, prompt: CheckedPrompt, start: int, tokens: Mapping[bytes, Tensor]) -> Tensor:
    """Decoder inputs (L - start, H) from place ``start`` on, with the audio tokens (n, H) of clips by their digests."""
    ids = torch.tensor(prompt.ids[start:], dtype=torch.long, device=lm.decoder.device)
    embeddings = lm.decoder.get_input_embeddings()(ids)
    if clips := prompt.clips_from(start):
        places = torch.from_numpy(prompt.places[start:]).to(ids.device)
        audio = torch.cat([tokens[prompt.digests[clip]] for clip in clips]).to(embeddings.dtype)
        first = prompt.spans[clips[0]][0]
        embeddings = embeddings.clone()
        embeddings[places >= 0] = audio[places[places >= 0] - first]
    return embeddings


def _token_table(ids: Sequence[int], digests: Sequence[bytes], counts: Sequence[int], places: np.ndarray) -> np.ndarray:
    """What decides the keys and values of each token: (L, 4) int64, id, two parts of its clip's hash, place in it.

    Half of a SHA-256 is taken: a collision of 128 bits is out of reach.
    """
    table = np.zeros((len(ids), 4), dtype=np.int64)
    table[:, 0] = ids
    audio = places >= 0
    if audio.any():
        facts = [
            (*np.frombuffer(digest[:16], dtype=np.int64), index)
            for digest, count in zip(digests, counts, strict=True)
            for index in range(count)
        ]
        table[audio, 1:] = np.array(facts, dtype=np.int64)[places[audio]]
    return table
