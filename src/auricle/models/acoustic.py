"""The acoustic branch of DashengTokenizer's encoder: one linear layer on log-mel patches, beside Dasheng's frames.

Source: remote code of mispeech/dashengtokenizer (arXiv 2602.23765).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.logmel import LogMel, MelSpec
from auricle.models.blocks import PatchEmbed

PATCH_FRAMES = 4  # mel frames of a patch, 40 ms
ACOUSTIC_MEL = MelSpec(n_fft=1024, num_mels=128)
FLOOR = 1e-7  # of a magnitude, before the logarithm


class MagnitudeMel(LogMel):
    """Logarithm of mel magnitudes, which have no floor relative to the clip; float32 always."""

    def __init__(self) -> None:
        """128 HTK bands from windows of 64 ms."""
        super().__init__(ACOUSTIC_MEL)

    def forward(self, waveform: Tensor, *, batch_floor: bool = False) -> Tensor:
        """(B, N) or (N,) samples in [-1, 1] → (B, 128, 1 + N // 160) float32.

        Clips shorter than 513 samples, which reflect padding refuses, are padded with zeros to these first.
        """
        waveform = waveform if waveform.ndim == 2 else waveform[None]
        frames = self.spec.num_frames(waveform.shape[-1])
        waveform = F.pad(waveform, (0, max(0, self.spec.min_samples - waveform.shape[-1])))
        with torch.autocast(waveform.device.type, enabled=False):
            magnitude = self._power(waveform).unflatten(-1, (-1, 2)).sum(-1).sqrt()
            return (magnitude @ self.filterbank).clamp(min=FLOOR).log().transpose(1, 2)[..., :frames]


class AcousticBranch(nn.Module):
    """Log-mel patches → linear → LayerNorm (eps 1e-5), at the 25 Hz of Dasheng's frames."""

    def __init__(self, width: int) -> None:
        """``width``: of the encoder."""
        super().__init__()
        self.front_end = MagnitudeMel()
        self.patch_embed = PatchEmbed(width, (ACOUSTIC_MEL.num_mels, PATCH_FRAMES))
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) → frames (P_i, D), each clip independent of the others."""
        patches = []
        for waveform in waveforms:
            mel = self.front_end(waveform)[0]
            count = mel.shape[-1] // PATCH_FRAMES
            cut = mel[:, : count * PATCH_FRAMES].unflatten(-1, (count, PATCH_FRAMES))
            patches.append(cut.transpose(0, 1).flatten(1))
        frames = self.norm(self.patch_embed(torch.cat(patches)))
        return list(frames.split([len(clip) for clip in patches]))
