"""Audio in, vectors out: the encoder with the contract that benchmarks and search rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip, Facts
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import check_several
from auricle.data.batches import grouped, prefetch
from auricle.encode.clips import BATCH_SECONDS, LongClip, clip_seconds, encode_long, read_clip
from auricle.encode.receipt import Receipt, Span, write_receipt
from auricle.errors import AudioError, AuricleError, ClipTooShort, ConfigError, WeightsError
from auricle.models.frame_model import NOT_FINITE, DashengFrames, FrameModel, check_finite, content_hash
from auricle.models.glap import MelChunk
from auricle.models.inference import inference

T = TypeVar("T")

_DECODERS = 2  # threads that decode ahead


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding of one clip."""

    values: Tensor  # float32 on the CPU: (D,) pooled, or (T, D) frames
    receipt: Receipt


def finite(embedding: Embedding) -> Embedding | WeightsError:
    """The embedding, or an error where the model gave values that are not finite."""
    return embedding if torch.isfinite(embedding.values).all() else WeightsError(NOT_FINITE)


class Encoder:
    """Any encoder for inference: ragged clips, each as if it were alone, without gradients."""

    sampling_rate: int  # Hz
    output_dim: int  # width D of a frame
    hop_size_in_ms: float  # from one frame to the next; 40 ms for Dasheng

    def __init__(
        self,
        model: FrameModel,
        *,
        name: str = "",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Make a network ready for use.

        Args:
            model: in evaluation mode, with its choice of layers; see `auricle.models.frame_model.FrameModel`.
            name: for reports.
            limits: budgets of every clip.

        Raises:
            ConfigError: the network needs another sampling rate than 16 kHz.
        """
        if model.sampling_rate != SAMPLE_RATE:
            raise ConfigError(f"the encoder needs {model.sampling_rate} Hz; clips are decoded to {SAMPLE_RATE} Hz here")
        self.model, self.name, self.limits = model, name, limits
        self.sampling_rate = model.sampling_rate
        self.output_dim = model.output_dim
        self.hop_size_in_ms = model.hop_size_in_ms

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights and settings, computed at first use: equal where frames are equal."""
        return content_hash(self.model)

    @property
    def num_parameters(self) -> int:
        """Of the network without front ends; 0 for baselines, and for user code without a torch module."""
        return self.model.identity().num_parameters

    def __call__(self, waveform: Any) -> Tensor:
        """Encode equally long clips.

        Args:
            waveform: (N,) or (B, N) at `sampling_rate` in [-1, 1], tensor or array; N at least what one frame needs
                (480 for Dasheng).

        Returns:
            Frames (B, T, D) float32, one each `hop_size_in_ms`, on the encoder's device; B is 1 for one clip.

        Raises:
            ClipTooShort: too few samples for one frame.
            ConfigError: another shape.
        """
        waves = torch.as_tensor(waveform)
        if waves.ndim not in (1, 2) or not len(waves):
            raise ConfigError(f"waveform has shape {tuple(waves.shape)}; expected (N,) or (B, N)")
        if not waves.is_floating_point():
            raise ConfigError(f"waveform holds {waves.dtype}; expected floats in [-1, 1]")
        if waves.shape[-1] < self.model.min_samples:
            raise ClipTooShort(
                f"waveform has {waves.shape[-1]} samples; one frame needs {self.model.min_samples}: pad it with zeros"
            )
        return check_finite(torch.stack(self._frames(list(torch.atleast_2d(waves)))))

    def encode(self, sources: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Encode ragged clips, each as if it were alone.

        Args:
            sources: anything `auricle.audio.decode.as_clip` takes: paths, bytes, files, waveforms (N_i,) at 16 kHz.

        Returns:
            Frames (B, T, D) float32 on the CPU, zero after each clip's end; lengths (B,) int64, valid frames.

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
        """Embed many clips; one that fails yields its error in its place, and the others continue.

        A clip over two minutes is read twice, as a stream, by encoders whose chunks of 10.08 s are independent.

        Args:
            sources: as for `encode`; read when they are needed.
            frames: (T, D) of each clip instead of the mean over them.

        Yields:
            Results in the order of the sources.
        """
        check_several(sources, "write [source]")
        loaded = prefetch(self._load, sources, depth=2 * _DECODERS, workers=_DECODERS)
        for batch in grouped(loaded, clip_seconds, BATCH_SECONDS):
            clips = [clip for clip in batch if isinstance(clip, Clip)]
            encoded = iter(self._frames([self._padded(clip) for clip in clips]) if clips else [])
            for clip in batch:
                if isinstance(clip, Clip):
                    values = next(encoded).cpu()
                    receipt = self._receipt(clip.facts, len(clip.waveform), len(values))
                    yield finite(Embedding(values if frames else values.mean(0), receipt))
                else:
                    yield self._embed_long(clip, frames=frames) if isinstance(clip, LongClip) else clip

    @inference()
    def _frames(self, waveforms: list[Tensor]) -> list[Tensor]:
        return self.model.frames([waveform.float() for waveform in waveforms])

    def _padded(self, clip: Clip) -> Tensor:
        """A clip (N,), padded with zeros where it is too short for one frame."""
        waveform = torch.from_numpy(clip.waveform)
        return F.pad(waveform, (0, max(0, self.model.min_samples - len(waveform))))

    def _receipt(self, facts: Facts, num_samples: int, num_frames: int) -> Receipt:
        whole = [(0, num_samples)]
        receipt = write_receipt(facts, num_samples, whole, subsample_factor=1, min_samples=self.model.min_samples)
        if isinstance(self.model, DashengFrames):
            return receipt
        # The receipt counts Dasheng's tokens: state the frames of this encoder instead.
        start = receipt.read[0].start_s
        end = round(start + num_samples / SAMPLE_RATE, 4)
        stop = min(end, round(start + num_frames * self.hop_size_in_ms / 1000, 4))
        dropped = (Span(start_s=stop, stop_s=end, reason="shorter than one frame"),) if stop < end else ()
        window_s = getattr(self.model, "window_s", None)
        notes = receipt.notes
        if window_s is not None and num_samples > window_s * SAMPLE_RATE:
            notes = (*notes, f"encoded in windows of {window_s:g} s that do not see each other")
        read = (Span(start_s=start, stop_s=stop),)
        return replace(receipt, read=read, dropped=dropped, audio_tokens=num_frames, notes=notes)

    def _load(self, source: Any) -> Clip | LongClip | AuricleError:
        read = as_clip if self._in_chunks is None else read_clip
        return read_or_error(lambda: read(source, limits=self.limits), source)

    @property
    def _in_chunks(self) -> DashengFrames | None:
        """The model, where it encodes chunks of a clip as if they were alone."""
        model = self.model
        if not isinstance(model, DashengFrames) or model.network.config.acoustic:
            return None
        return model if model.network.config.long_clips == "v009" else None

    @inference()
    def _embed_long(self, clip: LongClip, *, frames: bool) -> Embedding | AuricleError:
        model = self._in_chunks
        assert model is not None  # only its clips are read so
        kept: list[Tensor] = []
        total, count = torch.zeros((), dtype=torch.float64), 0

        def add(group: list[MelChunk]) -> None:
            nonlocal total, count
            for values in model.frames_of_mels([chunk.mel for chunk in group], [chunk.num_samples for chunk in group]):
                count += len(values)
                if frames:
                    kept.append(values.cpu())
                else:
                    total = total + values.double().sum(0).cpu()

        try:
            facts, num_samples = encode_long(clip, model.network, add)
        except AuricleError as error:
            return error
        values = torch.cat(kept) if frames else (total / count).float()
        return finite(Embedding(values, self._receipt(facts, num_samples, count)))


def read_or_error(read: Callable[[], T], source: Any) -> T | AuricleError:
    """The result of ``read``, or its error: one hostile source must not end the work on all others."""
    try:
        return read()
    except AuricleError as error:
        return error
    except Exception as error:
        return AudioError(f"{source!s:.80}: cannot be read ({type(error).__name__}: {error}); give other audio")


def load_encoder(
    name: str = "auricle-tiny-encoder",
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    layer: int | None = None,
    trust_code: bool = False,
) -> Encoder:
    """Load an encoder of any family.

    Args:
        name: embedded name, published name, hub id, folder, or one ``.pt`` or ``.safetensors`` file; a baseline
            (``log-mel``, ``mfcc``), ``random:FAMILY``, a ``.py`` file, or ``hear:PACKAGE``. ``NAME@3,6,9`` takes the
            mean over blocks 3, 6 and 9, ``NAME+NAME`` joins the frames of encoders; see `auricle.encode.names`.
        device: ``auto``: a GPU where there is one, else the CPU; or ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16`` for networks; front ends and baselines stay float32.
        revision: of a hub id: branch, tag or commit.
        layer: short for ``NAME@layer``.
        trust_code: run the ``.py`` file that ``name`` gives, with all it may do to this computer.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights, or code without ``trust_code``.
        ConfigError: a part of the name, ``device`` or ``dtype`` is wrong.
    """
    from auricle.encode.names import open_frame_model, parse_name

    parts = parse_name(str(name))
    if len(parts) > 1 and (layer is not None or revision is not None):
        raise ConfigError(f"layer and revision are ambiguous for {name}; write NAME@3+NAME@6, and folders")
    if layer is not None:
        if parts[0].layers:
            raise ConfigError(f"{name} names its layers; leave out layer={layer}")
        if layer < 0:
            raise ConfigError(f"layer is {layer}; blocks are counted from 0, the first")
        parts[0] = parts[0]._replace(layers=(layer,))
    models = [
        open_frame_model(part, device=device, dtype=dtype, revision=revision, trust_code=trust_code) for part in parts
    ]
    if len(models) > 1:
        from auricle.models.fusion import FusedFrames

        return Encoder(FusedFrames(models), name=str(name))
    return Encoder(models[0], name=str(name))


def _value(result: Embedding | AuricleError) -> Tensor:
    if isinstance(result, AuricleError):
        raise result
    return result.values
