"""HEAR 2021 tasks of events in time: frames to learn from, and events found in the probabilities of frames.

Frames of a sound are smoothed by a median filter, runs above the threshold are events, and those shorter than a length
chosen on validation are dropped. What counts is whether onsets were found.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.hear_predictor import Fitted, FoldRows, Rows, Score
from auricle.bench.results import HeadScore
from auricle.bench.task import HearFacts
from auricle.bench.xares import BOOTSTRAP_ROUNDS, Judged, Plan, Table
from auricle.errors import DataError
from auricle.metrics.events import Detection, Event, events_from_frames, onset_scores, segment_scores
from auricle.metrics.intervals import bootstrap_interval

_ROUNDING_MS = 1e-4  # by which events reach further than their ends; hear-eval-kit `task_embeddings.py`

Events = Sequence[Sequence[Event]]  # of some sounds


def frame_times(frames: int, hop_ms: float) -> Tensor:
    """Times of frames in ms, (T,) float64: their centres, as HEAR's API asks for."""
    return (torch.arange(frames, dtype=torch.float64) + 0.5) * hop_ms


def heard_at(events: Sequence[Event], classes: Sequence[str], times_ms: Tensor) -> Tensor:
    """What is heard at some times (T,), rising: (T, C) float32 of 0 and 1; both ends of an event belong to it.

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


def event_folds(table: Table, chosen: Sequence[Plan]) -> Iterator[FoldRows]:
    """All frames of the sounds of each plan, and the onset F of validation sounds as the score.

    Raises:
        DataError: a table without frames or events.
    """
    clips = _clips(table)
    for plan in chosen:
        valid = plan.valid.tolist()
        lengths = [len(clips.frames[sound]) for sound in valid]
        yield FoldRows(_rows(clips, plan.train.tolist()), _rows(clips, valid), _score(clips, valid, lengths))


def score_events(table: Table, chosen: Sequence[Plan], fitted: Sequence[Fitted]) -> Judged:
    """Onset F of all events of a fold, and the mean over folds; an item is a sound, its score its own F.

    Raises:
        DataError: a table without frames or events.
    """
    clips = _clips(table)
    found = [_find(clips, plan, each) for plan, each in zip(chosen, fitted, strict=True)]
    counts, items = [], {}
    for number, fold in enumerate(found):
        for sound, wanted, heard in zip(fold.sounds, fold.references, fold.estimates, strict=True):
            f = _onsets(clips.facts, [wanted], [heard]).f_measure
            events = len(wanted) + len(heard)
            counts.append((number, round(f * events / 2), events))
            items[table.ids[sound]] = round(f, 6)
    whole = bootstrap_interval(np.array(counts, np.float64), _pooled_f, rounds=BOOTSTRAP_ROUNDS)
    overall = [_onsets(clips.facts, fold.references, fold.estimates) for fold in found]
    names = sorted({*table.classes, *(str(event.label) for events in table.events for event in events)})
    score = HeadScore(
        value=whole.value,
        low=whole.low,
        high=whole.high,
        n=len(items),
        folds={plan.name: each.f_measure for plan, each in zip(chosen, overall, strict=True)},
        classes=_by_label(clips.facts, found, names),
        settings=_settings(clips.facts, found, overall, names),
    )
    return Judged(score, items)


class _Clips(NamedTuple):
    """The sounds of a task."""

    frames: Sequence[Tensor]  # (T, D) of each
    events: Events
    classes: Sequence[str]
    hop_ms: float
    facts: HearFacts


class _Found(NamedTuple):
    """Events of the test sounds of a fold."""

    sounds: list[int]
    references: Events
    estimates: Events
    min_duration_ms: float


def _clips(table: Table) -> _Clips:
    facts = table.task.hear
    if facts is None or table.lengths is None or len(table.events) != len(table.ids) or not any(table.events):
        raise DataError(
            f"task {table.task.name!r}: found {len(table.events)} lists of events; expected the frames and the events "
            f"of {len(table.ids)} sounds"
        )
    frames = table.features.split(table.lengths.tolist())
    return _Clips(frames, table.events, table.classes, table.hop_ms, facts)


def _rows(clips: _Clips, sounds: Sequence[int]) -> Rows:
    frames = [clips.frames[sound] for sound in sounds]
    targets = [
        heard_at(clips.events[sound], clips.classes, frame_times(len(own), clips.hop_ms))
        for sound, own in zip(sounds, frames, strict=True)
    ]
    return Rows(torch.cat(frames), torch.cat(targets))


def _score(clips: _Clips, sounds: Sequence[int], lengths: list[int]) -> Score:
    return lambda outputs, _: _best_duration(clips, sounds, outputs.split(lengths))[0]


def _find(clips: _Clips, plan: Plan, fitted: Fitted) -> _Found:
    valid, test = plan.valid.tolist(), plan.test.tolist()
    _, duration = _best_duration(clips, valid, [fitted.probabilities(clips.frames[sound]) for sound in valid])
    estimates = _decode(clips, [fitted.probabilities(clips.frames[sound]) for sound in test], duration)
    return _Found(test, [clips.events[sound] for sound in test], estimates, duration)


def _best_duration(clips: _Clips, sounds: Sequence[int], outputs: Sequence[Tensor]) -> tuple[float, float]:
    """The best onset F, and the shortest event (ms) that is kept to reach it; of equal ones the longest."""
    references = [clips.events[sound] for sound in sounds]
    return max(
        (_onsets(clips.facts, references, _decode(clips, outputs, duration)).f_measure, duration)
        for duration in clips.facts.min_duration_ms or (0.0,)
    )


def _decode(clips: _Clips, outputs: Sequence[Tensor], min_duration_ms: float) -> list[list[Event]]:
    """Events of sounds from the probabilities (T, C) of their frames."""
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
    """Mean over folds of F; counts (n, 3) of sounds: fold, matched events, events of reference and estimate."""
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
