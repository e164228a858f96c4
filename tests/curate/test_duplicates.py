import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from auricle.curate import duplicates
from auricle.curate.duplicates import near_duplicates


def one_by_one(vectors: np.ndarray, order: np.ndarray, cosine: float) -> list[int]:
    repeats: list[int] = []
    for place, row in enumerate(order):
        near = [p for p in range(place) if repeats[p] < 0 and vectors[order[p]] @ vectors[row] >= cosine]
        repeats.append(near[0] if near else -1)
    return repeats


@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 60), kinds=st.integers(1, 12), spread=st.sampled_from([0.02, 0.1])
)
def test_blocks_find_what_comparing_one_by_one_finds(seed: int, count: int, kinds: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((kinds, 24))[rng.integers(0, kinds, count)] + spread * rng.standard_normal(
        (count, 24)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assume((np.abs(vectors @ vectors.T - 0.99) > 1e-5).all())  # where rounding decides, either is right
    order = rng.permutation(count)[: max(1, count - 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_ROWS", 8)
        patch.setattr(duplicates, "_COLUMNS", 5)
        patch.setattr(duplicates, "_CHUNK", 3)
        repeats, cosines = near_duplicates(vectors, order, 0.99)
    assert repeats.tolist() == one_by_one(vectors, order, 0.99)
    for place, other in enumerate(repeats):
        if other >= 0:
            assert cosines[place] == pytest.approx(vectors[order[place]] @ vectors[order[other]], abs=1e-5)


def test_what_is_near_a_repeated_one_only_stays() -> None:
    angles = np.deg2rad([0, 4, 8, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    cosine = float(np.cos(np.deg2rad(5)))
    assert near_duplicates(vectors, np.arange(4), cosine)[0].tolist() == [-1, 0, -1, -1]
    assert near_duplicates(vectors, np.array([1, 0, 2, 3]), cosine)[0].tolist() == [-1, 0, 0, -1]
    assert near_duplicates(vectors, np.zeros(0, int), cosine)[0].tolist() == []
