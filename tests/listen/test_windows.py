import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.listen.windows import Window, quiet_windows, stream_quiet_windows

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


def blocks(waveform: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (waveform[at : at + size] for at in range(0, len(waveform), size))


def plan(windows: list[Window]) -> list[tuple[int, int, int, int]]:
    return [(window.start, window.stop, window.before, window.audio_stop) for window in windows]


@given(
    num_samples=st.integers(1, 900_000),
    max_samples=st.integers(2 * TOKEN, 6 * 16_000),
    share=st.sampled_from([0.0, 0.1, 0.2, 1 / 3]),
    size=st.integers(1_000, 200_000),
    pauses=st.booleans(),
)
@settings(max_examples=40)
def test_a_stream_is_covered_without_gap(
    num_samples: int, max_samples: int, share: float, size: int, pauses: bool
) -> None:
    waveform = np.random.default_rng(num_samples).standard_normal(num_samples).astype(np.float32)
    if pauses:
        waveform[(np.arange(num_samples) // 8_000) % 3 == 0] = 0.0
    overlap = int(share * max_samples)
    windows = list(stream_quiet_windows(blocks(waveform, size), max_samples, overlap))
    assert windows[0].start == 0 and windows[-1].stop == num_samples
    assert all(left.stop == right.start for left, right in itertools.pairwise(windows))
    for window in windows:
        assert window.start < window.stop and 0 < len(window.waveform) <= max_samples
        assert np.array_equal(waveform[window.start - window.before : window.audio_stop], window.waveform)
    # Where a window reaches beyond a cut, the next reaches before it; never by more than the overlap.
    for left, right in itertools.pairwise(windows):
        assert left.audio_stop - left.stop <= overlap // 2 and right.before <= overlap // 2
        assert (left.audio_stop > left.stop) == (right.before > 0) or left.stop == num_samples
    again = list(stream_quiet_windows(blocks(waveform, num_samples), max_samples, overlap))
    assert plan(again) == plan(windows)


def test_a_stream_of_few_windows_is_cut_as_the_whole() -> None:
    for seconds in (3.0, 11.0, 25.5, 39.9):
        waveform = np.random.default_rng(1).standard_normal(int(seconds * 16_000)).astype(np.float32)
        found = list(stream_quiet_windows(blocks(waveform, 4_000), 160_000))
        assert [(window.start, window.stop) for window in found] == quiet_windows(waveform, 160_000)


def test_windows_overlap_around_sound_and_not_around_pauses() -> None:
    waveform = np.random.default_rng(0).standard_normal(15 * 16_000).astype(np.float32)
    loud = list(stream_quiet_windows([waveform], 160_000, 32_000))
    assert all(window.before == 16_000 for window in loud[1:])
    waveform[int(7.1 * 16_000) : int(7.9 * 16_000)] *= 1e-2
    first, second = stream_quiet_windows([waveform], 160_000, 32_000)
    assert first.audio_stop == first.stop == second.start and second.before == 0


def test_a_stream_needs_no_more_than_a_few_windows_ahead() -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield np.ones(16_000, np.float32)

    windows = stream_quiet_windows(endless(), 160_000)
    for _, window in zip(range(20), windows, strict=False):
        assert taken * 16_000 - window.start <= 4 * 160_000 + 3 * 16_000


@pytest.mark.parametrize(("longest", "overlap"), [(6_000, 0), (160_000, -1), (160_000, 60_000)])
def test_impossible_windows_are_refused(longest: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        list(stream_quiet_windows([np.ones(10, np.float32)], longest, overlap))
