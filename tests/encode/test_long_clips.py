import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.audio.segments import segments
from auricle.encode.long_clips import floored, loudest, mel_chunks, stream_windows
from auricle.errors import ClipTooShort, ConfigError
from auricle.models.glap import cut_chunks

LENGTH = 8  # mel frames of a chunk, 1280 samples
FRONT_END = LogMel().eval()


def cut(waveform: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Blocks of the given sizes, over and over."""
    blocks, at = [], 0
    while at < len(waveform):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(waveform[at : at + size])
        at += size
    return blocks


@given(
    num_samples=st.one_of(st.integers(257, 9_000), st.sampled_from([1279, 1280, 1281, 1600, 2560, 2879, 2880, 3840])),
    sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_chunks_of_a_stream_are_those_of_the_whole(num_samples: int, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Silence before noise: what the floor of -120 dB hides must come back.
    loudness = np.where(np.arange(num_samples) < num_samples // 2, 0.0, 0.9)
    waveform = (loudness * rng.uniform(-1, 1, num_samples)).astype(np.float32)
    found = list(mel_chunks(cut(waveform, sizes), FRONT_END, LENGTH))
    expected = cut_chunks(FRONT_END(torch.from_numpy(waveform))[0], num_samples, LENGTH)
    assert [(c.mel.shape, c.is_rest) for c in found] == [(c.mel.shape, c.is_rest) for c in expected]
    loudest_db = loudest(found)
    for ours, whole in zip(found, expected, strict=True):
        # Before the last chunk, more may come: what counts is that a whole chunk's tokens are covered.
        assert ours.num_samples == whole.num_samples or min(ours.num_samples, whole.num_samples) >= LENGTH * 160
        assert (floored(ours, loudest_db, DASHENG_MEL.top_db).mel - whole.mel).abs().max() <= 1e-3


def test_nothing_and_crumbs() -> None:
    for blocks in ([], [np.zeros(256, np.float32)]):
        with pytest.raises(ClipTooShort):
            list(mel_chunks(blocks, FRONT_END, LENGTH))
    assert list(stream_windows([], length_s=1, hop_s=1)) == []


@given(
    num_samples=st.integers(1, 3_000),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    length=st.integers(1, 700),
    data=st.data(),
)
def test_windows_of_a_stream_are_those_of_the_whole(
    num_samples: int, sizes: list[int], length: int, data: st.DataObject
) -> None:
    hop, shortest = data.draw(st.integers(1, length)), data.draw(st.integers(0, length))
    lengths = {"length_s": length / 16_000, "hop_s": hop / 16_000, "min_s": shortest / 16_000}
    waveform = np.arange(num_samples, dtype=np.float32)
    found = list(stream_windows(cut(waveform, sizes), **lengths))
    assert [(start, start + len(samples)) for start, samples in found] == segments(num_samples, **lengths)
    assert all(np.array_equal(samples, waveform[start : start + len(samples)]) for start, samples in found)


def test_windows_come_as_soon_as_they_are_certain() -> None:
    given_out = 0

    def endless():
        nonlocal given_out
        while True:
            given_out += 1
            yield np.zeros(16_000, np.float32)

    windows = stream_windows(endless(), length_s=2, hop_s=1, min_s=0.5)
    starts = [next(windows)[0] for _ in range(50)]
    assert starts == [16_000 * i for i in range(50)] and given_out == 52


@pytest.mark.parametrize(("length", "hop"), [(0.0, 0.0), (1.0, 2.0), (1.0, 0.0)])
def test_windows_that_skip_samples_are_refused(length: float, hop: float) -> None:
    with pytest.raises(ConfigError):
        list(stream_windows([], length_s=length, hop_s=hop))
