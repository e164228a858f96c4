"""A 16 kHz waveform of any length → clean frames → waveform, piece by piece, in constant memory.

Where pieces are cut does not show in the result:

* Encoder and denoise encoder see windows whose places depend on the waveform's start alone. Neighbours overlap, and
  their clean *frames* are cross-faded there. Two waveforms with invented phases would cancel each other; frames do not.
* The vocoder is convolutional: a sample depends on `DenoiserConfig.context_tokens` tokens at either side and no others.
  Pieces are made with that context, which is then cut off, so that they join to what one pass over all frames gives.

Shape legend: C channels, N samples, T tokens of 640 samples (40 ms), D width.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from auricle.audio.facts import Samples
from auricle.errors import ConfigError
from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.models.inference import inference

WINDOW_TOKENS = 252  # 10.08 s: what the encoder sees at once, and was trained on
OVERLAP_TOKENS = 25  # 1 s; of shorter windows at most a quarter


class Network(Protocol):
    """The parts of `auricle.models.denoiser.Denoiser` that are used here."""

    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (N_i,) → noisy frames (T_i, D)."""

    def denoise_frames(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Noisy frames (T_i, D) → clean frames (T_i, D)."""

    def vocode(self, frames: Tensor) -> Tensor:
        """Clean frames (C, T, D) → waveforms (C, 640 · T)."""


class CleanFrames:
    """Samples in any pieces → clean frames, by overlapping windows."""

    def __init__(self, network: Network, device: torch.device, window_tokens: int = WINDOW_TOKENS) -> None:
        """Start before the first sample.

        Raises:
            ConfigError: ``window_tokens`` is under 8 or over `WINDOW_TOKENS`.
        """
        if not 8 <= window_tokens <= WINDOW_TOKENS:
            raise ConfigError(f"a window has {window_tokens} tokens of 40 ms, expected 8 to {WINDOW_TOKENS}")
        self._network, self._device = network, device
        self.window, self.overlap = window_tokens, min(OVERLAP_TOKENS, window_tokens // 4)
        self.spans: list[tuple[int, int]] = []  # tokens of the windows so far
        self._held: list[Samples] = []  # from the start of the next window on
        self._num_held = 0
        self._start = 0  # token at which the next window starts
        self._last: Tensor | None = None  # end of the last window, which the next one is faded with

    def add(self, samples: Samples) -> list[Tensor]:
        """Samples (C, N) → the frames (C, T, D) that are certain now, in pieces."""
        self._held.append(samples)
        self._num_held += samples.shape[1]
        whole = self.window * SAMPLES_PER_TOKEN
        found: list[Tensor] = []
        while self._num_held >= whole:
            held = np.concatenate(self._held, axis=1)
            found.append(self._fade(self._clean(held[:, :whole]), is_last=False))
            hop = self.window - self.overlap
            held = held[:, hop * SAMPLES_PER_TOKEN :].copy()
            self._held, self._num_held, self._start = [held], held.shape[1], self._start + hop
        return found

    def finish(self) -> list[Tensor]:
        """The rest of the frames; an end of less than a token is filled with zeros."""
        missing = -self._num_held % SAMPLES_PER_TOKEN
        tokens = (self._num_held + missing) // SAMPLES_PER_TOKEN
        if self._last is not None and tokens <= self.overlap:  # the last window reached the end
            return [self._last]
        if not tokens:
            return []
        held = np.pad(np.concatenate(self._held, axis=1), ((0, 0), (0, missing)))
        return [self._fade(self._clean(held), is_last=True)]

    def _clean(self, samples: Samples) -> Tensor:
        """A window (C, N) → clean frames (C, T, D); equal channels are computed once."""
        self.spans.append((self._start, self._start + samples.shape[1] // SAMPLES_PER_TOKEN))
        channels = len(samples)
        if channels > 1 and (samples[1:] == samples[:1]).all():
            samples = samples[:1]
        with inference():
            noisy = self._network.encode([torch.from_numpy(row.copy()).to(self._device) for row in samples])
            clean = torch.stack(self._network.denoise_frames(noisy))
        return clean.expand(channels, -1, -1)

    def _fade(self, frames: Tensor, *, is_last: bool) -> Tensor:
        """Frames of a window, its start faded with the end of the last one, and its own end kept back."""
        if self._last is not None:
            share = torch.arange(1, self.overlap + 1, device=frames.device, dtype=frames.dtype) / (self.overlap + 1)
            mixed = torch.lerp(self._last, frames[:, : self.overlap], share[None, :, None])
            frames = torch.cat([mixed, frames[:, self.overlap :]], dim=1)
        if is_last:
            return frames
        self._last = frames[:, self.window - self.overlap :]
        return frames[:, : self.window - self.overlap]


class Vocoding:
    """Clean frames in any pieces → waveform, equal to that of all frames at once."""

    def __init__(self, network: Network, context_tokens: int) -> None:
        """``context_tokens``: at either side of a piece."""
        self._network, self._context = network, context_tokens
        self._held: Tensor | None = None  # frames from the context of the next piece on
        self._before = 0  # of them, those that were vocoded: 0 at the start, then `context_tokens`

    def add(self, frames: Tensor) -> Samples | None:
        """Frames (C, T, D) → the samples (C, N) that are certain now, if any."""
        self._held = frames if self._held is None else torch.cat([self._held, frames], dim=1)
        return self._vocode(self._held.shape[1] - self._context)

    def finish(self) -> Samples | None:
        """The rest of the samples."""
        return None if self._held is None else self._vocode(self._held.shape[1])

    def _vocode(self, stop: int) -> Samples | None:
        """The held frames up to ``stop`` that were not vocoded yet."""
        if self._held is None or stop <= self._before:
            return None
        with inference():
            waveform = self._network.vocode(self._held)[:, self._before * SAMPLES_PER_TOKEN : stop * SAMPLES_PER_TOKEN]
        keep_from = max(0, stop - self._context)
        self._held, self._before = self._held[:, keep_from:].clone(), stop - keep_from
        samples: Samples = waveform.float().cpu().numpy()
        return samples
