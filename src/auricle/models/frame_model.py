"""The interface of everything that turns a clip into frames, and its content hash."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import ConfigError, WeightsError
from auricle.models.dasheng import HOP_MS, MIN_SAMPLES, Dasheng

NOT_FINITE = (
    "the model's output has NaN or infinities: its weights or settings are damaged, or float16 is too narrow for it; "
    "use float32, or download the model again"
)


def check_finite(outputs: Tensor) -> Tensor:
    """Outputs of a model as they are.

    Raises:
        WeightsError: one is NaN or infinite.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise WeightsError(NOT_FINITE)
    return outputs


class Identity(NamedTuple):
    """Everything that decides the frames of a clip."""

    settings: dict[str, Any]  # JSON-able
    tensors: Mapping[str, Tensor]
    num_parameters: int = 0  # of these, what training can change


class Identified(Protocol):
    """A model with settings and tensors, see `content_hash`."""

    def identity(self) -> Identity:
        """Settings and tensors."""


class FrameModel(Identified, Protocol):
    """An encoder network with its choice of layers; `auricle.encode.encoder.Encoder` is built upon it."""

    sampling_rate: int  # Hz
    output_dim: int  # width D of a frame
    hop_size_in_ms: float  # from one frame to the next
    min_samples: int  # shorter clips are padded with zeros to this length by the caller

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Ragged clips (N_i,) float32 in [-1, 1] → frames (T_i, D) float32, each clip independent of the others."""


class DashengFrames:
    """`Dasheng` as a `FrameModel`."""

    sampling_rate = SAMPLE_RATE
    hop_size_in_ms: float = HOP_MS
    min_samples = MIN_SAMPLES

    def __init__(self, model: Dasheng, layers: Sequence[int] = ()) -> None:
        """Wrap a network in evaluation mode.

        Args:
            model: the network.
            layers: blocks, 0 the first, whose outputs are averaged, not normalised; none: the last, normalised.

        Raises:
            ConfigError: the network has no such block.
        """
        self.network, self.layers = model, check_layers(layers, model.config.depth)
        self.output_dim = model.config.embed_dim

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """See `FrameModel`."""
        device = next(self.network.parameters()).device
        moved = [waveform.to(device, torch.float32) for waveform in waveforms]
        return self._chosen(self.network.encode_layers(moved, self.layers))

    def frames_of_mels(self, mels: Sequence[Tensor], num_samples: Sequence[int]) -> list[Tensor]:
        """As `frames`, from log-mels (64, T_i) in dB of clips of ``num_samples`` samples."""
        return self._chosen(self.network.encode_mels(mels, num_samples, self.layers))

    def _chosen(self, states: list[list[Tensor]]) -> list[Tensor]:
        chosen = states[: len(self.layers)] or states
        return [mean_of(clip) for clip in zip(*chosen, strict=True)]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        config = dataclasses.asdict(self.network.config)
        if not config["acoustic"]:
            del config["acoustic"]  # encoders without that branch are what they were before it was known
        settings = {"kind": "dasheng", "config": config, "layers": list(self.layers)}
        return Identity(settings, self.network.state_dict(), count_parameters(self.network))


def count_parameters(network: nn.Module) -> int:
    """Numbers that training can change."""
    return sum(parameter.numel() for parameter in network.parameters())


def check_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Block numbers in ascending order.

    Raises:
        ConfigError: one does not exist, or is repeated.
    """
    if wrong := [layer for layer in layers if not 0 <= layer < depth]:
        raise ConfigError(f"layer is {wrong[0]}; this encoder has blocks 0 to {depth - 1}")
    if len(set(layers)) < len(layers):
        raise ConfigError(f"layers are {', '.join(map(str, layers))}; name each block once")
    return tuple(sorted(layers))


def mean_of(states: Sequence[Tensor]) -> Tensor:
    """The mean of hidden states of one shape, float32."""
    if len(states) == 1:
        return states[0].float()
    return torch.stack([state.float() for state in states]).mean(0)


def content_hash(model: Identified) -> str:
    """Hexadecimal SHA-256 over settings and tensors: equal exactly where the frames are equal, whatever the name."""
    settings, tensors, _ = model.identity()
    return tensors_sha256(tensors, json.dumps(settings, sort_keys=True))


def tensors_sha256(tensors: Mapping[str, Tensor], start: str = "") -> str:
    """Hexadecimal SHA-256 over a text and names, types, shapes and values of tensors, whatever file holds them."""
    digest = hashlib.sha256(start.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
