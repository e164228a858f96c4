"""Windows cover a waveform without loss."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.segments import segments
from auricle.errors import ConfigError


@given(num_samples=st.integers(1, 2_000_000), length_s=st.floats(0.1, 30), share=st.floats(0, 1))
def test_every_sample_exactly_once(num_samples, length_s, share):
    windows = segments(num_samples, length_s=length_s, min_s=share * length_s)
    assert windows[0][0] == 0
    assert windows[-1][1] == num_samples
    assert all(left[1] == right[0] for left, right in pairwise(windows))
    if len(windows) > 1:
        assert min(stop - start for start, stop in windows) >= round(share * length_s * 16_000) - 1


@given(num_samples=st.integers(1, 500_000), length_s=st.floats(0.2, 10), hop=st.floats(0.1, 1), least=st.floats(0, 1))
def test_overlapping_windows_leave_no_gap_and_none_is_inside_another(num_samples, length_s, hop, least):
    windows = segments(num_samples, length_s=length_s, hop_s=hop * length_s, min_s=least * length_s)
    assert windows[0][0] == 0
    assert windows[-1][1] == num_samples
    for left, right in pairwise(windows):
        assert left[0] < right[0] <= left[1] < right[1]


def test_examples():
    assert segments(0, length_s=1) == []
    assert segments(5, length_s=1) == [(0, 5)]
    assert segments(40_000, length_s=1) == [(0, 16_000), (16_000, 32_000), (32_000, 40_000)]
    assert segments(40_000, length_s=1, min_s=0.6) == [(0, 16_000), (16_000, 40_000)]
    assert segments(32_000, length_s=1, hop_s=0.5) == [(0, 16_000), (8_000, 24_000), (16_000, 32_000)]


@pytest.mark.parametrize("wrong", [{"length_s": 0}, {"length_s": 1, "hop_s": 2}, {"length_s": 1, "min_s": 2}])
def test_windows_that_skip_sound_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        segments(100, **wrong)
