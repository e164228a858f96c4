"""What an objective is: a network with its loss, and how its batches are made."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from auricle.data.cache import CachedClips
from auricle.data.shards import ShardSet
from auricle.errors import DataError
from auricle.train.config import RunConfig
from auricle.weights import Card


class Batch(NamedTuple):
    """One micro-batch, made on the CPU ahead of time."""

    inputs: dict[str, Any]  # what `Objective.forward` needs; tensors are moved to the device
    weight: int  # items its loss is a mean over (hidden patches, label tokens)
    audio_s: float  # seconds of audio in it


class Objective(nn.Module):
    """Calling it with the inputs of a `Batch` gives their mean loss ().

    Every random number is keyed by (seed, step, place in the batch), never by global state.
    """

    config: RunConfig
    network: nn.Module

    @abstractmethod
    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Clips ``start … stop`` of the batch of ``step``; called from several threads."""

    def updates(self, step: int) -> Sequence[Mapping[str, Any]]:
        """Arguments of `forward` beside the batch, for each update of a step: one, where all parameters learn at once.

        Each moves the parameters that its loss has gradients for, and those alone. Networks that learn against each
        other so have an optimiser each, AdamW with the settings of the run. The log has the loss of the last one.
        """
        return ({},)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameters that learn as groups for AdamW, by `lr_scale`; vectors (gains, biases) do not decay."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((self.lr_scale(name), parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": lr,
                "lr_scale": scale,
                "weight_decay": self.config.weight_decay if decays else 0.0,
            }
            for (scale, decays), parameters in groups.items()
        ]

    def lr_scale(self, name: str) -> float:
        """Learning rate of a parameter, by its name, over that of the run."""
        return 1.0

    def provenance(self) -> dict[str, str]:
        """Hashes, by name, of what decides the curve beside the configuration; a run is resumed with the same alone."""
        return {}

    def prepare_output(self, out: Path) -> None:
        """Called once, by the main process, when the run's folder exists."""

    def log_values(self) -> dict[str, float]:
        """Further values for the log."""
        return {}

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained model in its official layout."""


def build_objective(config: RunConfig) -> Objective:
    """The objective that ``config.objective`` names, with its data."""
    if config.objective == "mae":
        from auricle.train.mae import MaeObjective

        return MaeObjective(config)
    if config.objective == "sft":
        from auricle.train.sft import SftObjective

        return SftObjective(config)
    if config.objective == "align":
        from auricle.train.align import AlignObjective

        return AlignObjective(config)
    if config.objective == "vocode":
        from auricle.train.vocode import VocodeObjective

        return VocodeObjective(config)
    if config.objective == "denoise":
        from auricle.train.denoise import DenoiseObjective

        return DenoiseObjective(config)
    from auricle.train.caption import CaptionObjective

    return CaptionObjective(config)


def open_clips(config: RunConfig) -> CachedClips:
    """The clips of a run's shards.

    Raises:
        DataError: there are none.
    """
    clips = CachedClips(ShardSet(config.data))
    if not len(clips):
        raise DataError(f"no clips in {config.data}; pack some with `auricle data pack`")
    return clips


def run_card(config: RunConfig, manifest_hash: str) -> Card:
    """A model card with the settings of a run; data, measurements and limits are for the owner to add."""

    # A card is published; folders of the machine it was made on mean nothing elsewhere.
    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        return "/".join(Path(value).parts[-2:]) if isinstance(value, str) else value

    objective = {name: short(value) for name, value in asdict(getattr(config, config.objective)).items()}
    settings = {
        name: value
        for name, value in asdict(config).items()
        if not isinstance(value, dict) and name not in ("out", "data", "seed")
    }
    return Card(
        name=Path(config.out).name,
        seed=config.seed,
        config={
            **settings,
            config.objective: objective,
            "scenes": config.scenes,
            "data_manifest": manifest_hash,
        },
    )
