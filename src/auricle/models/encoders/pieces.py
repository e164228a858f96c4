"""Encoders of audio that cut a clip into pieces: what BEATs, EAT, AudioMAE, CED, ATST, data2vec 2.0, … have in common.

A family defines how clips are cut (`PieceNetwork.pieces`), the tokens of a piece (`PieceNetwork.embed`) and what its
blocks make of them (`PieceNetwork.states`). `PieceFrames` does the rest: tokens of all pieces are packed in one matrix
without padding, so a clip's frames depend on the clip alone; tokens become frames in time order.

Adding a family takes one file with a network and a `FAMILY`, and an entry of the catalogue that names the file.

Shape legend: N samples, T time patches of a piece, F frequency patches of one time, P tokens of a piece (T × F and
class tokens in front), M tokens of all pieces, D width.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.data.batches import grouped
from auricle.errors import ClipTooShort, ConfigError
from auricle.models.blocks import Spans, plan_spans
from auricle.models.frame_model import Identity, check_layers, count_parameters, mean_of

Pool = Literal["mean", "concat", "none"]
POOLS: tuple[Pool, ...] = ("mean", "concat", "none")
_PATCH = 16  # frames and mels of a square patch
# Tokens that go through the blocks together: what a CPU computes should stay in its cache; a GPU wants to be filled.
_CPU_TOKENS_PER_THREAD, _GPU_TOKENS = 520, 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Geometry of plain blocks; the defaults are those of a base model."""

    embed_dim: int = 768  # width D
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.num_heads) < 1 or self.depth < 0 or self.mlp_ratio <= 0:
            raise ConfigError(f"an encoder needs sizes of at least 1, got {self}")
        if self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}")


class Piece(NamedTuple):
    """A span of one clip that attends to itself alone."""

    features: Tensor  # float32, time first: filter bank (frames, mels), or samples (N,)
    frames: int  # time patches of it that belong to the clip
    keys: int | None = None  # tokens that may be attended to, from the first on; None: all


class Parts(NamedTuple):
    """A checkpoint of any layout as a family reads it."""

    config: Any  # of the family's network
    state: dict[str, Tensor]  # under the names of the network


class Family(NamedTuple):
    """How checkpoints of one family are recognised and read; each file of a family offers one as ``FAMILY``."""

    name: str  # of the file
    network: Callable[[Any], "PieceNetwork"]
    config: Callable[..., Any]  # the network's configuration
    recognises: Callable[[Mapping[str, Tensor]], bool]  # by the names and shapes of a checkpoint's tensors
    read: Callable[[Mapping[str, Tensor], Mapping[str, Any], str], Parts]  # tensors, settings, source for messages


class PieceNetwork(nn.Module):
    """The network of a family."""

    family: ClassVar[str]
    num_bands = 1  # F
    num_class_tokens = 0  # in front of each piece
    default_pool: ClassVar[Pool] = "mean"  # what the authors' own embedding does
    is_time_major = True  # whether the patches of one time are neighbours
    hop_samples: int  # from one time patch to the next
    window_samples: int | None  # that attend to each other; None: all of a clip
    min_samples: int
    width: int  # D
    config: Any
    blocks: nn.ModuleList

    @abstractmethod
    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """Ragged clips (N_i,) float32, N_i at least `min_samples` → the pieces of each, one or more."""

    @abstractmethod
    def embed(self, piece: Piece) -> Tensor:
        """A piece → its tokens with positions (P, D)."""

    def states(self, tokens: Tensor, spans: Sequence[Spans]) -> Iterator[Tensor]:
        """Packed tokens (M, D) → the output of each block as it is, then the encoder's own last output; all (M, D)."""
        for block in self.blocks:
            tokens = block(tokens, spans)
            yield tokens
        yield self.last(tokens)

    def last(self, tokens: Tensor) -> Tensor:
        """What follows the last block, (M, D) → (M, D)."""
        return tokens


class PieceFrames:
    """A `PieceNetwork` as a `FrameModel`."""

    sampling_rate = SAMPLE_RATE

    def __init__(self, network: PieceNetwork, layers: Sequence[int] = (), pool: Pool | None = None) -> None:
        """Wrap a network in evaluation mode.

        Args:
            network: of any family.
            layers: blocks, 0 the first, whose outputs are averaged as they are; none: the encoder's own last output.
            pool: what becomes of the F frequency patches of one time: ``mean`` over them, ``concat`` side by side
                (F · D wide), ``none``: they follow each other as F frames of the same time; None: as the family does.

        Raises:
            ConfigError: no such block or pooling.
        """
        self.network, self.layers = network, check_layers(layers, len(network.blocks))
        self.pool: Pool = pool or network.default_pool
        if self.pool not in POOLS:
            raise ConfigError(f"pooling of frequency patches is {pool!r}, expected one of {', '.join(POOLS)}")
        bands = network.num_bands
        self.output_dim = network.width * (bands if self.pool == "concat" else 1)
        step = network.hop_samples / (bands if self.pool == "none" else 1)
        self.hop_size_in_ms = 1000 * step / SAMPLE_RATE
        self.min_samples = network.min_samples
        window = network.window_samples
        self.window_s = None if window is None else window / SAMPLE_RATE  # pieces of this length do not see each other

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """See `FrameModel`; D is F times as wide with ``concat``, T is F times as long with ``none``."""
        return [self._pooled(clip) for clip in self._encode(waveforms)]

    def tokens(self, waveforms: Sequence[Tensor]) -> list[list[Tensor]]:
        """All tokens of each piece of each clip in the network's own order, class tokens in front; (P, D) float32."""
        return [[tokens for tokens, _ in clip] for clip in self._encode(waveforms)]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        config = dataclasses.asdict(self.network.config)
        settings = {"kind": self.network.family, "config": config, "layers": list(self.layers), "pool": self.pool}
        return Identity(settings, self.network.state_dict(), count_parameters(self.network))

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network; front ends follow the device and stay float32."""
        self.network.to(device=device, dtype=dtype)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.float()

    def _encode(self, waveforms: Sequence[Tensor]) -> list[list[tuple[Tensor, Piece]]]:
        """The chosen hidden state of each piece of each clip."""
        shortest = min((w.shape[-1] for w in waveforms), default=self.min_samples)
        if shortest < self.min_samples:
            raise ClipTooShort(
                f"clip has {shortest} samples; one frame of {self.network.family} needs {self.min_samples} "
                f"({1000 * self.min_samples / SAMPLE_RATE:.0f} ms at 16 kHz): pad it with zeros"
            )
        device = next(self.network.parameters()).device
        clips = self.network.pieces([waveform.to(device, torch.float32) for waveform in waveforms])
        states = iter(run_pieces(self.network, [piece for clip in clips for piece in clip], self.layers))
        return [[(mean_of(next(states)), piece) for piece in clip] for clip in clips]

    def _pooled(self, clip: Sequence[tuple[Tensor, Piece]]) -> Tensor:
        rows = torch.cat([self._grid(tokens)[: piece.frames] for tokens, piece in clip])  # (T, F, D)
        if self.pool == "mean":
            return rows.mean(1)
        return rows.flatten(1) if self.pool == "concat" else rows.flatten(0, 1)

    def _grid(self, tokens: Tensor) -> Tensor:
        """Tokens of a piece (P, D) → (T, F, D)."""
        patches, bands = tokens[self.network.num_class_tokens :], self.network.num_bands
        if self.network.is_time_major:
            return patches.unflatten(0, (-1, bands))
        return patches.unflatten(0, (bands, -1)).transpose(0, 1)


def run_pieces(network: PieceNetwork, pieces: Sequence[Piece], layers: Sequence[int] = ()) -> list[list[Tensor]]:
    """Hidden states of each piece, each (P, D): behind the blocks in ``layers``, ascending, else the last output."""
    device = next(network.parameters()).device
    limit = _CPU_TOKENS_PER_THREAD * torch.get_num_threads() if device.type == "cpu" else _GPU_TOKENS
    found: list[list[Tensor]] = [[] for _ in pieces]
    shortest_first = sorted(range(len(pieces)), key=lambda i: len(pieces[i].features))
    embedded = ((index, network.embed(pieces[index])) for index in shortest_first)
    for group in grouped(embedded, lambda each: len(each[1]), limit):
        lengths = [len(tokens) for _, tokens in group]
        keys = [pieces[index].keys for index, _ in group]
        order, spans = plan_spans(lengths, [n if k is None else k for n, k in zip(lengths, keys, strict=True)])
        for state in _chosen(network.states(torch.cat([group[i][1] for i in order]), spans), layers):
            for i, part in zip(order, state.split([lengths[i] for i in order]), strict=True):
                found[group[i][0]].append(part)
    return found


def _chosen(states: Iterable[Tensor], layers: Sequence[int]) -> Iterator[Tensor]:
    """The states behind some blocks, and no more work than they need; the last one without any."""
    state = None
    for index, state in enumerate(states):
        if index in layers:
            yield state
            if index == layers[-1]:
                return
    if not layers and state is not None:
        yield state


def cut(features: Tensor, length: int | None, count: int) -> list[Piece]:
    """Cut features at whole time patches of 16 frames.

    Args:
        features: (frames, mels) of a whole clip.
        length: frames of a piece, a multiple of 16; None: one piece, however long.
        count: time patches of the clip.

    Returns:
        Pieces of the ``length`` and a last one of what is left, which may be more or less than its time patches hold.
    """
    if length is None:
        return [Piece(features, count)]
    each = length // _PATCH
    starts = range(0, count, each)
    return [Piece(features[_PATCH * s : _PATCH * s + length], min(each, count - s)) for s in starts]


def chunks_of(features: Tensor, length: int, patch: int) -> list[Piece]:
    """Chunks of ``length`` frames, and of each the whole time patches; a last one without any is left out."""
    return [Piece(chunk, len(chunk) // patch) for chunk in features.split(length) if len(chunk) >= patch]


def pad_frames(features: Tensor, frames: int) -> Tensor:
    """Features (T, M) with zeros behind them, (frames, M); as they are where they are longer."""
    return F.pad(features, (0, 0, 0, max(0, frames - len(features))))


def to_patches(features: Tensor) -> Tensor:
    """(T, M) → time-major square patches (T // 16 · M // 16, 256), element index time × 16 + mel.

    Frames behind the last whole patch are dropped.
    """
    rows, bands = len(features) // _PATCH, features.shape[1] // _PATCH
    grid = features[: rows * _PATCH].reshape(rows, _PATCH, bands, _PATCH)
    return grid.transpose(1, 2).flatten(0, 1).flatten(1)


def heads_of(width: int, settings: Mapping[str, Any], source: str, known: Mapping[int, int] | None = None) -> int:
    """The number of attention heads, which no tensor shows: as stated, as known for this width, or 64 wide each.

    Raises:
        ConfigError: it cannot be known.
    """
    stated = settings.get("num_heads", settings.get("nhead"))
    if isinstance(stated, int) and stated > 0 and width % stated == 0:
        return stated
    if known and width in known:
        return known[width]
    if stated is None and known is None and width % 64 == 0:
        return width // 64
    raise ConfigError(
        f"{source}: the weights are {width} wide and do not show the number of attention heads; put it into a "
        'config.json beside them: {"num_heads": …}'
    )


def geometry_of(state: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields of `TransformerConfig` that the tensors of plain blocks imply.

    Raises:
        ConfigError: see `heads_of`.
    """
    hidden, width = state["blocks.0.mlp.fc1.weight"].shape
    heads = heads_of(width, settings, source)
    return {"embed_dim": width, "depth": depth_of(state), "num_heads": heads, "mlp_ratio": hidden / width}


def depth_of(tensors: Iterable[str], prefix: str = "blocks.") -> int:
    """How many blocks the names of a state dict number, from 0 on."""
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors behind a prefix, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
