"""What one run needs to know; read from YAML and ``key=value`` overrides."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auricle.errors import ConfigError


@dataclass
class MaeSettings:
    """Masked-autoencoder pre-training. Source: Dasheng base's training configuration, sizes scaled down."""

    embed_dim: int = 256  # encoder width
    depth: int = 6
    num_heads: int = 4
    decoder_dim: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    mask_ratio: float = 0.75
    crop_s: float = 4.0  # seconds of one training crop, a whole number of 80 ms token pairs
    init: str | None = None  # model to start from


@dataclass
class CaptionSettings:
    """End-to-end caption, transcript and question training (MiDashengLM stage 1)."""

    encoder: str | None = None  # model whose encoder is the start; None = random
    tokenizer: str = ""  # tokenizer.json
    embed_dim: int = 256  # encoder geometry when `encoder` is None
    depth: int = 6
    num_heads: int = 4
    hidden_size: int = 256  # decoder
    intermediate_size: int = 512
    num_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    dropout: float = 0.0  # on audio tokens entering the decoder
    time_mask_s: float = 0.4  # longest stretch of log-mel blanked in training (SpecAugment)
    freq_mask: int = 8  # most log-mel bands blanked at once
    encoder_lr_scale: float = 1.0  # learning rate of the encoder over that of the rest
    init: str | None = None  # folder of a MiDashengLM to start from, instead of `encoder`
    ctc_weight: float = 0.0  # of the auxiliary letter loss on encoder frames
    tag_weight: float = 0.0  # of the auxiliary loss on kinds, events and speakers


@dataclass
class RunConfig:
    """One training run. Times in minutes, sizes in clips."""

    objective: str = "mae"  # mae | caption
    out: str = "runs/unnamed"  # folder of checkpoints, log and exported model
    data: list[str] = field(default_factory=list)  # folders of packed shards
    seed: int = 0
    steps: int = 1000
    batch_size: int = 32  # clips of one optimiser step, over all processes
    accumulate: int = 1  # micro-batches of one step
    lr: float = 3e-4
    lr_floor: float = 0.1  # last learning rate over the peak
    warmup: int = 100  # steps
    weight_decay: float = 0.01
    beta2: float = 0.999
    clip_norm: float = 1.0
    precision: str = "bf16"  # bf16 | fp32: arithmetic of the forward pass; weights stay fp32
    device: str = "cpu"
    threads: int = 0  # torch threads on a CPU; 0 = leave as is
    workers: int = 1  # threads that prepare batches
    checkpoint_minutes: float = 5.0
    keep: int = 2  # checkpoints kept
    log_every: int = 20  # steps
    probe_every: int = 0  # steps between probes; 0 = none
    stop_after: int = 0  # leave after this many steps of this call, as if interrupted; 0 = run to the end
    mae: MaeSettings = field(default_factory=MaeSettings)
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    scenes: dict[str, Any] = field(default_factory=dict)  # fields of data.scenes.SceneConfig to change


def load_config(path: str | Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """YAML file and ``key=value`` overrides (``mae.depth=12``) → a checked `RunConfig`.

    Raises:
        ConfigError: the file cannot be read, or a key or value does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        layers = [OmegaConf.structured(RunConfig)]
        if path is not None:
            layers.append(OmegaConf.load(path))
        layers.append(OmegaConf.from_dotlist(list(overrides or [])))
        config = OmegaConf.to_object(OmegaConf.merge(*layers))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"training configuration {path or ''}: {' '.join(str(error).split())}") from error
    assert isinstance(config, RunConfig)
    _check(config)
    return config


def _check(config: RunConfig) -> None:
    if config.objective not in ("mae", "caption"):
        raise ConfigError(f"objective must be 'mae' or 'caption', got {config.objective!r}")
    if config.precision not in ("bf16", "fp32"):
        raise ConfigError(f"precision must be 'bf16' or 'fp32', got {config.precision!r}")
    for name in ("steps", "batch_size", "accumulate", "warmup", "log_every", "keep", "workers"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.batch_size % config.accumulate:
        raise ConfigError(f"batch_size {config.batch_size} is not a multiple of accumulate {config.accumulate}")


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, as stored with the run."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))
