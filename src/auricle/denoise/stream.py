"""Enhancement of audio that arrives piece by piece: any rate, any channels, output aligned with the input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import soxr
import torch

from auricle.audio.facts import Samples
from auricle.audio.resample import QUALITY, SAMPLE_RATE
from auricle.denoise.chunks import WINDOW_TOKENS, CleanFrames, Network, Vocoding
from auricle.denoise.guard import Guard
from auricle.denoise.loudness import BLOCK, Loudness
from auricle.errors import ConfigError, check_number
from auricle.models.dasheng import SAMPLES_PER_TOKEN

_RESAMPLING = 1200  # samples of the slower rate: delay of both resamplers together, at most


class Fifo:
    """Samples (C, …) that wait in order."""

    def __init__(self, channels: int) -> None:
        """Start empty."""
        self._empty = np.zeros((channels, 0), np.float32)
        self._parts: list[Samples] = []
        self.count = 0

    def add(self, samples: Samples) -> None:
        """Append samples (C, N)."""
        self._parts.append(samples)
        self.count += samples.shape[1]

    def take(self, count: int) -> Samples:
        """The first ``count`` samples (C, count), or all where there are fewer."""
        joined = np.concatenate([self._empty, *self._parts], axis=1)
        self._parts = [joined[:, count:].copy()] if count < joined.shape[1] else []
        self.count = max(0, self.count - count)
        taken: Samples = joined[:, :count]
        return taken


class Resampling:
    """Blocks (C, N) from one rate to another, joined as if resampled at once; soxr, the quality of all decoding."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        """Rates in Hz."""
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality=QUALITY)

    def add(self, samples: Samples, *, last: bool = False) -> Samples:
        """(C, N) → (C, M); ``last``: nothing follows."""
        if self._stream is None:
            return samples
        made = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last)
        turned: Samples = made.reshape(-1, len(samples)).T
        return turned


class DenoiseStream:
    """Enhances one recording, or a live signal, as it arrives; see `SpeechDenoiser.stream`.

    The output has the rate and the channels of the input, and each sample is in the place of its input sample. It comes
    `latency_s` later at most; `finish` gives the rest. How the input is cut into pieces changes nothing.
    """

    def __init__(
        self,
        network: Network,
        context_tokens: int,
        sample_rate: int,
        channels: int = 1,
        *,
        strength: float = 1.0,
        window_s: float = WINDOW_TOKENS * SAMPLES_PER_TOKEN / SAMPLE_RATE,
        device: torch.device | str = "cpu",
    ) -> None:
        """Start before the first sample.

        Args:
            network: in evaluation mode, on ``device``.
            context_tokens: of its vocoder, see `auricle.models.denoiser.DenoiserConfig`.
            sample_rate: of input and output, Hz.
            channels: of input and output; each is enhanced by itself.
            strength: share of the enhanced signal, 0 to 1; the rest is input.
            window_s: what the encoder sees at once, 0.32 to 10.08 s. Shorter windows have less latency and context.
            device: that the network is on.

        Raises:
            ConfigError: a setting out of range.
        """
        check_number("strength", strength, least=0, most=1)
        check_number("window_s", window_s, least=0.32, most=10.08)
        if sample_rate < 1 or channels < 1:
            raise ConfigError(f"{channels} channels at {sample_rate} Hz; expected at least one of both")
        self.sample_rate, self.channels, self.strength = sample_rate, channels, strength
        self.num_read = self.num_written = 0  # samples of a channel, at `sample_rate`
        self.guard = Guard()
        tokens = round(window_s * SAMPLE_RATE / SAMPLES_PER_TOKEN)
        self._frames = CleanFrames(network, torch.device(device), tokens)
        self._vocoding = Vocoding(network, context_tokens)
        self._loudness = Loudness()
        self._down = Resampling(sample_rate, SAMPLE_RATE, channels)
        self._up = Resampling(SAMPLE_RATE, sample_rate, channels)
        self._input, self._output = Fifo(channels), Fifo(channels)  # at `sample_rate`
        self._dry, self._wet = Fifo(channels), Fifo(channels)  # at 16 kHz
        self._num_dry = 0
        self._latency_tokens = tokens + context_tokens
        self._is_finished = False

    @property
    def latency_s(self) -> float:
        """The longest time from a sample's arrival to its output, without the time that computing takes, s.

        A window, the context of the vocoder, a second over which loudness is compared, and the resamplers.
        """
        resampling = 0.0 if self.sample_rate == SAMPLE_RATE else _RESAMPLING / min(self.sample_rate, SAMPLE_RATE)
        return self._latency_tokens * SAMPLES_PER_TOKEN / SAMPLE_RATE + BLOCK / SAMPLE_RATE + resampling

    @property
    def windows(self) -> list[tuple[int, int]]:
        """First and behind the last sample, at 16 kHz, of each window so far; neighbours overlap."""
        return [(start * SAMPLES_PER_TOKEN, stop * SAMPLES_PER_TOKEN) for start, stop in self._frames.spans]

    @property
    def gain(self) -> float:
        """What the enhanced signal was multiplied by last, to keep the loudness of the speech."""
        return self._loudness.gain

    def add(self, samples: Samples) -> Samples:
        """The next input samples (N, C) float32 → output samples (M, C) that are certain now, M ≥ 0.

        Raises:
            ConfigError: another number of channels, or the stream is finished.
        """
        if self._is_finished:
            raise ConfigError("the stream is finished; start a new one")
        if samples.ndim != 2 or samples.shape[1] != self.channels:
            raise ConfigError(f"samples have shape {samples.shape}; expected (num_samples, {self.channels})")
        rows = np.ascontiguousarray(samples.T, np.float32)
        self.num_read += rows.shape[1]
        self._input.add(rows)
        self._enhance(self._down.add(rows))
        return self._mixed(self._output.count)

    def finish(self) -> Samples:
        """The rest of the output (M, C): all output together is as long as all input.

        Raises:
            ConfigError: the stream is finished.
        """
        if self._is_finished:
            raise ConfigError("the stream is finished; start a new one")
        self._is_finished = True
        self._enhance(self._down.add(np.zeros((self.channels, 0), np.float32), last=True))
        # Whole tokens, and at least as long as the input is at its own rate.
        tokens = math.ceil(self.num_read * SAMPLE_RATE / (self.sample_rate * SAMPLES_PER_TOKEN))
        missing = max(0, tokens * SAMPLES_PER_TOKEN - self._num_dry)
        self._enhance(np.zeros((self.channels, missing), np.float32))
        for frames in self._frames.finish():
            self._add_wet(self._vocoding.add(frames))
        self._add_wet(self._vocoding.finish())
        self._level(self._wet.count)
        # A resampler may end a sample early; zeros behind the end push it out.
        self._output.add(self._up.add(np.zeros((self.channels, SAMPLES_PER_TOKEN), np.float32), last=True))
        return self._mixed(self.num_read - self.num_written)

    def _enhance(self, dry: Samples) -> None:
        """Samples at 16 kHz (C, N) into all stages."""
        if not dry.shape[1]:
            return
        self._num_dry += dry.shape[1]
        self._dry.add(dry)
        for frames in self._frames.add(dry):
            self._add_wet(self._vocoding.add(frames))
        self._level(self._wet.count // BLOCK * BLOCK)

    def _add_wet(self, wet: Samples | None) -> None:
        if wet is not None:
            self._wet.add(wet)

    def _level(self, count: int) -> None:
        """The first ``count`` enhanced samples, set to the level of the input, into the output, a second at a time."""
        for size in _steps(count):
            dry, wet = self._dry.take(size), self._wet.take(size)
            dry = np.pad(dry, ((0, 0), (0, size - dry.shape[1])))  # the last token reaches behind the end
            levelled = self._loudness.apply(dry, wet)
            self.guard.compare(dry, levelled)
            self._output.add(self._up.add(levelled))

    def _mixed(self, count: int) -> Samples:
        """The next output samples (M, C), at most ``count``, mixed with their input."""
        count = min(count, self.num_read - self.num_written)
        wet, dry = self._output.take(count), self._input.take(count)
        self.num_written += count
        mixed = wet if self.strength == 1.0 else self.strength * wet + (1 - self.strength) * dry
        return np.ascontiguousarray(mixed.T, np.float32)


def _steps(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, BLOCK)
        count -= BLOCK
