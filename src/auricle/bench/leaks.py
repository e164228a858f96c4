"""Clips in more than one split: the same bytes, the same samples, or nearly the same embedding."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from auricle.audio.decode import decode
from auricle.bench.encode import EmbeddedClips
from auricle.bench.examples import Example, Refused, load_examples
from auricle.bench.results import Leaks
from auricle.bench.task import Task
from auricle.data.batches import prefetch
from auricle.errors import AudioError, AuricleError, DataError

NEAR = 0.999  # cosine from which clips of different splits are reported as near-duplicates
_SHOWN = 200  # pairs in a result
_ROWS = 1024  # rows × n cosines at once


class Pair(NamedTuple):
    """Two clips of different splits that are nearly the same to an encoder."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Audit:
    """Clips that are in more than one split."""

    clips: int  # compared
    duplicates: tuple[tuple[str, ...], ...]  # ids of equal clips, from two or more splits
    failed: tuple[Refused, ...]  # could not be decoded, so not compared


def find_leaks(examples: Sequence[Example], embedded: EmbeddedClips) -> Leaks:
    """Clips of different splits with the same bytes, or nearly the same embedding, for a result."""
    by_digest: dict[str, list[Example]] = defaultdict(list)
    for example, digest in zip(examples, embedded.digests, strict=True):
        by_digest[digest].append(example)
    exact = [
        (one.id, one.split, other.id, other.split)
        for group in by_digest.values()
        for one, other in pairwise(group)
        if one.split != other.split
    ]
    splits = {example.id: example.split for example in examples}
    means = torch.stack([piece.pooled.mean(0) for piece in embedded.pieces])
    # Around their mean, since embeddings of one encoder share a large common part.
    pairs = near_duplicates(list(splits), list(splits.values()), (means - means.mean(0)).numpy(), threshold=NEAR)
    known = {(one, other) for one, _, other, _ in exact}
    near = [(a, splits[a], b, splits[b], round(cosine, 6)) for a, b, cosine in pairs if (a, b) not in known]
    return Leaks(exact=tuple(exact[:_SHOWN]), near=tuple(near[:_SHOWN]))


def audit(task: Task, folder: str | Path, *, workers: int = 2) -> Audit:
    """Look for clips that are the same, sample for sample, in different splits of a task.

    Clips are decoded to 16 kHz mono and compared as 16-bit samples, so the container does not matter.

    Raises:
        DataError: see `load_examples`.
    """

    def digest(example: Example) -> tuple[Example, bytes | AudioError | DataError]:
        try:
            waveform = decode(example.source()).waveform
        except (AudioError, DataError) as error:
            return example, error
        return example, sha256(np.clip(np.rint(waveform * 32_768), -32_768, 32_767).astype("<i2").tobytes()).digest()

    groups: dict[bytes, list[Example]] = defaultdict(list)
    failed = []
    for example, found in prefetch(digest, load_examples(task, folder), depth=2 * workers, workers=workers):
        if isinstance(found, AuricleError):
            failed.append(Refused(example.id, str(found)))
        else:
            groups[found].append(example)
    shared = [group for group in groups.values() if len({example.split for example in group}) > 1]
    duplicates = tuple(tuple(example.id for example in group) for group in shared)
    return Audit(sum(map(len, groups.values())), duplicates, tuple(failed))


def near_duplicates(
    ids: Sequence[str], splits: Sequence[str], embeddings: npt.ArrayLike, *, threshold: float = 0.99
) -> list[Pair]:
    """Pairs of clips from different splits whose embeddings have a cosine of `threshold` or more, the nearest first.

    Args:
        ids: n names.
        splits: n splits.
        embeddings: (n, D) of one encoder; what counts as near depends on it.
        threshold: cosine, -1 to 1.

    Raises:
        DataError: not n of each, or embeddings that are not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or not len(rows) == len(ids) == len(splits) or not np.isfinite(rows).all():
        raise DataError(
            f"{len(ids)} ids, {len(splits)} splits, embeddings {rows.shape}; expected n, n and (n, D), finite"
        )
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    numbers = np.unique(np.asarray(splits), return_inverse=True)[1]
    pairs = []
    for start in range(0, len(rows), _ROWS):
        cosines = rows[start : start + _ROWS] @ rows.T
        near = (cosines >= threshold) & (numbers[start : start + _ROWS, None] != numbers[None])
        for row, column in zip(*np.nonzero(near), strict=True):
            if start + row < column:
                pairs.append(Pair(ids[start + row], ids[column], float(cosines[row, column])))
    return sorted(pairs, key=lambda pair: -pair.cosine)
