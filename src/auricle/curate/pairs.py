"""Pairs of audio and captions as numbers: which vectors belong to each pair, and how well they fit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

SCORE_SCALE = 100.0  # scores are 100 × cosine, as those of the aligner
_CHUNK = 8192  # pairs whose vectors are gathered at once


class Line(NamedTuple):
    """What ``pairs.jsonl`` has of one clip."""

    key: str
    captions: list[str]  # distinct and not blank
    domain: str  # empty: not stated
    language: str
    clip_hash: str  # hash of the samples; empty where they could not be read
    error: str  # why there is no vector of the audio; empty: there is
    checksum: str  # of the rest, and of the vectors that come with this line


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a finished table, one after the other."""
    with path.open(encoding="utf-8") as file:
        for text in file:
            yield Line(**json.loads(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTable:
    """n pairs, u distinct clips and v distinct texts."""

    lines: Path  # a `Line` for each pair, see `read_lines`
    audio: Vectors  # (u, D) of length 1
    text: Vectors  # (v, D) of length 1
    audio_rows: Ids  # (n,) rows of `audio`; -1: none
    text_rows: Ids  # (n, k) rows of `text`; -1 after the last caption of a pair
    wordings: Ids  # (v,) the same number for texts that differ in case, spacing or full stop only
    groups: list[tuple[str, str]]  # domain and language of each pair
    encoded: tuple[int, int]  # clips and texts that the model encoded in this run

    def __len__(self) -> int:
        return len(self.audio_rows)

    def usable(self) -> Ids:
        """Numbers of the pairs that have a score: those with audio that was encoded, and a caption or more."""
        return np.flatnonzero((self.audio_rows >= 0) & (self.text_rows[:, 0] >= 0))

    def caption_vectors(self, pairs: Ids) -> Vectors:
        """The mean (m, D) of the vectors of each pair's captions."""
        rows = self.text_rows[pairs]
        if rows.shape[1] == 1:
            return self.text[rows[:, 0]]
        exists = rows >= 0
        total = np.where(exists[..., None], self.text[rows], np.float32(0)).sum(1)
        return total / exists.sum(1, keepdims=True).astype(np.float32)

    def scores(self, audio: Ids, captions: Ids) -> npt.NDArray[np.float64]:
        """100 × cosine between the audio of some pairs (m,) and the captions of others (m,), a mean over several."""
        found = np.empty(len(audio))
        for at in range(0, len(audio), _CHUNK):
            part = slice(at, at + _CHUNK)
            vectors = self.audio[self.audio_rows[audio[part]]]
            found[part] = SCORE_SCALE * np.einsum("md,md->m", vectors, self.caption_vectors(captions[part]))
        return found

    def caption_scores(self, pair: int) -> list[float]:
        """100 × cosine between a pair's audio and each of its captions."""
        rows = self.text_rows[pair]
        return (SCORE_SCALE * self.text[rows[rows >= 0]] @ self.audio[self.audio_rows[pair]]).tolist()

    def are_alike(self, one: Ids, other: Ids, cosine: float = 1.0) -> npt.NDArray[np.bool_]:
        """Which pairs (m,) are no random partners of others (m,): same audio, words or, below 1, close captions."""
        alike = self.audio_rows[one] == self.audio_rows[other]
        own, its = self.text_rows[one], self.text_rows[other]
        for a in range(own.shape[1]):
            for b in range(own.shape[1]):
                exist = (own[:, a] >= 0) & (its[:, b] >= 0)
                alike |= exist & (self.wordings[own[:, a]] == self.wordings[its[:, b]])
        for at in range(0, len(one) if cosine < 1 else 0, _CHUNK):
            part = slice(at, at + _CHUNK)
            first, second = self.caption_vectors(one[part]), self.caption_vectors(other[part])
            lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            alike[part] |= np.einsum("md,md->m", first, second) >= cosine * lengths
        return alike
