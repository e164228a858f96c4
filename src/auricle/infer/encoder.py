"""Sound in, vectors out: the encoder behind the contract that benchmarks and search lean on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.batches import prefetch
from auricle.errors import AudioError, AuricleError, ConfigError
from auricle.infer.receipt import Receipt, write_receipt
from auricle.models.dasheng import HOP_MS, MIN_SAMPLES

if TYPE_CHECKING:
    from auricle.models.dasheng import Dasheng

_BATCH_SECONDS = 120.0  # of audio in one packed batch; more brings no speed and costs memory
_DECODERS = 2  # threads that decode ahead


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the encoder made of one sound."""

    values: Tensor  # float32 on the CPU: (D,) pooled, or (T, D) frames
    receipt: Receipt


class Encoder:
    """A Dasheng encoder for inference: ragged clips, each as if it were alone, without gradients."""

    sampling_rate: int = SAMPLE_RATE  # Hz
    hop_size_in_ms: float = HOP_MS  # 40 ms: 25 frames a second

    def __init__(
        self, model: Dasheng, *, name: str = "", layer: int | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Wrap a network.

        Args:
            model: the network, in evaluation mode.
            name: for reports.
            layer: frames after this block, 0 the first, as they are; None: after the last block, normalised.
            limits: budgets of every sound.

        Raises:
            ConfigError: the network has no such block.
        """
        if layer is not None and not 0 <= layer < model.config.depth:
            raise ConfigError(f"layer is {layer}; this encoder has blocks 0 to {model.config.depth - 1}")
        self.model, self.name, self.layer, self.limits = model, name, layer, limits
        self.output_dim = model.config.embed_dim

    def __call__(self, waveform: Any) -> Tensor:
        """Encode equally long clips.

        Args:
            waveform: (N,) or (B, N) at 16 kHz in [-1, 1], tensor or array; N at least 480.

        Returns:
            Frames (B, T, D) float32 at 25 Hz, on the encoder's device; B is 1 for one clip.

        Raises:
            ClipTooShort: under 480 samples.
            ConfigError: another shape.
        """
        waves = torch.as_tensor(waveform)
        if waves.ndim not in (1, 2) or not len(waves):
            raise ConfigError(f"waveform has shape {tuple(waves.shape)}; expected (N,) or (B, N)")
        if not waves.is_floating_point():
            raise ConfigError(f"waveform holds {waves.dtype}; expected floats in [-1, 1]")
        return torch.stack(self._frames(list(torch.atleast_2d(waves))))

    def encode(self, sources: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Encode ragged clips, each as if it were alone.

        Args:
            sources: anything `auricle.audio.decode.as_clip` takes: paths, bytes, files, waveforms (N_i,) at 16 kHz.

        Returns:
            Frames (B, T, D) float32 on the CPU, zero behind each clip's end; lengths (B,) int64, valid frames.

        Raises:
            AudioError: the first clip that cannot be read.
        """
        frames = [_value(result) for result in self.embed_many(sources, frames=True)]
        lengths = torch.tensor([len(clip) for clip in frames], dtype=torch.int64)
        if not frames:
            return torch.zeros(0, 0, self.output_dim), lengths
        return torch.nn.utils.rnn.pad_sequence(frames, batch_first=True), lengths

    def embed(self, sources: Iterable[Any]) -> Tensor:
        """Embed clips as the mean of their frames; (n, D) float32 on the CPU, arguments and errors as `encode`."""
        pooled = [_value(result) for result in self.embed_many(sources)]
        return torch.stack(pooled) if pooled else torch.zeros(0, self.output_dim)

    def embed_many(self, sources: Iterable[Any], *, frames: bool = False) -> Iterator[Embedding | AuricleError]:
        """Embed many sounds; one that fails yields its error in its place, and the others go on.

        Args:
            sources: as for `encode`; taken as they are needed.
            frames: (T, D) of each sound instead of the mean over them.

        Yields:
            Results in the order of the sources.
        """
        for batch in _batches(prefetch(self._load, sources, depth=2 * _DECODERS, workers=_DECODERS)):
            clips = [clip for clip in batch if isinstance(clip, Clip)]
            encoded = iter(self._frames([_padded(clip) for clip in clips]) if clips else [])
            for clip in batch:
                if isinstance(clip, AuricleError):
                    yield clip
                    continue
                values = next(encoded).cpu()
                window = [(0, len(clip.waveform))]
                receipt = write_receipt(clip, window, subsample_factor=1, min_samples=MIN_SAMPLES)
                yield Embedding(values if frames else values.mean(0), receipt)

    @torch.inference_mode()
    def _frames(self, waveforms: list[Tensor]) -> list[Tensor]:
        device = next(self.model.parameters()).device
        moved = [waveform.to(device, torch.float32) for waveform in waveforms]
        layers = () if self.layer is None else (self.layer,)
        return [clip.float() for clip in self.model.encode_layers(moved, layers)[0]]

    def _load(self, source: Any) -> Clip | AuricleError:
        try:
            return as_clip(source, limits=self.limits)
        except AuricleError as error:
            return error
        except Exception as error:  # one hostile file must not end the work on all others
            return AudioError(f"{source!s:.80}: cannot be read ({type(error).__name__}: {error}); give other audio")


def load_encoder(
    name: str = "auricle-tiny-encoder",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    layer: int | None = None,
) -> Encoder:
    """Load an encoder.

    Args:
        name: embedded name, published name, hub id, folder, or one ``.pt`` or ``.safetensors`` file.
        device: ``cpu``, ``cuda``, …
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: of a hub id: branch, tag or commit.
        layer: see `Encoder`.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights.
    """
    from auricle.weights import load_dasheng

    return Encoder(load_dasheng(name, device=device, dtype=dtype, revision=revision), name=name, layer=layer)


def _batches(clips: Iterable[Clip | AuricleError]) -> Iterator[list[Clip | AuricleError]]:
    """Group clips, errors among them, so that each group holds about `_BATCH_SECONDS` of audio."""
    batch: list[Clip | AuricleError] = []
    seconds = 0.0
    for clip in clips:
        length = len(clip.waveform) / SAMPLE_RATE if isinstance(clip, Clip) else 0.0
        if batch and seconds + length > _BATCH_SECONDS:
            yield batch
            batch, seconds = [], 0.0
        batch.append(clip)
        seconds += length
    if batch:
        yield batch


def _padded(clip: Clip) -> Tensor:
    """A clip (N,), with zeros behind it where it is too short for one token."""
    return F.pad(torch.from_numpy(clip.waveform), (0, max(0, MIN_SAMPLES - len(clip.waveform))))


def _value(result: Embedding | AuricleError) -> Tensor:
    if isinstance(result, AuricleError):
        raise result
    return result.values
