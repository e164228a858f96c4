"""Channels that cancel each other."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.decode import as_clip, decode, stream
from auricle.audio.downmix import DownMix
from auricle.data.manifest import Entry
from auricle.data.recipes import pack
from auricle.data.shards import ShardSet

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("leak", [0.0, 0.01, 0.05])
def test_the_loudest_channel_stands_in_for_channels_that_cancel(leak: float) -> None:
    left = noise(2.0)
    right = -0.98 * left + leak * noise(2.0, 1)
    clip = as_clip((np.stack([left, right], axis=1), RATE))
    np.testing.assert_allclose(clip.waveform, left)
    assert clip.facts.notes == ("channels cancel each other for 2.0 s: the loudest was used",)
    assert not clip.facts.silent


def test_a_change_midway_is_heard_second_by_second() -> None:
    left = noise(4.0)
    right = np.concatenate([left[: 2 * RATE], -left[2 * RATE :]])
    clip = as_clip((np.stack([left, right], axis=1), RATE))
    np.testing.assert_allclose(clip.waveform, left, atol=1e-6)
    assert "2.0 s" in clip.facts.notes[0]


@pytest.mark.parametrize("channels", [2, 6, 32])
def test_unlike_channels_and_one_among_silent_ones_are_averaged(channels: int) -> None:
    unlike = np.stack([noise(1.5, seed) for seed in range(channels)], axis=1)
    alone = np.zeros_like(unlike)
    alone[:, 1] = noise(1.5)
    for waveform in (unlike, alone):
        clip = as_clip((waveform, RATE))
        np.testing.assert_allclose(clip.waveform, waveform.mean(axis=1), atol=1e-6)
        assert clip.facts.notes == ()


def test_silence_is_decided_before_the_mix() -> None:
    faint = np.full(RATE, 6e-5, np.float32)  # of 32 channels one is above -90 dB, and their mean is not
    waveform = np.zeros((RATE, 32), np.float32)
    waveform[:, 3] = faint
    clip = as_clip((waveform, RATE))
    assert not clip.facts.silent
    np.testing.assert_array_equal(clip.waveform, faint)
    assert as_clip((np.zeros((RATE, 2), np.float32), RATE)).facts.silent


@settings(max_examples=60)
@given(
    signs=st.lists(st.sampled_from([1, -1]), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 3999), max_size=6),
    layouts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_it_does_not_matter_where_blocks_are_cut(signs: list[int], cuts: list[int], layouts: list[int]) -> None:
    rate, whole, cut = 1000, [], []
    one, other = DownMix(), DownMix()
    for seed, channels in enumerate(layouts):
        left = noise(len(signs) / 16, seed)
        columns = [left * np.repeat(signs, rate)[: len(left)] if channel else left for channel in range(channels)]
        samples = np.stack(columns, axis=1)
        whole.append(one.add(samples, rate))
        edges = sorted({0, len(samples), *(at for at in cuts if at < len(samples))})
        cut += [other.add(samples[start:stop], rate) for start, stop in itertools.pairwise(edges)]
    whole.append(one.rest(rate))
    cut.append(other.rest(rate))
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(cut))
    assert one.cancelled_s == pytest.approx(other.cancelled_s)


def test_files_streams_and_shards_are_mixed_alike(tmp_path) -> None:
    left = noise(2.5)
    file = io.BytesIO()
    soundfile.write(file, np.stack([left, -left], axis=1), RATE, format="FLAC")
    clip = decode(file.getvalue())
    assert clip.facts.peak == pytest.approx(np.abs(clip.waveform).max())
    np.testing.assert_array_equal(np.concatenate(list(stream(file.getvalue(), block_s=0.3))), clip.waveform)
    (tmp_path / "a.flac").write_bytes(file.getvalue())
    report = pack([Entry("a", tmp_path / "a.flac")], tmp_path / "shards", "set")
    assert "cancel" in dict(report.flawed)["a"]
    np.testing.assert_allclose(ShardSet(tmp_path / "shards").read(0).waveform, clip.waveform, atol=1e-4)
