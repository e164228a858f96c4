"""Checkpoints without pickles: safetensors for tensors, JSON for the rest, a pointer file that is renamed last."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from auricle.errors import TrainingError
from auricle.files import atomic_folder, make_folder, remove_leftovers, write_text

POINTER = "LATEST"


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: int) -> Path:
    """Write model, optimiser moments and position after ``step`` steps; a kill at any moment leaves the previous one.

    The learning rate, the order of the data and every random number are functions of (seed, step), so the step is the
    whole state of schedule, data and random numbers.
    """
    final = make_folder(folder) / f"step-{step:08d}"
    remove_leftovers(folder)
    with atomic_folder(final, fresh=True) as scratch:
        save_file({k: v.detach().cpu().contiguous() for k, v in _state(model).items()}, scratch / "model.safetensors")
        save_file(_moments(model, optimizer), scratch / "optimizer.safetensors")
        (scratch / "state.json").write_text(json.dumps({"step": step}, allow_nan=False))
    write_text(folder / POINTER, final.name)
    # A kill before the pointer moved may have left later ones, which the run will write again.
    for old in [path for path in sorted(folder.glob("step-*")) if path.name <= final.name][:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is one."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    found = folder / Path(pointer.read_text().strip()).name
    if not (found / "state.json").is_file():
        raise TrainingError(
            f"{pointer} names {found.name}, which is not a complete checkpoint; delete {pointer} to start anew"
        )
    return found


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint in place and return the number of steps done.

    Raises:
        TrainingError: it belongs to another architecture, or is damaged.
    """
    try:
        _load(model, load_file(path / "model.safetensors"))
        stored = load_file(path / "optimizer.safetensors")
    except (ValueError, SafetensorError, OSError) as error:
        raise TrainingError(
            f"checkpoint {path} does not fit this configuration: {error}; give the run another folder (out=…), or "
            f"the settings it was started with"
        ) from error
    for name, parameter in model.named_parameters():
        if f"step.{name}" not in stored:
            continue
        optimizer.state[parameter] = {
            "step": stored[f"step.{name}"],
            "exp_avg": stored[f"exp_avg.{name}"].to(parameter.device),
            "exp_avg_sq": stored[f"exp_avg_sq.{name}"].to(parameter.device),
        }
    return int(json.loads((path / "state.json").read_text())["step"])


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
