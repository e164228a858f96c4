"""How much memory a model needs, and how much there is, before it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from auricle.errors import WeightsError
from auricle.weights.construct import LazyTensor, StoredTensor, target_dtype

_ROOT = Path("/")  # of /proc and /sys
_GB = 1e9


class MemoryNeed(NamedTuple):
    """Bytes that the weights of a model take up."""

    anonymous: int  # allocated
    mapped: int  # read from the checkpoint's own pages, which the system can drop, but must read again for every token
    largest: int  # of one tensor while it is computed, float32

    @property
    def total(self) -> int:
        """All that must be in memory at once."""
        return self.anonymous + self.mapped + self.largest


def memory_need(
    state: Mapping[str, StoredTensor],
    dtype: torch.dtype,
    device: torch.device,
    is_rounded: Callable[[str], bool] = lambda key: False,
) -> MemoryNeed:
    """What `construct.fill` will take up.

    Args:
        state: tensors by name; those that are no `LazyTensor` are taken to be memory-mapped.
        dtype: of the network.
        device: of the network.
        is_rounded: whether a tensor, by its name, is stored in int8.
    """
    anonymous = mapped = largest = 0
    seen: set[int] = set()
    for key, tensor in state.items():
        if id(tensor) in seen and not is_rounded(key):
            continue  # tied; an output head that is rounded is a copy
        if not is_rounded(key):
            seen.add(id(tensor))
        count, target = tensor.shape.numel(), target_dtype(key, tensor, dtype)
        is_kept = isinstance(tensor, torch.Tensor) and target == tensor.dtype and device.type == "cpu"
        if is_kept and not is_rounded(key):
            mapped += count * target.itemsize
        else:
            anonymous += count * (1 if is_rounded(key) else target.itemsize)
            if isinstance(tensor, LazyTensor):
                largest = max(largest, 4 * count)
    return MemoryNeed(anonymous, mapped, largest)


def check_memory(need: MemoryNeed, device: torch.device, source: str, smaller: Mapping[str, MemoryNeed]) -> None:
    """Refuse to load what does not fit.

    Args:
        need: of the model as requested.
        device: of the network.
        source: for the message.
        smaller: needs of other ways to load it, by what to write for them.

    Raises:
        WeightsError: there is less memory than needed; the message names both, and the ways that need less.
    """
    available = available_bytes(device)
    if available is None or need.total <= available:
        return
    ways = [f"{way} ({_size(less.total)}), " for way, less in smaller.items() if less.total < need.total]
    place = "memory" if device.type == "cpu" else f"memory of {device}"
    raise WeightsError(
        f"{source}: needs {_size(need.total)} of {place} ({_size(need.anonymous)} allocated, {_size(need.mapped)} "
        f"mapped from the file), {_size(available)} are available; use {''.join(ways)}a machine with more memory, or a "
        "server"
    )


def available_bytes(device: torch.device, root: Path = _ROOT) -> int | None:
    """Bytes that can be taken up now: of the machine, within the limits of all control groups; None: not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    found = [*_machine(root), *_control_groups(root)]
    return max(0, min(found)) if found else None


def _machine(root: Path) -> Iterator[int]:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _control_groups(root: Path) -> Iterator[int]:
    """What each limited control group of this process leaves, its page cache counted as free."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
        else:
            continue
        inner = base / path.strip("/")
        # In a container the path is often that of the host, which is not there: then the mount itself is the group.
        for group in [inner, *inner.parents]:
            limit, used = _read(group / names[0]).strip(), _read(group / names[1]).strip()
            if limit.isdigit() and used.isdigit():
                facts = dict(fact.split() for fact in _read(group / "memory.stat").splitlines() if fact.count(" ") == 1)
                yield int(limit) - int(used) + sum(int(facts.get(name, 0)) for name in names[2:])
            if group == base:
                break


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / 1e6:.0f} MB"
