"""Waveforms in memory, read through the interface of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.audio.facts import Block, Samples
from auricle.errors import BrokenAudio, UnsupportedFormat


class ArrayReader:
    """A numpy array or torch tensor: (num_samples,), or 2-D with the channels on the shorter axis."""

    container = "array"
    truncated = False
    damaged = slack = 0

    def __init__(self, waveform: Any, sample_rate: int) -> None:
        """Copy ``waveform``, sampled at ``sample_rate`` Hz, as float32."""
        array = _to_numpy(waveform)
        if array.ndim not in (1, 2):
            raise UnsupportedFormat(
                f"<array>: has shape {array.shape}; expected (num_samples,) or (channels, num_samples). Give one clip"
            )
        if not array.size:
            raise BrokenAudio(f"<array>: has shape {array.shape} and no samples; expected at least one")
        if array.ndim == 2 and array.shape[0] < array.shape[1]:
            array = array.T
        self.codec = str(array.dtype)
        self.notes: list[str] = []
        self._samples = _to_float(array.reshape(len(array), -1))
        self.sample_rate = sample_rate
        self.frames: int | None = len(array)
        self.channels = self._samples.shape[1]

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield the samples from ``start`` to ``stop`` as one block."""
        if len(self._samples[start:stop]):
            yield Block(self.sample_rate, self._samples[start:stop])

    def close(self) -> None:
        """Do nothing: there is no decoder."""


def _to_numpy(waveform: Any) -> npt.NDArray[Any]:
    if hasattr(waveform, "detach"):
        waveform = waveform.detach().cpu()
        if waveform.is_floating_point():
            waveform = waveform.float()  # numpy has no bfloat16
    if np.ma.isMaskedArray(waveform) and np.ma.getmaskarray(waveform).any():
        count = int(np.ma.getmaskarray(waveform).sum())
        raise UnsupportedFormat(
            f"<array>: {count:,} samples are masked; expected audio throughout. Fill them, or cut them out"
        )
    try:
        return np.asarray(waveform)
    except (ValueError, TypeError) as error:
        raise UnsupportedFormat(f"<array>: is no array of numbers ({error}); expected (num_samples,)") from None


def _to_float(array: npt.NDArray[Any]) -> Samples:
    """A copy as float32, full scale 1."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which is counted and removed
            return array.astype(np.float32, order="C")
    if array.dtype.kind not in "iu":
        raise UnsupportedFormat(f"<array>: holds {array.dtype}; expected floats in [-1, 1] or integer PCM")
    info = np.iinfo(array.dtype)
    middle, scale = (0, -float(info.min)) if info.min < 0 else ((info.max + 1) // 2, (info.max + 1) / 2)
    return ((array.astype(np.float64) - middle) / scale).astype(np.float32)
