from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import auricle
from auricle.audio.decode import as_clip
from auricle.listen.silence import stream_split_at_silence
from auricle.listen.windows import Window, stream_quiet_windows

RATE = 16_000
TOKEN = 3_200
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Seconds of sound (positive) and of digital silence (negative).
SPANS = st.lists(st.floats(-3, 3).map(lambda s: round(s, 3)), max_size=6)


def waveform_of(spans: list[float], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [np.full(int(abs(s) * RATE), float(s > 0), np.float32) for s in spans]
    mask = np.concatenate([np.zeros(0, np.float32), *parts])
    return (mask * (0.1 + 0.1 * rng.random(len(mask)))).astype(np.float32)


def blocks(waveform: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


def windows_of(waveform: np.ndarray, size: int, longest: int = RATE, overlap: int = 0) -> list[Window]:
    return list(stream_split_at_silence(blocks(waveform, size), longest, overlap))


@given(SPANS, st.integers(700, 30_000), st.sampled_from([0, 2 * TOKEN]))
@settings(max_examples=60, deadline=None)
def test_all_is_covered_whatever_the_blocks(spans: list[float], size: int, overlap: int) -> None:
    waveform = waveform_of(spans)
    longest = 2 * RATE
    windows = windows_of(waveform, size, longest, overlap)
    assert windows[0].start == 0 and windows[-1].stop == len(waveform)
    assert all(left.stop == right.start for left, right in pairwise(windows))
    assert all(len(window.waveform) <= longest for window in windows)
    for window in windows:
        np.testing.assert_array_equal(window.waveform, waveform[window.start - window.before : window.audio_stop])
    whole = windows_of(waveform, max(1, len(waveform)), longest, overlap)
    assert [(w.start, w.stop, w.before) for w in whole] == [(w.start, w.stop, w.before) for w in windows]


@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.65, 2.5)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_sound_between_silences_is_as_if_alone(pairs: list[tuple[float, float]]) -> None:
    waveform = waveform_of([each for sounding, silent in pairs for each in (sounding, -silent)])
    windows = [window for window in windows_of(waveform, 4_000) if not window.is_silent]
    assert len(windows) == len(pairs)
    for (seconds, _), window in zip(pairs, windows, strict=True):
        samples = int(seconds * RATE)
        assert np.abs(window.waveform[:samples]).min() >= 0.1 and not np.abs(window.waveform[samples:]).any()
        assert len(window.waveform) == -(-samples // TOKEN) * TOKEN


def test_without_long_silence_nothing_changes() -> None:
    waveform = waveform_of([2.0, -0.3, 1.0, -0.39, 4.0], seed=3)
    expected = list(stream_quiet_windows([waveform], RATE, TOKEN))
    assert [(w.start, w.stop, w.before) for w in windows_of(waveform, 5_000, RATE, TOKEN)] == [
        (w.start, w.stop, w.before) for w in expected
    ]


@pytest.mark.parametrize("spans", [[], [-5.0], [1.0]])
def test_nothing_silence_alone_and_sound_alone(spans: list[float]) -> None:
    windows = windows_of(waveform_of(spans), 3_000)
    assert windows[0].start == 0 and windows[-1].stop == int(RATE * sum(map(abs, spans)))
    assert all(window.is_silent == (spans != [1.0]) for window in windows)


def test_faint_noise_is_no_silence_and_its_runs_cost_little() -> None:
    waveform = (4e-5 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)
    assert not any(window.is_silent for window in windows_of(waveform, 16_000))


def sounding(waveform: np.ndarray) -> np.ndarray:
    """From the first sample that is no silence on: what comes before would be left to the silence in front of it."""
    return waveform[int(np.flatnonzero(np.abs(waveform) > 1e-3)[0]) :]


def test_a_stitched_transcript_is_that_of_its_clips() -> None:
    model = auricle.load("auricle-tiny")
    model.open_speech_below = None  # all that it hears is written down
    clips = [sounding(as_clip(EXAMPLES / name).waveform)[: 2 * RATE] for name in ("voice.ogg", "two_voices.ogg")]
    silence = np.zeros(RATE, np.float32)
    joined = np.concatenate([clips[0], silence, clips[1], silence, clips[0]])
    alone = [model.transcribe(clip).text for clip in clips]
    found = model.transcribe(joined, window_s=2.4)
    assert found.text == " ".join([alone[0], alone[1], alone[0]])
    spoken = [segment for segment in found.segments if segment.text]
    assert [(segment.start_s, segment.stop_s) for segment in spoken] == [(0.0, 2.0), (3.0, 5.0), (6.0, 8.0)]
    assert found.receipt.complete
