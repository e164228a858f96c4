"""Objective ``vocode``: clean speech from an encoder's frames, by the recipe of Vocos (arXiv 2306.00814).

A step has two updates: the discriminators learn to tell recorded speech from what the vocoder makes, then the vocoder
learns to be taken for recorded, to match their hidden layers, and to have the same log-mel.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auricle.data import mixing
from auricle.data.degrade import make_speech
from auricle.data.scenes import Pools
from auricle.errors import ConfigError
from auricle.models.dasheng import SAMPLES_PER_TOKEN
from auricle.models.denoiser import Denoiser, DenoiserConfig
from auricle.train.config import RunConfig, VocodeSettings
from auricle.train.discriminators import MIN_SAMPLES, Discriminators
from auricle.train.objective import Batch, Objective, open_clips, run_card
from auricle.train.vocoder_losses import MelLoss, discriminator_loss, feature_loss, generator_loss
from auricle.weights import load_dasheng
from auricle.weights.vocoders.denoiser import load_denoiser
from auricle.weights.writers import save_denoiser

_DISCRIMINATORS, _VOCODER, _MEL_ONLY = {"part": "discriminators"}, {"part": "vocoder"}, {"part": "mel"}
_LEVEL_DB = (-38.0, -14.0)  # active level of the speech, the range of `data.degrade`
_UNTRAINED = "Its denoise encoder is not trained: train that by the objective denoise before any use."


class VocodeObjective(Objective):
    """Windows of encoded crops of speech; the encoder and the denoise encoder do not learn."""

    network: Denoiser

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        settings = config.vocode
        self.config = config
        self.num_samples, self.num_tokens = whole_tokens("vocode.crop_s", settings.crop_s)
        self.window_samples, self.window_tokens = whole_tokens("vocode.window_s", settings.window_s)
        if not MIN_SAMPLES <= self.window_samples <= self.num_samples:
            raise ConfigError(
                f"vocode.window_s is {settings.window_s}, expected at least {MIN_SAMPLES / mixing.SAMPLE_RATE:.3f}, "
                f"which discriminators need, and at most crop_s, {settings.crop_s}"
            )
        self.clips = open_clips(config)
        self.pools = Pools(self.clips, settings.set_weights)
        self.network = _build(settings)
        self.network.requires_grad_(False)
        for part in (self.network.backbone, self.network.head):
            part.requires_grad_(True)
        self.discriminators = Discriminators(settings.discriminator_channels)
        self.mel_loss = MelLoss()
        self.values: dict[str, float] = {}

    def train(self, mode: bool = True) -> "VocodeObjective":
        """Training mode; the encoder keeps the statistics of its input norm."""
        super().train(mode)
        self.network.encoder.eval()
        return self

    def updates(self, step: int) -> Sequence[Mapping[str, Any]]:
        """Discriminators, then vocoder; before ``mel_only_steps`` the vocoder by its mel loss alone."""
        return (_MEL_ONLY,) if step < self.config.vocode.mel_only_steps else (_DISCRIMINATORS, _VOCODER)

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Crops ``start … stop`` of the batch of ``step``, and where the window of each starts."""
        crops, starts = [], []
        for place in range(start, stop):
            rng = np.random.default_rng((self.config.seed, step, place))
            speech = make_speech(self.pools, rng, self.num_samples)
            crops.append(mixing.limit_peak(mixing.to_level(speech, float(rng.uniform(*_LEVEL_DB)))))
            starts.append(int(rng.integers(self.num_tokens - self.window_tokens + 1)))
        inputs = {"waveform": torch.from_numpy(np.stack(crops)), "start": torch.tensor(starts)}
        return Batch(inputs, len(crops), len(crops) * self.window_samples / mixing.SAMPLE_RATE)

    def forward(self, waveform: Tensor, start: Tensor, part: str) -> Tensor:
        """Loss () of the part that learns.

        Args:
            waveform: (B, N) clean speech.
            start: (B,) first token of each window.
            part: ``discriminators``, ``vocoder``, or ``mel``: the vocoder without discriminators.
        """
        frames = torch.stack(self.network.encode(list(waveform)))
        count, size = self.window_tokens, SAMPLES_PER_TOKEN
        windows = torch.stack([each[s : s + count] for each, s in zip(frames, start.tolist(), strict=True)])
        recorded = torch.stack(
            [each[s * size : (s + count) * size] for each, s in zip(waveform, start.tolist(), strict=True)]
        )
        if part == "discriminators":
            with torch.no_grad():
                made = self.network.vocode(windows)
            return self._discriminator_loss(recorded, made)
        return self._vocoder_loss(recorded, self.network.vocode(windows), with_discriminators=part == "vocoder")

    def _discriminator_loss(self, recorded: Tensor, made: Tensor) -> Tensor:
        (periods, resolutions), (made_periods, made_resolutions) = map(self.discriminators, (recorded, made))
        loss = discriminator_loss(periods, made_periods)
        loss = loss + self.config.vocode.resolution_weight * discriminator_loss(resolutions, made_resolutions)
        self.values["discriminator_loss"] = loss.item()
        return loss

    def _vocoder_loss(self, recorded: Tensor, made: Tensor, *, with_discriminators: bool) -> Tensor:
        settings = self.config.vocode
        mel: Tensor = self.mel_loss(recorded, made)
        self.values["mel_loss"] = mel.item()
        loss = settings.mel_weight * mel
        if not with_discriminators:
            return loss
        with torch.no_grad():
            found = self.discriminators(recorded)
        with _fixed(self.discriminators):
            made_found = self.discriminators(made)
        for weight, true, false in zip((1.0, settings.resolution_weight), found, made_found, strict=True):
            loss = loss + weight * (generator_loss(false) + feature_loss(true, false))
        return loss

    def log_values(self) -> dict[str, float]:
        """The mel loss without its weight, and the loss of the discriminators, of the last batch."""
        return self.values

    def provenance(self) -> dict[str, str]:
        """Of the clips."""
        return {"data": self.clips.manifest_hash}

    def export(self, folder: Path) -> None:
        """The denoiser; unless the run started from one, its denoise encoder is not trained, and the card says so."""
        card = run_card(self.config, self.clips.manifest_hash)
        card = card if self.config.vocode.init else replace(card, limits=(_UNTRAINED,))
        save_denoiser(folder, self.network, card=card)


def whole_tokens(name: str, seconds: float) -> tuple[int, int]:
    """Samples and tokens of a setting in seconds.

    Raises:
        ConfigError: it is not a positive whole number of 40 ms tokens.
    """
    num_tokens = round(seconds * mixing.SAMPLE_RATE / SAMPLES_PER_TOKEN)
    if num_tokens < 1 or abs(num_tokens * SAMPLES_PER_TOKEN - seconds * mixing.SAMPLE_RATE) > 1e-6:
        raise ConfigError(f"{name} is {seconds}; expected a positive multiple of 0.04 s, one token")
    return num_tokens * SAMPLES_PER_TOKEN, num_tokens


@contextmanager
def _fixed(module: nn.Module) -> Iterator[None]:
    """Gradients flow through a module, none to its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _build(settings: VocodeSettings) -> Denoiser:
    if settings.init:
        return load_denoiser(settings.init, dtype="float32").model
    encoder = load_dasheng(settings.encoder, dtype="float32")
    # The smallest denoise encoder: it is part of every denoiser, and has not learnt yet.
    config = DenoiserConfig(
        encoder=encoder.config,
        num_heads=encoder.config.num_heads,
        num_layers=1,
        mlp_ratio=1.0,
        backbone_dim=settings.backbone_dim,
        backbone_hidden_dim=settings.backbone_hidden_dim,
        backbone_layers=settings.backbone_layers,
    )
    model = Denoiser(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return model
