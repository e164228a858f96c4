"""Several encoders as one: their frames side by side, aligned in time.

The slowest encoder sets the clock. With H its hop, frame i of the result covers [i·H, (i+1)·H); of every other
encoder the frames whose centres ``(j + 0.5) · hop`` fall into that span are averaged, and where none does (hops that
do not divide, the end of a clip) the one with the nearest centre is taken. Frames behind the slowest encoder's last are
dropped, so the result has as many frames as the slowest encoder gives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from auricle.errors import ConfigError
from auricle.models.frame_model import FrameModel, Identity


class FusedFrames:
    """A `FrameModel` of several; D is the sum of theirs, in their order."""

    def __init__(self, parts: Sequence[FrameModel]) -> None:
        """Fuse two or more encoders of the same sampling rate.

        Raises:
            ConfigError: fewer than two, or different sampling rates.
        """
        rates = {part.sampling_rate for part in parts}
        if len(parts) < 2 or len(rates) > 1:
            raise ConfigError(f"{len(parts)} encoders at {sorted(rates)} Hz; fuse two or more of one sampling rate")
        self.parts = tuple(parts)
        self.sampling_rate = parts[0].sampling_rate
        self.output_dim = sum(part.output_dim for part in parts)
        self.hop_size_in_ms = max(part.hop_size_in_ms for part in parts)
        self.min_samples = max(part.min_samples for part in parts)

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """See `FrameModel`; (T_i, D) on the device of the first part."""
        streams = zip(*(part.frames(waveforms) for part in self.parts), strict=True)
        return [self._fuse(clip) for clip in streams]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        found = [part.identity() for part in self.parts]
        tensors = {f"{i}.{name}": tensor for i, one in enumerate(found) for name, tensor in one.tensors.items()}
        parameters = sum(one.num_parameters for one in found)
        return Identity({"kind": "fused", "parts": [one.settings for one in found]}, tensors, parameters)

    def _fuse(self, clip: Sequence[Tensor]) -> Tensor:
        hops = [part.hop_size_in_ms for part in self.parts]
        length = min(len(frames) for frames, hop in zip(clip, hops, strict=True) if hop == self.hop_size_in_ms)
        aligned = [
            align(frames.to(clip[0].device), hop, self.hop_size_in_ms, length)
            for frames, hop in zip(clip, hops, strict=True)
        ]
        return torch.cat(aligned, dim=1)


def align(frames: Tensor, hop_ms: float, target_ms: float, length: int) -> Tensor:
    """Frames on another clock, by the rule of this module.

    Args:
        frames: (T, D), T at least 1.
        hop_ms: of these frames.
        target_ms: hop of the result, at least ``hop_ms``.
        length: frames of the result.

    Returns:
        (length, D).
    """
    if hop_ms == target_ms and len(frames) >= length:
        return frames[:length]
    centres = (torch.arange(len(frames), dtype=torch.float64) + 0.5) * hop_ms
    homes = (centres / target_ms).long().to(frames.device)
    inside = homes < length
    sums = frames.new_zeros(length, frames.shape[1]).index_add_(0, homes[inside], frames[inside])
    counts = torch.bincount(homes[inside], minlength=length)[:, None]
    middles = (torch.arange(length, dtype=torch.float64) + 0.5) * target_ms
    nearest = (middles / hop_ms).long().clamp(max=len(frames) - 1).to(frames.device)
    return torch.where(counts > 0, sums / counts.clamp(min=1), frames[nearest])
