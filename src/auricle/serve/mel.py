"""The log-mel spectrogram of a clip as bytes, for the page: what the models are given."""

from __future__ import annotations

import json
import struct
import zlib
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from auricle.audio.facts import Samples
from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.models.inference import inference

_BLOCK = 6000  # frames at once: a minute
_MARGIN = 2  # frames on both sides of a block, which reach over more than half a window


def mel_bytes(waveform: Samples, *, as_png: bool = False) -> bytes:
    """Values from the least to the largest as 0 to 255.

    Args:
        waveform: (N,) at 16 kHz.
        as_png: a grey picture, the highest band on top; else a line of JSON with the shape and the range in dB, and
            (num_mels, frames) bytes, the lowest band first.
    """
    mel = log_mel(waveform)
    low, high = float(mel.min()), float(mel.max())
    values = ((mel - low) / max(high - low, 1e-6) * 255).round().to(torch.uint8).numpy()
    if as_png:
        return _png(values[::-1])
    header = {
        "num_mels": values.shape[0],
        "frames": values.shape[1],
        "frame_hz": DASHENG_MEL.sample_rate / DASHENG_MEL.hop_length,
        "f_min": DASHENG_MEL.f_min,
        "f_max": DASHENG_MEL.f_max,
        "min_db": round(low, 2),
        "max_db": round(high, 2),
    }
    return json.dumps(header).encode() + b"\n" + values.tobytes()


@inference()
def log_mel(waveform: Samples) -> torch.Tensor:
    """The spectrogram (num_mels, frames) of a clip of any length, in memory for one minute."""
    spec, front_end = DASHENG_MEL, _front_end()
    samples = torch.from_numpy(waveform)
    samples = F.pad(samples, (0, max(0, spec.min_samples - len(samples))))
    count, parts = spec.num_frames(len(samples)), []
    for start in range(0, count, _BLOCK):
        first, stop = max(0, start - _MARGIN), min(count, start + _BLOCK)
        # Frames are centred: the last one of a block reaches half a window beyond its place.
        part = samples[first * spec.hop_length : (stop + _MARGIN) * spec.hop_length]
        if len(part) < spec.min_samples:
            first -= _MARGIN
            part = samples[first * spec.hop_length :]
        parts.append(front_end(part)[0][:, start - first : stop - first])
    mel = torch.cat(parts, dim=1)
    # Each block has the floor of its own loudest moment, which is no higher than that of the clip.
    return torch.maximum(mel, mel.max() - spec.top_db)


@lru_cache(1)
def _front_end() -> LogMel:
    return LogMel(DASHENG_MEL).eval()


def _png(rows: Any) -> bytes:
    """A grey picture of 8 bits. Source: W3C "Portable Network Graphics"."""
    height, width = rows.shape
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 6)) + chunk(b"IEND", b"")
