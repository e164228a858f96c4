"""Clips in more than one split, or in the training data of the model: the same bytes, or the same recording."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from auricle.audio.decode import as_clip
from auricle.bench.examples import Example
from auricle.bench.results import NOT_COMPARED, Contamination, Leaks
from auricle.bench.store import Store
from auricle.data.acoustic_fingerprint import BYTES, MAX_DIFFERENT_BITS, acoustic_fingerprint, as_rows, different_bits
from auricle.data.batches import prefetch
from auricle.errors import AuricleError
from auricle.weights.cards import training_clips

_SHOWN = 200  # pairs in a result
_ROWS = 1024  # clips compared with all others at once
_KEPT = 1024  # fingerprints in a segment of the store
_DECODERS = 2  # threads


def find_contamination(
    examples: Sequence[Example], digests: Sequence[str], store: str | Path, models: Iterable[str]
) -> Contamination:
    """Clips of a task that models were trained on.

    Args:
        examples: of a task.
        digests: SHA-256 of their bytes.
        store: folder of embeddings, which keeps fingerprints, too.
        models: names; of what is no model, or does not state its training clips, nothing is known.

    Raises:
        WeightsError: a model's list of training clips is damaged.
    """
    known = training_clips(models)
    if known is None:
        return NOT_COMPARED
    is_held = known.holds(read_fingerprints(examples, digests, store))
    held = [example for example, found in zip(examples, is_held, strict=True) if found]
    return Contamination(
        known=True,
        sets=known.sets,
        clips=len(held),
        share=round(len(held) / len(examples), 6),
        splits=Counter(each.split for each in held),
        items=tuple(each.id for each in held),
    )


def read_fingerprints(examples: Sequence[Example], digests: Sequence[str], store: str | Path) -> list[bytes | None]:
    """The acoustic fingerprint of each clip, computed once for all runs; None: it has none, or cannot be read."""
    place = Store(store, "acoustic-fingerprint", "16 kHz mono, bytes as numbers; none: -1")
    missing = {digest: each for digest, each in zip(digests, examples, strict=True) if digest not in place}

    def read(item: tuple[str, Example]) -> tuple[str, bytes | None]:
        digest, example = item
        try:
            return digest, acoustic_fingerprint(as_clip(example.source()).waveform)
        except AuricleError:
            return digest, None

    for number, (digest, found) in enumerate(
        prefetch(read, missing.items(), depth=4 * _DECODERS, workers=_DECODERS), start=1
    ):
        row = [-1.0] * BYTES if found is None else [float(byte) for byte in found]
        place.add(digest, [torch.tensor([row])])
        if number % _KEPT == 0:
            place.flush()
    place.flush()
    rows = [place.get(digest).pooled[0] for digest in digests]
    return [None if row[0] < 0 else bytes(row.to(torch.uint8).tolist()) for row in rows]


def find_leaks(examples: Sequence[Example], digests: Sequence[str], store: str | Path) -> Leaks:
    """Clips of different splits with the same bytes, or of the same recording; arguments as `find_contamination`."""
    by_digest: dict[str, list[Example]] = defaultdict(list)
    for example, digest in zip(examples, digests, strict=True):
        by_digest[digest].append(example)
    exact = [
        (one.id, one.split, other.id, other.split)
        for group in by_digest.values()
        for one, other in pairwise(group)
        if one.split != other.split
    ]
    pairs = [
        (one, other, share)
        for one, other, share in _same_recordings(examples, read_fingerprints(examples, digests, store))
        if digests[one] != digests[other]
    ]
    near = [
        (examples[one].id, examples[one].split, examples[other].id, examples[other].split, share)
        for one, other, share in sorted(pairs, key=lambda pair: -pair[2])
    ]
    return Leaks(exact=tuple(exact[:_SHOWN]), near=tuple(near[:_SHOWN]))


def _same_recordings(examples: Sequence[Example], fingerprints: Sequence[bytes | None]) -> list[tuple[int, int, float]]:
    """Numbers of clips of two splits with nearly the same fingerprint, and their share of equal bits."""
    known = [(number, found) for number, found in enumerate(fingerprints) if found is not None]
    numbers = np.array([number for number, _ in known], np.int64)
    rows = as_rows([found for _, found in known])
    splits = np.unique([examples[number].split for number in numbers], return_inverse=True)[1]
    found = []
    for start in range(0, len(rows), _ROWS):
        different = different_bits(rows[start : start + _ROWS], rows)
        near = (different <= MAX_DIFFERENT_BITS) & (splits[start : start + _ROWS, None] != splits[None])
        for row, column in zip(*np.nonzero(near), strict=True):
            if start + row < column:
                share = 1 - int(different[row, column]) / (8 * BYTES)
                found.append((int(numbers[start + row]), int(numbers[column]), round(share, 6)))
    return found
