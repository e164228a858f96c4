"""Search in an index of clips: exact, over millions of segments, with nothing loaded.

Half-precision products with the whole index give approximate scores of bounded error; all segments that could be among
the best within that bound are scored again in float64. So the hits are those of an exhaustive float64 search, at the
cost of reading the index once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.errors import ConfigError, DataError, PromptError
from auricle.models.glap import SCORE_SCALE
from auricle.search.index import IndexFile, Settings, read_index

if TYPE_CHECKING:
    from auricle.encode.aligner import Aligner

Floats = npt.NDArray[np.float64]

# A vector of length 1 rounded to half precision is at most (1 + 2^-11) long; subnormal elements add far less.
_MAX_NORM = 1.001
_HALF_ULP = 2.0**-11  # relative error of rounding to half precision
_SINGLE_ULP = 2.0**-24
_BLOCK_VALUES = 1 << 28  # of one half-precision product: torch counts elements in 32 bits
_BLOCK_ROWS = 4096  # converted to float32 or float64 at once: some MB, which stay in the cache
_PEAK_ROWS = 256  # of a block whose best row is scored first
_FEW_ROWS = 1 << 16  # are scored one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A segment that matches."""

    path: str  # as given to the index; untrusted
    start_s: float  # in the file
    end_s: float
    score: float  # 100 × cosine, less the penalty


class Index:
    """An index of clips, open for searching."""

    def __init__(self, file: IndexFile) -> None:
        self.file = file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has no read-only tensors; nothing here writes
            self._vectors = torch.from_numpy(file.vectors)

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Map the file, in a time that does not depend on its vectors.

        Raises:
            DataError: it is missing, not an index, damaged or truncated.
        """
        return cls(read_index(path))

    def __len__(self) -> int:
        return len(self.file.vectors)

    @property
    def settings(self) -> Settings:
        """Model and windows of all segments."""
        return self.file.settings

    @property
    def num_files(self) -> int:
        """Files."""
        return len(self.file.file_ends)

    def check_model(self, fingerprint: str) -> None:
        """Refuse a model whose vectors cannot be compared with these.

        Raises:
            ConfigError: the index was made with another model.
        """
        own = self.settings
        if fingerprint != own.fingerprint:
            raise ConfigError(
                f"{self.file.path}: was made with model {own.model!r} ({own.fingerprint[:12]}…), whose vectors cannot "
                f"be compared with those of this one ({fingerprint[:12]}…); load that model in the same dtype, or "
                "make another index"
            )

    def search(self, query: Any, k: int = 10, *, without: Any = None, all_segments: bool = False) -> list[Hit]:
        """Find the segments that are most similar to a query.

        Args:
            query: (D,) or (m, D), of any length but 0. Several are averaged: each is scaled to length 1, as is their
                mean.
            k: hits wanted.
            without: (D,) or (m, D). A hit's score is 100 × (cosine to the query - the largest positive cosine to any of
                these): similarity to them costs as much, dissimilarity gains nothing.
            all_segments: whether several segments of one file may be hits, instead of its best one.

        Returns:
            At most ``k`` hits, the best first; equal ones in the order of the index.

        Raises:
            ConfigError: vectors of another width, zero or not finite, or ``k`` below 1.
            DataError: the index has vectors that are not of length 1, or impossible times.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; expected at least 1")
        wanted = _unit_mean(self._unit(query, "query"))
        unwanted = np.zeros((0, len(wanted))) if without is None else self._unit(without, "without")
        if not len(self):
            return []
        rows = self._candidates(wanted, unwanted, k, by_file=not all_segments)
        scores = self._exact(rows, wanted, unwanted)
        order = np.lexsort((rows, -scores))
        if not all_segments:
            order = order[_firsts(self._files_of(rows[order]))]
        return [self._hit(int(rows[at]), float(scores[at])) for at in order[:k]]

    def _unit(self, vectors: Any, what: str) -> Floats:
        """Vectors of length 1, (m, D) float64."""
        given = vectors.detach().double().cpu().numpy() if isinstance(vectors, Tensor) else vectors
        width = self.settings.embedding_dim
        try:
            values = np.atleast_2d(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError):
            raise ConfigError(
                f"{what} is {given!r:.60}; expected vectors of ({width},), as `embed_query` makes of words"
            ) from None
        if values.ndim != 2 or values.shape[1] != width or not len(values):
            raise ConfigError(f"{what} is of shape {np.shape(given)}; expected vectors of ({width},)")
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ConfigError(f"{what} has a vector that is zero or not finite; give embeddings of text or audio")
        return values / lengths

    def _files_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.file.file_ends, rows, side="right")

    def _candidates(self, wanted: Floats, unwanted: Floats, k: int, *, by_file: bool) -> npt.NDArray[np.int64]:
        """Rows, ascending, among which are the best ``k``, by approximate scores."""
        scores, error = _approximate(self._vectors, wanted)
        if len(unwanted):
            penalties, errors = zip(*(_approximate(self._vectors, vector) for vector in unwanted), strict=True)
            scores, error = scores - np.maximum(np.max(penalties, axis=0), 0), error + max(errors)
        floor = self._reached_by(scores, k, by_file=by_file)
        rows = np.flatnonzero(~(scores < floor - 2 * error))  # NaN is kept, and found by `_exact`
        # The floor is a lower bound where hits are neighbours. Among the few rows left the k-th best is known.
        found = scores[rows]
        if by_file:
            found = np.maximum.reduceat(found, _firsts(self._files_of(rows)))
        if len(found) > k:
            rows = rows[~(scores[rows] < np.partition(found, -k)[-k] - 2 * error)]
        return rows

    def _reached_by(self, scores: npt.NDArray[np.float32], k: int, *, by_file: bool) -> float:
        """A score that at least ``k`` segments, or files, reach; all do where there are no more than ``k``."""
        rows = _peaks(scores) if len(scores) > _FEW_ROWS else np.arange(len(scores))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        if by_file:
            rows = rows[_firsts(self._files_of(rows))]
        if len(rows) >= k:
            return float(scores[rows[k - 1]])
        best = np.maximum.reduceat(scores, np.r_[0, self.file.file_ends[:-1]]) if by_file else scores
        return float(np.partition(best, -k)[-k]) if len(best) > k else -np.inf

    def _exact(self, rows: npt.NDArray[np.int64], wanted: Floats, unwanted: Floats) -> Floats:
        """Scores of some rows; each depends on its own row alone, so that equal rows are equal to the last bit."""
        scores = np.empty(len(rows))
        for at in range(0, len(rows), _BLOCK_ROWS):
            # A damaged half may be a signalling NaN, of which numpy warns; the check of the length refuses it.
            with np.errstate(invalid="ignore"):
                block = self.file.vectors[rows[at : at + _BLOCK_ROWS]].astype(np.float64)
                lengths = np.square(block).sum(1)
            if not (lengths <= _MAX_NORM**2).all():
                raise DataError(
                    f"{self.file.path}: has vectors that are not of length 1; it is damaged, build it again"
                )
            values = (block * wanted).sum(1)
            if len(unwanted):
                values -= np.maximum(np.max([(block * vector).sum(1) for vector in unwanted], axis=0), 0)
            scores[at : at + len(block)] = values
        return scores

    def _hit(self, row: int, score: float) -> Hit:
        start, end = self.file.times[row].tolist()
        if not 0 <= start < end < np.inf:
            raise DataError(f"{self.file.path}: a segment is from {start} s to {end} s; it is damaged, build it again")
        path = self.file.name(int(self._files_of(np.array([row]))[0]))
        return Hit(path=path, start_s=start, end_s=end, score=SCORE_SCALE * score)


def embed_query(aligner: Aligner, *, texts: Sequence[str] = (), clips: Sequence[Any] = ()) -> Tensor:
    """Embed a query of words, clips or both.

    Args:
        aligner: the model of the index; see `Index.check_model`.
        texts: words for it, of equal weight.
        clips: examples of it, each of the weight of a text.

    Returns:
        (m, D) float32, for `Index.search`.

    Raises:
        AuricleError: one of them cannot be embedded, or there is none.
    """
    parts = [aligner.text(list(texts))] if texts else []
    parts += [aligner.audio(list(clips))] if clips else []
    if not parts:
        raise PromptError("the query is empty; give words, or a similar clip")
    return torch.cat(parts)


def _unit_mean(vectors: Floats) -> Floats:
    mean = vectors.mean(0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise ConfigError("the queries are opposites and cancel each other; give fewer")
    return np.asarray(mean / length)


def _firsts(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """First place of each key, ascending."""
    return np.sort(np.unique(keys, return_index=True)[1])


def _peaks(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The best row of each block."""
    whole = len(scores) // _PEAK_ROWS * _PEAK_ROWS
    best = scores[:whole].reshape(-1, _PEAK_ROWS).argmax(1) + np.arange(0, whole, _PEAK_ROWS)
    return np.r_[best, np.arange(whole, len(scores))]


def _approximate(vectors: Tensor, query: Floats) -> tuple[npt.NDArray[np.float32], float]:
    """Products of all rows with a query, and the bound of their error.

    Args:
        vectors: (n, D) float16, rows at most `_MAX_NORM` long.
        query: (D,) of length 1.

    Returns:
        (n,) float32. The bound adds the query's rounding, that of a sum of D terms in float32 in any order
        (Higham 2002, §3.1), that of a half-precision result, counted twice to be safe, and that of the few sums and
        comparisons in float32 which a search makes of the result.
    """
    is_fast = _sums_halves_in_float32()
    rounded = torch.from_numpy(query).to(torch.float16 if is_fast else torch.float32)
    sums = len(query) * _SINGLE_ULP / (1 - len(query) * _SINGLE_ULP)
    error = _MAX_NORM * (float(np.linalg.norm(query - rounded.double().numpy())) + 1.01 * sums)
    error += 8 * _SINGLE_ULP
    if is_fast:
        found = torch.empty(len(vectors), dtype=torch.float16)
        step = max(1, _BLOCK_VALUES // len(query))
        for at in range(0, len(vectors), step):
            torch.mv(vectors[at : at + step], rounded, out=found[at : at + step])
        return found.float().numpy(), error + 2 * _HALF_ULP
    products = torch.empty(len(vectors))
    for at in range(0, len(vectors), _BLOCK_ROWS):
        torch.mv(vectors[at : at + _BLOCK_ROWS].float(), rounded, out=products[at : at + _BLOCK_ROWS])
    return products.numpy(), error


@lru_cache
def _sums_halves_in_float32() -> bool:
    """Whether torch adds up products of halves in float32 here; the bound of `_approximate` depends on it.

    Small terms after large ones, each below half a unit in the last place of the sum, are lost one by one in a sum of
    halves: together they are 0.0146. However wide the registers, each lane adds its large terms first.
    """
    row = torch.full((16_384,), 2.0**-10, dtype=torch.float16)
    row[:1024] = 2.0**-5
    return abs(float(torch.mv(row.expand(64, -1).contiguous(), row)[0]) - 1.0146) < 2e-3
