"""What an objective is: a network with its loss, and how its batches are made."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn


class Batch(NamedTuple):
    """One micro-batch, made on the CPU ahead of time."""

    inputs: dict[str, Any]  # what `Objective.forward` needs; tensors are moved to the device
    weight: int  # items its loss is a mean over (hidden patches, label tokens)
    audio_s: float  # seconds of audio in it


class Objective(Protocol):
    """An ``nn.Module`` with these members; every random draw is keyed by (seed, step, clip), never by global state."""

    network: nn.Module

    def __call__(self, **inputs: Any) -> Tensor:
        """Inputs of a `Batch` → mean loss ()."""

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Clips ``start … stop`` of the batch of ``step``; called from several threads."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with ``params`` and ``lr_scale``."""

    def export(self, folder: str, facts: dict[str, Any]) -> None:
        """Write the trained model in its official layout."""
