import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.infer.windows import quiet_windows

TOKEN = 3200


@given(num_samples=st.integers(1, 2_000_000), max_samples=st.integers(2 * TOKEN, 30 * 16_000), seed=st.integers(0, 9))
@settings(max_examples=80)
def test_every_sample_lies_in_one_window(num_samples: int, max_samples: int, seed: int) -> None:
    waveform = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)
    windows = quiet_windows(waveform, max_samples)
    assert windows[0][0] == 0 and windows[-1][1] == num_samples
    assert all(left[1] == right[0] for left, right in itertools.pairwise(windows))
    assert all(0 < stop - start <= max_samples for start, stop in windows)
    assert all(stop % TOKEN == 0 for _, stop in windows[:-1])
    assert len(windows) <= -(-num_samples // (max_samples // TOKEN * TOKEN))


def test_cuts_fall_into_pauses() -> None:
    waveform = np.random.default_rng(0).standard_normal(16 * 16_000).astype(np.float32)
    waveform[int(7.1 * 16_000) : int(7.9 * 16_000)] *= 1e-3
    (_, cut), _ = quiet_windows(waveform, 10 * 16_000)
    assert 7.1 < cut / 16_000 < 7.9


def test_windows_are_about_equal() -> None:
    lengths = [stop - start for start, stop in quiet_windows(np.ones(33 * 16_000, np.float32), 10 * 16_000)]
    assert len(lengths) == 4 and min(lengths) > 0.6 * max(lengths)
