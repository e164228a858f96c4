"""HEAR 2021 tasks of events in time: frames to learn from, and events found in the probabilities of frames.

Frames of a clip are smoothed by a median filter, runs above the threshold are events, and those shorter than a length
chosen on validation are dropped. The score counts onsets that were found.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.embedded_task import EmbeddedTask, Partition
from auricle.bench.hear_predictor import Fitted, FoldRows, Rows, Score
from auricle.bench.results import HeadScore
from auricle.bench.task import HearFacts
from auricle.bench.xares import BOOTSTRAP_ROUNDS, HeadResult
from auricle.errors import DataError
from auricle.metrics.events import Detection, Event, events_from_frames, onset_scores, segment_scores
from auricle.metrics.intervals import bootstrap_interval

_ROUNDING_MS = 1e-4  # by which events reach further than their ends; hear-eval-kit `task_embeddings.py`

Events = Sequence[Sequence[Event]]  # of some clips


def frame_times(frames: int, hop_ms: float) -> Tensor:
    """Times of frames in ms, (T,) float64: their centres, as in HEAR's API."""
    return (torch.arange(frames, dtype=torch.float64) + 0.5) * hop_ms


def labels_at(events: Sequence[Event], classes: Sequence[str], times_ms: Tensor) -> Tensor:
    """Active classes at some times (T,), rising: (T, C) float32 of 0 and 1; both ends of an event belong to it.

    Events of other classes are left out. Source: hear-eval-kit `task_embeddings.py`, get_labels_for_timestamps.
    """
    targets = torch.zeros(len(times_ms), len(classes))
    known = [event for event in events if event.label in classes]
    ends = torch.tensor([event[:2] for event in known], dtype=torch.float64).view(-1, 2) * 1000.0
    first = torch.searchsorted(times_ms, ends[:, 0] - _ROUNDING_MS).tolist()
    behind = torch.searchsorted(times_ms, ends[:, 1] + _ROUNDING_MS).tolist()
    for event, start, stop in zip(known, first, behind, strict=True):
        targets[start:stop, classes.index(str(event.label))] = 1.0
    return targets


def event_folds(data: EmbeddedTask, chosen: Sequence[Partition]) -> Iterator[FoldRows]:
    """All frames of the clips of each partition, and the onset F of validation clips as the score.

    Raises:
        DataError: a task without frames or events.
    """
    clips = _clips(data)
    for partition in chosen:
        valid = partition.valid.tolist()
        lengths = [len(clips.frames[clip]) for clip in valid]
        yield FoldRows(_rows(clips, partition.train.tolist()), _rows(clips, valid), _score(clips, valid, lengths))


def score_events(data: EmbeddedTask, chosen: Sequence[Partition], fitted: Sequence[Fitted]) -> HeadResult:
    """Onset F of all events of a fold, and the mean over folds; an item is a clip, its score its own F.

    Raises:
        DataError: a task without frames or events.
    """
    clips = _clips(data)
    found = [_find(clips, partition, each) for partition, each in zip(chosen, fitted, strict=True)]
    counts, items = [], {}
    for number, fold in enumerate(found):
        for clip, wanted, estimated in zip(fold.clips, fold.references, fold.estimates, strict=True):
            f = _onsets(clips.facts, [wanted], [estimated]).f_measure
            events = len(wanted) + len(estimated)
            counts.append((number, round(f * events / 2), events))
            items[data.ids[clip]] = round(f, 6)
    overall = [_onsets(clips.facts, fold.references, fold.estimates) for fold in found]
    names = sorted({*data.classes, *(str(event.label) for events in data.events for event in events)})
    score = HeadScore.of(
        bootstrap_interval(np.array(counts, np.float64), _pooled_f, rounds=BOOTSTRAP_ROUNDS),
        folds={own.name: each.f_measure for own, each in zip(chosen, overall, strict=True)},
        classes=_by_label(clips.facts, found, names),
        settings=_settings(clips.facts, found, overall, names),
    )
    return HeadResult(score, items)


class _Clips(NamedTuple):
    """The clips of a task."""

    frames: Sequence[Tensor]  # (T, D) of each
    events: Events
    classes: Sequence[str]
    hop_ms: float
    facts: HearFacts


class _Found(NamedTuple):
    """Events of the test clips of a fold."""

    clips: list[int]
    references: Events
    estimates: Events
    min_duration_ms: float


def _clips(data: EmbeddedTask) -> _Clips:
    facts = data.task.hear
    if facts is None or data.lengths is None or len(data.events) != len(data.ids) or not any(data.events):
        raise DataError(
            f"task {data.task.name!r}: found {len(data.events)} lists of events; expected the frames and the events "
            f"of {len(data.ids)} clips"
        )
    return _Clips(data.frames(), data.events, data.classes, data.hop_ms, facts)


def _rows(clips: _Clips, chosen: Sequence[int]) -> Rows:
    frames = [clips.frames[clip] for clip in chosen]
    targets = [
        labels_at(clips.events[clip], clips.classes, frame_times(len(own), clips.hop_ms))
        for clip, own in zip(chosen, frames, strict=True)
    ]
    return Rows(torch.cat(frames), torch.cat(targets))


def _score(clips: _Clips, chosen: Sequence[int], lengths: list[int]) -> Score:
    return lambda outputs, _: _best_duration(clips, chosen, outputs.split(lengths))[0]


def _find(clips: _Clips, partition: Partition, fitted: Fitted) -> _Found:
    valid, test = partition.valid.tolist(), partition.test.tolist()
    _, duration = _best_duration(clips, valid, [fitted.probabilities(clips.frames[clip]) for clip in valid])
    estimates = _decode(clips, [fitted.probabilities(clips.frames[clip]) for clip in test], duration)
    return _Found(test, [clips.events[clip] for clip in test], estimates, duration)


def _best_duration(clips: _Clips, chosen: Sequence[int], outputs: Sequence[Tensor]) -> tuple[float, float]:
    """The best onset F, and the shortest event (ms) that is kept to reach it; of equal ones the longest."""
    references = [clips.events[clip] for clip in chosen]
    return max(
        (_onsets(clips.facts, references, _decode(clips, outputs, duration)).f_measure, duration)
        for duration in clips.facts.min_duration_ms or (0.0,)
    )


def _decode(clips: _Clips, outputs: Sequence[Tensor], min_duration_ms: float) -> list[list[Event]]:
    """Events of clips from the probabilities (T, C) of their frames."""
    return [
        events_from_frames(
            own,
            frame_times(len(own), clips.hop_ms),
            min_duration_ms=min_duration_ms,
            median_filter_ms=clips.facts.median_filter_ms or 0.0,
            classes=clips.classes,
        )
        for own in outputs
    ]


def _onsets(facts: HearFacts, references: Events, estimates: Events) -> Detection:
    return onset_scores(references, estimates, tolerance_s=(facts.tolerance_ms or 0.0) / 1000.0).overall


def _pooled_f(counts: Any) -> float:
    """Mean over folds of F; counts (n, 3) of clips: fold, matched events, events of reference and estimate."""
    values = []
    for number in np.unique(counts[:, 0]):
        _, hits, events = counts[counts[:, 0] == number].sum(0)
        values.append(2 * hits / events if events else 0.0)
    return float(np.mean(values))


def _by_label(facts: HearFacts, found: Sequence[_Found], names: Sequence[str]) -> dict[str, float]:
    """Onset F of each class over all folds; classes without test events are left out."""
    references = [events for fold in found for events in fold.references]
    estimates = [events for fold in found for events in fold.estimates]
    pairs = {name: (_only(name, references), _only(name, estimates)) for name in names}
    return {name: _onsets(facts, *pair).f_measure for name, pair in pairs.items() if any(pair[0])}


def _only(name: str, events: Events) -> Events:
    return [[event for event in own if event.label == name] for own in events]


def _settings(
    facts: HearFacts, found: Sequence[_Found], overall: Sequence[Detection], names: Sequence[str]
) -> dict[str, Any]:
    segments = [segment_scores(fold.references, fold.estimates, names).overall for fold in found]
    return {
        "tolerance_ms": facts.tolerance_ms,
        "median_filter_ms": facts.median_filter_ms,
        "min_duration_ms": [fold.min_duration_ms for fold in found],
        "beside": {
            "precision": float(np.mean([each.precision for each in overall])),
            "recall": float(np.mean([each.recall for each in overall])),
            "segment error rate": float(np.mean([each.error_rate for each in segments])),
        },
    }
