"""A loaded denoiser: files, arrays and streams in, enhanced audio of the same rate, channels and length out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from auricle.audio.decode import open_channels
from auricle.audio.facts import Samples
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.reading import Reading
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, find_waveform
from auricle.denoise.chunks import WINDOW_TOKENS
from auricle.denoise.stream import DenoiseStream
from auricle.denoise.writing import open_writer
from auricle.encode.receipt import Receipt, write_receipt
from auricle.errors import ConfigError, OutputError
from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.models.denoiser import Denoiser
from auricle.weights.denoiser import DEFAULT
from auricle.weights.denoiser import load_denoiser as load_weights

WINDOW_S = WINDOW_TOKENS * SAMPLES_PER_TOKEN / SAMPLE_RATE
_PIECE_S = 5.0  # read and written at once

OnProgress = Callable[[float], None]  # seconds of the source that are done


@dataclass(frozen=True, kw_only=True, slots=True)
class Denoised:
    """Enhanced audio in memory."""

    waveform: Samples  # (num_samples,), or (num_samples, channels); of an array in its own shape
    residual: Samples  # input less output, in the same shape: noise, and the difference of the phases
    sample_rate: int  # Hz, of the input
    receipt: Receipt
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisedFile:
    """An enhanced file that was written."""

    output: Path
    residual: Path | None  # file of input less output
    receipt: Receipt


class Sink(Protocol):
    """What takes blocks (N, C)."""

    def write(self, samples: Samples) -> None:
        """Take the next block."""


class _Kept:
    """Blocks in memory."""

    def __init__(self) -> None:
        self.blocks: list[Samples] = []

    def write(self, samples: Samples) -> None:
        self.blocks.append(samples)


class SpeechDenoiser:
    """Enhances speech. Made by `load_denoiser`; one instance serves several threads."""

    def __init__(
        self, network: Denoiser, name: str, identity: dict[str, str | None], limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Take a network in evaluation mode, and the identity that results state."""
        self.network, self.name, self.identity, self.limits = network, name, identity, limits

    def denoise(self, source: AudioSource, *, strength: float = 1.0) -> Denoised:
        """Enhance one clip in memory.

        Args:
            source: path, bytes, file object, or a waveform, as for `auricle.decode`; an array alone is at 16 kHz.
            strength: share of the enhanced signal, 0 to 1; the rest is input.

        Returns:
            Audio of the input's rate, channels and length, at the loudness of its speech.

        Raises:
            AudioError: the source cannot be read.
            ConfigError: ``strength`` is out of range.
        """
        output, residual = _Kept(), _Kept()
        with open_channels(source, limits=self.limits) as reading:
            rate, _ = reading.layout
            receipt = self._run(reading, output, residual, strength, None)
        held = find_waveform(source)
        shape = () if held is None else np.shape(held[0])
        waveform, rest = (_shaped(np.concatenate(kept.blocks), shape) for kept in (output, residual))
        return Denoised(waveform=waveform, residual=rest, sample_rate=rate, receipt=receipt, model=self.name)

    def denoise_file(
        self,
        source: AudioSource,
        output: str | Path,
        *,
        strength: float = 1.0,
        residual: str | Path | None = None,
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> DenoisedFile:
        """Enhance a source of any length into a file, in constant memory.

        Args:
            source: as for `denoise`.
            output: its suffix decides the format: .wav, .flac, .ogg, .opus, .mp3, .aiff, .caf, .w64. The depth of the
                samples is that of the source, where the format has it.
            strength: share of the enhanced signal, 0 to 1; the rest is input.
            residual: file for input less output.
            force: replace files that exist.
            on_progress: called with the seconds of the source that are done.

        Raises:
            AudioError: the source cannot be read.
            ConfigError: ``strength`` is out of range, or the format cannot hold the audio.
            OutputError: a file exists, or cannot be written; there is then no new file, and no part of one.
        """
        output, residual = Path(output), None if residual is None else Path(residual)
        targets = [output] if residual is None else [output, residual]
        check_targets(targets, force=force)
        with open_channels(source, limits=self.limits) as reading, ExitStack() as stack:
            sinks = [stack.enter_context(open_writer(path, reading.facts())) for path in targets]
            rest = sinks[1] if residual is not None else None
            receipt = self._run(reading, sinks[0], rest, strength, on_progress)
        cut = sum(sink.num_cut for sink in sinks)
        if cut:
            receipt = _warned(receipt, [f"{cut:,} samples of the output exceeded full scale and were cut to it"])
        return DenoisedFile(output=output, residual=residual, receipt=receipt)

    def stream(
        self, sample_rate: int, channels: int = 1, *, strength: float = 1.0, window_s: float = WINDOW_S
    ) -> DenoiseStream:
        """Start the enhancement of a live signal.

        Args:
            sample_rate: of input and output, Hz.
            channels: of input and output.
            strength: share of the enhanced signal, 0 to 1; the rest is input.
            window_s: what the model sees at once, 0.32 to 10.08 s; the latency is about two seconds more.

        Raises:
            ConfigError: a setting out of range.
        """
        device = next(self.network.parameters()).device
        context = self.network.config.context_tokens
        return DenoiseStream(
            self.network, context, sample_rate, channels, strength=strength, window_s=window_s, device=device
        )

    def _run(
        self, reading: Reading, output: Sink, residual: Sink | None, strength: float, on_progress: OnProgress | None
    ) -> Receipt:
        rate, channels = reading.layout
        stream = self.stream(rate, channels, strength=strength)
        waiting = _Waiting(residual is not None)
        for piece in _pieces(reading.channel_blocks(), max(1, round(_PIECE_S * rate))):
            waiting.add(piece)
            waiting.pass_on(stream.add(piece), output, residual)
            if on_progress is not None:
                on_progress(stream.num_written / rate)
        waiting.pass_on(stream.finish(), output, residual)
        if on_progress is not None:
            on_progress(stream.num_written / rate)
        return _receipt(reading, stream)


class _Waiting:
    """Input that waits for its output, to give the residual."""

    def __init__(self, is_needed: bool) -> None:
        self._is_needed = is_needed
        self._held: list[Samples] = []

    def add(self, samples: Samples) -> None:
        if self._is_needed:
            self._held.append(samples)

    def pass_on(self, samples: Samples, output: Sink, residual: Sink | None) -> None:
        output.write(samples)
        if residual is not None:
            joined = np.concatenate(self._held) if self._held else samples[:0]
            residual.write(joined[: len(samples)] - samples)
            self._held = [joined[len(samples) :].copy()]


def load_denoiser(
    name: str | Path = DEFAULT, *, device: str = "auto", dtype: str = "float32", limits: Limits = DEFAULT_LIMITS
) -> SpeechDenoiser:
    """Load a denoiser.

    Args:
        name: embedded name, hub id, a folder of training or of `auricle convert`, or the official checkpoint.
        device: ``cpu``, ``cuda``, …, or ``auto``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        limits: of each source.

    Raises:
        WeightsError: it cannot be found, trusted or fitted, or is no denoiser.
        ConfigError: unknown device or dtype.
    """
    loaded = load_weights(name, device=device, dtype=dtype)
    return SpeechDenoiser(loaded.model, str(name), loaded.identity, limits)


def check_targets(targets: list[Path], *, force: bool) -> None:
    """Refuse files that exist, or are named twice.

    Raises:
        OutputError: one does, and ``force`` is not given.
        ConfigError: two of them are the same.
    """
    if len({path.absolute() for path in targets}) < len(targets):
        raise ConfigError(f"{targets[0]}: is named for the output and for the residual; name two files")
    for path in targets:
        if not force and (path.exists() or path.is_symlink()):
            raise OutputError(f"{path}: exists and is not overwritten; name another file, or force it (--force)")


def _pieces(blocks: Iterator[Samples], size: int) -> Iterator[Samples]:
    for block in blocks:
        for at in range(0, len(block), size):
            yield block[at : at + size]


def _receipt(reading: Reading, stream: DenoiseStream) -> Receipt:
    """What was read, in windows, and the warnings."""
    count = -(-stream.num_read * SAMPLE_RATE // stream.sample_rate)
    given = stream.windows
    starts = [start for start, _ in given]
    windows = list(zip(starts, [*starts[1:], count], strict=True))
    receipt = write_receipt(
        reading.facts(), count, windows, given=given, subsample_factor=1, min_samples=SAMPLES_PER_TOKEN
    )
    padded = max(0, given[-1][1] - count) / SAMPLE_RATE
    notes = []
    if stream.sample_rate > SAMPLE_RATE and stream.strength > 0:
        notes.append(f"enhanced at {SAMPLE_RATE:,} Hz: the enhanced part has nothing above {SAMPLE_RATE // 2:,} Hz")
    receipt = replace(receipt, padded_s=round(padded, 4), notes=(*receipt.notes, *notes))
    return _warned(receipt, stream.guard.warnings())


def _warned(receipt: Receipt, warnings: list[str]) -> Receipt:
    return replace(receipt, notes=(*receipt.notes, *warnings), warnings=(*receipt.warnings, *warnings))


def _shaped(samples: Samples, shape: tuple[int, ...]) -> Samples:
    """Samples (N, C) in the shape of the input array; (N,) where there is one channel and no array."""
    if len(shape) == 2:
        return samples if shape[0] == len(samples) and shape[0] >= shape[1] else np.ascontiguousarray(samples.T)
    return samples[:, 0] if samples.shape[1] == 1 else samples
