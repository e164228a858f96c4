"""Mono at any rate → mono at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from auricle.audio.facts import Samples

SAMPLE_RATE = 16_000  # Hz; of Dasheng and everything built on it
QUALITY = "HQ"  # 20 bit: aliases below -140 dB, -0.01 dB at 7 kHz


def resample(waveform: Samples, sample_rate: int) -> Samples:
    """Resample a whole mono waveform (num_samples,) from ``sample_rate`` Hz to 16 kHz with soxr HQ."""
    if sample_rate == SAMPLE_RATE:
        return waveform
    resampled: Samples = soxr.resample(waveform, sample_rate, SAMPLE_RATE, quality=QUALITY)
    return resampled


def resample_blocks(blocks: Iterator[Samples], sample_rate: int) -> Iterator[Samples]:
    """Resample consecutive mono blocks of one waveform; concatenated they equal `resample` of the whole."""
    first = next(blocks, None)
    if first is None:
        return
    second = next(blocks, None)
    if second is None or sample_rate == SAMPLE_RATE:
        yield resample(first, sample_rate)
        if second is not None:
            yield second
            yield from blocks
        return
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality=QUALITY)
    yield resampler.resample_chunk(first)
    yield resampler.resample_chunk(second)
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
