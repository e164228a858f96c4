"""Objective ``denoise``: noisy frames of an encoder become clean ones (Dasheng-Denoiser, arXiv 2506.11514).

Speech and its noisy version go through the encoder, which does not learn; the denoise encoder brings the noisy frames
near the clean ones. The paper's authors show the mean absolute difference, summaries of it the squared one.
"""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.data.degrade import DegradeConfig, make_pair
from auricle.data.mixing import SAMPLE_RATE
from auricle.data.scenes import Pools
from auricle.errors import ConfigError
from auricle.models.denoiser import Denoiser
from auricle.train.config import DenoiseSettings, RunConfig
from auricle.train.objective import Batch, Objective, open_clips, run_card
from auricle.train.vocode import whole_tokens
from auricle.weights.vocoders.denoiser import load_denoiser
from auricle.weights.writers import save_denoiser


class DenoiseObjective(Objective):
    """Pairs of noisy and clean speech, made as they are needed; the encoder and the vocoder do not learn."""

    network: Denoiser

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        settings = config.denoise
        self.config = config
        self.num_samples, _ = whole_tokens("denoise.crop_s", settings.crop_s)
        known = [field.name for field in fields(DegradeConfig)]
        if unknown := settings.degrade.keys() - set(known):
            raise ConfigError(f"denoise.degrade has no setting {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        self.degrade = DegradeConfig(**settings.degrade)
        self.clips = open_clips(config)
        self.pools = Pools(self.clips, settings.set_weights)
        self.network = _build(settings)
        self.network.requires_grad_(False)
        self.network.denoise_encoder.requires_grad_(True)
        self.values: dict[str, float] = {}

    def train(self, mode: bool = True) -> "DenoiseObjective":
        """Training mode; the encoder keeps the statistics of its input norm."""
        super().train(mode)
        self.network.encoder.eval()
        return self

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Pairs ``start … stop`` of the batch of ``step``."""
        pairs = [
            make_pair(
                self.pools, np.random.default_rng((self.config.seed, step, place)), self.num_samples, self.degrade
            )
            for place in range(start, stop)
        ]
        inputs = {name: torch.from_numpy(np.stack([getattr(p, name) for p in pairs])) for name in ("noisy", "clean")}
        return Batch(inputs, len(pairs), len(pairs) * self.num_samples / SAMPLE_RATE)

    def forward(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Waveforms (B, N), twice → mean distance () between denoised and clean frames."""
        frames = self.network.encode([*noisy, *clean])
        before, wanted = torch.stack(frames[: len(noisy)]).float(), torch.stack(frames[len(noisy) :]).float()
        denoised = torch.stack(self.network.denoise_frames(frames[: len(noisy)])).float()
        distance = F.l1_loss if self.config.denoise.distance == "l1" else F.mse_loss
        loss: Tensor = distance(denoised, wanted)
        self.values = {"noisy_distance": distance(before, wanted).item()}
        return loss

    def log_values(self) -> dict[str, float]:
        """How far the noisy frames of the last batch are from the clean ones: what the loss is to be compared with."""
        return self.values

    def provenance(self) -> dict[str, str]:
        """Of the clips."""
        return {"data": self.clips.manifest_hash}

    def export(self, folder: Path) -> None:
        """The whole denoiser."""
        save_denoiser(folder, self.network, card=run_card(self.config, self.clips.manifest_hash))


def _build(settings: DenoiseSettings) -> Denoiser:
    if settings.init:
        return load_denoiser(settings.init, dtype="float32").model
    if not settings.vocoder:
        raise ConfigError(
            "denoise has neither a vocoder nor a denoiser to start from; set denoise.vocoder to what "
            "objective=vocode made, or denoise.init to a denoiser"
        )
    start = load_denoiser(settings.vocoder, dtype="float32").model
    sizes = {name: getattr(settings, name) for name in ("num_layers", "num_heads", "mlp_ratio")}
    model = Denoiser(replace(start.config, **sizes))
    for part in ("encoder", "backbone", "head"):
        getattr(model, part).load_state_dict(getattr(start, part).state_dict())
    return model
