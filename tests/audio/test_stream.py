"""Long sources block by block."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.decode import decode, stream
from auricle.audio.limits import Limits
from auricle.errors import ConfigError, LimitExceeded


@pytest.mark.parametrize(("fmt", "subtype", "rate"), [
    ("WAV", "PCM_16", 44_100), ("FLAC", "PCM_16", 96_000), ("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000),
    ("MP3", None, 44_100), ("WAV", "PCM_16", 16_000),
])  # fmt: skip
def test_joined_blocks_equal_decode(tone, encode, fmt, subtype, rate, monkeypatch):
    monkeypatch.setattr("auricle.audio.facts._BLOCK_SAMPLES", 20_000)
    data = encode(tone(5.0, rate, channels=2), rate, fmt, subtype)
    whole = decode(data)
    monkeypatch.undo()
    once = decode(data)
    blocks = stream(data, block_s=0.7)
    parts = list(blocks)
    assert [len(part) for part in parts[:-1]] == [11_200] * 7
    np.testing.assert_allclose(np.concatenate(parts), once.waveform, atol=1e-6)
    np.testing.assert_allclose(whole.waveform, once.waveform, atol=1e-6)
    assert blocks.facts == once.facts == whole.facts


@settings(max_examples=25)
@given(
    rate=st.integers(4000, 50_000),
    seconds=st.floats(0.05, 3.0),
    block_s=st.floats(0.01, 4.0),
    start_share=st.floats(0, 0.9),
    read=st.integers(500, 60_000),
)
def test_stream_equals_decode_at_any_rate(tone, encode, rate, seconds, block_s, start_share, read):
    data = encode(tone(seconds, rate), rate, "WAV", "FLOAT")
    start_s = start_share * seconds * 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auricle.audio.facts._BLOCK_SAMPLES", read)
        joined = np.concatenate(list(stream(data, block_s=block_s, start_s=start_s)))
    np.testing.assert_allclose(joined, decode(data, start_s=start_s).waveform, atol=1e-6)


def test_an_hour_takes_constant_memory(tmp_path):
    path = tmp_path / "hour.flac"
    minute = (0.1 * np.sin(np.arange(60 * 8000) / 7)).astype(np.float32)
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    with stream(path, block_s=30) as blocks:
        num_samples = sum(len(block) for block in blocks)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_samples == 3600 * 16_000  # 230 MB as float32
    assert peak < 30e6
    assert blocks.facts.stop_s == 3600


def test_limits_hold_while_streaming(tone, encode):
    with pytest.raises(LimitExceeded, match="limit"):
        list(stream(encode(tone(3.0)), limits=Limits(max_seconds=2)))


def test_closing_early_closes_the_file(tone, encode, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(tone(3.0)))
    blocks = stream(path, block_s=1)
    next(blocks)
    blocks.close()
    assert list(blocks) == []
    given_file = io.BytesIO(path.read_bytes())
    list(stream(given_file))
    assert not given_file.closed


@pytest.mark.parametrize("block_s", [0, -1, 1e-6])
def test_blocks_have_a_length(tone, encode, block_s):
    with pytest.raises(ConfigError, match="block_s"):
        stream(encode(tone()), block_s=block_s)
