"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio, Whisper and AST as `FrameModel`s, each clip independent of the others.

Shape legend: B pieces, N samples, T frames, M mel bands, D width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.fbank import FRAME_SAMPLES, HOP_SAMPLES, FbankSpec, kaldi_fbank
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.whisper_mel import whisper_log_mel
from auricle.models.encoders.stock import StockEncoder, build_network

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK_S = 30.0  # of audio that attends to itself; attention over ten minutes would take tens of gigabytes
_WHISPER_PIECES = 8  # of 30 s in one call
_AST_PIECES = 16  # of 10 s in one call


class WaveEncoder(StockEncoder):
    """wav2vec 2.0, HuBERT, WavLM and data2vec-audio: frames of 20 ms from the waveform itself.

    * Where the front end asks for it, a clip is normalised over its own length: ``(x - mean) / sqrt(var + 1e-7)``.
    * Clips over 30 s are cut into pieces that do not see each other; the pieces overlap by the reach of a frame, so
      frame i starts at sample 320 i whatever the length.
    * wav2vec 2.0 and HuBERT with layer norm in their convolutions get clips of similar length together, padded and
      masked, which is exact. With group norm (the base models) and in data2vec-audio padding would leak through the
      convolutions whatever the mask, and WavLM's mask is of a kind that torch gives up; these get only clips of equal
      length together.
    """

    def __init__(self, network: "PreTrainedModel", front_end: Mapping[str, Any], layers: Sequence[int] = ()) -> None:
        super().__init__(network, front_end, layers)
        config = network.config
        strides = list(config.conv_stride)
        self._stride = math.prod(strides)
        steps = [math.prod(strides[:i]) for i in range(len(strides))]
        self.min_samples = 1 + sum((k - 1) * step for k, step in zip(config.conv_kernel, steps, strict=True))
        self.output_dim: int = config.hidden_size
        self.hop_size_in_ms = 1000 * self._stride / SAMPLE_RATE
        self._ragged = config.model_type in ("wav2vec2", "hubert") and config.feat_extract_norm == "layer"

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,), N_i at least 400 → (1 + (N_i - 400) // 320, D)."""
        pieces: list[Tensor] = []
        owners: list[int] = []
        for owner, waveform in enumerate(waveforms):
            cut = self._cut(self._normalised(waveform.float()))
            pieces += cut
            owners += [owner] * len(cut)
        encoded: dict[int, Tensor] = {}
        for group in self._groups([len(piece) for piece in pieces]):
            rows = self._encode([pieces[i] for i in group])
            encoded.update(zip(group, rows, strict=True))
        return _joined(encoded, owners, len(waveforms))

    def _normalised(self, waveform: Tensor) -> Tensor:
        if not self.front_end.get("do_normalize", True):
            return waveform
        return (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()

    def _cut(self, waveform: Tensor) -> list[Tensor]:
        step = int(_CHUNK_S * SAMPLE_RATE) // self._stride * self._stride
        overlap = self.min_samples - self._stride
        starts = range(0, max(len(waveform) - self.min_samples, 0) + 1, step)
        return [waveform[start : start + step + overlap] for start in starts]

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Numbers of the pieces that go through the network together."""
        groups: list[list[int]] = []
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            fits = groups and (len(groups[-1]) + 1) * lengths[i] <= self._batch_s * SAMPLE_RATE
            if fits and (self._ragged or lengths[groups[-1][0]] == lengths[i]):
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    def _encode(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Pieces in ascending order of length → frames of each."""
        lengths = [len(piece) for piece in pieces]
        longest = lengths[-1]
        batch = torch.stack([F.pad(piece, (0, longest - len(piece))) for piece in pieces])
        arguments = {}
        if lengths[0] < longest:
            samples = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
            arguments["attention_mask"] = samples.long().to(self._device)
        rows = self._run(batch, **arguments)
        counts = [1 + (length - self.min_samples) // self._stride for length in lengths]
        return [row[:count] for row, count in zip(rows, counts, strict=True)]


class WhisperFrames(StockEncoder):
    """Whisper's encoder: frames of 20 ms.

    The window is exactly 30 s. Shorter clips are followed by silence, as in training, and of the 1500 frames the
    first ``ceil(N / 320)`` are kept; longer clips are cut into pieces of 30 s.
    """

    def __init__(self, network: "PreTrainedModel", front_end: Mapping[str, Any], layers: Sequence[int] = ()) -> None:
        super().__init__(network, front_end, layers)
        self._stride = 2 * HOP_SAMPLES  # the second convolution halves the 100 Hz of the mel
        self._window = network.config.max_source_positions * self._stride
        self.min_samples = self._stride
        self.output_dim: int = network.config.d_model
        self.hop_size_in_ms = 1000 * self._stride / SAMPLE_RATE

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) → (ceil(N_i / 320), D)."""
        cuts = [waveform.float().split(self._window) for waveform in waveforms]
        pieces = [piece for cut in cuts for piece in cut]
        owners = [owner for owner, cut in enumerate(cuts) for _ in cut]
        rows = _in_batches(self._encode, pieces, _WHISPER_PIECES)
        return _joined(dict(enumerate(rows)), owners, len(waveforms))

    def _encode(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        padded = torch.stack([F.pad(piece, (0, self._window - len(piece))) for piece in pieces]).to(self._device)
        rows = self._run(whisper_log_mel(padded, self.network.config.num_mel_bins))
        return [row[: -(-len(piece) // self._stride)] for row, piece in zip(rows, pieces, strict=True)]


class AstFrames(StockEncoder):
    """The Audio Spectrogram Transformer: frames of 100 ms, each the mean over the frequency patches of one time.

    The window is exactly 10.24 s: 1024 filter bank frames, filled up with 0 before normalisation, as in training.
    Kept are the time patches whose centre is in the clip. Longer clips are cut every 1010 filter bank frames, 101
    patches on, so that patch i starts at 100 i ms whatever the length. The two class tokens are left out.
    """

    def __init__(self, network: "PreTrainedModel", front_end: Mapping[str, Any], layers: Sequence[int] = ()) -> None:
        super().__init__(network, front_end, layers)
        config = network.config
        self._spec = FbankSpec(num_mels=config.num_mel_bins)
        self._window: int = config.max_length
        self._stride: int = config.time_stride
        self._times = (config.max_length - config.patch_size) // config.time_stride + 1
        self._bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        self.min_samples = FRAME_SAMPLES
        self.output_dim: int = config.hidden_size
        self.hop_size_in_ms = 1000 * self._stride * HOP_SAMPLES / SAMPLE_RATE

    def num_frames(self, num_fbank_frames: int) -> int:
        """Frames of a clip of so many filter bank frames, at least 1."""
        count = max(1, (num_fbank_frames - self.network.config.patch_size // 2) // self._stride + 1)
        return min(count, self._times) if num_fbank_frames <= self._window else count

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,), N_i at least 400 → about (N_i / 1600, D)."""
        pieces: list[Tensor] = []
        owners: list[int] = []
        counts = []
        for owner, waveform in enumerate(waveforms):
            fbank = kaldi_fbank(waveform.to(self._device, torch.float32), self._spec)
            counts.append(self.num_frames(len(fbank)))
            starts = range(0, counts[-1] * self._stride, self._times * self._stride)
            pieces += [self._window_of(fbank, start) for start in starts]
            owners += [owner] * len(starts)
        rows = _in_batches(self._encode, pieces, _AST_PIECES)
        joined = _joined(dict(enumerate(rows)), owners, len(waveforms))
        return [clip[:count] for clip, count in zip(joined, counts, strict=True)]

    def _window_of(self, fbank: Tensor, start: int) -> Tensor:
        """The window that starts at a frame, (1024, M)."""
        piece = fbank[start : start + self._window]
        padded = F.pad(piece, (0, 0, 0, self._window - len(piece)))
        if not self.front_end.get("do_normalize", True):
            return padded
        # AudioSet's, the constants of ASTFeatureExtractor.
        mean, std = self.front_end.get("mean", -4.2677393), self.front_end.get("std", 4.5689974)
        return (padded - mean) / (2 * std)

    def _encode(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        patches = self._run(torch.stack(list(pieces)))[:, 2:]  # behind the class and the distillation token
        return list(patches.unflatten(1, (self._bands, self._times)).mean(1))


FAMILIES: dict[str, type[WaveEncoder | WhisperFrames | AstFrames]] = {
    "whisper": WhisperFrames,
    "wav2vec2": WaveEncoder,
    "hubert": WaveEncoder,
    "wavlm": WaveEncoder,
    "data2vec-audio": WaveEncoder,
    "audio-spectrogram-transformer": AstFrames,
}  # by model_type of config.json


def build_encoder(
    settings: Mapping[str, Any],
    front_end: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None,
    *,
    layers: Sequence[int] = (),
    source: str = "",
) -> WaveEncoder | WhisperFrames | AstFrames:
    """The encoder that a folder in the Hugging Face layout describes, float32 on the CPU.

    Args:
        settings: content of config.json.
        front_end: content of preprocessor_config.json; {}: the family's usual one.
        tensors: of model.safetensors; None: random weights.
        layers: see `StockEncoder`.
        source: for messages.

    Raises:
        ConfigError: another family, geometry or sampling rate; no such layer.
        LayoutMismatch: the tensors do not fit.
    """
    network = build_network(settings, tensors, source)
    return FAMILIES[network.config.model_type](network, front_end, layers)


def _in_batches(
    encode: Callable[[Sequence[Tensor]], list[Tensor]], pieces: Sequence[Tensor], size: int
) -> list[Tensor]:
    return [row for start in range(0, len(pieces), size) for row in encode(pieces[start : start + size])]


def _joined(encoded: Mapping[int, Tensor], owners: Sequence[int], num_clips: int) -> list[Tensor]:
    """Frames of the pieces in time order → frames of the clips."""
    clips: list[list[Tensor]] = [[] for _ in range(num_clips)]
    for piece, owner in enumerate(owners):
        clips[owner].append(encoded[piece])
    return [clip[0] if len(clip) == 1 else torch.cat(clip) for clip in clips]
