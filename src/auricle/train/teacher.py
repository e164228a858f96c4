"""A tagger of sound events whose scores an encoder learns to predict: YAMNet, for training only.

Source: YAMNet of the TensorFlow models repository (Apache-2.0): MobileNet v1 on log-mel patches of 0.96 s, trained on
the 521 classes of AudioSet. Its published TFLite file is converted by ``recipes/tiny/teacher.py``.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import CPU_HAS_BFLOAT16
from auricle.weights import safe

CLASSES, EMBEDDING = 521, 1024
# Stride and width of each depthwise block, from the published network's shapes.
_BLOCKS = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *((1, 512), (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024)),
)
_WINDOW, _HOP, _FFT = 400, 160, 512  # samples at 16 kHz
_PATCH, _PATCH_HOP = 96, 48  # frames of 10 ms
_AT_ONCE = 32  # patches: what they become between layers stays in the processor's cache, which is five times as fast
_LOG_OFFSET = 0.001
WINDOW_SAMPLES = _WINDOW + _HOP * (_PATCH - 1)  # 15,600
TOKENS, TOKENS_HOP = 24, 12  # of 40 ms, of a patch and from one to the next


class Taught(NamedTuple):
    """What the teacher finds in one clip, in W windows of 0.96 s every 0.48 s."""

    logits: Tensor  # (W, 521) float32, before the sigmoid
    embeddings: Tensor  # (W, 1024) float32, of length 1


NOTHING_TAUGHT = Taught(torch.empty(0, CLASSES), torch.empty(0, EMBEDDING))


class EventTeacher(nn.Module):
    """YAMNet in evaluation mode."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.zeros(_WINDOW))
        self.register_buffer("filters", torch.zeros(_FFT // 2 + 1, 64))
        self.first = nn.Conv2d(1, 32, 3, stride=2)
        widths = [32, *(width for _, width in _BLOCKS)]
        self.depthwise = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=stride, groups=width)
            for width, (stride, _) in zip(widths, _BLOCKS, strict=False)
        )
        self.pointwise = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in pairwise(widths))
        self.classes = nn.Linear(EMBEDDING, CLASSES)
        self.requires_grad_(False).eval()

    def mel(self, waveform: Tensor) -> Tensor:
        """Clip (N,) at 16 kHz in [-1, 1] → log-mel (T, 64)."""
        frames = waveform.unfold(0, _WINDOW, _HOP) * self.window
        spectrum = torch.fft.rfft(frames, _FFT).abs()
        return (spectrum @ self.filters + _LOG_OFFSET).log()

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel patches (W, 96, 64) → logits (W, 521) and embeddings (W, 1024)."""
        x = F.relu(self.first(_same(patches[:, None])))
        for (stride, _), depthwise, pointwise in zip(_BLOCKS, self.depthwise, self.pointwise, strict=True):
            x = F.relu(depthwise(_same(x, stride)))
            x = F.relu(pointwise(x))
        embeddings = x.mean((2, 3))
        return self.classes(embeddings), embeddings

    @torch.no_grad()
    def teach(self, waveforms: Iterable[Tensor]) -> list[Taught]:
        """Clips (N_i,) float32 at 16 kHz → what is in each; short ones are padded with zeros to one window.

        The network runs in bfloat16 on processors that compute in it: its targets change by about 0.01.
        """
        patches = [self._patches(each) for each in waveforms]
        found = [self(some) for some in torch.cat(patches).to(self.first.weight.dtype).split(_AT_ONCE)]
        logits, embeddings = (torch.cat(each).float() for each in zip(*found, strict=True))
        counts = [len(each) for each in patches]
        pairs = zip(logits.split(counts), F.normalize(embeddings, dim=-1).split(counts), strict=True)
        return [Taught(*pair) for pair in pairs]

    def _patches(self, waveform: Tensor) -> Tensor:
        missing = WINDOW_SAMPLES - len(waveform)
        mel = self.mel(F.pad(waveform, (0, missing)) if missing > 0 else waveform)
        return mel.unfold(0, _PATCH, _PATCH_HOP).transpose(1, 2)


def _same(x: Tensor, stride: int = 2) -> Tensor:
    """TensorFlow's "same" padding of a 3x3 convolution: more at the end where the stride is 2 and the length even."""
    sides = []
    for length in (x.shape[3], x.shape[2]):
        total = max(0, (-(-length // stride) - 1) * stride + 3 - length)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class TeacherHead(nn.Module):
    """Linear heads on encoder frames (25 Hz) that predict what the teacher finds; they are not exported."""

    def __init__(self, width: int) -> None:
        """``width``: of the encoder."""
        super().__init__()
        self.scores = nn.Linear(width, CLASSES)
        self.embeddings = nn.Linear(width, EMBEDDING)
        nn.init.constant_(self.scores.bias, -6.0)  # nearly every class is absent from nearly every window

    def forward(self, frames: Sequence[Tensor], taught: Sequence[Taught]) -> Tensor:
        """Frames (P_i, D) of each clip and what the teacher found in it → loss ().

        The Kullback-Leibler divergence of the scores, summed over classes, and the cosine distance of the embeddings,
        each a mean over windows.
        """
        pooled = torch.cat([_pooled(clip, len(found.logits)) for clip, found in zip(frames, taught, strict=True)])
        wanted = torch.cat([found.logits for found in taught])
        scores = wanted.sigmoid()
        predicted = self.scores(pooled).float()
        divergence = F.binary_cross_entropy_with_logits(predicted, scores, reduction="none")
        divergence = divergence - F.binary_cross_entropy_with_logits(wanted, scores, reduction="none")
        embeddings = F.normalize(self.embeddings(pooled).float(), dim=-1)
        distance = 1 - (embeddings * torch.cat([found.embeddings for found in taught])).sum(-1)
        return divergence.sum(-1).mean() + distance.mean()


def _pooled(frames: Tensor, count: int) -> Tensor:
    """Frames (P, D) → their means in the teacher's windows (count, D); a clip shorter than one has one."""
    sums = F.pad(frames.float().cumsum(0), (0, 0, 1, 0))
    starts = (TOKENS_HOP * torch.arange(count, device=frames.device)).clamp(max=len(frames) - 1)
    stops = (starts + TOKENS).clamp(max=len(frames))
    return (sums[stops] - sums[starts]) / (stops - starts)[:, None]


def load_teacher(path: str | Path) -> EventTeacher:
    """The teacher of a file that ``recipes/tiny/teacher.py`` wrote.

    Raises:
        ConfigError: the file holds other tensors.
        WeightsError: it cannot be read.
    """
    teacher = EventTeacher()
    wanted, tensors = teacher.state_dict(), safe.read_tensors(path)
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise ConfigError(
            f"{path}: tensor {wrong[0]} is missing, unknown or of another shape than in YAMNet; convert its published "
            "file by recipes/tiny/teacher.py"
        )
    teacher.load_state_dict(tensors)
    dtype = torch.bfloat16 if CPU_HAS_BFLOAT16 else torch.float32
    for part in teacher.children():  # not the mel filters
        part.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher
