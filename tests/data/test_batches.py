import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.data.batches import bucket, bucketed_ids, pad, prefetch
from auricle.data.order import batch_ids
from auricle.errors import ConfigError, DataError


@given(lengths=st.lists(st.integers(1, 1000), max_size=60), batch_size=st.integers(1, 10))
def test_buckets_hold_every_id_from_short_to_long(lengths, batch_size):
    ids = np.arange(len(lengths))[::-1].copy()
    batches = bucket(ids, np.array(lengths, dtype=np.int64)[ids], batch_size)
    joined = np.concatenate([*batches, np.empty(0, np.int64)]).astype(int)
    assert sorted(joined) == list(range(len(lengths)))
    assert [lengths[i] for i in joined] == sorted(lengths)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(
    n=st.integers(1, 200),
    batch_size=st.integers(1, 8),
    window=st.integers(1, 6),
    world_size=st.integers(1, 4),
    number=st.integers(0, 50),
)
def test_a_window_of_buckets_holds_the_clips_of_its_steps(n, batch_size, window, world_size, number):
    lengths = np.random.default_rng(n).integers(1, 100, n)
    steps = range(number * window, (number + 1) * window)
    whole = [bucketed_ids(step, batch_size, lengths, 3, window=window) for step in steps]
    plain = np.concatenate([batch_ids(step, batch_size, n, 3) for step in steps])
    assert sorted(np.concatenate(whole)) == sorted(plain)
    for step, batch in zip(steps, whole, strict=True):
        ranks = [
            bucketed_ids(step, batch_size, lengths, 3, window=window, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert np.array_equal(np.concatenate(ranks), batch)


def test_buckets_save_padding():
    lengths = np.random.default_rng(0).integers(1, 400, 5000)

    def waste(order):
        batches = [lengths[order(step)] for step in range(64)]
        return 1 - sum(b.sum() for b in batches) / sum(len(b) * b.max() for b in batches)

    assert waste(lambda step: batch_ids(step, 16, 5000, 1)) > 0.4
    assert waste(lambda step: bucketed_ids(step, 16, lengths, 1)) < 0.1


def test_batches_of_a_window_do_not_run_from_short_to_long():
    lengths = np.arange(1, 1025)
    means = [lengths[bucketed_ids(step, 16, lengths, 0, window=64)].mean() for step in range(64)]
    assert abs(np.corrcoef(means, np.arange(64))[0, 1]) < 0.4


def test_bucket_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="do not fit"):
        bucket(np.arange(3), [1, 2], 2)
    with pytest.raises(ConfigError, match="window"):
        bucketed_ids(0, 2, np.arange(3), 0, window=0)


def test_pad_keeps_every_sample_and_adds_zeros():
    padded, lengths = pad([np.ones(3, np.float32), np.full(5, 2, np.float32), np.empty(0, np.float32)])
    assert padded.dtype == np.float32
    assert padded.tolist() == [[1, 1, 1, 0, 0], [2, 2, 2, 2, 2], [0, 0, 0, 0, 0]]
    assert lengths.tolist() == [3, 5, 0]


@pytest.mark.parametrize("clips", [[], [np.ones((2, 3), np.float32)]])
def test_pad_refuses_no_clips_and_stereo(clips):
    with pytest.raises(DataError, match="num_samples"):
        pad(clips)


def test_prefetch_keeps_the_order_whatever_thread_is_first():
    gates = [threading.Event() for _ in range(4)]

    def slow_first(step):
        if step % 2 == 0:
            assert gates[step // 2].wait(10)
        else:
            gates[step // 2].set()
        return step * step

    assert list(prefetch(slow_first, range(8), depth=4, workers=2)) == [step * step for step in range(8)]


def test_prefetch_runs_ahead_only_as_far_as_set():
    taken = []

    def steps():
        for step in itertools.count():
            taken.append(step)
            yield step

    results = prefetch(lambda step: step, steps(), depth=3, workers=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert taken == list(range(7))


def test_prefetch_names_the_step_that_failed_after_the_good_ones():
    def fail_at_three(step):
        if step == 3:
            raise ZeroDivisionError("no")
        return step

    results = prefetch(fail_at_three, itertools.count(), depth=4, workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="step 3 failed: ZeroDivisionError: no") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_prefetch_ends_its_threads():
    before = threading.active_count()
    results = prefetch(lambda step: step, itertools.count(), depth=4, workers=3)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_prefetch_takes_any_step():
    steps = [1, None, 2, None]
    assert list(prefetch(lambda step: step, steps, depth=2)) == steps


def test_prefetch_refuses_no_depth():
    with pytest.raises(ConfigError, match="depth"):
        prefetch(lambda step: step, range(3), depth=0)
