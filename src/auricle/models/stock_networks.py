"""Networks of `transformers` from plain settings and tensors: nothing in a config.json can choose code.

A configuration may name attention kernels, implementations of experts, quantisers and classes that transformers would
fetch and run. Only geometry is passed on, and the sizes are compared with the tensors before anything is built.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from auricle.errors import LayoutMismatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Settings that choose code, wherever they are nested.
_CODE = re.compile(r"_.*|.*(attn|experts)_implementation.*|auto_map|custom_pipelines|.*kernels|.*(quantiz|compress).*")
_GEOMETRY = {"rope_scaling", "chunk_size_feed_forward", "is_encoder_decoder"}  # that every configuration has
_COUNTS = re.compile(r"(.*_)?(layers?|blocks?|depths?|experts?)(_.*)?")  # settings by which modules are multiplied
_PLENTY = 1000  # layers that are built whatever the tensors are
_SLACK = 1_000_000  # numbers of a network that need no tensors: tables, buffers


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config.json without those that choose code or replace methods."""
    from transformers import PreTrainedConfig

    taken = set(dir(PreTrainedConfig)) - _GEOMETRY
    return {
        key: plain_settings(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in taken and not _CODE.fullmatch(key)
    }


def check_counts(settings: Mapping[str, Any], tensors: int, source: str) -> None:
    """Refuse settings with more layers than there could be in so many tensors.

    Raises:
        LayoutMismatch: there are.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            check_counts(value, tensors, source)
        elif isinstance(value, int) and value > max(tensors, _PLENTY) and _COUNTS.fullmatch(key):
            raise LayoutMismatch(f"{source}: {key} is {value}, but there are {tensors} tensors; restore config.json")


def load_network(
    network_class: Any, config: Any, tensors: Mapping[str, Tensor], source: str, dtype: torch.dtype = torch.float32
) -> "PreTrainedModel":
    """A network in evaluation mode with its tensors, under names of any version of transformers.

    Args:
        network_class: of transformers.
        config: of its class, made of `plain_settings`.
        tensors: all of the network's.
        source: for messages.
        dtype: of the network.

    Raises:
        LayoutMismatch: tensors are missing, unknown or of another shape.
    """
    attention = "sdpa" if network_class._supports_sdpa else "eager"
    _check_size(lambda: network_class._from_config(config, attn_implementation=attention), tensors, source)
    # The library itself maps the names that older versions of it wrote (weight_g, attention.attention.query, …).
    with quiet():
        try:
            network, found = network_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are complained about below
                dtype=dtype,
            )
        except Exception as error:  # the library raises many kinds
            raise LayoutMismatch(
                f"{source}: the tensors do not fit config.json ({error}); take both from one place"
            ) from error
    faults = [
        f"{len(keys)} {what} ({', '.join(sorted(map(str, keys))[:3])})"
        for what, keys in (
            ("missing", found["missing_keys"]),
            ("unknown", found["unexpected_keys"]),
            ("of another shape", found["mismatched_keys"]),
        )
        if keys
    ]
    if faults:
        raise LayoutMismatch(
            f"{source}: the tensors do not fit config.json: {' and '.join(faults)}; take both from one place"
        )
    built: PreTrainedModel = network.eval()
    return built


def _check_size(build: Callable[[], Any], tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse a network much larger than its tensors, before it takes up memory."""
    try:
        with quiet(), torch.device("meta"):
            network = build()
    except Exception as error:  # the library raises many kinds
        raise LayoutMismatch(f"{source}: config.json describes no network ({error}); restore it") from error
    needed = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    stored = sum(tensor.numel() for tensor in tensors.values())
    if needed > 2 * stored + _SLACK:
        raise LayoutMismatch(
            f"{source}: config.json describes a network of {needed:,} numbers, the tensors hold {stored:,}; take both "
            "from one place"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bar and the report of transformers; what is wrong is raised instead."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
