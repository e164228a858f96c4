"""An encoder of the user, in the form of X-ARES or HEAR, behind our contract.

Loading it runs the file, so it must be named by a path and trusted by the caller; no configuration can load it.

* X-ARES: exactly one class defined in the file whose name ends in ``Encoder``, constructed without arguments, with
  ``sampling_rate`` (Hz), ``output_dim`` and ``hop_size_in_ms``; called with (1, N) it returns (1, T, D).
* HEAR: ``load_model()`` and ``get_timestamp_embeddings(audio, model)``; the model has ``sample_rate`` (Hz) and
  ``timestamp_embedding_size``. To load weights, write a file whose ``load_model`` passes the path on.

Each clip is encoded alone, since neither form can state which samples are padding. Clips are decoded to 16 kHz: an
encoder of a higher rate gets nothing above 8 kHz. The content hash covers the file and the tensors of a torch module,
not other files that the code reads.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import AuricleError, ConfigError, UnsafeWeights
from auricle.models.frame_model import FrameModel, Identity, count_parameters
from auricle.weights.loaders import device_of

_HEAR = ("load_model", "get_timestamp_embeddings")
_MIN_S = 0.1  # shorter clips are padded: neither form promises anything for them
_PROBE_S = 4  # of silence, to find the hop of a HEAR model


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
        frames = found if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))
        if frames.ndim != 3 or len(frames) != 1 or not frames.shape[1] or frames.shape[2] != self.output_dim:
            wanted = f"(1, T, {self.output_dim}) with T >= 1"
            raise ConfigError(f"{self.name} returned {tuple(frames.shape)} for one clip; expected {wanted}")
        return frames[0].float()


def load_user_encoder(
    path: str | Path, *, device: str = "auto", dtype: str = "float32", trust_code: bool = False
) -> FrameModel:
    """Run a file and wrap the encoder it defines.

    Args:
        path: of the ``.py`` file, as the user gave it.
        device: where torch modules and their input go.
        dtype: ``float32`` alone; other types are up to the code.
        trust_code: otherwise nothing is run.

    Raises:
        UnsafeWeights: it is not trusted; the message lists what would be run.
        ConfigError: the file holds no encoder of either form, or several.
        AuricleError: running it failed.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of an encoder's .py file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not trust_code:
        raise UnsafeWeights(
            f"{path} (SHA-256 {digest[:16]}…) is code, and loading it would run all of it as you: {_outline(path)}. "
            "Nothing was run. Read it, then pass trust_code=True"
        )
    if dtype != "float32":
        raise ConfigError(f"dtype is {dtype}, but {path.name} decides its own; leave it at float32")
    device = str(device_of(device))
    module = _run(path, digest)
    if all(callable(getattr(module, name, None)) for name in _HEAR):
        return _hear(module, path, digest, device)
    return _xares(module, path, digest, device)


def _outline(path: Path) -> str:
    """Names that a file defines, found without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return "it is not valid Python"
    names = [
        f"{'class' if isinstance(node, ast.ClassDef) else 'function'} {node.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return ", ".join(names[:8]) or "statements without a class or function"


def _run(path: Path, digest: str) -> ModuleType:
    name = f"auricle_user_code_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: expected a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickled workers look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise AuricleError(f"{path}: running it failed ({type(error).__name__}: {error}); see the cause") from error
    return module


def _xares(module: ModuleType, path: Path, digest: str, device: str) -> UserFrames:
    classes = [
        value
        for name, value in vars(module).items()
        if name.endswith("Encoder") and inspect.isclass(value) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        found = ", ".join(value.__name__ for value in classes) or "none"
        raise ConfigError(
            f"{path}: defines these classes ending in Encoder: {found}; expected exactly one, or the functions "
            f"{' and '.join(_HEAR)} of HEAR"
        )
    name = classes[0].__name__
    encoder = _call(classes[0], f"{path}: {name}()")
    if isinstance(encoder, nn.Module):
        encoder = encoder.eval().to(device)
    rate, width, hop = (_number(encoder, key, path) for key in ("sampling_rate", "output_dim", "hop_size_in_ms"))
    return UserFrames(
        encoder,
        name=name,
        digest=digest,
        native_rate=int(rate),
        output_dim=int(width),
        hop_size_in_ms=hop,
        network=encoder,
        device=device,
    )


def _hear(module: ModuleType, path: Path, digest: str, device: str) -> UserFrames:
    model = _call(module.load_model, f"{path}: load_model()")
    if isinstance(model, nn.Module):
        model = model.eval().to(device)
    rate, width = (int(_number(model, key, path)) for key in ("sample_rate", "timestamp_embedding_size"))
    silence = torch.zeros(1, _PROBE_S * rate, device=device)
    with torch.inference_mode():
        _, stamps = _call(lambda: module.get_timestamp_embeddings(silence, model), f"{path}: timestamps")
    times = torch.as_tensor(np.asarray(torch.as_tensor(stamps).cpu()), dtype=torch.float64).flatten().tolist()
    if len(times) < 2 or times[-1] <= times[0]:
        raise ConfigError(
            f"{path}: {_PROBE_S} s have {len(times)} timestamps; expected several in ascending order, in milliseconds"
        )
    return UserFrames(
        lambda clip: module.get_timestamp_embeddings(clip, model)[0],
        name=path.stem,
        digest=digest,
        native_rate=rate,
        output_dim=width,
        hop_size_in_ms=median(after - before for before, after in itertools.pairwise(times)),
        network=model,
        device=device,
    )


def _call(function: Callable[[], Any], what: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise AuricleError(f"{what} failed ({type(error).__name__}: {error}); see the cause") from error


def _number(owner: Any, key: str, path: Path) -> float:
    value = getattr(owner, key, None)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not float(value) > 0:
        raise ConfigError(f"{path}: {type(owner).__name__}.{key} is {value!r}; expected a number above 0")
    return float(value)
