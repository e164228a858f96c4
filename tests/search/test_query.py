import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from auricle.encode.aligner import Aligner
from auricle.errors import AuricleError, ConfigError, DataError, PromptError
from auricle.search import query as room
from auricle.search.index import Entry, Settings, read_index, write_index
from auricle.search.query import Hit, Index, embed_query

from ..encode.toy_aligner import ToyAligner, tone

WIDTH = 24
OWN = Settings(fingerprint="ab" * 32, embedding_dim=WIDTH, window_s=10.0, hop_s=5.0, model="toy")


# The folder of a test holds one file, which each example writes anew.
ONE_PLACE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Held:
    """Rows in memory; a segment's number is its begin in seconds."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def rows(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        begin = np.arange(start, start + count, dtype=np.float64)
        return np.stack([begin, begin + 10], 1), self.vectors[start : start + count]


def write(path: Path, vectors: np.ndarray, counts: list[int], names: list[str] | None = None) -> Path:
    """An index of these rows, ``counts`` of them to a file."""
    origin, starts = Held(vectors), np.cumsum([0, *counts])
    entries = [
        Entry(
            names[i] if names else f"{i:06}.wav", 10 + i, 20 + i, bytes([i % 256] * 32), origin, int(starts[i]), count
        )
        for i, count in enumerate(counts)
    ]
    write_index(path, replace(OWN, embedding_dim=vectors.shape[1]), entries)
    return path


def sphere(rows: int, seed: int, width: int = WIDTH) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def exhaustive(vectors: np.ndarray, query: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
    """Scores by the rule of `Index.search`, in float64 and without any shortcut."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    mean = unit(unit(np.atleast_2d(query).astype(np.float64)).mean(0))
    scores = (vectors.astype(np.float64) * mean).sum(1)
    if without is not None:
        unwanted = [
            (vectors.astype(np.float64) * row).sum(1) for row in unit(np.atleast_2d(without).astype(np.float64))
        ]
        scores = scores - np.maximum(np.max(unwanted, axis=0), 0)
    return 100 * scores


@pytest.fixture(params=["as is", "many rows", "slow products"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways through a search: few rows, many (with small blocks), and where torch cannot be trusted with halves."""
    if request.param != "as is":
        for name, value in (("_FEW_ROWS", 4), ("_PEAK_ROWS", 8), ("_BLOCK_ROWS", 16), ("_BLOCK_VALUES", 300)):
            monkeypatch.setattr(room, name, value)
    if request.param == "slow products":
        monkeypatch.setattr(room, "_sums_halves_in_float32", lambda: False)
    return request.param


@st.composite
def indexes(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Rows, few of them different where ties are wanted, and how many each file has."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=40))
    rows = sum(counts)
    kinds = draw(st.sampled_from([2, 5, rows]))
    pool = sphere(kinds, draw(st.integers(0, 99)))
    order = np.random.default_rng(draw(st.integers(0, 99))).integers(0, kinds, rows)
    return pool[np.sort(order) if draw(st.booleans()) else order], counts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "x.auricle"


@given(
    made=indexes(),
    k=st.integers(1, 60),
    seed=st.integers(0, 999),
    queries=st.integers(1, 3),
    unwanted=st.integers(0, 2),
    near=st.booleans(),
)
@settings(ONE_PLACE, max_examples=60)
def test_hits_are_those_of_an_exhaustive_search(
    place: Path,
    way: str,
    made: tuple[np.ndarray, list[int]],
    k: int,
    seed: int,
    queries: int,
    unwanted: int,
    near: bool,
) -> None:
    vectors, counts = made
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((queries, WIDTH)) + (5 * vectors[seed % len(vectors)] if near else 0)
    without = rng.standard_normal((unwanted, WIDTH)) if unwanted else None
    index = Index.open(write(place, vectors, counts))
    scores = exhaustive(vectors, query, without)
    # Scores of unequal rows may differ by less than the last digits, in which the two sums over the queries differ.
    order = np.lexsort((np.arange(len(scores)), -scores.round(9)))
    file_of = np.repeat(np.arange(len(counts)), counts)
    for all_segments in (True, False):
        hits = index.search(query, k, without=without, all_segments=all_segments)
        rows = order if all_segments else order[np.sort(np.unique(file_of[order], return_index=True)[1])]
        assert [(hit.path, hit.start_s) for hit in hits] == [(f"{file_of[row]:06}.wav", row) for row in rows[:k]]
        assert np.allclose([hit.score for hit in hits], scores[rows[:k]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rows_closer_than_half_precision_are_ranked(place: Path, way: str, seed: int) -> None:
    """All rows are equally far from the query, but for the rounding of the rows; that of the query swaps them."""
    query = np.random.default_rng(seed).standard_normal(WIDTH)
    query /= np.linalg.norm(query)
    beside = sphere(3000, seed + 9).astype(np.float64)
    beside -= (beside @ query)[:, None] * query
    vectors = 0.5 * query + 0.75**0.5 * beside / np.linalg.norm(beside, axis=1, keepdims=True)
    index = Index.open(write(place, vectors.astype(np.float16), [3] * 1000))
    order = np.argsort(-exhaustive(index.file.vectors, query), kind="stable")
    files = list(dict.fromkeys((order // 3).tolist()))
    for k in (1, 5, 50):
        hits = index.search(query, k, all_segments=True)
        assert [hit.start_s for hit in hits] == order[:k].tolist()
        assert [hit.path for hit in index.search(query, k)] == [f"{file:06}.wav" for file in files[:k]]


def test_what_comes_first_in_the_index_wins_a_tie(place: Path, way: str) -> None:
    vectors = np.repeat(sphere(3, 1), 30, axis=0)
    index = Index.open(write(place, vectors, [5] * 18))
    hits = index.search(vectors[40], 8, all_segments=True)
    assert [hit.start_s for hit in hits] == [30, 31, 32, 33, 34, 35, 36, 37]
    assert [hit.path for hit in index.search(vectors[40], 3)] == ["000006.wav", "000007.wav", "000008.wav"]
    assert len({hit.score for hit in index.search(vectors[40], 6)}) == 1


def test_approximate_scores_keep_their_bound(way: str) -> None:
    for width in (3, 24, 256, 1024):
        vectors = sphere(300, width, width)
        query = np.random.default_rng(width).standard_normal(width)
        query /= np.linalg.norm(query)
        # The worst: a row that is the query itself, in which all errors have one sign.
        vectors[0] = query
        found, error = room._approximate(torch.from_numpy(vectors), query)
        off = np.abs(found - (vectors.astype(np.float64) * query).sum(1))
        assert off.max() <= error < 2e-3


@pytest.mark.parametrize("lanes", [1, 8, 64, 512])
def test_sums_of_halves_are_recognised(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    def in_halves(rows: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(lanes, dtype=torch.float16)
        for products in (rows[0] * query).split(lanes):
            sums = sums + products
        return sums.float().sum()[None].half()

    probe = room._sums_halves_in_float32.__wrapped__
    monkeypatch.setattr(torch, "mv", in_halves)
    assert not probe()
    monkeypatch.setattr(torch, "mv", lambda rows, query: (rows.float() @ query.float()).half())
    assert probe()


def test_several_queries_are_averaged(place: Path) -> None:
    vectors = sphere(50, 3)
    index = Index.open(write(place, vectors, [1] * 50))
    a, b = (vectors[row].astype(np.float64) for row in (4, 9))
    together = index.search(torch.from_numpy(np.stack([7 * a, 0.1 * b])), 5)
    assert index.search(torch.from_numpy(a).bfloat16(), 1)[0].path == "000004.wav"
    assert {hit.path for hit in together[:2]} == {"000004.wav", "000009.wav"}  # however long, they weigh the same
    mean = index.search(a / np.linalg.norm(a) + b / np.linalg.norm(b), 5)
    assert [hit.path for hit in together] == [hit.path for hit in mean]
    assert [hit.score for hit in together] == pytest.approx([hit.score for hit in mean])


def test_without_takes_what_it_resembles_and_gives_nothing(place: Path) -> None:
    e = np.eye(WIDTH)
    vectors = np.stack([e[0], (e[0] + e[1]) / 2**0.5, (e[0] - e[1]) / 2**0.5]).astype(np.float16)
    index = Index.open(write(place, vectors, [1, 1, 1]))
    scores = {hit.path: hit.score for hit in index.search(e[0], 3, without=[e[1], e[2]])}
    assert scores == {
        "000000.wav": pytest.approx(100),
        "000001.wav": pytest.approx(0, abs=0.1),
        "000002.wav": pytest.approx(70.7, abs=0.1),
    }


def test_a_big_index_is_mapped_and_searched_in_place(place: Path) -> None:
    vectors = sphere(200_000, 5)
    index = Index.open(write(place, vectors, [4] * 50_000))
    assert index.file.vectors.base is not None and not index.file.vectors.flags.owndata
    assert index.file.vectors.ctypes.data % 64 == 0
    query = np.random.default_rng(1).standard_normal(WIDTH)
    order = np.argsort(-exhaustive(vectors, query), kind="stable")
    assert [hit.start_s for hit in index.search(query, 20, all_segments=True)] == order[:20].tolist()
    files = list(dict.fromkeys((order // 4).tolist()))
    assert [hit.path for hit in index.search(query, 20)] == [f"{file:06}.wav" for file in files[:20]]
    assert len(index.search(query, 60_000)) == 50_000


def test_the_file_is_plain_safetensors(place: Path) -> None:
    vectors = sphere(7, 2)
    write(place, vectors, [3, 4], ["a/ü.wav", "b.wav"])
    tensors = load_file(place)
    assert np.array_equal(tensors["vectors"], vectors) and tensors["file_ends"].tolist() == [3, 7]
    assert tensors["names"].tobytes().decode() == "a/ü.wavb.wav"
    assert tensors["times"][:, 0].tolist() == list(range(7))


def test_names_are_data(place: Path) -> None:
    names = [os.fsdecode(b"\xff.wav"), "/etc/passwd", "../../x\n\x1b[31m.wav", "http://127.0.0.1/x"]
    index = Index.open(write(place, sphere(4, 2), [1] * 4, names))
    assert {hit.path for hit in index.search(np.ones(WIDTH), 4)} == set(names)


@pytest.mark.parametrize(
    ("query", "k"),
    [
        (np.ones(WIDTH + 1), 3),
        (np.ones((2, 2, WIDTH)), 3),
        (np.zeros((0, WIDTH)), 3),
        (np.zeros(WIDTH), 3),
        (np.full(WIDTH, np.nan), 3),
        (np.full(WIDTH, np.inf), 3),
        (np.stack([np.ones(WIDTH), -np.ones(WIDTH)]), 3),
        (np.ones(WIDTH), 0),
    ],
)
def test_queries_that_ask_for_nothing_are_refused(place: Path, query: np.ndarray, k: int) -> None:
    index = Index.open(write(place, sphere(4, 2), [4]))
    with pytest.raises(ConfigError):
        index.search(query, k)
    with pytest.raises(ConfigError, match="of words"):
        index.search("dog")
    if k:
        with pytest.raises(ConfigError):
            index.search(np.ones(WIDTH), 1, without=query if query.ndim < 2 or len(query) != 2 else np.zeros(WIDTH))


def test_queries_come_from_words_and_sounds() -> None:
    toy = ToyAligner()
    aligner: Aligner = toy  # type: ignore[assignment]
    found = embed_query(aligner, texts=["low", "high"], clips=[tone("low", 1.0)])
    assert found.shape == (3, 16) and torch.allclose(found[0], found[2])
    with pytest.raises(PromptError, match="query is empty"):
        embed_query(aligner)
    with pytest.raises(AuricleError):
        embed_query(aligner, clips=["none.wav"])


def tampered(path: Path, change: Any) -> Path:
    """The index with another header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return path


def of(name: str, key: str, value: Any) -> Any:
    return lambda header: header[name].update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        of("__metadata__", "format", "auricle-index-2"),
        of("__metadata__", "format", None),
        of("__metadata__", "fingerprint", "../../x"),
        of("__metadata__", "window_s", "nan"),
        of("__metadata__", "hop_s", "-1"),
        of("__metadata__", "hop_s", "11"),
        of("__metadata__", "embedding_dim", "25"),
        of("__metadata__", "embedding_dim", "9" * 5000),
        of("vectors", "shape", [1 << 62, 4]),
        of("vectors", "shape", [-7, 24]),
        of("vectors", "shape", [7.0, 24]),
        of("vectors", "shape", [True, 24]),
        of("vectors", "shape", [168]),
        of("vectors", "shape", "many"),
        of("vectors", "dtype", "F32"),
        of("vectors", "data_offsets", [0, 336]),
        of("file_ends", "shape", [3]),
        of("file_ends", "shape", []),
        of("names", "data_offsets", [-5, 0]),
        lambda header: header.pop("names"),
        lambda header: header.pop("__metadata__"),
        lambda header: header["__metadata__"].pop("model"),
        lambda header: header.update(more=header["names"]),
        lambda header: header.update(vectors=7),
    ],
)
def test_a_header_that_lies_is_refused(place: Path, change: Any) -> None:
    write(place, sphere(7, 2), [3, 4])
    with pytest.raises(DataError, match=r"x\.auricle: not an index"):
        Index.open(tampered(place, change))


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"{}", b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]", b"[" * 4096])
def test_what_is_no_index_is_refused(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    with pytest.raises(DataError, match="not an index"):
        Index.open(place)
    deep = b"[" * 60_000
    place.write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(DataError, match="not an index"):
        Index.open(place)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "no such file"), ("pipe", "not a regular file"), ("", "not a regular file")):
        with pytest.raises(DataError, match=message):
            Index.open(tmp_path / name)


@given(cut=st.integers(1, 400))
@settings(ONE_PLACE, max_examples=25)
def test_a_file_of_another_length_is_refused(place: Path, cut: int) -> None:
    content = write(place, sphere(7, 2), [3, 4]).read_bytes()
    for wrong in (content[:-cut], content + b"\0" * cut):
        place.write_bytes(wrong)
        with pytest.raises(DataError, match="not an index"):
            Index.open(place)


@given(data=st.data())
@settings(ONE_PLACE, max_examples=150)
def test_a_flipped_byte_is_found_or_harms_no_one(place: Path, data: st.DataObject) -> None:
    content = bytearray(write(place, sphere(7, 2), [3, 4]).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    place.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            hits = Index.open(place).search(np.ones(WIDTH), 3, all_segments=True)
        except DataError as error:
            assert str(place) in str(error)
            return
    assert len(hits) == 3 and all(isinstance(hit, Hit) and 0 <= hit.start_s < hit.end_s for hit in hits)


def column(path: Path, name: str) -> np.ndarray:
    """A column of an index on disk, open for writing."""
    file = read_index(path)
    content = path.read_bytes()
    view = getattr(file, name)
    begin = view.ctypes.data - file.times.ctypes.data + content.index(file.times.tobytes())
    return np.memmap(path, view.dtype, "r+", begin, view.shape)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("file_ends", [0, 7], "file_ends does not divide"),
        ("file_ends", [8, 7], "file_ends does not divide"),
        ("file_ends", [-3, 7], "file_ends does not divide"),
        ("file_ends", [3, 6], "file_ends does not divide"),
        ("name_ends", [30, 20], "name_ends does not divide"),
        ("name_ends", [1, 1 << 60], "name_ends does not divide"),
        ("vectors", np.nan, "not of length 1"),
        ("vectors", np.inf, "not of length 1"),
        ("vectors", 2.0, "not of length 1"),
        ("times", np.nan, "a segment is from nan"),
        ("times", -1.0, "a segment is from -1"),
    ],
)
def test_columns_that_lie_are_refused(place: Path, name: str, values: Any, message: str) -> None:
    write(place, np.abs(sphere(7, 2)), [3, 4])
    mapped = column(place, name)
    mapped[...] = values
    mapped.flush()
    with pytest.raises(DataError, match=message):
        Index.open(place).search(np.ones(WIDTH), 3)
