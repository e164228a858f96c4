"""Objective ``mae``: rebuild hidden log-mel patches; with a teacher, predict also what it finds in the whole crop."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auricle.data import mixing
from auricle.data.cache import CachedClips
from auricle.data.order import batch_ids
from auricle.errors import ConfigError
from auricle.models.dasheng import SAMPLES_PER_TOKEN, Dasheng, DashengConfig, num_tokens
from auricle.models.mae import MAEConfig, MaskedAutoencoder
from auricle.train.config import RunConfig
from auricle.train.objective import Batch, Objective, open_clips, run_card
from auricle.train.teacher import NOTHING_TAUGHT, Taught, TeacherHead, load_teacher
from auricle.weights import load_dasheng, safe, save_dasheng


class MaeObjective(Objective):
    """Crops of ``crop_s`` seconds from the packed clips; short clips are followed by others until the crop is full."""

    network: MaskedAutoencoder

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        settings = config.mae
        self.config = config
        self.clips = open_clips(config)
        # One sample short of a whole token, so that the crop has exactly that many (1 + N // 160) // 4 tokens.
        self.num_samples = round(settings.crop_s * 16_000) // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN
        self.num_tokens = num_tokens(self.num_samples)
        if self.num_tokens % 2 or not 0 < self.num_tokens <= 252:
            raise ConfigError(
                f"mae.crop_s {settings.crop_s} gives {self.num_tokens} tokens; an even number up to 252 is needed"
            )
        encoder = Dasheng(
            DashengConfig(embed_dim=settings.embed_dim, depth=settings.depth, num_heads=settings.num_heads)
        )
        if settings.init:
            encoder = load_dasheng(settings.init, dtype="float32")
        self.sets = _numbers_by_set(self.clips, settings.set_shares) if settings.set_shares else None
        self.values: dict[str, float] = {}
        self.teach = load_teacher(settings.teacher).teach if settings.teacher else None
        self.head = TeacherHead(encoder.config.embed_dim) if settings.teacher else None
        self.network = MaskedAutoencoder(
            encoder,
            MAEConfig(
                embed_dim=settings.decoder_dim,
                depth=settings.decoder_depth,
                num_heads=settings.decoder_heads,
                mask_ratio=settings.mask_ratio,
            ),
        )

    def forward(self, waveform: Tensor, noise: Tensor, logits: Tensor, embeddings: Tensor) -> Tensor:
        """Loss () of crops.

        Args:
            waveform: (B, N) crops.
            noise: (B, L // 2) of the mask.
            logits: (B, W, 521) that the teacher gives them; (B, 0, 521) without one.
            embeddings: (B, W, 1024).
        """
        loss: Tensor = self.network(waveform, noise).loss
        if self.head is not None:
            frames = self.network.encoder.encode(list(waveform))
            taught = self.head(frames, list(map(Taught, logits, embeddings)))
            self.values = {"rebuild_loss": loss.item(), "teacher_loss": taught.item()}
            loss = loss + self.config.mae.teacher_weight * taught
        return loss

    def log_values(self) -> dict[str, float]:
        """The two losses of the last batch, where there is a teacher."""
        return self.values

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Clips ``start … stop`` of the batch of ``step``."""
        ids = batch_ids(step, self.config.batch_size, len(self.clips), self.config.seed)[start:stop]
        crops, noises = [], []
        for place, clip in enumerate(ids, start):
            rng = np.random.default_rng((self.config.seed, step, place))
            crops.append(self._crop(self._any_clip(rng) if self.sets else int(clip), rng))
            noises.append(rng.random(self.num_tokens // 2, dtype=np.float32))
        waveform = torch.from_numpy(np.stack(crops))
        taught = self.teach(waveform) if self.teach else [NOTHING_TAUGHT] * len(crops)
        inputs = {
            "waveform": waveform,
            "noise": torch.from_numpy(np.stack(noises)),
            "logits": torch.stack([found.logits for found in taught]),
            "embeddings": torch.stack([found.embeddings for found in taught]),
        }
        hidden = self.num_tokens - int(self.num_tokens * (1 - self.config.mae.mask_ratio))
        return Batch(inputs, hidden * len(crops), len(crops) * self.config.mae.crop_s)

    def _crop(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        """A crop at a random level; by ``mae.mix`` a sum of two, which are also played faster or slower."""
        crop = self._joined(clip, rng)
        if rng.random() < self.config.mae.mix:
            other = self._joined(self._any_clip(rng), rng)
            factors = np.exp(rng.uniform(-0.5, 0.5, size=2))
            crop, other = (mixing.change_speed(*pair) for pair in zip((crop, other), factors, strict=True))
            crop = mixing.loop(mixing.mix(crop, other, float(rng.uniform(-5, 15))), self.num_samples)
        return crop * np.float32(10.0 ** (rng.uniform(-12.0, 6.0) / 20.0))

    def _joined(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        crop = np.zeros(self.num_samples, dtype=np.float32)
        filled = 0
        while filled < self.num_samples:
            waveform = self.clips.read(clip).waveform
            spare = len(waveform) - (self.num_samples - filled)
            offset = int(rng.integers(spare + 1)) if spare > 0 else 0
            piece = waveform[offset : offset + self.num_samples - filled]
            crop[filled : filled + len(piece)] = piece
            filled += len(piece) + int(rng.integers(800))  # up to 50 ms of silence between clips
            clip = self._any_clip(rng)
        return crop

    def _any_clip(self, rng: np.random.Generator) -> int:
        if self.sets is None:
            return int(rng.integers(len(self.clips)))
        limits, numbers = self.sets
        return int(rng.choice(numbers[int(np.searchsorted(limits, rng.random(), side="right"))]))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group: the reference decays every parameter."""
        return [{"params": list(self.parameters()), "lr": lr, "lr_scale": 1.0}]

    def provenance(self) -> dict[str, str]:
        """Of the clips and the teacher."""
        teacher = self.config.mae.teacher
        return {"data": self.clips.manifest_hash} | ({"teacher": safe.sha256(teacher)} if teacher else {})

    def export(self, folder: Path) -> None:
        """The encoder alone, in the official Hugging Face layout."""
        save_dasheng(folder, self.network.encoder, card=run_card(self.config, self.clips.manifest_hash))


def _numbers_by_set(clips: CachedClips, shares: Mapping[str, float]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Upper limits in 0 … 1 of each set's share, and the numbers of its clips.

    Raises:
        ConfigError: the shares of all sets that are there are 0.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for number in range(len(clips)):
        found[str(clips.read_meta(number).get("set", ""))].append(number)
    limits = np.cumsum([shares.get(name, 1.0) for name in found])
    if not limits[-1] > 0:
        raise ConfigError(f"mae.set_shares are 0 for all sets of the clips ({', '.join(found)}); give one a share")
    return limits / limits[-1], [np.asarray(numbers) for numbers in found.values()]
