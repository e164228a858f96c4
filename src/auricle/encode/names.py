"""Names of encoders.

==============================  ===============================================================================
``dasheng-base``, ``whisper-base``, …  a name of the catalogue, hub id, folder or weights file, of any family
``log-mel``                     the exact 64-band front end as frames, 100 Hz
``mfcc``, ``mfcc-40``           20 or 40 cepstral coefficients of it, and their slopes
``random:whisper-tiny``         random weights, see `auricle.models.encoders.random_encoders`
``my_encoder.py``               code of the user, run only if trusted: `auricle.encode.custom`
``hear:PACKAGE``                an installed module of HEAR, run only if trusted; ``hear:PACKAGE:WEIGHTS`` with weights
``dasheng-base@3``              frames after block 3, 0 the first, not normalised
``dasheng-base@3,6,9``          their mean over blocks 3, 6 and 9
``beats.pt@concat``             frequency patches of one time concatenated instead of averaged; ``@none``: one by one
``beats.pt@3,6@concat``         both
``dasheng-base@9+whisper-base`` joined frames, see `auricle.models.fusion`
==============================  ===============================================================================

A path that exists is taken literally, whatever characters are in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.models.encoders.pieces import Pool
    from auricle.models.frame_model import FrameModel

# Name, layers, pooling of frequency patches.
_PART = re.compile(r"(.+?)(?:@(\d+(?:,\d+)*))?(?:@(mean|concat|none))?")
_RANDOM = "random:"


class Part(NamedTuple):
    """One encoder of a name."""

    name: str
    layers: tuple[int, ...] = ()  # none: its last output
    pool: str = ""  # of frequency patches: mean, concat or none; "": the default of the family


def parse_name(text: str) -> list[Part]:
    """The encoders of a name, one or more to be fused.

    Raises:
        ConfigError: a part between two ``+`` is empty.
    """
    if Path(text).expanduser().exists():
        return [Part(text)]
    pieces = text.split("+")
    if not all(pieces):
        raise ConfigError(f"encoder name {text!r} has an empty part; write dasheng-base+whisper-base")
    return [_parse_part(piece) for piece in pieces]


def open_frame_model(part: Part, *, device: str, dtype: str, revision: str | None, trust_code: bool) -> FrameModel:
    """Build one encoder of a name.

    Args:
        part: name and layers.
        device: ``cpu``, ``cuda``, …
        dtype: of the network, where there is one; front ends and baselines stay float32.
        revision: of a hub id.
        trust_code: whether a ``.py`` file or a module of HEAR may be run.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights, or code that is not trusted.
        ConfigError: layers of an encoder without blocks, pooling of one without frequency patches; unknown device or
            data type.
    """
    name = part.name
    is_code = name.endswith(".py") or name.startswith("hear:")
    if part.pool and (name in _BASELINES or is_code or name.startswith(_RANDOM)):
        raise ConfigError(f"{name!r} has no frequency patches to pool; leave out @{part.pool}")
    if name in _BASELINES or is_code:
        if part.layers:
            raise ConfigError(f"{name!r} has no known blocks; leave out @{','.join(map(str, part.layers))}")
        if name in _BASELINES:
            return _baseline(name, device)
        from auricle.encode.custom import load_user_encoder

        return load_user_encoder(name, device=device, dtype=dtype, trust_code=trust_code)
    if name.startswith(_RANDOM):
        return _random(part, device, dtype)
    from auricle.weights.encoder_layouts import load_encoder_model

    pool = cast("Pool", part.pool) if part.pool else None
    return load_encoder_model(name, device=device, dtype=dtype, revision=revision, layers=part.layers, pool=pool)


def _parse_part(text: str) -> Part:
    if (found := _PART.fullmatch(text)) and not Path(text).expanduser().exists():
        return Part(found[1], tuple(int(layer) for layer in (found[2] or "").split(",") if layer), found[3] or "")
    return Part(text)


# Cepstral coefficients of each; 0: the log-mel itself.
_BASELINES = {"log-mel": 0, "mfcc": 20, "mfcc-40": 40}


def _baseline(name: str, device: str) -> FrameModel:
    from auricle.models.encoders.baselines import LogMelFrames, MfccFrames

    return MfccFrames(_BASELINES[name], device) if _BASELINES[name] else LogMelFrames(device)


def _random(part: Part, device: str, dtype: str) -> FrameModel:
    from auricle.models.encoders.random_encoders import random_encoder
    from auricle.models.encoders.stock import StockEncoder
    from auricle.models.frame_model import DashengFrames
    from auricle.weights.loaders import place_of

    kind, place = place_of(dtype, device)
    model = random_encoder(part.name.removeprefix(_RANDOM), layers=part.layers)
    if isinstance(model, DashengFrames):
        model.network.to(device=place, dtype=kind).init_bn.float()
    elif isinstance(model, StockEncoder):
        model.move(place, kind)
    return model
