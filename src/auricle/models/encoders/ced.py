"""CED (arXiv 2308.11957): small audio taggers distilled from an ensemble, as encoders of frames of 160 ms.

* Dasheng's log-mel (64 HTK bands, dB) and batch norm; patches of 16 × 16, 4 at a time, **frequency-major**; no class
  token; learned positions for time and for frequency; pre-norm blocks.
* Clips over 10.08 s are cut every 63 patches. The authors cut every 1012 frames, of which 4 are lost, so that their
  times run away by 40 ms a piece; ``chunk_frames`` and ``compat`` give theirs.

Shape legend: N samples, T mel frames, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.logmel import DASHENG_MEL, LogMel
from auricle.errors import ConfigError
from auricle.models.blocks import Block, PatchEmbed
from auricle.models.encoders.pieces import (
    Family,
    Parts,
    Piece,
    PieceNetwork,
    TransformerConfig,
    chunks_of,
    geometry_of,
    pad_frames,
    run_pieces,
)

PATCH, BANDS = 16, 4  # frames and mels of a patch; patches of one time
REFERENCE_CHUNK = 1012  # mel frames, 10.12 s, of the authors


@dataclass(frozen=True, kw_only=True, slots=True)
class CedConfig(TransformerConfig):
    """Geometry; the defaults are the base model's (tiny 192 wide, 3 heads; mini 256, 4; small 384, 6)."""

    max_times: int = 63  # time patches that have positions
    num_classes: int = 0  # of the tagging head; 0: none
    chunk_frames: int = 1008  # mel frames of a piece
    compat: bool = False  # a batch as the authors': one dB floor, padding not masked, the last chunk filled up

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if not PATCH <= self.chunk_frames < (self.max_times + 1) * PATCH:
            raise ConfigError(f"chunk_frames is {self.chunk_frames}, beyond the {self.max_times} learned positions")


class Ced(PieceNetwork):
    """The encoder; parameter names are the official ones, save ``init_bn.1.`` → ``init_bn.``."""

    family = "ced"
    num_bands = BANDS
    is_time_major = False
    hop_samples = PATCH * DASHENG_MEL.hop_length
    min_samples = (PATCH - 1) * DASHENG_MEL.hop_length  # give the 16 frames of one patch

    def __init__(self, config: CedConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        self.window_samples = config.chunk_frames * DASHENG_MEL.hop_length
        self.front_end = LogMel()
        self.init_bn = nn.BatchNorm1d(DASHENG_MEL.num_mels)
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.time_pos_embed = nn.Parameter(0.02 * torch.randn(1, config.embed_dim, 1, config.max_times))
        self.freq_pos_embed = nn.Parameter(0.02 * torch.randn(1, config.embed_dim, BANDS, 1))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, mlp_ratio=config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.outputlayer: nn.Module = nn.Identity()
        if config.num_classes:
            self.outputlayer = nn.Sequential(
                nn.LayerNorm(config.embed_dim), nn.Linear(config.embed_dim, config.num_classes)
            )

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: the whole time patches of each chunk."""
        if self.config.compat:
            return self._padded_pieces(waveforms)
        length = self.config.chunk_frames
        return [chunks_of(self._normed(self.front_end(waveform)[0]), length, PATCH) for waveform in waveforms]

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        times = len(piece.features) // PATCH
        cells = piece.features[: times * PATCH].unflatten(0, (times, PATCH)).unflatten(2, (BANDS, PATCH))
        # Rows of a patch are mels, its columns frames.
        tokens = self.patch_embed(cells.permute(2, 0, 3, 1).reshape(BANDS * times, -1))
        places = self.time_pos_embed[0, :, :, :times] + self.freq_pos_embed[0]
        return tokens + places.flatten(1).t()

    def last(self, tokens: Tensor) -> Tensor:
        """See `PieceNetwork`."""
        return self.norm(tokens)

    def probabilities(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Probabilities of the tags, (B, num_classes): the mean over chunks of 10.12 s, the last one filled up.

        With ``compat`` the last chunk is left out where it is whole, as the authors do by mistake.

        Raises:
            ConfigError: the model has no tagging head.
        """
        if not self.config.num_classes:
            raise ConfigError("this CED has no tagging head; load a checkpoint with outputlayer.* weights")
        found = []
        for waveform in waveforms:
            chunks = chunks_of(self._normed(self.front_end(waveform)[0]), REFERENCE_CHUNK, PATCH)
            if len(chunks) > 1:
                is_whole = len(chunks[-1].features) == REFERENCE_CHUNK
                chunks = chunks[:-1] if is_whole and self.config.compat else chunks
                chunks = [chunk._replace(features=pad_frames(chunk.features, REFERENCE_CHUNK)) for chunk in chunks]
            means = torch.stack([tokens.mean(0) for (tokens,) in run_pieces(self, chunks)])
            found.append(torch.sigmoid(self.outputlayer(means)).mean(0))
        return torch.stack(found)

    def _normed(self, mel: Tensor) -> Tensor:
        """Log-mel (64, T) → (T, 64) after the batch norm."""
        return self.init_bn(mel[None])[0].t()

    def _padded_pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        longest = max(len(waveform) for waveform in waveforms)
        batch = torch.stack([F.pad(waveform, (0, longest - len(waveform))) for waveform in waveforms])
        found = []
        for waveform, mel in zip(waveforms, self.front_end(batch, batch_floor=True), strict=True):
            left = max(1, DASHENG_MEL.num_frames(len(waveform)) // PATCH)
            clip: list[Piece] = []
            for chunk in chunks_of(self._normed(mel), REFERENCE_CHUNK, PATCH):
                filled = pad_frames(chunk.features, REFERENCE_CHUNK) if clip else chunk.features
                clip.append(Piece(filled, min(chunk.frames, left)))
                left -= clip[-1].frames
            found.append(clip)
        return found


def _prefix(tensors: Mapping[str, Tensor]) -> str | None:
    for prefix in ("", "encoder."):
        patch, bands = tensors.get(f"{prefix}patch_embed.proj.weight"), tensors.get(f"{prefix}freq_pos_embed")
        if patch is not None and bands is not None and patch.shape[1:] == (1, PATCH, PATCH):
            return prefix if bands.ndim == 4 and bands.shape[2] == BANDS else None
    return None


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """The authors' files, flat or under ``model``, and the Hugging Face layout behind ``encoder.``."""
    prefix = _prefix(tensors) or ""
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix).replace("init_bn.1.", "init_bn.", 1)
        if not name.startswith("front_end."):  # computed
            state[name] = tensor
    state.setdefault("init_bn.num_batches_tracked", torch.zeros((), dtype=torch.int64))
    head = state.get("outputlayer.1.weight")
    config = CedConfig(
        **geometry_of(state, settings, source),
        max_times=state["time_pos_embed"].shape[3],
        num_classes=0 if head is None else len(head),
    )
    return Parts(config, state)


FAMILY = Family("ced", Ced, CedConfig, lambda tensors: _prefix(tensors) is not None, _read)
