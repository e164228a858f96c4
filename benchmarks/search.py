"""Time exact search in a large index, against numpy doing the same and against reading the bytes at all.

python benchmarks/search.py [--rows 1000000] [--width 256] [--rounds 50] [--threads 2] [--folder DIR] [--json] [-o FILE]

Two indexes of half-precision vectors, five segments a file: vectors all over the sphere, and clusters whose members lie
side by side in the file, as clips in folders do. The ways alternate query by query in one process, after all pages
were read once. Wall time is what a user waits; on a machine that others use, the processor time and the row "reading"
(the same bytes added up as integers by the same threads) show what is to blame. Before timing, hits are compared with
an exhaustive float64 search.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Row, machine, options, write

from auricle.search.index import Entry, Settings, write_index
from auricle.search.query import Index

SEGMENTS = 5  # a file
BLOCK = 16_384  # rows that numpy turns into float32 at once; of 2^10 … 2^17 the fastest here
TARGET_MS = 60.0
KINDS = ("sphere", "clusters")
SLOW = ("numpy, blocks in float32",)


class Made:
    """Vectors in memory, where the writer finds them."""

    def __init__(self, vectors: np.ndarray) -> None:
        """``vectors`` (n, D) float16."""
        self._vectors = vectors

    def rows(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Times (count, 2) and vectors (count, D)."""
        start_s = 5.0 * np.arange(count)
        return np.stack([start_s, start_s + 10], 1), self._vectors[start : start + count]


def vectors_of(kind: str, rows: int, width: int) -> np.ndarray:
    """(rows, width) float16 of length 1."""
    rng = np.random.default_rng(10)
    made = np.empty((rows, width), np.float16)
    centre = rng.standard_normal(width, np.float32)
    for at in range(0, rows, 500):  # a cluster
        block = rng.standard_normal((min(500, rows - at), width), np.float32)
        if kind == "clusters":
            if at % 5000 == 0:
                centre = rng.standard_normal(width, np.float32)
            block = centre + 0.7 * block
        made[at : at + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return made


def write_vectors(path: Path, kind: str, rows: int, width: int) -> None:
    """Write an index of ``rows`` segments."""
    origin = Made(vectors_of(kind, rows, width))
    entries = [
        Entry(f"sounds/{at:08}.wav", 1, 1, at.to_bytes(32, "little"), origin, at, min(SEGMENTS, rows - at))
        for at in range(0, rows, SEGMENTS)
    ]
    settings = Settings(fingerprint="0" * 64, embedding_dim=width, window_s=10.0, hop_s=5.0)
    write_index(path, settings, entries)


def queries_of(index: Index, count: int) -> list[np.ndarray]:
    """Vectors somewhere near a row, as far as a text is from its clips."""
    rng, width = np.random.default_rng(4), index.settings.embedding_dim
    near = index.file.vectors[rng.integers(0, len(index), count)].astype(np.float64)
    noise = rng.standard_normal((count, width))
    return list(near + noise / np.linalg.norm(noise, axis=1, keepdims=True))


def by_numpy(index: Index, query: np.ndarray, k: int) -> np.ndarray:
    """Rows of the best ``k`` segments, as one would write it: blocks in float32, then the largest."""
    unit = (query / np.linalg.norm(query)).astype(np.float32)
    scores = np.empty(len(index), np.float32)
    for at in range(0, len(index), BLOCK):
        block = index.file.vectors[at : at + BLOCK]
        np.matmul(block.astype(np.float32), unit, out=scores[at : at + len(block)])
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def reading(index: Index) -> int:
    """Add up the bytes of all vectors, eight at a time."""
    return int(index._vectors.view(torch.int64).sum())


def check(index: Index, query: np.ndarray, k: int) -> None:
    """Raise unless hits are those of an exhaustive search in float64."""
    unit = query / np.linalg.norm(query)
    scores = np.concatenate(
        [(index.file.vectors[at : at + BLOCK].astype(np.float64) * unit).sum(1) for at in range(0, len(index), BLOCK)]
    )
    order = np.lexsort((np.arange(len(scores)), -scores))
    hits = index.search(query, k, all_segments=True)
    found = [(hit.path, hit.start_s) for hit in hits]
    assert found == [(index.file.name(row // SEGMENTS), 5.0 * (row % SEGMENTS)) for row in order[:k]], "segments differ"
    assert np.allclose([hit.score for hit in hits], 100 * scores[order[:k]], rtol=0, atol=1e-9), "scores differ"
    files = list(dict.fromkeys((order // SEGMENTS).tolist()))[:k]
    hits = index.search(query, k)
    assert [hit.path for hit in hits] == [index.file.name(file) for file in files], "files differ"


def timed(ways: dict[str, Callable[[np.ndarray], Any]], queries: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Milliseconds of each way: median, 95th percentile and least of wall time, median of processor time.

    Slow ways take part in every tenth round only.
    """
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn, query in enumerate(queries):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if turn % 10 and name in SLOW:
                continue
            start, busy = time.perf_counter(), time.process_time()
            ways[name](query)
            wall[name].append(1e3 * (time.perf_counter() - start))
            cpu[name].append(1e3 * (time.process_time() - busy))
    return {
        name: {
            "p50_ms": round(float(np.percentile(wall[name], 50)), 1),
            "p95_ms": round(float(np.percentile(wall[name], 95)), 1),
            "min_ms": round(min(wall[name]), 1),
            "cpu_p50_ms": round(float(np.percentile(cpu[name], 50)), 1),
        }
        for name in ways
    }


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one index."""
    start = time.perf_counter()
    index = Index.open(path)
    open_ms = 1e3 * (time.perf_counter() - start)
    queries = queries_of(index, args.rounds + 4)
    for query in queries[-4:]:  # which also reads all pages
        check(index, query, args.k)
    unwanted = queries[-1]
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "best of each file": lambda query: index.search(query, args.k),
        "all segments": lambda query: index.search(query, args.k, all_segments=True),
        "with one --without": lambda query: index.search(query, args.k, without=unwanted),
        "numpy, blocks in float32": lambda query: by_numpy(index, query, args.k),
        "reading": lambda query: reading(index),
    }
    rows = timed(ways, queries[: args.rounds])
    gigabytes = index.file.vectors.nbytes / 1e9
    return {
        "bytes": path.stat().st_size,
        "open_ms": round(open_ms, 1),
        "ways": rows,
        "best_of_each_file_gb_per_s": round(gigabytes / rows["best of each file"]["p50_ms"] * 1e3, 1),
        "reading_gb_per_s": round(gigabytes / rows["reading"]["p50_ms"] * 1e3, 1),
    }


def show_ways(results: Row) -> None:
    """One a line."""
    for kind in KINDS:
        for name, row in results[kind]["ways"].items():
            print(f"{kind:9} {name:26}" + "".join(f"{key} {value:7.1f}  " for key, value in row.items()))


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=50, threads=2)
    parser.add_argument("--rows", type=int, default=1_000_000, help="segments")
    parser.add_argument("--width", type=int, default=256, help="of the vectors")
    parser.add_argument("-k", type=int, default=10, help="hits")
    parser.add_argument("--folder", type=Path, help="keep the indexes here, and take those that are there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results: Row = {name: getattr(args, name) for name in ("rows", "width", "rounds", "k", "threads")}
    results |= {"target_ms": TARGET_MS, **machine()}
    results |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "numpy": np.__version__}
    with tempfile.TemporaryDirectory() as made:
        for kind in KINDS:
            path = (args.folder or Path(made)) / f"{kind}-{args.rows}-{args.width}.auricle"
            if not path.exists():
                write_vectors(path, kind, args.rows, args.width)
            results[kind] = measure(path, args)
    write(results, args, show_ways)


if __name__ == "__main__":
    main()
