"""Checkpoints without pickles: safetensors for tensors, JSON for the rest, a pointer file that is renamed last."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from auricle.data.untrusted_json import parse_json, read_text
from auricle.errors import DataError, TrainingError
from auricle.files import atomic_folder, make_folder, remove_leftovers, write_text
from auricle.weights.safe import sha256

POINTER = "LATEST"
_TENSORS = ("model.safetensors", "optimizer.safetensors")
_MAX_STATE_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class State:
    """What a checkpoint holds beside tensors."""

    step: int  # steps done
    run: Mapping[str, Any] = field(default_factory=dict)  # settings and hashes that decide the curve
    log: Mapping[str, Any] = field(default_factory=dict)  # of the log record that is not complete yet


def save(folder: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: int) -> Path:
    """Write model, optimiser moments and state; a kill at any moment leaves the previous one.

    The learning rate, the order of the data and every random number are functions of (seed, step), so the step is the
    whole state of schedule, data and random numbers.
    """
    final = make_folder(folder) / f"step-{state.step:08d}"
    remove_leftovers(folder)
    with atomic_folder(final, fresh=True) as scratch:
        tensors = {k: v.detach().cpu().contiguous() for k, v in _state(model).items()}, _moments(model, optimizer)
        for name, content in zip(_TENSORS, tensors, strict=True):
            save_file(content, scratch / name)
        digests = {name: sha256(scratch / name) for name in _TENSORS}
        write_text(scratch / "state.json", json.dumps({**asdict(state), "sha256": digests}, allow_nan=False))
    write_text(folder / POINTER, final.name)
    tidy(final, keep=keep)
    return final


def tidy(newest: Path, *, keep: int) -> None:
    """Remove all but ``keep`` checkpoints up to ``newest``, and what a kill left of earlier removals and writes."""
    remove_leftovers(newest.parent)
    # A kill before the pointer moved may have left later ones, which the run will write again.
    for old in [path for path in sorted(newest.parent.glob("step-*")) if path.name <= newest.name][:-keep]:
        shutil.rmtree(old)


def latest(folder: Path, notify: Callable[[str], None]) -> tuple[Path, State] | None:
    """The newest whole checkpoint of a run, if there is any; ``notify`` gets a line where that is not the last written.

    Raises:
        TrainingError: there are checkpoints, and each is damaged.
    """
    named = _named(folder)
    found = sorted((path for path in folder.glob("step-*") if path != named), reverse=True)
    reasons = [] if named or not found else [f"{folder / POINTER} names no checkpoint"]
    for path in [named, *found] if named else found:
        try:
            state = _read_state(path)
        except (DataError, ValueError) as error:
            reasons.append(f"{path} is damaged ({error})")
            continue
        if reasons:
            notify(f"{'; '.join(reasons)}: going on from {path.name}")
        return path, state
    if reasons:
        raise TrainingError(
            f"{'; '.join(reasons)}, and no other is whole; delete {folder} to start anew, or give the run another "
            "folder (out=…)"
        )
    return None


def _named(folder: Path) -> Path | None:
    """The checkpoint that the pointer names."""
    try:
        name = Path((folder / POINTER).read_text("utf-8", "replace").strip()).name
    except (FileNotFoundError, NotADirectoryError):
        return None
    return folder / name if name else None


def _read_state(path: Path) -> State:
    content = parse_json(read_text(path / "state.json", max_bytes=_MAX_STATE_BYTES))
    if not isinstance(content, dict) or not isinstance(content.get("step"), int) or content["step"] < 1:
        raise ValueError("state.json states no step")
    digests, run, log = (content.get(name, {}) for name in ("sha256", "run", "log"))
    if not all(isinstance(value, dict) for value in (digests, run, log)):
        raise ValueError("state.json holds no objects where they belong")
    for name in _TENSORS:
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        if name in digests and sha256(path / name) != digests[name]:
            raise ValueError(f"{name} is not what was written")
    return State(step=content["step"], run=run, log=log)


def check_run(path: Path, stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Compare what decides the curve of two runs, as far as both state it.

    Raises:
        TrainingError: it differs; the message names what and how.
    """
    own = json.loads(json.dumps(own, allow_nan=False))
    changed = [name for name in own if name in stored and stored[name] != own[name]]
    if changed:
        listed = ", ".join(
            "{} is {} there and {} here".format(name, *_told_apart(stored[name], own[name])) for name in changed
        )
        raise TrainingError(
            f"checkpoint {path} is of another run: {listed}; give the run another folder (out=…), or the settings and "
            "data it was started with"
        )


def _told_apart(*values: Any) -> list[str]:
    """Values as JSON; of long ones the 40 characters around the first that differs."""
    texts = [json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
    if max(map(len, texts)) <= 40:
        return texts
    same = next((place for place, pair in enumerate(zip(*texts, strict=False)) if len(set(pair)) > 1), 0)
    start = max(0, same - 16)
    return [f"{'…' if start else ''}{text[start : start + 40]}{'…' if text[start + 40 :] else ''}" for text in texts]


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the tensors of a checkpoint in place.

    Raises:
        TrainingError: it belongs to another architecture, or is damaged.
    """
    try:
        weights, stored = (load_file(path / name) for name in _TENSORS)
        _load(model, weights)
        for name, parameter in model.named_parameters():
            if f"step.{name}" not in stored:
                continue
            optimizer.state[parameter] = {
                "step": stored[f"step.{name}"],
                "exp_avg": stored[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": stored[f"exp_avg_sq.{name}"].to(parameter.device),
            }
    except (ValueError, KeyError, SafetensorError, OSError) as error:
        raise TrainingError(
            f"checkpoint {path} does not fit this configuration: {error}; give the run another folder (out=…), or "
            f"the settings it was started with"
        ) from error


def _state(model: nn.Module) -> dict[str, Tensor]:
    # Tied weights are stored once, under their first name.
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        state[name] = tensor
    return state


def _load(model: nn.Module, stored: dict[str, Tensor]) -> None:
    own = _state(model)
    if own.keys() != stored.keys():
        odd = sorted(own.keys() ^ stored.keys())[:3]
        raise ValueError(f"{len(own.keys() ^ stored.keys())} tensors are in one of them only, such as {', '.join(odd)}")
    for name, tensor in own.items():
        if tensor.shape != stored[name].shape:
            raise ValueError(f"{name} is {tuple(stored[name].shape)} there and {tuple(tensor.shape)} here")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{key}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return moments
