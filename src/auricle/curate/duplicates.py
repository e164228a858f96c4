"""Clips that are nearly the same, by their vectors: exact, in the order given, most comparisons made on a few axes."""

import numpy as np
import numpy.typing as npt

from auricle.curate.pairs import Ids, Vectors

Cosines = npt.NDArray[np.float32]

_ROWS, _COLUMNS = 512, 2048  # vectors compared at once, few enough for the cache of a processor
_AXES = 16  # of the first comparison
_SAMPLE = 4000  # vectors from which the axes of largest variance are estimated
_SLACK = 1e-4  # of squared distances, for rounding
_CHUNK = 8192  # pairs compared exactly at once


def near_duplicates(vectors: Vectors, order: Ids, cosine: float) -> tuple[Ids, Cosines]:
    """For each vector the earlier one that it repeats.

    The first of its kind stays; whatever comes close to one that stays repeats it. What comes close only to one that
    repeats another stays.

    Args:
        vectors: (u, D) of length 1.
        order: (m,) distinct rows, the first one first.
        cosine: from which two are nearly the same, below 1.

    Returns:
        (m,) for each row of ``order`` the place in ``order`` that it repeats, -1: none; (m,) its cosine.
    """
    repeats, found = np.full(len(order), -1), np.zeros(len(order), np.float32)
    if not len(order):
        return repeats, found
    axes = _main_axes(vectors[order[:: max(1, len(order) // _SAMPLE)]])
    # Two unit vectors are apart by the root of 2 - 2 × cosine, and along some axes by no more than that.
    limit = 2 - 2 * cosine + _SLACK
    staying, count = np.zeros(len(order), np.int64), 0
    sketches = np.zeros((len(order), axes.shape[1] + 2), np.float32)
    for start in range(0, len(order), _ROWS):
        block = vectors[order[start : start + _ROWS]]
        left, right = _sketch(block @ axes)
        for at in range(0, count, _COLUMNS):
            places = staying[at : min(count, at + _COLUMNS)]
            # Of the flat array, since of two axes it takes ten times as long.
            near = np.flatnonzero((left @ sketches[at : at + len(places)].T <= limit).ravel())
            rows, columns = np.divmod(near, len(places))
            _note_first(repeats, found, start, block, rows, places[columns], vectors, order, cosine)
        _compare_within(repeats, found, start, block @ block.T, cosine)
        stays = np.flatnonzero(repeats[start : start + len(block)] < 0)
        staying[count : count + len(stays)] = start + stays
        sketches[count : count + len(stays)] = right[stays]
        count += len(stays)
    return repeats, found


def _main_axes(sample: Vectors) -> Vectors:
    """(D, k) orthonormal axes along which the sample spreads most."""
    axes: Vectors = np.linalg.svd(sample - sample.mean(0), full_matrices=False)[2][:_AXES].T
    return axes


def _sketch(projected: Vectors) -> tuple[Vectors, Vectors]:
    """From (m, k), two matrices (m, k + 2) whose product is the squared distance of any two rows."""
    squares = (projected**2).sum(1, keepdims=True)
    ones = np.ones_like(squares)
    return np.hstack([-2 * projected, squares, ones]), np.hstack([projected, ones, squares])


def _note_first(
    repeats: Ids,
    found: Cosines,
    start: int,
    block: Vectors,
    rows: Ids,
    places: Ids,
    vectors: Vectors,
    order: Ids,
    limit: float,
) -> None:
    """Compare rows of a block with places that may be near, pair by pair, and note the first one that is."""
    for at in range(0, len(rows), _CHUNK):
        part = slice(at, at + _CHUNK)
        cosines = np.einsum("md,md->m", block[rows[part]], vectors[order[places[part]]])
        for pair in np.flatnonzero(cosines >= limit).tolist():
            row = start + int(rows[at + pair])
            if repeats[row] < 0:  # pairs come row by row, and within a row from the first place on
                repeats[row], found[row] = places[at + pair], cosines[pair]


def _compare_within(repeats: Ids, found: Cosines, start: int, cosines: Vectors, limit: float) -> None:
    """The same among the rows of a block themselves, one after the other."""
    is_near = np.tril(cosines >= limit, -1)
    for row in np.flatnonzero(is_near.any(1)).tolist():
        earlier = np.flatnonzero(is_near[row])
        earlier = earlier[repeats[start + earlier] < 0]
        if repeats[start + row] < 0 and len(earlier):
            repeats[start + row] = start + earlier[0]
            found[start + row] = cosines[row, earlier[0]]
