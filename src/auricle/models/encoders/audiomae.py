"""AudioMAE (arXiv 2207.06405): a vision transformer, pre-trained by restoring hidden patches or fine-tuned for tags.

* Kaldi filter bank, 128 mels, clip mean removed; patches of 16 × 16, time-major, 8 at a time; one class token.
* Its window is exactly 10.24 s: shorter clips are filled up with 0 before normalisation, longer ones cut.
* The positions were made for a grid of 8 × 64 and are used on one of 64 × 8: token k has place (k // 64, k % 64),
  though it is patch (k // 8, k % 8). The checkpoints hold them so, and so they are used.

Shape legend: T filter bank frames, P patches, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auricle.audio.fbank import FRAME_SAMPLES, HOP_SAMPLES
from auricle.errors import ConfigError
from auricle.models.blocks import Block, PatchEmbed
from auricle.models.encoders.eat import BANDS, PATCH, fbank_pieces, grid_positions
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    geometry_of,
    run_pieces,
    to_patches,
)

_TIMES = 64  # time patches of the window
_MEAN, _STD = -4.2677393, 4.5689974  # of the filter bank on AudioSet


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioMaeConfig(TransformerConfig):
    """Geometry; the defaults are the released model's."""

    num_classes: int = 0  # of the tagging head of a fine-tuned model, which has no norm at the end
    fbank_mean: float = _MEAN
    fbank_std: float = _STD


class AudioMae(PieceNetwork):
    """The encoder; parameter names are the official ones."""

    family = "audiomae"
    num_bands = BANDS
    num_class_tokens = 1
    hop_samples = PATCH * HOP_SAMPLES
    window_samples = _TIMES * PATCH * HOP_SAMPLES
    min_samples = FRAME_SAMPLES

    def __init__(self, config: AudioMaeConfig) -> None:
        """Random weights; positions as the authors make them."""
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(reference_positions(config.embed_dim)[None], requires_grad=False)
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, mlp_ratio=config.mlp_ratio) for _ in range(config.depth)
        )
        is_tuned = config.num_classes > 0
        self.norm = nn.Identity() if is_tuned else nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(config.embed_dim, eps=1e-6) if is_tuned else nn.Identity()
        self.head = nn.Linear(config.embed_dim, config.num_classes) if is_tuned else nn.Identity()

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: the time patches whose centre is in the clip."""
        config = self.config
        return [fbank_pieces(w, _TIMES * PATCH, config.fbank_mean, config.fbank_std) for w in waveforms]

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        patches = self.patch_embed(to_patches(piece.features))
        return torch.cat([self.cls_token[0], patches]) + self.pos_embed[0]

    def last(self, tokens: Tensor) -> Tensor:
        """See `PieceNetwork`; a fine-tuned model has no norm here."""
        return self.norm(tokens)

    def contextual(self, waveform: Tensor, depth: int = 8) -> list[Tensor]:
        """The mean of the normalised outputs of the blocks behind number ``depth``, of each piece (513, D).

        This is what generation systems take from AudioMAE (the authors' ``forward_encoder_no_mask``), class token
        included. A ``depth`` of 8 leaves the last three of twelve blocks.
        """
        layers = range(depth + 1, len(self.blocks))
        states = run_pieces(self, self.pieces([waveform])[0], layers)
        return [torch.stack([self.norm(state) for state in each]).mean(0) for each in states]

    def pooled(self, waveforms: Sequence[Tensor]) -> Tensor:
        """What a fine-tuned model's head sees: the normalised mean over all patches, (B, D); over pieces the mean."""
        found = []
        for clip in self.pieces(waveforms):
            means = [tokens[1:].mean(0) for (tokens,) in run_pieces(self, clip)]
            found.append(self.fc_norm(torch.stack(means)).mean(0))
        return torch.stack(found)

    def logits(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Logits of the tags, (B, num_classes).

        Raises:
            ConfigError: the model was not fine-tuned.
        """
        if not self.config.num_classes:
            raise ConfigError("this AudioMAE has no tagging head; load a fine-tuned checkpoint")
        return self.head(self.pooled(waveforms))


def reference_positions(width: int) -> Tensor:
    """Zeros for the class token and the authors' table for the patches, (513, D) float32."""
    # Made as if the patches lay in 8 rows of 64.
    return torch.cat([torch.zeros(1, width), grid_positions(BANDS, _TIMES, width)])


# Of pre-training.
_UNUSED = ("decoder_", "mask_token")


def _recognises(tensors: Mapping[str, Tensor]) -> bool:
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.bias")
    if any(key not in tensors for key in needed):
        return False
    shapes = tensors["pos_embed"].shape[1:2], tensors["patch_embed.proj.weight"].shape[1:]
    return shapes == ((1 + _TIMES * BANDS,), (1, PATCH, PATCH))


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' pre-trained and fine-tuned files."""
    state = {key: tensor for key, tensor in tensors.items() if not key.startswith(_UNUSED)}
    config = AudioMaeConfig(
        **geometry_of(state, settings, source),
        num_classes=len(state["head.weight"]) if "head.weight" in state else 0,
    )
    return Parts(config, state)


FAMILY = Family("audiomae", AudioMae, AudioMaeConfig, _recognises, _read)
