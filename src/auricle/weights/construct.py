"""Networks built without memory, then filled tensor by tensor.

A network is built with its parameters on the meta device (`on_meta`): nothing is allocated or sampled. `fill`
then gives it the tensors of a checkpoint, each cast and moved alone. A tensor that is memory-mapped and keeps its type
is used where it is, so a bfloat16 checkpoint loaded as bfloat16 costs no anonymous memory at all. Tensors that must be
computed (an adapter merged, quantised weights restored) are `LazyTensor`s until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from auricle.errors import LayoutMismatch, WeightsError

# Parts of tensors' names that stay float32: rounded, they would cost more than they weigh.
FLOAT32 = (".init_bn.", ".front_end.", ".logit_", ".istft.")
# What `torch.nn.init` and the modules of transformers draw with, by name: transformers puts functions of its own there.
_DRAWS = frozenset(("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"))


class skip_init(TorchFunctionMode):
    """Inside, random initial values are not sampled: a parameter keeps the memory it was given, untouched."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave a tensor as it is where it would be filled at random."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class on_meta(skip_init):
    """Inside, parameters are made on the meta device; buffers that are computed, such as filter banks, are real."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Send ``torch.empty``, which modules make their parameters with, to the meta device."""
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return super().__torch_function__(func, types, args, kwargs)


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor that is made when it is needed."""

    shape: torch.Size
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


StoredTensor: TypeAlias = Tensor | LazyTensor


def made(tensor: StoredTensor) -> Tensor:
    """The tensor itself."""
    return tensor.make() if isinstance(tensor, LazyTensor) else tensor


def own_dtype(state: Mapping[str, StoredTensor]) -> torch.dtype:
    """The type a checkpoint is loaded in by default: bfloat16 where most of its numbers are, else float32."""
    sizes = {True: 0, False: 0}
    for tensor in state.values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype == torch.bfloat16] += tensor.shape.numel()
    return torch.bfloat16 if sizes[True] > sizes[False] else torch.float32


def fill(
    model: nn.Module, state: Mapping[str, StoredTensor], dtype: torch.dtype, device: torch.device, source: str
) -> None:
    """Give a network its tensors, one by one, each on its device at once and of `target_dtype`.

    Raises:
        LayoutMismatch: a tensor of ``source`` has another shape or kind of numbers than the network's.
        WeightsError: a number is not finite.
    """
    for key, slot in model.state_dict().items():
        if state[key].shape != slot.shape:
            raise LayoutMismatch(f"{source}: {key} is {tuple(state[key].shape)}, expected {tuple(slot.shape)}")
        if state[key].dtype.is_floating_point != slot.dtype.is_floating_point:
            raise LayoutMismatch(f"{source}: {key} holds {state[key].dtype}, expected numbers as {slot.dtype}")
    ready: dict[int, Tensor] = {}  # a tied tensor is cast and moved once

    def place(key: str, tensor: StoredTensor) -> Tensor:
        if id(tensor) not in ready:
            ready[id(tensor)] = made(tensor).to(device, target_dtype(key, tensor, dtype))
            check_weight(ready[id(tensor)], key, source)
        return ready[id(tensor)]

    model.load_state_dict({key: place(key, tensor) for key, tensor in state.items()}, strict=True, assign=True)


def check_weight(tensor: Tensor, key: str, source: str) -> None:
    """Refuse numbers that are not finite: attention turns some of them into ordinary ones, and the output is wrong.

    Raises:
        WeightsError: ``key`` of ``source`` has such.
    """
    if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
        raise WeightsError(f"{source}: {key} has NaN or infinities; download the model again, or check its training")


def target_dtype(key: str, tensor: StoredTensor, dtype: torch.dtype) -> torch.dtype:
    """The type a tensor has in a network of ``dtype``: its own where it is of integers, float32 for `FLOAT32`."""
    if not tensor.dtype.is_floating_point:
        return tensor.dtype
    return torch.float32 if is_float32(key) else dtype


def is_float32(key: str) -> bool:
    """Whether a tensor stays float32 whatever the network is: `FLOAT32`."""
    return any(part in f".{key}" for part in FLOAT32)
