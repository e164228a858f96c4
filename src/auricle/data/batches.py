"""Batches of similar lengths, padding, and prefetching in threads.

All of it depends on the step number alone, so a run that resumes at step N prepares exactly batch N.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from auricle.data.order import Ids, Permutation, batch_ids, rank_slice
from auricle.errors import ConfigError, DataError

Item = TypeVar("Item")
Step = TypeVar("Step")
Result = TypeVar("Result")


def bucket(ids: Ids, lengths: npt.ArrayLike, batch_size: int) -> list[Ids]:
    """Cut a window of ids into batches of similar lengths.

    Args:
        ids: (W,) ids of the window, in any order.
        lengths: (W,) length of each of them, in any unit.
        batch_size: ids in a batch.

    Returns:
        Batches from short to long, the last smaller if W is not a multiple of `batch_size`. Equal lengths keep the
        order of `ids`.

    Raises:
        ConfigError: not as many lengths as ids, or `batch_size` below 1.
    """
    sizes = np.asarray(lengths)
    if sizes.shape != np.shape(ids) or batch_size < 1:
        raise ConfigError(f"{np.shape(ids)} ids, {sizes.shape} lengths and batches of {batch_size} do not fit together")
    ordered = np.asarray(ids)[np.argsort(sizes, kind="stable")]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def bucketed_ids(
    step: int,
    batch_size: int,
    lengths: npt.NDArray[np.int64],
    seed: int,
    *,
    window: int = 16,
    rank: int = 0,
    world_size: int = 1,
) -> Ids:
    """`order.batch_ids` with batches of similar lengths.

    `window` batches of the endless order are sorted by length, cut again, and shuffled. The clips of those steps
    together stay the same, so none is lost or repeated.

    Args:
        step: number of the global batch, >= 0.
        batch_size: clips of the global batch, over all processes.
        lengths: (n,) length of every clip of the data set, in any unit.
        seed: of the run.
        window: batches sorted together, >= 1; more saves padding and makes batches less random.
        rank: this process.
        world_size: processes; the parts of all ranks, joined, are the batch of one process.

    Returns:
        (about batch_size / world_size,) int64 ids, from short to long.

    Raises:
        ConfigError: a number is out of range.
    """
    if window < 1 or step < 0:
        raise ConfigError(f"window must be >= 1 and step >= 0, got {window} and {step}")
    number, place = divmod(step, window)
    ids = batch_ids(number, window * batch_size, len(lengths), seed)
    batches = bucket(ids, lengths[ids], batch_size)
    start, stop = rank_slice(batch_size, rank, world_size)
    return batches[int(Permutation(window, seed, number).ids(place))][start:stop]


def grouped(items: Iterable[Item], size: Callable[[Item], float], limit: float) -> Iterator[list[Item]]:
    """Neighbouring items in groups whose sizes add up to at most ``limit``; a larger item is a group of its own."""
    group: list[Item] = []
    filled = 0.0
    for item in items:
        if group and filled + size(item) > limit:
            yield group
            group, filled = [], 0.0
        group.append(item)
        filled += size(item)
    if group:
        yield group


def pad(waveforms: Sequence[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Stack clips of different lengths.

    Args:
        waveforms: B arrays of shape (num_samples,).

    Returns:
        (B, N) float32 with zeros after each clip, N the longest; and the (B,) valid lengths.

    Raises:
        DataError: no clips, or one with more than one axis.
    """
    if not waveforms or any(np.ndim(waveform) != 1 for waveform in waveforms):
        shapes = [np.shape(waveform) for waveform in waveforms]
        raise DataError(f"cannot pad clips of shapes {shapes}; expected at least one, each (num_samples,)")
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    padded = np.zeros((len(waveforms), lengths.max()), dtype=np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return padded, lengths


def prefetch(
    fn: Callable[[Step], Result], steps: Iterable[Step], *, depth: int = 2, workers: int = 1
) -> Iterator[Result]:
    """Compute ``fn(step)`` for each step ahead of time, in threads.

    Args:
        fn: may depend on the step alone, usually its number; runs in several threads at once.
        steps: may be endless; taken only as far ahead as needed.
        depth: results finished or in progress at a time, >= 1.
        workers: threads, >= 1.

    Yields:
        Results in the order of `steps`. Leaving the loop early stops the threads after their current step.

    Raises:
        ConfigError: depth or workers below 1.
        DataError: `fn` failed; the message names the step, the cause is attached.
    """
    if depth < 1 or workers < 1:
        raise ConfigError(f"prefetching needs depth and workers >= 1, got {depth} and {workers}")
    return _prefetch(fn, iter(steps), depth, workers)


def _prefetch(fn: Callable[[Step], Result], steps: Iterator[Step], depth: int, workers: int) -> Iterator[Result]:
    pending: deque[tuple[Step, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        while True:
            for step in islice(steps, depth - len(pending)):
                pending.append((step, pool.submit(fn, step)))
            if not pending:
                return
            step, future = pending.popleft()
            try:
                result = future.result()
            except Exception as error:
                raise DataError(f"preparing step {step} failed: {type(error).__name__}: {error}") from error
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
