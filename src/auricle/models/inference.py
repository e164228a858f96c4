"""How a model answers: without gradients, in its own precision, and also in a forked process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def inference() -> Iterator[None]:
    """Record no gradients, and ignore a ``torch.autocast`` of the caller: what it rounds would stay in caches."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        for device_type in filter(torch.is_autocast_enabled, _AUTOCAST_DEVICES):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


if hasattr(os, "register_at_fork"):
    # The threads of torch's pool are not copied, and work given to them would never be done.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
