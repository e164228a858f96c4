"""Sound event detection: events to frame targets, frame probabilities to events, and scores by segment and by onset.

Legend: B clips, T frames, C classes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import ConfigError, DataError

Value: TypeAlias = str | int | float


class Event(NamedTuple):
    """An event within a clip."""

    onset_s: float
    offset_s: float
    label: Value


MEDIAN_FILTER_MS = 250.0  # HEAR `task_predictions.py`, EVENT_POSTPROCESSING_GRID
THRESHOLD = 0.5  # of a probability; the same
SEGMENT_S = 1.0  # HEAR segment_1s_er, X-ARES DESED

Classes = int | Sequence[Value]  # how many, where labels are numbers already; or the labels in the order of the outputs
_ROUNDING = 1e-6  # of a frame: 0.3 s / 0.1 s must not become 3.0000000000000004 frames


def frame_targets(
    events: Iterable[Event], classes: Classes, *, hop_ms: float, duration_s: float | None = None
) -> Tensor:
    """Targets of frames: an event is active in the frames i with onset <= i · hop < offset.

    Args:
        events: of one clip.
        classes: see `Classes`.
        hop_ms: of the encoder's frames.
        duration_s: of the clip, whose last frame may be shorter; None: to the end of the last event.

    Returns:
        (T, C) float32 of 0 and 1, T = ceil(duration / hop).

    Raises:
        ConfigError: hop or duration are not above 0.
        DataError: an event of another class.

    >>> frame_targets([Event(0.0, 0.2, "dog")], ("cat", "dog"), hop_ms=100, duration_s=0.3).tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]

    Source: X-ARES `desed_task.py` (10 s) and `maestro_task.py` (to the last event).
    """
    listed = list(events)
    if hop_ms <= 0 or (duration_s is not None and duration_s <= 0):
        raise ConfigError(f"hop {hop_ms} ms and duration {duration_s} s must be above 0")
    end_s = duration_s if duration_s is not None else max((event.offset_s for event in listed), default=0.0)
    count = classes if isinstance(classes, int) else len(classes)
    targets = torch.zeros(_frames(end_s, hop_ms), count)
    for event in listed:
        targets[_frames(event.onset_s, hop_ms) : _frames(event.offset_s, hop_ms), _number(event, classes)] = 1.0
    return targets


def pad_or_trim(frames: Tensor, length: int, *, dim: int = -2) -> Tensor:
    """Cut the axis ``dim`` (time, in (T, C) or (B, T, C)) to ``length``, or pad it with zeros at the end."""
    missing = length - frames.shape[dim]
    if missing <= 0:
        return frames.narrow(dim, 0, length)
    shape = list(frames.shape)
    shape[dim] = missing
    return torch.cat([frames, frames.new_zeros(shape)], dim=dim)


def segment_window(segment_s: float, hop_ms: float) -> int:
    """Frames of a window: ceil(segment / hop), at least 1."""
    if segment_s <= 0 or hop_ms <= 0:
        raise ConfigError(f"segment {segment_s} s and hop {hop_ms} ms must be above 0")
    return max(1, _frames(segment_s, hop_ms))


def segment_f1(
    logits: Iterable[Tensor],
    targets: Iterable[Tensor],
    *,
    hop_ms: float,
    segment_s: float = SEGMENT_S,
    average: Literal["micro", "macro"],
) -> float:
    """F1 of classes in windows of time, in [0, 1]; a class is active in a window where any of its frames is.

    F1 = 2·hits / (detected + wanted), counted over the windows of all clips; an incomplete last window is dropped.

    Args:
        logits: of each clip (T, C); a class is detected at logits above 0 (a probability of 0.5 is rounded to 0).
        targets: of each clip (T, C) of 0 and 1.
        hop_ms: of the frames.
        segment_s: length of a window; 1 s in DESED, 0.1 s in MAESTRO.
        average: ``micro`` counts all classes together; ``macro`` is the mean over classes, 0 for one that neither
            occurs nor is detected.

    Raises:
        ConfigError: window or hop are not above 0.
        DataError: shapes that do not fit, or no clip as long as a window.

    >>> truth = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    >>> segment_f1([2 * truth - 1], [truth], hop_ms=500, segment_s=1.0, average="micro")
    1.0

    Source: X-ARES `metrics.py`, scikit-learn `f1_score`. Differs from: X-ARES, where clips are padded to the longest of
    their batch before.
    """
    window = segment_window(segment_s, hop_ms)
    total: Tensor | None = None  # (3, C): hits, detected, wanted
    for outputs, truth in zip(logits, targets, strict=True):
        if outputs.shape != truth.shape or outputs.ndim != 2:
            raise DataError(f"outputs {tuple(outputs.shape)} and targets {tuple(truth.shape)}; expected both (T, C)")
        if len(outputs) < window:
            continue
        # In float32, as the reference rounds: a logit of 1e-9 is a probability of 0.5 there, and not detected.
        both = outputs.float().sigmoid().round(), truth.float()
        found, wanted = (F.max_pool1d(each.t(), window).t() for each in both)
        counts = torch.stack([(found * wanted).sum(0), found.sum(0), wanted.sum(0)]).double()
        total = counts if total is None else total + counts
    if total is None:
        raise DataError(f"no clip has the {window} frames of one window of {segment_s:g} s; expected at least one")
    hits, found, wanted = total.sum(1, keepdim=True) if average == "micro" else total
    return float((2 * hits / (found + wanted).clamp(min=1)).mean())


def events_from_frames(
    probabilities: Tensor,
    timestamps_ms: Tensor,
    *,
    min_duration_ms: float,
    median_filter_ms: float = MEDIAN_FILTER_MS,
    threshold: float = THRESHOLD,
    classes: Classes = 0,
) -> list[Event]:
    """Events of a clip: runs of frames above the threshold after a median filter over time, without the short ones.

    Args:
        probabilities: (T, C).
        timestamps_ms: (T,) of the frames, rising.
        min_duration_ms: from the first to the last frame of a run; shorter runs are dropped.
        median_filter_ms: width of the filter, rounded to frames; 0: none.
        threshold: a class is active above it.
        classes: labels of the outputs; a number: they are labelled by number.

    Returns:
        Events by onset; one ends at the time of its last frame.

    Raises:
        DataError: shapes that do not fit, or times that do not rise.

    >>> active = torch.tensor([[0.1], [0.9], [0.8]])
    >>> events_from_frames(active, torch.arange(3) * 10.0, min_duration_ms=0, median_filter_ms=0)
    [Event(onset_s=0.01, offset_s=0.02, label=0)]

    Source: HEAR `task_predictions.py`; ends are mirrored and even windows reach further back, as in SciPy's filter.
    """
    values, times = probabilities.detach().cpu().numpy(), timestamps_ms.detach().cpu().double().numpy()
    if values.ndim != 2 or times.shape != values.shape[:1] or not len(times) or (np.diff(times) <= 0).any():
        raise DataError(f"probabilities {values.shape} and times {times.shape}; expected (T, C) and (T,) rising, T > 0")
    if len(times) > 1 and (width := round(median_filter_ms / float(np.diff(times).mean()))) > 1:
        values = _median(values, width)
    events = []
    for number in range(values.shape[1]):
        edges = np.flatnonzero(np.diff(np.r_[False, values[:, number] > threshold, False]))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            onset, offset = float(times[first]), float(times[end - 1])
            if offset - onset >= min_duration_ms:
                label = number if isinstance(classes, int) else classes[number]
                events.append(Event(onset / 1000.0, offset / 1000.0, label))
    return sorted(events, key=lambda event: event.onset_s)


class Detection(NamedTuple):
    """Scores of detected events: shares in [0, 1], rates relative to the events of the reference."""

    f_measure: float
    precision: float
    recall: float
    error_rate: float
    substitution_rate: float
    deletion_rate: float
    insertion_rate: float


class EventScores(NamedTuple):
    """Scores of all events, and the mean over the classes of the reference (where a substitution is two errors)."""

    overall: Detection
    class_average: Detection


class SegmentScores(NamedTuple):
    """Scores of classes in segments of time."""

    overall: Detection
    accuracy: float
    balanced_accuracy: float
    sensitivity: float
    specificity: float


def onset_scores(
    references: Sequence[Sequence[Event]], estimates: Sequence[Sequence[Event]], *, tolerance_s: float
) -> EventScores:
    """Scores by event: one is detected by one of the same class with an onset within the tolerance; offsets are free.

    Args:
        references: events of each clip.
        estimates: detected events of the same clips.
        tolerance_s: 0.05 for MAESTRO, 0.2 for DCASE 2016 in HEAR.

    Returns:
        Scores of the largest one-to-one match in each clip; HEAR's onset F is ``overall.f_measure``. Without events
        all are 0.

    Raises:
        ConfigError: a negative tolerance.
        DataError: the numbers of clips differ.

    >>> wanted, found = [[Event(1.0, 2.0, "dog")]], [[Event(1.1, 9.0, "dog"), Event(5.0, 6.0, "cat")]]
    >>> onset_scores(wanted, found, tolerance_s=0.2).overall[:3]
    (0.6666666666666666, 0.5, 1.0)

    Source: sed_eval 0.2 `EventBasedMetrics` with evaluate_offset off.
    """
    if tolerance_s < 0:
        raise ConfigError(f"tolerance is {tolerance_s} s, expected 0 or more")
    _check_clips(references, estimates)
    counts: dict[Value, tuple[int, int, int]] = {}  # hits, events of the reference, of the estimate
    swapped = 0
    for wanted, found in zip(references, estimates, strict=True):
        ours, theirs = _onsets(wanted), _onsets(found)
        missed: list[float] = []
        false: list[float] = []
        for label in {**ours, **theirs}:
            ref, est = ours.get(label, []), theirs.get(label, [])
            hits, left, extra = _match(ref, est, tolerance_s)
            before = counts.get(label, (0, 0, 0))
            counts[label] = (before[0] + hits, before[1] + len(ref), before[2] + len(est))
            missed, false = missed + left, false + extra
        swapped += _match(sorted(missed), sorted(false), tolerance_s)[0]
    classes = [_detection(*each) for each in counts.values() if each[1]]
    average = [sum(values) / len(classes) for values in zip(*classes, strict=True)] if classes else [0.0] * 7
    hits, wanted_events, found_events = (sum(each[part] for each in counts.values()) for part in range(3))
    return EventScores(_detection(hits, wanted_events, found_events, swapped=swapped), Detection(*average))


def segment_scores(
    references: Sequence[Sequence[Event]],
    estimates: Sequence[Sequence[Event]],
    classes: Classes,
    *,
    segment_s: float = SEGMENT_S,
) -> SegmentScores:
    """Scores by segment: a class is active in a segment that one of its events touches; up to the last offset.

    Arguments as in `onset_scores`; ``overall.error_rate`` is HEAR's segment_1s_er. Without events rates are 0.

    Raises:
        ConfigError: a segment not above 0.
        DataError: the numbers of clips differ, or an event of another class.

    Source: sed_eval 0.2 `SegmentBasedMetrics`.
    """
    if segment_s <= 0:
        raise ConfigError(f"segment is {segment_s} s, expected above 0")
    _check_clips(references, estimates)
    hits = wrong = missed = quiet = swapped = 0  # quiet: inactive in both
    for wanted, found in zip(references, estimates, strict=True):
        length = max((math.ceil(event.offset_s / segment_s) for event in (*wanted, *found)), default=0)
        truth, estimate = (_roll(each, classes, length, segment_s) for each in (wanted, found))
        hits += int((truth & estimate).sum())
        quiet += int((~truth & ~estimate).sum())
        lost, extra = (truth & ~estimate).sum(1), (~truth & estimate).sum(1)
        missed, wrong = missed + int(lost.sum()), wrong + int(extra.sum())
        swapped += int(np.minimum(lost, extra).sum())
    sensitivity, specificity = _ratio(hits, hits + missed), _ratio(quiet, quiet + wrong)
    return SegmentScores(
        _detection(hits, hits + missed, hits + wrong, swapped=swapped),
        _ratio(hits + quiet, hits + quiet + missed + wrong),
        (sensitivity + specificity) / 2,
        sensitivity,
        specificity,
    )


def _frames(time_s: float, hop_ms: float) -> int:
    """The number of frames that start before a time."""
    return max(0, math.ceil(time_s * 1000.0 / hop_ms - _ROUNDING))


def _number(event: Event, classes: Classes) -> int:
    known = range(classes) if isinstance(classes, int) else classes
    if event.label not in known:
        raise DataError(f"an event of class {event.label!r}; expected one of {str(list(known))[:200]}")
    return known.index(event.label)


def _median(values: npt.NDArray[np.floating], width: int) -> npt.NDArray[np.floating]:
    """Running median over the first axis; of an even number of values the higher middle one."""
    padded = np.pad(values, ((width // 2, width - width // 2 - 1), (0, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)
    return np.partition(windows, width // 2, axis=-1)[..., width // 2]


def _onsets(events: Sequence[Event]) -> dict[Value, list[float]]:
    """Sorted onsets of each class."""
    found: dict[Value, list[float]] = {}
    for event in sorted(events, key=lambda event: event.onset_s):
        found.setdefault(event.label, []).append(event.onset_s)
    return found


def _match(ours: list[float], theirs: list[float], tolerance_s: float) -> tuple[int, list[float], list[float]]:
    """Size of the largest match of sorted onsets, and the unmatched ones of both.

    Pairing the earliest two that fit is optimal, because the windows around onsets are equally wide.
    """
    left: list[float] = []
    extra: list[float] = []
    i = j = hits = 0
    while i < len(ours) and j < len(theirs):
        if abs(ours[i] - theirs[j]) <= tolerance_s:
            i, j, hits = i + 1, j + 1, hits + 1
        elif ours[i] < theirs[j]:
            left.append(ours[i])
            i += 1
        else:
            extra.append(theirs[j])
            j += 1
    return hits, left + ours[i:], extra + theirs[j:]


def _roll(events: Sequence[Event], classes: Classes, length: int, segment_s: float) -> npt.NDArray[np.bool_]:
    roll = np.zeros((length, classes if isinstance(classes, int) else len(classes)), dtype=bool)
    for event in events:
        roll[math.floor(event.onset_s / segment_s) : math.ceil(event.offset_s / segment_s), _number(event, classes)] = (
            True
        )
    return roll


def _detection(hits: int, wanted: int, found: int, *, swapped: int = 0) -> Detection:
    precision, recall = _ratio(hits, found), _ratio(hits, wanted)
    deleted, inserted = wanted - hits - swapped, found - hits - swapped
    return Detection(
        2 * hits / (wanted + found) if wanted + found else 0.0,
        precision,
        recall,
        _ratio(swapped + deleted + inserted, wanted),
        _ratio(swapped, wanted),
        _ratio(deleted, wanted),
        _ratio(inserted, wanted),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_clips(references: Sequence[Sequence[Event]], estimates: Sequence[Sequence[Event]]) -> None:
    if len(references) != len(estimates):
        raise DataError(f"references of {len(references)} clips, estimates of {len(estimates)}; expected as many")
