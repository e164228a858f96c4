"""Configuration of a run, read from YAML and ``key=value`` overrides."""

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from auricle.errors import ConfigError, check_number
from auricle.files import read_regular_text
from auricle.weights.cards import yaml_loader


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
    set_shares: dict[str, float] = field(
        default_factory=dict
    )  # of crops, relative, by the clips' `set`, 1 for others; empty = by clips
    mix: float = 0.0  # share of crops that are sums of two, each at a random speed
    teacher: str = ""  # tensors of an event tagger, see train.teacher; the encoder learns its scores too
    teacher_weight: float = 1.0


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
    time_mask_s: float = 0.4  # longest span of log-mel blanked in training (SpecAugment)
    freq_mask: int = 8  # most log-mel bands blanked at once
    encoder_lr_scale: float = 1.0  # learning rate of the encoder over that of the rest
    init: str | None = None  # folder of a MiDashengLM to start from, instead of `encoder`
    ctc_weight: float = 0.0  # of the auxiliary letter loss on encoder frames
    tag_weight: float = 0.0  # of the auxiliary loss on kinds, events and speakers
    rebuild_weight: float = 0.0  # of the auxiliary loss on the log-mel, which encoder frames rebuild
    teacher: str = ""  # tensors of an event tagger, see train.teacher; the encoder learns its scores too
    teacher_weight: float = 1.0


@dataclass
class AlignSettings:
    """Audio-text alignment (GLAP). Sources: GLAP's training configuration, SigLIP (arXiv 2303.15343)."""

    init: str | None = None  # GLAP model to start from, instead of `audio` and `text`
    audio: str | None = None  # model whose encoder is the audio tower
    text: str | None = None  # model that is the text tower
    embed_size: int = 256  # of the common space
    hidden_size: int = 0  # between the two layers of a projection; 0 = embed_size
    project_text: bool = True  # False: the space is the text tower's own, as wide as that
    train: list[str] = field(default_factory=lambda: ["audio_projection", "text_projection"])  # also: audio, text
    share_towers: bool = False  # export names a tower that did not learn, instead of storing it: a name, no folder
    tower_lr_scale: float = 1.0  # learning rate of audio and text over that of the rest
    pairs: str = "captions"  # captions: of the packed clips, each folder of `data` equally often | scenes: as `caption`
    scenes: int = 0  # scenes: how many different ones; 0 = endless. A tower that does not learn encodes each once
    name_share: float = 0.0  # scenes: of those of one part that are called by a label or a zero-shot prompt
    crop_s: float = 10.0  # captions: longest random crop
    min_s: float = 0.2  # captions: shorter clips are left out
    over_long: str = "cut"  # captions of more tokens than the text tower takes: cut | skip
    translations: float = 0.1  # share of captions in another language, evenly over those a clip has
    rule: str = "strict"  # strict | compat: GLAP's own losses, its limit of 180 characters, no clip that peaks at 0.99
    loss: str = "sigmoid"  # sigmoid | softmax | bce (compat only)
    temperature: float = 0.07  # at the start
    bias: float = -10.0  # at the start, of the sigmoid loss
    gather: bool = True  # strict: negatives of all processes; compat has those of its own process alone
    chunk: int = 0  # clips whose logits are held at once; 0 = all
    cache: int = 0  # clips or captions embedded at once, with gradient caching (arXiv 2101.06983); 0 = all


@dataclass
class SftSettings:
    """Fine-tuning on prompts and answers. Source of the defaults: MiDashengLM, stage 3 (arXiv 2508.03983)."""

    init: str = "auricle-tiny"  # model to start from
    train: list[str] = field(default_factory=list)  # manifests, see train.sft_data
    shares: dict[str, float] = field(default_factory=dict)  # of examples, by a manifest's file name; empty = by rows
    prompt: str = ""  # of rows without one
    system: str = ""  # of rows without one; empty = none
    max_audio_s: float = 30.0  # longer recordings are left out
    encoder: str = "full"  # full | lora | frozen
    projector: str = "full"
    decoder: str = "lora"
    rank: int = 8  # of updates
    alpha: float = 32.0  # updates are scaled by alpha / rank
    dropout: float = 0.1  # of the updates' inputs
    targets: list[str] = field(default_factory=lambda: ["all-linear"])  # of the decoder, e.g. [q_proj, v_proj]
    encoder_lr_scale: float = 1.0  # learning rate over that of the decoder
    projector_lr_scale: float = 1.0
    dtype: str = "float32"  # of frozen weights: float32 | bfloat16
    quantize: int = 0  # bits of the weights beneath the decoder's updates: 4 | 8, on CUDA only; 0 = as they are
    checkpoint_blocks: bool = False  # recompute the decoder's layers for their gradients: less memory, a third slower
    remember_mb: int = 0  # memory for frames of a frozen encoder, which then encodes each recording once
    packing: bool = True  # examples end to end; False: rows padded to the longest
    bucket: int = 16  # batches that are sorted by length together; 1 = none
    loss_chunk: int = 1024  # positions whose logits are held at once
    heldout: list[str] = field(
        default_factory=list
    )  # manifests whose rows the model is scored on every probe_every steps
    heldout_rows: int = 200  # evenly spread over them; 0 = all
    max_new_tokens: int = 32  # of a held-out answer


@dataclass
class VocodeSettings:
    """A vocoder of an encoder's frames. Source: Vocos (arXiv 2306.00814) with its published weights of losses."""

    init: str | None = None  # denoiser whose vocoder goes on learning, instead of `encoder` and the sizes
    encoder: str = "auricle-tiny-encoder"  # model whose encoder gives the frames; it does not learn
    backbone_dim: int = 768
    backbone_hidden_dim: int = 1152
    backbone_layers: int = 8
    crop_s: float = 4.0  # seconds of clean speech that are encoded at once, whole tokens of 40 ms
    window_s: float = 0.96  # of each crop that is made into a waveform, whole tokens of 40 ms
    mel_weight: float = 45.0
    resolution_weight: float = 0.1  # of the discriminators over resolutions; those over periods have 1
    discriminator_channels: int = 32
    mel_only_steps: int = 0  # steps before the discriminators take part
    set_weights: dict[str, float] = field(default_factory=dict)  # of speech, by the clips' `set`; 1 for others


@dataclass
class DenoiseSettings:
    """A denoise encoder between an encoder that does not learn and its vocoder (arXiv 2506.11514)."""

    init: str | None = None  # denoiser that goes on learning, instead of `vocoder` and the sizes
    vocoder: str | None = None  # model that `vocode` made: its encoder and vocoder are taken
    num_layers: int = 3
    num_heads: int = 8
    mlp_ratio: float = 2.0
    distance: str = "l1"  # l1 | mse: between denoised and clean frames
    crop_s: float = 4.0  # seconds of speech, whole tokens of 40 ms
    set_weights: dict[str, float] = field(default_factory=dict)  # of speech and sounds, by `set`; 1 for others
    degrade: dict[str, Any] = field(default_factory=dict)  # fields of data.degrade.DegradeConfig to change


@dataclass
class RunConfig:
    """One training run. Times in minutes, sizes in clips."""

    objective: str = "mae"  # mae | caption | align | sft | vocode | denoise
    out: str = ""  # folder of checkpoints, log and exported model, of this run alone; must be set
    data: list[str] = field(default_factory=list)  # folders of packed shards
    seed: int = 0
    steps: int = 1000
    batch_size: int = 32  # clips of one optimiser step, over all processes
    accumulate: int = 1  # micro-batches of one step
    lr: float = 3e-4
    lr_floor: float = 0.1  # last learning rate over the peak
    warmup: int = 100  # steps
    weight_decay: float = 0.01
    beta1: float = 0.9
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
    best: str = ""  # a probe's figure whose highest value picks the weights that are exported; empty = the last ones
    stop_after: int = 0  # leave after this many steps of this call, as if interrupted; 0 = run to the end
    mae: MaeSettings = field(default_factory=MaeSettings)
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    sft: SftSettings = field(default_factory=SftSettings)
    vocode: VocodeSettings = field(default_factory=VocodeSettings)
    denoise: DenoiseSettings = field(default_factory=DenoiseSettings)
    scenes: dict[str, Any] = field(default_factory=dict)  # fields of data.scenes.SceneConfig to change


_MAX_BYTES = 2**20  # of a file


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
            text = read_regular_text(path, _MAX_BYTES)
            _check_yaml(text, path)
            layers.append(OmegaConf.load(io.StringIO(text)))
        layers.append(OmegaConf.from_dotlist(list(overrides or [])))
        for layer in layers[1:]:
            _check_plain(OmegaConf.to_container(layer, resolve=False), path)
        config = OmegaConf.to_object(OmegaConf.merge(*layers))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"training configuration {path or ''}: {' '.join(str(error).split())}") from error
    assert isinstance(config, RunConfig)
    _check(config)
    return config


def _check_yaml(text: str, path: object) -> None:
    """Refuse aliases, by which a file of a kilobyte describes gigabytes."""
    import yaml

    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml_loader())):
        raise ConfigError(f"training configuration {path}: uses aliases (*name); write the values out")


def _check_plain(content: Any, path: object) -> None:
    """Refuse interpolations: they read the environment, and multiply."""
    if isinstance(content, dict):
        content = [*content, *content.values()]
    if isinstance(content, list):
        for part in content:
            _check_plain(part, path)
    elif isinstance(content, str) and "${" in content:
        raise ConfigError(f"training configuration {path or ''}: {content[:80]!r} has ${{…}}; write the value out")


_CHOICES: dict[str, tuple[Any, ...]] = {
    "objective": ("mae", "caption", "align", "sft", "vocode", "denoise"),
    "precision": ("bf16", "fp32"),
    "align.pairs": ("captions", "scenes"),
    "align.over_long": ("cut", "skip"),
    "align.rule": ("strict", "compat"),
    **dict.fromkeys(("sft.encoder", "sft.projector", "sft.decoder"), ("full", "lora", "frozen")),
    "sft.dtype": ("float32", "bfloat16"),
    "denoise.distance": ("l1", "mse"),
    "sft.quantize": (0, 4, 8),
}
_AT_LEAST_1: tuple[str, ...] = ("steps", "batch_size", "accumulate", "warmup", "log_every", "keep", "workers")
_AT_LEAST_1 += ("sft.rank", "sft.bucket", "sft.loss_chunk", "sft.max_new_tokens", "vocode.discriminator_channels")
_SHARES = ("lr_floor", "beta1", "beta2", "mae.mask_ratio", "mae.mix", "caption.dropout")
_AT_LEAST_0 = ("vocode.mel_only_steps", "align.chunk", "align.cache", "align.scenes", "align.hidden_size")


def _check(config: RunConfig) -> None:
    for name, value in [(name, value) for name, value in _settings(config) if isinstance(value, float)]:
        check_number(name, value, least=-1e30 if name == "align.bias" else 0, most=1 if name in _SHARES else 1e30)
    check_number("seed", config.seed, least=0, most=2**63 - 1, whole=True)
    for name, known in _CHOICES.items():
        _check_choice(name, attrgetter(name)(config), known)
    for names, least in ((_AT_LEAST_1, 1), (_AT_LEAST_0, 0)):
        for name in names:
            if (value := attrgetter(name)(config)) < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
    if config.batch_size % config.accumulate:
        raise ConfigError(f"batch_size {config.batch_size} is not a multiple of accumulate {config.accumulate}")
    if config.best and not config.probe_every:
        raise ConfigError(f"best={config.best} needs probes to choose by; set probe_every")
    _check_align(config.align)
    _check_sft(config.sft)


def _settings(config: Any, start: str = "") -> Iterator[tuple[str, Any]]:
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{start}{each.name}.")
        else:
            yield f"{start}{each.name}", value


def _check_choice(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def _check_sft(settings: SftSettings) -> None:
    parts = {settings.encoder, settings.projector, settings.decoder}
    if parts == {"frozen"}:
        raise ConfigError("sft freezes encoder, projector and decoder: nothing would learn")
    if settings.decoder == "full" and "lora" in parts:
        raise ConfigError("sft.decoder=full goes with encoder and projector full or frozen, not with lora")
    if settings.quantize and settings.decoder != "lora":
        raise ConfigError(f"sft.quantize={settings.quantize} needs sft.decoder=lora, got {settings.decoder!r}")
    if settings.alpha <= 0 or not 0 <= settings.dropout < 1 or not 0.2 <= settings.max_audio_s:
        raise ConfigError(
            f"sft needs alpha > 0, 0 <= dropout < 1 and max_audio_s >= 0.2, got {settings.alpha}, {settings.dropout} "
            f"and {settings.max_audio_s}"
        )


def _check_align(settings: AlignSettings) -> None:
    losses = ("sigmoid", "softmax", "bce") if settings.rule == "compat" else ("sigmoid", "softmax")
    _check_choice("align.loss", settings.loss, losses)
    parts = {"audio", "text", "audio_projection", "text_projection"}
    if not settings.train or set(settings.train) - parts:
        raise ConfigError(f"align.train must name some of {', '.join(sorted(parts))}, got {settings.train}")
    if settings.temperature <= 0 or not 0 < settings.min_s <= settings.crop_s:
        raise ConfigError(
            f"align needs temperature > 0 and 0 < min_s <= crop_s, got {settings.temperature}, {settings.min_s} and "
            f"{settings.crop_s}"
        )
    for name in ("translations", "name_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"align.{name} must be in 0 … 1, got {getattr(settings, name)}")
    if not settings.project_text and "text_projection" in settings.train:
        raise ConfigError("align.train names text_projection, but align.project_text is off; leave one of them out")


# Settings that another call of a run may change: its curve stays the same, or says so itself (steps). What files hold
# is compared by its hash, see `Objective.provenance`.
_FREE: tuple[str, ...] = (
    "out",
    "data",
    "steps",
    "device",
    "threads",
    "workers",
    "checkpoint_minutes",
    "keep",
    "log_every",
)
_FREE += ("probe_every", "best", "stop_after", "mae.teacher", "caption.tokenizer", "caption.teacher")
_FREE += ("align.chunk", "align.cache", "align.share_towers")
_FREE += ("sft.train", "sft.checkpoint_blocks", "sft.remember_mb", "sft.loss_chunk", "sft.heldout", "sft.heldout_rows")
_FREE += ("sft.max_new_tokens",)


def curve_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's curve, by name (``mae.depth``); those of other objectives are left out."""
    values = asdict(config)
    own = {f"{config.objective}.{name}": value for name, value in values[config.objective].items()}
    shared = {name: value for name, value in values.items() if not dataclasses.is_dataclass(getattr(config, name))}
    return {name: value for name, value in (shared | own).items() if name not in _FREE}


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, as stored with the run."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))
