"""One small network with random weights of each family that cuts clips into pieces."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from auricle.models.encoders.atst import Atst, AtstConfig
from auricle.models.encoders.audiomae import AudioMae, AudioMaeConfig
from auricle.models.encoders.beats import Beats, BeatsConfig
from auricle.models.encoders.best_rq import BestRq, BestRqConfig
from auricle.models.encoders.ced import Ced, CedConfig
from auricle.models.encoders.data2vec2 import Data2Vec2, Data2Vec2Config
from auricle.models.encoders.eat import Eat, EatConfig
from auricle.models.encoders.msm_mae import MsmMae, MsmMaeConfig
from auricle.models.encoders.pieces import PieceFrames, PieceNetwork

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VIT: dict[str, Any] = {**SMALL, "mlp_ratio": 2.0}
CONV: dict[str, Any] = {"conv_pos": 16, "conv_pos_groups": 4, "ffn_dim": 64, "patch_dim": 24}
NETWORKS: dict[str, tuple[type[PieceNetwork], Any]] = {
    "beats": (Beats, BeatsConfig(**SMALL, **CONV)),
    "openbeats": (Beats, BeatsConfig(**SMALL, **CONV, repeat_short=True)),
    "eat": (Eat, EatConfig(**VIT, max_length=64)),
    "audiomae": (AudioMae, AudioMaeConfig(**VIT)),
    "audiomae-tuned": (AudioMae, AudioMaeConfig(**VIT, num_classes=5)),
    "ced": (Ced, CedConfig(**VIT, num_classes=5)),
    "atst": (Atst, AtstConfig(**VIT)),
    "data2vec2": (Data2Vec2, Data2Vec2Config(**VIT, conv_dim=16, pos_groups=4, pos_depth=2)),
    "msm_mae": (MsmMae, MsmMaeConfig(**VIT)),
    "best_rq": (BestRq, BestRqConfig(**SMALL, ffn_dim=64, channels=(8, 4))),
}
COMPAT = [name for name, (_, config) in NETWORKS.items() if hasattr(config, "compat") and name != "openbeats"]


def tiny(name: str, *, pool: Any = None, layers: Any = (), **changes: Any) -> PieceFrames:
    """The same weights at each call, no two tensors alike."""
    kind, config = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network: Any = kind(replace(config, **changes))
        for tensor in network.parameters():
            tensor.data += 0.1 * torch.randn_like(tensor)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):  # in dB, about the range of recordings
            module.running_mean.fill_(-20.0)
            module.running_var.fill_(400.0)
    return PieceFrames(network.eval(), layers, pool)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Tensor:
    """A clip (N,) that changes over time."""
    samples = level * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(seed))
    return samples * torch.linspace(0.2, 1.0, len(samples))
