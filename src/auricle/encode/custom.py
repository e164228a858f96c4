"""An encoder of the user, in the form of X-ARES, XARES-LLM or HEAR, behind our contract.

Loading it runs the file, so it must be named by a path and trusted by the caller; no configuration can load it. What
runs are the bytes that were hashed, see `auricle.encode.user_code`.

* X-ARES: one class whose name ends in ``Encoder``, defined in the file or imported into it, constructed without
  arguments, with ``sampling_rate`` (Hz), ``output_dim`` and ``hop_size_in_ms``; called with (1, N) it returns
  (1, T, D), or (T, D) where it drops the axis of a single clip.
* XARES-LLM: likewise, with ``output_dim`` alone; called with (1, N) at 16 kHz and a mask it returns frames and their
  mask, 1 = keep, or None.
* HEAR: ``load_model()`` and ``get_timestamp_embeddings(audio, model)``; the model has ``sample_rate`` (Hz) and
  ``timestamp_embedding_size``. ``hear:PACKAGE`` names an installed package, ``hear:PACKAGE:WEIGHTS`` and
  ``hear:FILE.py:WEIGHTS`` pass a path of weights to ``load_model``.

Each clip is encoded alone, since no form can state which samples are padding. Clips are decoded to 16 kHz: an
encoder of a higher rate gets nothing above 8 kHz. The content hash covers the file, what it imports of its folder, the
weights that are named, and the tensors of a torch module, not other files that the code reads. Installed packages are
imported as Python imports them; of these the version and the named module are hashed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import packages_distributions, version
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.encode.user_code import UserCode, read_user_code, run
from auricle.errors import AuricleError, ConfigError, UnsafeWeights
from auricle.models.frame_model import FrameModel, Identity, count_parameters
from auricle.models.inference import inference
from auricle.weights import safe

HEAR_PREFIX = "hear:"
_HEAR = ("load_model", "get_timestamp_embeddings")
_MIN_S = 0.1  # shorter clips are padded: neither form promises anything for them
_SLACK_FRAMES, _SLACK = 3, 0.05  # by which the number of frames may differ from duration and hop: padding of the code
_PROBE_S = 4  # of silence, to find the hop of a model that does not state it


class UserFrames:
    """An encoder of the user as a `FrameModel`; its input is resampled from 16 kHz to ``native_rate``."""

    sampling_rate = SAMPLE_RATE
    min_samples = int(_MIN_S * SAMPLE_RATE)

    def __init__(
        self,
        encode: Callable[[Tensor], Any],
        *,
        name: str,
        digest: str,
        native_rate: int,
        output_dim: int,
        hop_size_in_ms: float,
        network: Any = None,
        device: str = "cpu",
    ) -> None:
        """Wrap a function.

        Args:
            encode: (1, N) float32 at ``native_rate`` on ``device`` → (1, T, D).
            name: of the class or module, for messages.
            digest: SHA-256 of the file.
            native_rate: Hz.
            output_dim: D.
            hop_size_in_ms: from one frame to the next.
            network: the torch module, if there is one.
            device: of its input.
        """
        self._encode, self.name, self.native_rate = encode, name, native_rate
        self.output_dim, self.hop_size_in_ms = output_dim, hop_size_in_ms
        self._digest, self._network, self._device = digest, network, device

    def frames(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """See `FrameModel`.

        Raises:
            ConfigError: the code returns something else than (1, T, D).
            AuricleError: the code failed; its error is attached.
        """
        return [self._frames(waveform) for waveform in waveforms]

    def identity(self) -> Identity:
        """See `FrameModel`."""
        settings = {"kind": "user code", "sha256": self._digest, "native_rate": self.native_rate}
        if not isinstance(self._network, nn.Module):
            return Identity(settings, {})
        return Identity(settings, self._network.state_dict(), count_parameters(self._network))

    def _frames(self, waveform: Tensor) -> Tensor:
        samples = waveform.float().cpu().numpy()
        if self.native_rate != SAMPLE_RATE:
            samples = soxr.resample(samples, SAMPLE_RATE, self.native_rate, quality="HQ")
        clip = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self._device)
        try:
            found = self._encode(clip)
        except Exception as error:
            raise AuricleError(
                f"{self.name} failed on {clip.shape[1]} samples at {self.native_rate} Hz "
                f"({type(error).__name__}: {error}); it must accept any clip of {_MIN_S} s or more"
            ) from error
        frames = self._unpacked(found, len(waveform) / SAMPLE_RATE)
        if frames.ndim != 3 or len(frames) != 1 or not frames.shape[1] or frames.shape[2] != self.output_dim:
            wanted = f"(1, T, {self.output_dim}) with T >= 1"
            raise ConfigError(f"{self.name} returned {tuple(frames.shape)} for one clip; expected {wanted}")
        return frames[0].float()

    def _unpacked(self, found: Any, duration_s: float) -> Tensor:
        """What the code returned as (1, T, D), where it is of one of the known forms."""
        mask = None
        if isinstance(found, tuple | list) and len(found) == 2:
            found, mask = found
        frames = _tensor(found)
        expected = 1000 * duration_s / self.hop_size_in_ms
        # Without the axis of the clip; (1, D) of a long clip is a mean over time instead.
        if frames.ndim == 2 and abs(len(frames) - expected) <= max(_SLACK_FRAMES, _SLACK * expected):
            frames = frames[None]
        if mask is not None and frames.ndim == 3:
            kept = _tensor(mask).to(frames.device).flatten() != 0
            if len(kept) != frames.shape[1]:
                raise ConfigError(f"{self.name} returned {frames.shape[1]} frames and a mask of {len(kept)}")
            frames = frames[:, kept]
        return frames


def load_user_encoder(
    path: str | Path, *, device: str = "cpu", dtype: str = "float32", trust_code: bool = False
) -> FrameModel:
    """Run a file and wrap the encoder it defines.

    Args:
        path: of the ``.py`` file, as the user gave it; or a name with ``hear:``, see above.
        device: where torch modules and their input go.
        dtype: ``float32`` alone; other types are up to the code.
        trust_code: otherwise nothing is run.

    Raises:
        UnsafeWeights: it is not trusted; the message lists what would be run.
        ConfigError: the file holds no encoder of either form, or several.
        AuricleError: running it failed.
    """
    name = str(path)
    if name.startswith(HEAR_PREFIX):
        named, _, weights = name.removeprefix(HEAR_PREFIX).partition(":")
        if not named.endswith(".py"):
            return _hear_package(named, weights, device=device, dtype=dtype, trust_code=trust_code)
        path = named
    else:
        weights = ""
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of an encoder's .py file")
    code = read_user_code(path)
    _check_trust(f"{path} (SHA-256 {code.digest[:16]}…) is code", code.outline(), trust_code)
    _check_dtype(dtype, path.name)
    module = run(code)
    if all(callable(getattr(module, function, None)) for function in _HEAR):
        return _hear(module, str(path), code.digest, device, weights)
    if weights:
        raise ConfigError(f"{path}: has no {' and '.join(_HEAR)} of HEAR, which weights could be given to")
    return _xares(module, code, device)


def _check_trust(what: str, outline: str, trust_code: bool) -> None:
    if not trust_code:
        raise UnsafeWeights(
            f"{what}, and loading it would run all of it as you: {outline}. Nothing was run. Read it, then pass "
            "trust_code=True (--trust-code on the command line)"
        )


def _check_dtype(dtype: str, name: str) -> None:
    if dtype != "float32":
        raise ConfigError(f"dtype is {dtype}, but {name} decides its own; leave it at float32")


def _hear_package(name: str, weights: str, *, device: str, dtype: str, trust_code: bool) -> FrameModel:
    """A module of HEAR that is installed."""
    top = name.partition(".")[0]
    found = importlib.util.find_spec(top) if all(part.isidentifier() for part in name.split(".")) else None
    if found is None:
        raise ConfigError(f"{name}: no such package is installed; install it, or give the path of a .py file")
    _check_trust(f"{name} ({found.origin}) is code", "the package and what it imports", trust_code)
    _check_dtype(dtype, name)
    module = _call(lambda: importlib.import_module(name), f"importing {name}")
    if missing := [function for function in _HEAR if not callable(getattr(module, function, None))]:
        raise ConfigError(f"{name}: has no {' and no '.join(missing)}; expected a module of HEAR")
    content = Path(module.__file__).read_bytes() if module.__file__ else b""
    versions = [version(owner) for owner in packages_distributions().get(top, ())]
    digest = sha256(repr((name, versions, sha256(content).hexdigest())).encode()).hexdigest()
    return _hear(module, name, digest, device, weights)


def _xares(module: ModuleType, code: UserCode, device: str) -> UserFrames:
    path = str(code.path)
    found = _encoder_class(module, path)
    encoder = _call(found, f"{path}: {found.__name__}()")
    if isinstance(encoder, nn.Module):
        encoder = encoder.eval().to(device)
    takes_mask = _takes_mask(encoder)
    encode = (lambda clip: encoder(clip, None)) if takes_mask else encoder
    is_fixed = takes_mask and not hasattr(encoder, "sampling_rate")
    rate = SAMPLE_RATE if is_fixed else int(_number(encoder, "sampling_rate", path))
    width = int(_number(encoder, "output_dim", path))
    is_unstated = takes_mask and not hasattr(encoder, "hop_size_in_ms")
    hop = _probed_hop(encode, rate, device, path) if is_unstated else _number(encoder, "hop_size_in_ms", path)
    return UserFrames(
        encode,
        name=found.__name__,
        digest=code.digest,
        native_rate=rate,
        output_dim=width,
        hop_size_in_ms=hop,
        network=encoder,
        device=device,
    )


def _encoder_class(module: ModuleType, path: str) -> type[Any]:
    """The class that the file defines, else the one that it imports from its folder, else from elsewhere."""
    classes: dict[type[Any], None] = {
        value: None for name, value in vars(module).items() if name.endswith("Encoder") and inspect.isclass(value)
    }
    homes = {value: value.__module__ for value in classes if value.__module__.partition(".")[0] != "auricle"}
    for is_near in (
        lambda home: home == module.__name__,
        lambda home: home.startswith(f"{module.__name__}."),
        lambda home: not home.startswith(module.__name__),
    ):
        near = [value for value, home in homes.items() if is_near(home)]
        if len(near) == 1:
            return near[0]
        if near:
            break
    names = ", ".join(value.__name__ for value in near) or "none"
    raise ConfigError(
        f"{path}: has these classes ending in Encoder: {names}; expected exactly one, or the functions "
        f"{' and '.join(_HEAR)} of HEAR"
    )


def _takes_mask(encoder: Any) -> bool:
    """Whether it is called with a mask behind the audio, as XARES-LLM does."""
    call = encoder.forward if isinstance(encoder, nn.Module) else encoder
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return False
    return len(parameters) > 1 and (parameters[1].default is inspect.Parameter.empty or "mask" in parameters[1].name)


def _probed_hop(encode: Callable[[Tensor], Any], rate: int, device: str, path: str) -> float:
    """Time from one frame to the next, from their number in a few seconds of silence."""
    silence = torch.zeros(1, _PROBE_S * rate, device=device)
    with inference():
        found = _call(lambda: encode(silence), f"{path}: encoding silence")
    frames = _tensor(found[0] if isinstance(found, tuple | list) else found)
    if frames.ndim < 2 or not frames.shape[-2]:
        raise ConfigError(f"{path}: {_PROBE_S} s gave {tuple(frames.shape)}; expected (1, T, D)")
    return 1000 * _PROBE_S / frames.shape[-2]


def _hear(module: ModuleType, path: str, digest: str, device: str, weights: str) -> UserFrames:
    if weights:
        file = Path(weights).expanduser()
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; give the weights that {path} loads")
        digest = sha256(f"{digest} {safe.sha256(file)}".encode()).hexdigest()
        weights = str(file)
    model = _call(lambda: module.load_model(*([weights] if weights else [])), f"{path}: load_model()")
    if isinstance(model, nn.Module):
        model = model.eval().to(device)
    rate, width = (int(_number(model, key, path)) for key in ("sample_rate", "timestamp_embedding_size"))
    silence = torch.zeros(1, _PROBE_S * rate, device=device)
    with inference():
        _, stamps = _call(lambda: module.get_timestamp_embeddings(silence, model), f"{path}: timestamps")
    times = _tensor(stamps).double().flatten().tolist()
    if len(times) < 2 or times[-1] <= times[0]:
        raise ConfigError(
            f"{path}: {_PROBE_S} s have {len(times)} timestamps; expected several in ascending order, in milliseconds"
        )
    return UserFrames(
        lambda clip: module.get_timestamp_embeddings(clip, model)[0],
        name=Path(path).stem,
        digest=digest,
        native_rate=rate,
        output_dim=width,
        hop_size_in_ms=median(after - before for before, after in itertools.pairwise(times)),
        network=model,
        device=device,
    )


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))


def _call(function: Callable[[], Any], what: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise AuricleError(f"{what} failed ({type(error).__name__}: {error}); see the cause") from error


def _number(owner: Any, key: str, path: str) -> float:
    value = getattr(owner, key, None)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not float(value) > 0:
        raise ConfigError(f"{path}: {type(owner).__name__}.{key} is {value!r}; expected a number above 0")
    return float(value)
