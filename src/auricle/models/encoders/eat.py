"""EAT, the Efficient Audio Transformer (arXiv 2401.03497): data2vec 2.0 on patches of a filter bank.

* Kaldi filter bank, 128 mels, clip mean removed; patches of 16 × 16, time-major, 8 at a time; one class token.
* Fixed two-dimensional positions, of which the first ones are used; post-norm blocks, no norm at the end.
* Trained on 10.24 s. Shorter clips are filled up by default, with 0 before normalisation, as the authors advise.

Shape legend: T filter bank frames, P patches, D width.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auricle.audio.fbank import EAT_FBANK, FRAME_SAMPLES, HOP_SAMPLES, kaldi_fbank
from auricle.errors import ConfigError
from auricle.models.blocks import Attention, Mlp, PatchEmbed, Spans
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    cut,
    geometry_of,
    pad_frames,
    strip,
    to_patches,
)

PATCH, BANDS = 16, 8  # frames and mels of a patch; patches of one time
_MEAN, _STD = -4.268, 4.569  # of the filter bank on AudioSet, rounded as in cwx-worst-one/EAT
_EPS = 1e-6  # of every LayerNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class EatConfig(TransformerConfig):
    """Geometry; the defaults are the released base model's."""

    max_length: int = 768  # time patches that have positions, 122.9 s
    window_frames: int = 1024  # filter bank frames that attend to each other, 10.24 s
    fill_up: bool = True  # every piece to a whole window; False: to a whole patch alone

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.embed_dim % 4:
            raise ConfigError(f"embed_dim {self.embed_dim} is no multiple of 4 and of {self.num_heads} heads")
        if self.window_frames % PATCH or not 0 < self.window_frames <= PATCH * self.max_length:
            raise ConfigError(
                f"window_frames is {self.window_frames}, expected a multiple of {PATCH} up to {PATCH * self.max_length}"
            )


class Eat(PieceNetwork):
    """The encoder."""

    family = "eat"
    num_bands = BANDS
    num_class_tokens = 1
    hop_samples = PATCH * HOP_SAMPLES
    min_samples = FRAME_SAMPLES
    positions: Tensor

    def __init__(self, config: EatConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.window_samples = config.window_frames * HOP_SAMPLES
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.class_token = nn.Parameter(torch.zeros(1, config.embed_dim))
        self.register_buffer("positions", grid_positions(config.max_length, BANDS, config.embed_dim))
        self.norm = nn.LayerNorm(config.embed_dim, eps=_EPS)
        self.blocks = nn.ModuleList(
            PostNormBlock(Attention(config.embed_dim, config.num_heads), config.embed_dim, config.mlp_ratio, eps=_EPS)
            for _ in range(config.depth)
        )

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: the time patches whose centre is in the clip."""
        config = self.config
        return [fbank_pieces(w, config.window_frames, _MEAN, _STD, fill_up=config.fill_up) for w in waveforms]

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        patches = self.patch_embed(to_patches(piece.features))
        return self.norm(torch.cat([self.class_token, patches + self.positions[: len(patches)]]))


class PostNormBlock(nn.Module):
    """Transformer block with its norms behind the residual sums (data2vec 2.0)."""

    def __init__(self, attention: Attention, width: int, mlp_ratio: float = 4.0, *, eps: float) -> None:
        """A block around an attention; ``eps`` of both norms."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, spans: Sequence[Spans], *attention_inputs: Any) -> Tensor:
        """(M, D) → (M, D)."""
        x = self.norm1(x + self.attn(x, spans, *attention_inputs))
        return self.norm2(x + self.mlp(x))


def fbank_pieces(waveform: Tensor, window: int, mean: float, std: float, *, fill_up: bool = True) -> list[Piece]:
    """Normalised filter bank of a clip (N,), cut every ``window`` frames and filled up to it, or to whole patches."""
    fbank = kaldi_fbank(waveform, EAT_FBANK)
    found = []
    for piece in cut(fbank, window, centred_patches(len(fbank))):
        padded = pad_frames(piece.features, window if fill_up else -(-len(piece.features) // PATCH) * PATCH)
        found.append(piece._replace(features=(padded - mean) / (2 * std)))
    return found


def centred_patches(num_frames: int) -> int:
    """Time patches whose centre is in a clip of so many filter bank frames, at least 1."""
    return max(1, (num_frames + PATCH // 2) // PATCH)


def grid_positions(times: int, bands: int, width: int) -> Tensor:
    """Sine-cosine positions of a time-major grid, (times · bands, width) float32.

    The first half encodes the band, the second the time, each its sines, then its cosines.
    """
    quarter = width // 4
    omega = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)

    def waves(places: Tensor) -> Tensor:
        angles = places.double()[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    time, band = torch.arange(times).repeat_interleave(bands), torch.arange(bands).repeat(times)
    return torch.cat([waves(band), waves(time)], dim=1).float()


_FAIRSEQ, _HUB = "modality_encoders.IMAGE.", "model."
# Of pre-training and of heads.
_UNUSED = ("decoder.", "_ema.", "fc_norm.", "head.", "recon_proj.", "shared_decoder.")
_NAMES = (
    ("local_encoder.proj.", "patch_embed.proj."),
    ("extra_tokens", "class_token"),
    ("fixed_positional_encoder.positions", "positions"),
    ("context_encoder.norm.", "norm."),
    ("pre_norm.", "norm."),
)


def _prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """The prefix of the names of the whole model: none, or ``model.`` in a fine-tuned or Hugging Face file."""
    for prefix in ("", _HUB):
        if f"{prefix}{_FAIRSEQ}local_encoder.proj.weight" in tensors:
            return prefix
    return _HUB if f"{_HUB}local_encoder.proj.weight" in tensors else None


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' fairseq files, pre-trained (the student) or fine-tuned, and their Hugging Face folders."""
    state: dict[str, Tensor] = {}
    for key, tensor in strip(tensors, _prefix(tensors) or "").items():
        name = key.removeprefix(_FAIRSEQ)
        if name.startswith(_UNUSED):
            continue
        for theirs, ours in _NAMES:
            name = re.sub("^" + re.escape(theirs), ours, name)
        state[name] = tensor[0] if name in ("class_token", "positions") else tensor
    stated = model_settings(settings)
    image = stated.get("modalities", {}).get("image", {}) if isinstance(stated.get("modalities"), Mapping) else {}
    if "positions" not in state:
        times = int(image.get("max_length", stated.get("max_length", EatConfig().max_length)))
        state["positions"] = grid_positions(times, BANDS, len(state["patch_embed.proj.weight"]))
    config = EatConfig(
        **geometry_of(state, stated, source),
        max_length=len(state["positions"]) // BANDS,
        window_frames=min(1024, PATCH * (len(state["positions"]) // BANDS)),
    )
    return Parts(config, state)


def model_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The geometry in fairseq's settings, of a pre-trained or a fine-tuned model, or plain ones as they are."""
    for key in ("pretrained_model_args", "w2v_args", "model"):
        inner = settings.get(key)
        if isinstance(inner, Mapping):
            return model_settings(inner)
    return settings


FAMILY = Family("eat", Eat, EatConfig, lambda tensors: _prefix(tensors) is not None, _read)
