"""The level of enhanced speech is made that of the speech in the input, by one gain that settles within seconds."""

import numpy as np

from auricle.audio.facts import Samples

BLOCK = 16_000  # samples, 1 s: the gain changes linearly within each
_FRAME = 500  # samples of a spectrum, 31 ms, 32 of them in a block
_LOUD = 1e-2  # of the power of the loudest cell so far: cells within 20 dB of it are taken for speech
_MOST = 16.0  # cells that differ by more than 12 dB are noise that was removed, and say nothing of speech


class Loudness:
    """Compares spectra of input and output where the output is loud, and gives the gain that makes them equal.

    Cells in which the output is loud hold speech, and little noise beside it, so that the power of the input there is
    that of the speech; what was removed has no part in it. The gain is common to all channels and is that of all blocks
    so far, so that it does not pump.
    """

    def __init__(self) -> None:
        """Start without evidence, at a gain of 1."""
        self.gain = 1.0
        self._dry = self._wet = self._loudest = 0.0
        self._window = np.hanning(_FRAME).astype(np.float32)

    def apply(self, dry: Samples, wet: Samples) -> Samples:
        """A block of input and output (C, N), N up to `BLOCK` → the output at the level of the input."""
        before = self.gain
        if wet.shape[1] >= _FRAME:
            self._compare(self._power(dry), self._power(wet))
        ramp = np.linspace(before, self.gain, wet.shape[1], endpoint=False, dtype=np.float32)
        scaled: Samples = wet * ramp
        return scaled

    def _power(self, samples: Samples) -> Samples:
        """(C, N) → power of each cell (C, frames, bins)."""
        count = samples.shape[1] // _FRAME
        frames = samples[:, : count * _FRAME].reshape(len(samples), count, _FRAME)
        spectrum = np.fft.rfft(frames * self._window)
        power: Samples = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        return power

    def _compare(self, dry: Samples, wet: Samples) -> None:
        self._loudest = max(self._loudest, float(wet.max()))
        cells = (wet > _LOUD * self._loudest) & (dry < _MOST * wet) & (wet < _MOST * dry)
        self._dry += float(dry[cells].sum(dtype=np.float64))
        self._wet += float(wet[cells].sum(dtype=np.float64))
        if self._wet > 0:
            self.gain = float(np.sqrt(self._dry / self._wet))
