"""Checkpoints of the encoders of `auricle.models.encoders.pieces`, recognised by their tensors, never by a file's name.

Each family's own file defines which layouts it knows and reads them from plain tensors and settings; here files are
opened without running code in them. The families are those that entries of the catalogue name.

Pickles of fairseq, Lightning and of AudioMAE's trainer hold settings as objects of foreign classes. These are not
imported: an inert object takes the place of each, and only numbers, words and containers are taken out of it.
"""

import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch, WeightsError
from auricle.files import write_json
from auricle.models.encoders.pieces import Family, Parts, PieceFrames, Pool
from auricle.models.encoders.speech import FAMILIES, build_encoder
from auricle.models.frame_model import DashengFrames, FrameModel
from auricle.models.stock_networks import check_counts
from auricle.weights import safe
from auricle.weights.catalog import Source, entries, resolve
from auricle.weights.construct import fill, skip_init
from auricle.weights.layouts import check_keys, optional_json, reads_models
from auricle.weights.loaders import load_dasheng, place_of

_OURS = "auricle_encoder"  # of config.json: family and configuration of a folder that `save_encoder` wrote
_SPEECHBRAIN = "model.ckpt"  # in a folder of several .ckpt files
_ELSEWHERE = {*FAMILIES, "dasheng", "midashenglm"}  # model_type of folders that other readers know
# These normalise the waveform or not, which only preprocessor_config.json states.
_NEED_FRONT_END = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
_MAX_SETTINGS, _MAX_LEVELS = 100_000, 100  # parts of settings, each as often as it occurs, and within each other
_MADE_OF = "made of"  # no attribute of any class is called so


class _Inert:
    """A placeholder for an object of a class that is not imported."""

    def __init__(self, *values: Any) -> None:
        vars(self)[_MADE_OF] = values


# Classes of settings, by the names that pickles give them. omegaconf's name the types of their values.
_SETTINGS: list[Any] = [dict, list, tuple, int, float, str, bool, defaultdict]
_SETTINGS += [
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        "typing.Any",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
        "omegaconf.nodes.BooleanNode",
        "omegaconf.nodes.EnumNode",
        "omegaconf.nodes.FloatNode",
        "omegaconf.nodes.IntegerNode",
        "omegaconf.nodes.StringNode",
        "examples.data2vec.data.modality.Modality",
        "data2vec.data.modality.Modality",
    )
]


@reads_models
def load_encoder_model(
    name_or_path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    layers: Sequence[int] = (),
    pool: Pool | None = None,
) -> FrameModel:
    """An encoder of any family in evaluation mode.

    Args:
        name_or_path: any name that `catalog.resolve` knows.
        device: ``cpu``, ``cuda``, …
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the network; front ends stay float32.
        revision: branch, tag or commit on the hub.
        layers: blocks, 0 the first, whose outputs are averaged; none: the encoder's own last output.
        pool: see `auricle.models.encoders.pieces.PieceFrames`; only for encoders of patches.

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: unknown dtype, device or layer; pooling of an encoder that has no patches.

    Warns:
        UserWarning: all published weights of the family are under a licence that forbids commercial use.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    found = read_encoder(source.path, source.name)
    if found is None:
        if pool is not None:
            raise ConfigError(f"{source.name} has no frequency patches to pool; leave out @{pool}")
        return _stock_or_dasheng(source, kind, place, layers)
    family, parts = found
    check_counts(dataclasses.asdict(parts.config), len(parts.state), source.name)
    _warn(family)
    with skip_init():
        network = family.network(parts.config)
    check_keys(parts.state, network.state_dict(), source.name)
    fill(network, parts.state, kind, place, source.name)
    return PieceFrames(network.to(place).eval(), layers, pool)


def _stock_or_dasheng(source: Source, dtype: torch.dtype, device: torch.device, layers: Sequence[int]) -> FrameModel:
    """A folder in the Hugging Face layout of an encoder of `transformers`, or Dasheng in any layout."""
    settings = optional_json(source.path / "config.json") if source.path.is_dir() else {}
    family = settings.get("model_type")
    if family not in FAMILIES:
        model = load_dasheng(source.path, device=str(device), dtype=str(dtype).removeprefix("torch."))
        return DashengFrames(model, layers)
    front_end = _front_end(source.path)
    if family in _NEED_FRONT_END and "do_normalize" not in front_end:
        raise WeightsError(
            f"{source.name}: neither preprocessor_config.json nor processor_config.json states do_normalize, whether "
            f"this {family} reads normalised waveforms; download it beside the weights"
        )
    tensors = safe.read_tensors(source.path)
    encoder = build_encoder(settings, front_end, tensors, layers=layers, source=source.name)
    encoder.move(device, dtype)
    return encoder


def _front_end(folder: Path) -> dict[str, Any]:
    """Settings of the front end: in a file of their own, or as transformers 5 stores them."""
    nested = optional_json(folder / "processor_config.json").get("feature_extractor")
    return {**(nested if isinstance(nested, dict) else {}), **optional_json(folder / "preprocessor_config.json")}


def save_encoder(folder: str | Path, model: PieceFrames) -> Path:
    """Write an encoder as tensors and configuration that `load_encoder_model` reads, without its head's training state.

    Args:
        folder: made if absent; files of the same names are replaced.
        model: layers and pooling are not written, they belong to the name that asks for them.
    """
    folder = Path(folder)
    network = model.network
    ours = {"family": network.family, "config": dataclasses.asdict(network.config)}
    with safe.model_folder(folder) as aside:
        safe.write_folder(aside, network.state_dict())
        write_json(aside / "config.json", {"model_type": _OURS, _OURS: ours})
    return folder


def read_encoder(path: str | Path, source: str = "") -> tuple[Family, Parts] | None:
    """Family, configuration and tensors of a file or folder; None where it is of no family of this module.

    Raises:
        LayoutMismatch: tensors are missing.
        ConfigError: the number of heads is stated nowhere.
        UnsafeWeights: the file holds code or is damaged.
    """
    path, source = Path(path), source or str(path)
    stated = optional_json((path if path.is_dir() else path.parent) / "config.json")
    if path.is_dir() and str(stated.get("model_type")) in _ELSEWHERE:
        return None
    tensors, settings = _read(path)
    settings |= stated
    families = encoder_families()
    ours = settings.get(_OURS)
    if isinstance(ours, Mapping):
        return _read_ours(families, ours, tensors, source)
    family = next((family for family in families.values() if family.recognises(tensors)), None)
    if family is None:
        return None
    try:
        return family, family.read(tensors, settings, source)
    except KeyError as error:
        raise LayoutMismatch(
            f"{source}: {error.args[0]} is missing from these weights of {family.name}; download them again"
        ) from error


def encoder_families() -> dict[str, Family]:
    """The families that the catalogue's entries name, by name."""
    names = dict.fromkeys(entry.family for entry in entries() if entry.family)
    return {name: import_module(f"auricle.models.encoders.{name}").FAMILY for name in names}


def plain_settings(value: Any) -> Any:
    """Words, numbers and containers of settings; placeholders of foreign objects are taken apart.

    Raises:
        LayoutMismatch: they are within each other without end, or so often that they would fill the memory.
    """
    left = _MAX_SETTINGS

    def plain(value: Any, level: int = 0) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or level > _MAX_LEVELS:
            raise LayoutMismatch("the settings beside the weights repeat without end; the file is damaged")
        if isinstance(value, _Inert):
            content = vars(value)
            for key in ("_content", "_val"):  # of omegaconf's containers and leaves
                if key in content:
                    return plain(content[key], level + 1)
            if _MADE_OF in content:  # an enumeration's member
                return plain(next(iter(content[_MADE_OF]), None), level + 1)
            value = content
        if isinstance(value, Mapping):
            return {str(key): plain(item, level + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, level + 1) for item in value]
        return value if isinstance(value, str | int | float | bool | None) else str(type(value).__name__)

    return plain(value)


def _warn(family: Family) -> None:
    """Warn about the licence of a family, where all its models share the condition."""
    cautions = [entry.caution for entry in entries() if entry.family == family.name]
    if all(cautions):
        warnings.warn(f"{family.name}: {cautions[0]}", stacklevel=3)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file or folder, and the settings inside it ({} without any)."""
    if path.is_dir() and (path / _SPEECHBRAIN).is_file():
        path /= _SPEECHBRAIN
    file = next(iter(safe.weight_files(path)))
    if file.suffix not in safe.PICKLED:
        return safe.read_tensors(path), {}
    content = safe.read_pickled(file, _SETTINGS)
    inside: Any = next((content[key] for key in ("cfg", "hyper_parameters", "config", "args") if content.get(key)), {})
    settings = plain_settings(inside)
    return safe.tensors_of(content, file), settings if isinstance(settings, dict) else {}


def _read_ours(
    families: Mapping[str, Family], ours: Mapping[str, Any], tensors: dict[str, Tensor], source: str
) -> tuple[Family, Parts]:
    family = families.get(str(ours.get("family")))
    if family is None or not isinstance(ours.get("config"), Mapping):
        raise LayoutMismatch(
            f"{source}: config.json names the family {ours.get('family')!r}, expected one of {', '.join(families)} and "
            "its configuration; write it with a release that knows it"
        )
    try:
        return family, Parts(family.config(**ours["config"]), tensors)
    except TypeError as error:
        raise ConfigError(f"{source}: config.json is not that of {family.name} ({error})") from error
