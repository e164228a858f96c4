"""ATST-Frame (arXiv 2306.04186): a frame-level student and teacher; the teacher is used.

* Log-mel of 64 HTK bands from windows of 64 ms, dB, scaled to about [-1, 1]; one patch = all bands × 4 frames = 40 ms.
* Learned positions for 250 patches; pre-norm blocks without bias of query, key and value.
* Clips over 10 s are cut every 250 patches. The authors cut every 1001 frames, of which one is lost, so that their
  times run away by 10 ms a piece; ``chunk_frames`` gives theirs.

Shape legend: N samples, T mel frames, P patches, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auricle.audio.logmel import LogMel, MelSpec
from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.blocks import Block, Linear
from auricle.models.dasheng import to_patches
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    chunks_of,
    geometry_of,
    run_pieces,
    strip,
)

PATCH = 4  # mel frames; all bands are one patch high
_MEL = MelSpec(n_fft=1024, f_min=60.0, f_max=7_800.0, top_db=80.0)
_LOW_DB, _HIGH_DB = -79.6482, 50.6842  # become -1 and 1; extremes of the authors' training data


@dataclass(frozen=True, kw_only=True, slots=True)
class AtstConfig(TransformerConfig):
    """Geometry; the defaults are the base model's (small: 384 wide, 6 heads)."""

    max_patches: int = 250  # that have positions
    chunk_frames: int = 1000  # mel frames of a piece; the authors' is 1001

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if not PATCH <= self.chunk_frames < (self.max_patches + 1) * PATCH:
            raise ConfigError(f"chunk_frames is {self.chunk_frames}, beyond the {self.max_patches} learned positions")


class Atst(PieceNetwork):
    """The encoder; parameter names are the official ones of the teacher's encoder, the patches without their twin."""

    family = "atst"
    hop_samples = PATCH * _MEL.hop_length
    min_samples = _MEL.min_samples

    def __init__(self, config: AtstConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.window_samples = config.chunk_frames * _MEL.hop_length
        self.front_end = LogMel(_MEL)
        self.patch_embed = Linear(PATCH * _MEL.num_mels, config.embed_dim)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, config.max_patches + 1, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, mlp_ratio=config.mlp_ratio, qkv_bias=False)
            for _ in range(config.depth)
        )
        self.norm_frame = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: the whole patches of each chunk; the dB floor is the whole clip's."""
        return [chunks_of(self.features(waveform), self.config.chunk_frames, PATCH) for waveform in waveforms]

    def features(self, waveform: Tensor) -> Tensor:
        """A clip (N,) → scaled log-mel (T, 64)."""
        return ((self.front_end(waveform)[0] - _LOW_DB) / (_HIGH_DB - _LOW_DB) * 2 - 1).t()

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`: position 0 is of a class token that is not used."""
        patches = to_patches(piece.features.t()[None])[0].to(self.patch_embed.weight.dtype)
        return self.patch_embed(patches) + self.pos_embed[0, 1 : len(patches) + 1]

    def last(self, tokens: Tensor) -> Tensor:
        """See `PieceNetwork`."""
        return self.norm_frame(tokens)

    def all_blocks(self, waveform: Tensor) -> Tensor:
        """The authors' own embedding: the normalised outputs of all blocks side by side, (P, depth · D)."""
        states = run_pieces(self, self.pieces([waveform])[0], range(len(self.blocks)))
        return torch.cat([torch.cat([self.norm_frame(state) for state in each], dim=1) for each in states])


_PREFIXES = ("model.teacher.encoder.", "encoder.encoder.", "")  # pre-trained, fine-tuned, bare
_UNUSED = ("mask_embed",)


def _prefix(tensors: Mapping[str, Tensor]) -> str | None:
    needed = ("norm_frame.weight", "pos_embed")
    return next((prefix for prefix in _PREFIXES if all(prefix + key in tensors for key in needed)), None)


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' Lightning files: the teacher of a pre-trained one, the encoder of a fine-tuned one."""
    state = strip(tensors, _prefix(tensors) or "")
    state = {key: tensor for key, tensor in state.items() if not key.startswith(_UNUSED)}
    for kind in ("patch_embed.patch_embed", "patch_embed.proj"):  # a linear layer, or the same as a convolution
        if f"{kind}.weight" in state:
            state["patch_embed.weight"] = state.pop(f"{kind}.weight").flatten(1)
            state["patch_embed.bias"] = state.pop(f"{kind}.bias")
    elements = state["patch_embed.weight"].shape[1]
    if elements != PATCH * _MEL.num_mels:
        raise LayoutMismatch(f"{source}: patches of {elements} values, expected 64 bands × 4 frames: another network")
    max_patches = state["pos_embed"].shape[1] - 1
    config = AtstConfig(
        **geometry_of(state, settings, source),
        max_patches=max_patches,
        chunk_frames=PATCH * max_patches,
    )
    return Parts(config, state)


FAMILY = Family("atst", Atst, AtstConfig, lambda tensors: _prefix(tensors) is not None, _read)
