"""Whether a confidence is the share of answers that are right, and the map that makes it so.

Rows are (confidence, right) of one answer each, (n, 2): 0 to 1, and 0 or 1.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.errors import ConfigError

Array = npt.NDArray[np.float64]

BINS = 10  # of equal width, from 0 to 1
SLOPES = (0.01, 10.0)  # a map never falls; steeper ones would make a step
OFFSETS = (-10.0, 10.0)
_EDGE = 1e-6  # confidences nearer to 0 or 1 have log-odds without use
_PRIOR = 1.0  # weight of the map that changes nothing, as of one answer: keeps fits on few answers finite
_STEPS = 100  # of Newton's method, which needs about ten


def _check_within(what: str, value: float, ends: tuple[float, float]) -> None:
    """Refuse a number out of a range.

    Raises:
        ConfigError: below or above the ends, or nan.
    """
    if not ends[0] <= value <= ends[1]:
        raise ConfigError(f"{what} is {value}; expected {ends[0]:g} to {ends[1]:g}")


@dataclass(frozen=True, slots=True)
class LogisticMap:
    """A confidence as a logistic function of the log-odds of another: sigmoid(slope · logit(p) + offset).

    Source: Platt 1999, "Probabilistic outputs for support vector machines"; with offset 0, temperature scaling with the
    temperature 1 / slope (Guo et al. 2017, arXiv 1706.04599).
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check_within("the slope of a confidence", self.slope, SLOPES)
        _check_within("the offset of a confidence", self.offset, OFFSETS)

    def __call__(self, probability: float) -> float:
        """Map a probability, 0 to 1."""
        if (self.slope, self.offset) == (1.0, 0.0):
            return probability
        return float(_sigmoid(self.slope * _log_odds(np.float64(probability)) + self.offset))


UNCHANGED = LogisticMap()


class Bin(NamedTuple):
    """The answers whose confidence lies in one range."""

    low: float  # of the range
    high: float
    confidence: float  # mean
    right: float  # share
    n: int


def reliability(rows: Array) -> list[Bin]:
    """The bins of a reliability diagram that have answers, in order."""
    places = np.minimum((rows[:, 0] * BINS).astype(int), BINS - 1)
    found = []
    for number in sorted(set(places.tolist())):
        own = rows[places == number]
        confidence, right = own.mean(0).tolist()
        found.append(Bin(number / BINS, (number + 1) / BINS, confidence, right, len(own)))
    return found


def calibration_error(rows: Array) -> float:
    """Expected calibration error: the gap of each bin between confidence and share right, weighted by its answers."""
    return sum(abs(each.confidence - each.right) * each.n for each in reliability(rows)) / len(rows)


def log_loss(rows: Array) -> float:
    """Mean negative log-likelihood of what was right, nats."""
    confidence = np.clip(rows[:, 0], _EDGE, 1 - _EDGE)
    return float(-np.mean(np.where(rows[:, 1] > 0.5, np.log(confidence), np.log1p(-confidence))))


def fit_map(rows: Array) -> LogisticMap:
    """The map of least negative log-likelihood, within its bounds.

    Raises:
        ConfigError: all answers are right, or none: there is nothing to tell apart.
    """
    right = rows[:, 1]
    if not 0 < right.sum() < len(right):
        raise ConfigError(f"{right.sum():.0f} of {len(right)} answers are right; expected some of both to fit a map")
    features = np.stack([_log_odds(rows[:, 0]), np.ones(len(rows))], 1)
    slope, offset = _newton(features, right, np.array([1.0, 0.0])).tolist()
    if not SLOPES[0] <= slope <= SLOPES[1]:
        slope = min(max(slope, SLOPES[0]), SLOPES[1])
        (offset,) = _newton(features[:, 1:], right, np.zeros(1), slope * features[:, 0]).tolist()
    return LogisticMap(slope, min(max(offset, OFFSETS[0]), OFFSETS[1]))


def _newton(features: Array, right: Array, start: Array, fixed: Array | float = 0.0) -> Array:
    """Weights of a logistic regression, drawn to ``start`` as by `_PRIOR` answers."""
    weights = start.copy()
    loss = math.inf
    step = np.zeros_like(weights)
    for _ in range(_STEPS):
        logits = features @ weights + fixed
        found = float(np.logaddexp(0, logits).sum() - right @ logits + _PRIOR / 2 * ((weights - start) ** 2).sum())
        if found > loss + 1e-12:
            step /= 2  # too far
            weights -= step
            continue
        if loss - found < 1e-10:
            break
        loss, probability = found, _sigmoid(logits)
        slope = features.T @ (probability - right) + _PRIOR * (weights - start)
        curve = (features * (probability * (1 - probability))[:, None]).T @ features + _PRIOR * np.eye(len(weights))
        step = -np.linalg.solve(curve, slope)
        weights += step
    return weights


def _log_odds(probability: Array | np.float64) -> Array:
    inside = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))
