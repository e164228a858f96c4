"""MSM-MAE (arXiv 2204.12260): masked spectrogram modelling with a plain vision transformer.

* Log-mel of 80 Slaney bands, normalised over each clip; square patches, **frequency-major**; optional class token.
* Its windows are units of its training length, 208 frames for ``80x208p16x16``, one after the other.
* Pre-norm blocks without bias of the key. The authors put the bands of one time side by side: 5 · D numbers.

Shape legend: N samples, T mel frames, P patches of a unit, D width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.blocks import Block, PatchEmbed
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    depth_of,
    geometry_of,
    pad_frames,
)

_MELS = 80
_N_FFT, _HOP = 400, 160  # samples; the periodic Hann window is as long as the transform
_F_MIN, _F_MAX = 50.0, 8_000.0  # Hz
_EPS = torch.finfo(torch.float32).eps  # added to the power before the logarithm
_KNEE_HZ, _KNEE_MEL = 1_000.0, 15.0  # Slaney's scale is linear below, logarithmic above
_LOG_STEP = math.log(6.4) / 27.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MsmMaeConfig(TransformerConfig):
    """Geometry; the defaults are the released ``80x208p16x16``."""

    patch_mels: int = 16
    patch_frames: int = 16
    unit_times: int = 13  # time patches of a unit
    has_class_token: bool = True
    compat: bool = False  # normalise over a whole padded batch as the authors do: every clip changes every other

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if _MELS % self.patch_mels:
            raise ConfigError(f"patch_mels is {self.patch_mels}, expected a divisor of {_MELS}")


class MsmMae(PieceNetwork):
    """The encoder; parameter names are the official ones, the biases of query and value in one with a key's of 0."""

    family = "msm_mae"
    default_pool = "concat"
    is_time_major = False
    min_samples = _N_FFT // 2 + 1  # what reflect padding needs

    def __init__(self, config: MsmMaeConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.num_bands = _MELS // config.patch_mels
        self.num_class_tokens = int(config.has_class_token)
        self.hop_samples = config.patch_frames * _HOP
        self.window_samples = config.unit_times * self.hop_samples
        if config.has_class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        places = self.num_class_tokens + self.num_bands * config.unit_times
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, places, config.embed_dim), requires_grad=False)
        self.patch_embed = PatchEmbed(config.embed_dim, (config.patch_mels, config.patch_frames))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, mlp_ratio=config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: units, the last one filled up with 0, the mean."""
        if not self.config.compat:
            return [self._units(normalised(msm_log_mel(w).t())) for w in waveforms]
        longest = max(len(waveform) for waveform in waveforms)
        batch = [msm_log_mel(F.pad(waveform, (0, longest - len(waveform)))).t() for waveform in waveforms]
        clips = []
        for waveform, mel in zip(waveforms, normalised(torch.stack(batch)), strict=True):
            left = self._num_times(1 + len(waveform) // _HOP)
            units = []
            for unit in self._units(mel):
                units.append(unit._replace(frames=min(unit.frames, left)))
                left -= units[-1].frames
            clips.append(units)
        return clips

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        config = self.config
        cells = piece.features.unflatten(0, (config.unit_times, config.patch_frames))
        cells = cells.unflatten(2, (self.num_bands, config.patch_mels))
        # Rows of a patch are mels, its columns frames.
        tokens = self.patch_embed(cells.permute(2, 0, 3, 1).flatten(0, 1).flatten(1))
        if config.has_class_token:
            tokens = torch.cat([self.cls_token[0], tokens])
        return tokens + self.pos_embed[0]

    def last(self, tokens: Tensor) -> Tensor:
        """See `PieceNetwork`."""
        return self.norm(tokens)

    def _num_times(self, num_frames: int) -> int:
        """Time patches of so many mel frames: the units' less those that the padding fills, by the authors' rule."""
        times, unit = self.config.unit_times, self.config.unit_times * self.config.patch_frames
        padding = -num_frames % unit
        return (num_frames + padding) // unit * times - times * padding // unit

    def _units(self, features: Tensor) -> list[Piece]:
        times = self.config.unit_times
        length, total = times * self.config.patch_frames, self._num_times(len(features))
        return [
            Piece(pad_frames(unit, length), max(0, min(times, total - i * times)))
            for i, unit in enumerate(features.split(length))
        ]


def msm_log_mel(waveform: Tensor) -> Tensor:
    """A clip (N,) at 16 kHz → natural logarithm of mel powers (80, 1 + N // 160) float32."""
    window = torch.hann_window(_N_FFT, device=waveform.device, dtype=torch.float64)
    spectrum = torch.stft(waveform.double(), _N_FFT, _HOP, window=window, return_complex=True, pad_mode="reflect")
    return (_filterbank().to(waveform.device) @ spectrum.abs().square().float() + _EPS).log()


def normalised(mel: Tensor) -> Tensor:
    """Zero mean and unit variance over all values."""
    return (mel - mel.mean()) / mel.std().clamp(min=_EPS)


@lru_cache
def _filterbank() -> Tensor:
    """Triangles of equal area on Slaney's mel scale from 50 Hz to 8 kHz, (80, 201) float32."""
    low, top = _F_MIN * _KNEE_MEL / _KNEE_HZ, _KNEE_MEL + math.log(_F_MAX / _KNEE_HZ) / _LOG_STEP
    mels = torch.linspace(low, top, _MELS + 2, dtype=torch.float64)
    hertz = mels * (_KNEE_HZ / _KNEE_MEL)
    points = torch.where(mels < _KNEE_MEL, hertz, _KNEE_HZ * torch.exp(_LOG_STEP * (mels - _KNEE_MEL)))
    bins = torch.linspace(0.0, _F_MAX, _N_FFT // 2 + 1, dtype=torch.float64)
    width = points.diff()[:, None]
    up, down = (bins - points[:-2, None]) / width[:-1], (points[2:, None] - bins) / width[1:]
    return (torch.minimum(up, down).clamp(min=0.0) * (2.0 / (points[2:] - points[:-2]))[:, None]).float()


_UNUSED = ("decoder_", "mask_token")


def _recognises(tensors: Mapping[str, Tensor]) -> bool:
    return all(key in tensors for key in ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.q_bias"))


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' files."""
    state = {key: tensor for key, tensor in tensors.items() if not key.startswith(_UNUSED)}
    patch_mels, patch_frames = state["patch_embed.proj.weight"].shape[2:]
    for index in range(depth_of(state)):
        query, value = (state.pop(f"blocks.{index}.attn.{name}_bias") for name in "qv")
        state[f"blocks.{index}.attn.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    places = state["pos_embed"].shape[1] - ("cls_token" in state)
    times, rest = divmod(places, _MELS // patch_mels)
    if rest:
        raise LayoutMismatch(f"{source}: {places} positions for {_MELS // patch_mels} bands; another front end's model")
    config = MsmMaeConfig(
        **geometry_of(state, settings, source),
        patch_mels=patch_mels,
        patch_frames=patch_frames,
        unit_times=times,
        has_class_token="cls_token" in state,
    )
    return Parts(config, state)


FAMILY = Family("msm_mae", MsmMae, MsmMaeConfig, _recognises, _read)
