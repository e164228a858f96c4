"""Sounds made on the spot: no audio file is stored with the tests."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Make (frames,) or (frames, channels) float32: a tone that differs per channel, under a little noise."""

    def make(duration_s: float = 2.0, rate: int = 44_100, channels: int = 1, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        at = np.arange(round(duration_s * rate)) / rate
        parts = [0.4 * np.sin(2 * np.pi * (300 + 90 * channel) * at) for channel in range(channels)]
        waveform = np.stack(parts, axis=1) + 0.05 * rng.standard_normal((at.size, channels))
        return waveform.astype(np.float32)[:, 0] if channels == 1 else waveform.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encode with libsndfile."""

    def run(waveform: np.ndarray, rate: int = 44_100, fmt: str = "WAV", subtype: str | None = None) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, rate, format=fmt, subtype=subtype)
        return buffer.getvalue()

    return run


@pytest.fixture(scope="session")
def encode_av() -> Encode:
    """Encode mono with FFmpeg."""
    av = pytest.importorskip("av", reason="PyAV (extra media) is not installed")

    def run(waveform: np.ndarray, rate: int, muxer: str, codec: str) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=muxer) as output:
            stream = output.add_stream(codec, rate=rate)
            stream.layout = "mono"
            fifo = av.AudioFifo()
            data, kind = waveform[None].astype(np.float32), "fltp"
            if codec == "pcm_s16le":
                data, kind = (data * 32767).astype(np.int16), "s16"
            frame = av.AudioFrame.from_ndarray(data, format=kind, layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            stream.codec_context.open()
            fifo.write(frame)
            for part in fifo.read_many(stream.codec_context.frame_size or 1024, partial=True):
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        return buffer.getvalue()

    return run
