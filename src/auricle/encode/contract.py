"""The encoder contract as checks for any encoder: `check_encoder`.

With pytest, ``pytest --auricle-encoder NAME`` makes a test of each (`auricle.encode.pytest_plugin`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4  # float32, for frames of standard deviation 1; the promise of the library
_SLACK_FRAMES = 1.5  # a centred front end has one frame more, a convolution one less
_DURATIONS_S = (1.0, 3.3, 12.7)  # beyond 10 s most encoders cut
_SHORT_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    passed: bool
    message: str
    measured: float | None = None  # the number that decided, where there is one


def check_encoder(encoder: Any) -> list[Finding]:
    """Run every check on an encoder; a check that raises has failed, and the others continue.

    Args:
        encoder: an `auricle.encode.encoder.Encoder`, or anything with its contract: ``sampling_rate``, ``output_dim``,
            ``hop_size_in_ms``, a call with (N,) or (B, N), ``encode`` and ``embed``.

    Returns:
        One finding for each of `CHECKS`, in order.
    """
    return [run_check(name, encoder) for name in CHECKS]


def run_check(name: str, encoder: Any) -> Finding:
    """Run one of `CHECKS`."""
    try:
        passed, message, measured = CHECKS[name](encoder)
    except Exception as error:  # a check must report on any encoder, however broken
        return Finding(check=name, passed=False, message=f"raised {type(error).__name__}: {error}")
    return Finding(check=name, passed=passed, message=message, measured=measured)


_Outcome = tuple[bool, str, float | None]


def _noise(encoder: Any, seconds: float, seed: int = 0, level: float = 0.1) -> Tensor:
    """A clip (N,) that changes over time, so that a shift or a leak shows."""
    generator = torch.Generator().manual_seed(seed)
    samples = level * torch.randn(max(1, round(seconds * encoder.sampling_rate)), generator=generator)
    return samples * torch.linspace(0.2, 1.0, len(samples))


def _attributes(encoder: Any) -> _Outcome:
    names = ("sampling_rate", "output_dim", "hop_size_in_ms")
    values = {name: getattr(encoder, name, None) for name in names}
    wrong = [f"{k}={v!r}" for k, v in values.items() if isinstance(v, bool) or not isinstance(v, int | float) or v <= 0]
    if not isinstance(values["output_dim"], int):
        wrong.append("output_dim is not an int")
    return not wrong, f"{', '.join(wrong) or values}; expected numbers above 0", None


def _shape(encoder: Any) -> _Outcome:
    shape = tuple(encoder(torch.stack([_noise(encoder, 2.0, seed) for seed in (1, 2)])).shape)
    return len(shape) == 3 and shape[0] == 2 and shape[2] == encoder.output_dim, f"(2, N) gave {shape}", None


def _one_dimension(encoder: Any) -> _Outcome:
    clip = _noise(encoder, 1.0)
    single, row = encoder(clip), encoder(clip[None])
    error = _difference(single, row)
    return single.ndim == 3 and len(single) == 1 and error <= TOLERANCE, f"(N,) gave {tuple(single.shape)}", error


def _frame_count(encoder: Any) -> _Outcome:
    worst, message = 0.0, ""
    for seconds in _DURATIONS_S:
        count = encoder(_noise(encoder, seconds)).shape[1]
        expected = 1000 * seconds / encoder.hop_size_in_ms
        if abs(count - expected) >= worst:
            worst = abs(count - expected)
            message = f"{seconds} s gave {count} frames, hop_size_in_ms promises {expected:.1f}"
    return worst <= _SLACK_FRAMES, message, worst


def _dtype(encoder: Any) -> _Outcome:
    clip = _noise(encoder, 1.0)
    kinds = {str(encoder(given).dtype) for given in (clip, clip.double())}
    return kinds == {"torch.float32"}, f"float32 and float64 input gave {', '.join(sorted(kinds))}", None


def _finite(encoder: Any) -> _Outcome:
    clips = {"noise": _noise(encoder, 1.0), "silence": torch.zeros(encoder.sampling_rate)}
    clips["full scale"] = torch.sign(_noise(encoder, 1.0, 3))
    wrong = [name for name, clip in clips.items() if not torch.isfinite(encoder(clip)).all()]
    return not wrong, f"NaN or infinity for: {', '.join(wrong) or 'nothing'}", None


def _determinism(encoder: Any) -> _Outcome:
    clip = _noise(encoder, 2.0)
    error = _difference(encoder(clip), encoder(clip))
    return error == 0.0, f"two runs differ by {error:.1e}", error


def _gradients(encoder: Any) -> _Outcome:
    with torch.enable_grad():
        frames = encoder(_noise(encoder, 1.0))
    return not frames.requires_grad, f"requires_grad is {frames.requires_grad}", None


def _batch_invariance(encoder: Any) -> _Outcome:
    """A clip batched with longer, shorter, louder and equally long ones, against the same clip alone."""
    lengths = ((1.0, 0.1), (3.3, 0.5), (0.4, 0.01), (1.0, 0.002), (5.0, 0.3))
    clips = [_noise(encoder, seconds, seed, level) for seed, (seconds, level) in enumerate(lengths)]
    together, counts = encoder.encode(clips)
    worst = 0.0
    for row, count, clip in zip(together, counts.tolist(), clips, strict=True):
        alone, own = encoder.encode([clip])
        if count != int(own[0]):
            return False, f"{count} frames in a batch, {int(own[0])} alone", math.inf
        worst = max(worst, _difference(row[:count], alone[0][:count]))
        if row[count:].any():
            return False, "frames after the end of a clip are not zero", math.inf
    return worst <= TOLERANCE, f"alone and in a batch differ by {worst:.1e}, at most {TOLERANCE:.0e}", worst


def _position_in_batch(encoder: Any) -> _Outcome:
    clips = torch.stack([_noise(encoder, 1.5, seed, level) for seed, level in ((1, 0.5), (2, 0.001), (3, 0.1))])
    together = encoder(clips)
    worst = max(_difference(row, encoder(clip)[0]) for row, clip in zip(together, clips, strict=True))
    return worst <= TOLERANCE, f"rows of (3, N) and the clips alone differ by {worst:.1e}", worst


def _short_clip(encoder: Any) -> _Outcome:
    frames, counts = encoder.encode([_noise(encoder, _SHORT_S)])
    good = int(counts[0]) >= 1 and bool(torch.isfinite(frames).all())
    return good, f"{1000 * _SHORT_S:.0f} ms gave {int(counts[0])} frames; expected one or more, finite", None


def _pooling(encoder: Any) -> _Outcome:
    clip = _noise(encoder, 2.3)
    error = _difference(encoder.embed([clip])[0], encoder.encode([clip])[0][0].mean(0))
    return error <= TOLERANCE, f"embed and the mean of encode's frames differ by {error:.1e}", error


def _sensitivity(encoder: Any) -> _Outcome:
    """An encoder that gives the same for all clips would pass all other checks."""
    error = _difference(encoder(_noise(encoder, 1.0, 1)), encoder(_noise(encoder, 1.0, 2)))
    return error > TOLERANCE, f"two different clips differ by {error:.1e}", error


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, in units of the frames' standard deviation where that is above 1 (dB, for instance)."""
    if one.shape != other.shape:
        return math.inf
    scale = max(1.0, float(other.float().std())) if other.numel() > 1 else 1.0
    error = float((one.float() - other.float()).abs().max()) / scale
    return math.inf if math.isnan(error) else error


CHECKS: dict[str, Callable[[Any], _Outcome]] = {
    "attributes": _attributes,
    "shape": _shape,
    "one_dimension": _one_dimension,
    "frame_count": _frame_count,
    "dtype": _dtype,
    "finite": _finite,
    "determinism": _determinism,
    "gradients": _gradients,
    "batch_invariance": _batch_invariance,
    "position_in_batch": _position_in_batch,
    "short_clip": _short_clip,
    "pooling": _pooling,
    "sensitivity": _sensitivity,
}
