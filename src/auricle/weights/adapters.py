"""PEFT adapters (low-rank updates) merged into a state dict by a reader of our own, and written as PEFT reads them.

Source: the ``adapter_config.json`` / ``adapter_model.safetensors`` layout of Hugging Face PEFT. The update of a linear
layer is ``B @ A · alpha / r`` (``alpha / √r`` with rank-stabilised LoRA), computed in float32.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from auricle.errors import LayoutMismatch, WeightsError
from auricle.files import atomic_folder, write_json
from auricle.weights import safe
from auricle.weights.construct import LazyTensor, StoredTensor, made

_PREFIX = "base_model.model."
# Expressions that cannot take long, as nothing repeats but digits.
_SIMPLE = re.compile(r"(?:[\w.|]|\\[.d]\+?)*")
_MATCH = (
    "import json, re, sys\n"
    "pattern, *names = json.load(sys.stdin)\n"
    "json.dump([name for name in names if re.fullmatch(pattern, name)], sys.stdout)"
)
_TIMEOUT_S = 10
_MAX_PATTERN = 10_000  # characters
_MAX_NUMBER = 1e9
# Settings that do not change what the stored tensors mean. Any other one that is switched on is refused.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
}
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others alter the base weights too


def merge_adapter(state: Mapping[str, StoredTensor], folder: str | Path) -> dict[str, StoredTensor]:
    """A state dict with the adapter of ``folder`` added to it; tensors that are not adapted are shared.

    The sums are made when they are needed, one at a time.

    Raises:
        LayoutMismatch: the adapter uses a feature of PEFT other than plain LoRA, or does not fit the model.
        WeightsError: the folder is no adapter.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise WeightsError(f"{folder}: no adapter_config.json; expected a PEFT adapter folder")
    config = safe.read_json(folder / "adapter_config.json")
    _check_features(config, folder)
    low, high, whole = _sort(safe.read_tensors(folder), config, folder)
    _check_targets(state, config, low.keys(), folder)
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    merged: dict[str, StoredTensor] = dict(state)
    for module, a in low.items():
        key = f"{module}.weight"
        weight, b = state[key], high[module]
        if a.shape != (rank, weight.shape[1]) or b.shape != (weight.shape[0], rank):
            raise LayoutMismatch(
                f"{folder}: update of {module} is {tuple(b.shape)} @ {tuple(a.shape)}, expected "
                f"({weight.shape[0]}, {rank}) @ ({rank}, {weight.shape[1]})"
            )
        merged[key] = LazyTensor(weight.shape, weight.dtype, partial(_merged, weight, a, b, scale))
    for key, tensor in whole.items():
        if key not in merged or merged[key].shape != tensor.shape:
            raise LayoutMismatch(
                f"{folder}: replaces {key} by a tensor {tuple(tensor.shape)} that the model does not have"
            )
        merged[key] = tensor.to(merged[key].dtype)
    _tie(state, merged, config, folder)
    return merged


def _tie(
    state: Mapping[str, StoredTensor], merged: dict[str, StoredTensor], config: Mapping[str, Any], folder: Path
) -> None:
    """Keep tensors tied that were replaced together; an update of one alone unties them, as in PEFT."""
    saved = tuple(config.get("modules_to_save") or ())
    tied: dict[int, list[str]] = {}
    for key, tensor in state.items():
        tied.setdefault(id(tensor), []).append(key)
    for keys in tied.values():
        changed = [key for key in keys if merged[key] is not state[key]]
        if len(keys) == 1 or not changed:
            continue
        is_forced = bool(config.get("ensure_weight_tying"))
        if is_forced and any(isinstance(merged[key], LazyTensor) for key in changed):
            raise LayoutMismatch(
                f"{folder}: ensure_weight_tying with an update of {changed[0]}, which is tied; merge it with PEFT first"
            )
        # A module that holds both is copied with its ties.
        if is_forced or any(all(f".{name}." in f".{key}" for key in keys) for name in saved):
            merged.update(dict.fromkeys(keys, merged[changed[0]]))


def _merged(weight: StoredTensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """A layer's weight (out, in) with its update, in the type of the weight."""
    update = scale * (b.float() @ a.float())
    return (made(weight).float() + update).to(weight.dtype)


def write_adapter(
    folder: str | Path,
    updates: Mapping[str, tuple[Tensor, Tensor]],
    whole: Mapping[str, Tensor] | None = None,
    *,
    alpha: float,
    dropout: float = 0.0,
    base: str = "",
    modules_to_save: Sequence[str] = (),
) -> Path:
    """Write low-rank updates as a PEFT adapter, which `merge_adapter` reads, too.

    Args:
        folder: made if absent; files of the same names are replaced.
        updates: A (r, in) and B (out, r) by layer, all of one rank.
        whole: tensors inside ``modules_to_save``, by their official names; stored as float32, or integers as they are.
        alpha: updates are scaled by alpha / r.
        dropout: of training; for the record.
        base: name of the model they belong to.
        modules_to_save: modules that are replaced as a whole.

    Returns:
        The folder.

    Raises:
        LayoutMismatch: no updates, or updates of different ranks.
    """
    folder = Path(folder)
    ranks = {low.shape[0] for low, _ in updates.values()}
    if len(ranks) != 1:
        raise LayoutMismatch(f"{folder}: updates of ranks {sorted(ranks)}; an adapter has updates of one rank")
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in (whole or {}).items()}
    for name, (low, high) in updates.items():
        tensors |= {f"{_PREFIX}{name}.lora_A.weight": low, f"{_PREFIX}{name}.lora_B.weight": high}
    # One pattern for all layers of a stack, as the reference names its targets.
    patterns = sorted({re.sub(r"\\.\d+\\.(?=\w)", r"\\.\\d+\\.", re.escape(name)) for name in updates})
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "r": ranks.pop(),
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "base_model_name_or_path": base,
        "target_modules": "|".join(patterns),
        "modules_to_save": list(modules_to_save) or None,
    }
    stored = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    with atomic_folder(folder, last="adapter_config.json") as aside:
        safe.write_tensors(aside / "adapter_model.safetensors", stored)
        write_json(aside / "adapter_config.json", config)
    return folder


def _check_features(config: Mapping[str, Any], folder: Path) -> None:
    if str(config.get("peft_type", "")).upper() != "LORA":
        raise LayoutMismatch(f"{folder}: a {config.get('peft_type')!r} adapter, expected 'LORA'")
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float) or not 0 < config[key] < _MAX_NUMBER:
            raise LayoutMismatch(f"{folder}: {key} is {config.get(key)!r}, expected a positive number")
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        value = config.get(key)
        names = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(name, str) and len(name) <= _MAX_PATTERN for name in names):
            raise LayoutMismatch(f"{folder}: {key} is no list of names; restore adapter_config.json")
    used = sorted(key for key, value in config.items() if value and key not in _HARMLESS)
    if config.get("bias", "none") != "none":
        used.append(f"bias={config['bias']}")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        used.append(f"init_lora_weights={config['init_lora_weights']}")
    if used:
        raise LayoutMismatch(
            f"{folder}: uses {', '.join(used)}, only plain LoRA is supported; merge it with PEFT first"
        )


def _sort(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Stored tensors → A by module, B by module, and weights replaced as a whole by key."""
    saved = tuple(config.get("modules_to_save") or ())
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        module, _, part = name.rpartition(".lora_")
        replaced = re.sub(r"\.modules_to_save(\.default)?\.", ".", name)
        if part in ("A.weight", "A.default.weight"):
            low[module] = tensor
        elif part in ("B.weight", "B.default.weight"):
            high[module] = tensor
        elif any(f".{target}." in f".{replaced}" for target in saved):
            whole[replaced] = tensor
        else:
            raise LayoutMismatch(
                f"{folder}: unknown tensor {key}; expected …lora_A.weight, …lora_B.weight or modules_to_save"
            )
    if alone := sorted(low.keys() ^ high.keys()):
        raise LayoutMismatch(f"{folder}: {alone[0]} has only one of lora_A and lora_B; the adapter is incomplete")
    if not low and not whole:
        raise LayoutMismatch(f"{folder}: the adapter holds no tensors")
    return low, high, whole


def _check_targets(state: Mapping[str, StoredTensor], config: Mapping[str, Any], adapted: Any, folder: Path) -> None:
    """Every adapted layer must exist, and every layer the configuration means must be adapted."""
    layers = {
        key.removesuffix(".weight") for key, value in state.items() if key.endswith(".weight") and value.ndim == 2
    }
    if strange := sorted(adapted - layers):
        raise LayoutMismatch(
            f"{folder}: adapts {strange[0]}, which the model does not have; it was made for another model"
        )
    target, excluded = config.get("target_modules"), config.get("exclude_modules")
    if not target or target == "all-linear":
        return
    meant = _matches(layers, target, folder) - _matches(layers, excluded, folder)
    if absent := sorted(meant - adapted):
        raise LayoutMismatch(
            f"{folder}: holds no update for {absent[0]}, which target_modules names; the adapter is incomplete"
        )


def _matches(layers: Iterable[str], target: object, folder: Path) -> set[str]:
    """The layers that a setting names."""
    if isinstance(target, list):
        return {layer for layer in layers if any(layer == name or layer.endswith(f".{name}") for name in target)}
    if not isinstance(target, str):
        return set()
    if _SIMPLE.fullmatch(target):
        return {layer for layer in layers if re.fullmatch(target, layer)}
    # An expression of twenty characters can work for years, and only the end of its process stops it.
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCH],
            input=json.dumps([target, *layers]).encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise LayoutMismatch(
            f"{folder}: target_modules works for more than {_TIMEOUT_S} s on the names of the layers; list them instead"
        ) from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode(errors="replace").strip().splitlines() or ["it crashes"])[-1]
        raise LayoutMismatch(f"{folder}: target_modules is no regular expression ({reason})") from None
    return set(json.loads(done.stdout))
