"""Any channel layout → mono: the mean, or the loudest channel where the channels cancel each other."""

from __future__ import annotations

import numpy as np

from auricle.audio.facts import SILENCE, Samples

_CANCELLED = 0.01  # power of the sum over the sum of powers: 1 for unlike channels; -20 dB is left of their audio


class DownMix:
    """The mean over channels, decided second by second, so that it does not depend on how a source is cut in blocks."""

    def __init__(self) -> None:
        """Start with no samples."""
        self._held: list[Samples] = []  # of a second that is not complete
        self._num_held = 0
        self.cancelled_s = 0.0  # seconds in which the channels cancelled each other

    def add(self, block: Samples, sample_rate: int) -> Samples:
        """Mix what is complete with a block (frames, channels) to (frames,), possibly none."""
        if block.shape[1] == 1 or (self._held and self._held[0].shape[1] != block.shape[1]):
            before = self.rest(sample_rate)
            if block.shape[1] > 1:
                return np.concatenate([before, self.add(block, sample_rate)])
            return np.concatenate([before, block[:, 0]]) if len(before) else block[:, 0]
        self._held.append(block)
        self._num_held += len(block)
        whole = self._num_held - self._num_held % sample_rate
        if not whole:
            return np.empty(0, np.float32)
        joined = self._joined()
        self._held, self._num_held = [joined[whole:]], len(joined) - whole
        seconds = (joined[at : at + sample_rate] for at in range(0, whole, sample_rate))
        return np.concatenate([self._mix(second, sample_rate) for second in seconds])

    def rest(self, sample_rate: int) -> Samples:
        """Mix what is left, less than a second."""
        held = self._joined() if self._num_held else None
        self._held, self._num_held = [], 0
        return np.empty(0, np.float32) if held is None else self._mix(held, sample_rate)

    def _joined(self) -> Samples:
        return self._held[0] if len(self._held) == 1 else np.concatenate(self._held)

    def _mix(self, samples: Samples, sample_rate: int) -> Samples:
        channels = samples.shape[1]
        mono = samples[:, 0] + samples[:, 1]
        for channel in range(2, channels):
            mono += samples[:, channel]
        powers = np.einsum("tc,tc->c", samples, samples)
        mono_peak = max(float(mono.max()), -float(mono.min())) / channels
        is_cancelled = float(mono @ mono) < _CANCELLED * float(powers.sum()) or mono_peak <= SILENCE
        if is_cancelled:
            loudest: Samples = samples[:, int(powers.argmax())]
            if max(float(loudest.max()), -float(loudest.min())) > SILENCE:
                self.cancelled_s += len(samples) / sample_rate
                return loudest
        mono /= channels
        return mono
