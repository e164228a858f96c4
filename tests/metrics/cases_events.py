"""Events in time."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from auricle.errors import ConfigError, DataError
from auricle.metrics import events
from auricle.metrics.events import Event

from .metric_tester import FLOATS, Arguments, MetricCase, quarters, seeded

Array = npt.NDArray[Any]
NAN = math.nan
Generator = np.random.Generator


# References


def reference_frame_targets(events: Sequence[Event], classes: int, hop_ms: int, duration_s: float) -> Array:
    frames = -(-round(duration_s * 1000) // hop_ms)
    return np.array(
        [
            [
                any(
                    round(event.onset_s * 1000) <= frame * hop_ms < round(event.offset_s * 1000)
                    for event in events
                    if event.label == number
                )
                for number in range(classes)
            ]
            for frame in range(frames)
        ],
        np.float64,
    ).reshape(frames, classes)


def reference_segment_f1(
    logits: Sequence[Tensor], targets: Sequence[Tensor], hop_ms: int, segment_s: float, average: str
) -> float:
    sklearn = pytest.importorskip("sklearn.metrics")
    window = math.ceil(segment_s * 1000 / hop_ms)

    def flat(clips: Sequence[Tensor]) -> Array:
        whole = [clip[: len(clip) // window * window] for clip in clips]
        return np.concatenate([each.reshape(-1, window, each.shape[1]).amax(1).numpy() > 0 for each in whole])

    return float(sklearn.f1_score(flat(targets), flat(logits), average=average, zero_division=0))


def reference_events_from_frames(probabilities: Tensor, times: Tensor, *, frames: int) -> list[Event]:
    """Runs above 0.5 after SciPy's median filter over so many frames."""
    ndimage = pytest.importorskip("scipy.ndimage")
    values = probabilities.numpy()
    active = (ndimage.median_filter(values, size=(frames, 1)) if len(values) > 1 and frames > 1 else values) > 0.5
    found = []
    for number in range(values.shape[1]):
        for is_on, run in itertools.groupby(range(len(values)), key=lambda frame: active[frame, number]):
            own = list(run)
            if is_on:
                found.append(Event(float(times[own[0]]) / 1000, float(times[own[-1]]) / 1000, number))
    return sorted(found, key=lambda event: event.onset_s)


def reference_onset_scores(
    references: Sequence[Sequence[Event]], estimates: Sequence[Sequence[Event]], tolerance: float
) -> list[float]:
    """F, precision and recall of the largest match, found by trying every assignment."""

    def largest(ours: Sequence[Event], theirs: Sequence[Event]) -> int:
        if len(ours) > len(theirs):
            ours, theirs = theirs, ours
        fits = [[a.label == b.label and abs(a.onset_s - b.onset_s) <= tolerance for b in theirs] for a in ours]
        pairings = itertools.permutations(range(len(theirs)), len(ours))
        return max(sum(row[j] for row, j in zip(fits, chosen, strict=True)) for chosen in pairings)

    hits = sum(largest(*pair) for pair in zip(references, estimates, strict=True))
    wanted, found = (sum(map(len, clips)) for clips in (references, estimates))
    precision, recall = hits / found if found else 0.0, hits / wanted if wanted else 0.0
    return [2 * hits / (wanted + found) if wanted + found else 0.0, precision, recall]


def reference_segment_scores(
    references: Sequence[Sequence[Event]], estimates: Sequence[Sequence[Event]], classes: int
) -> list[float]:
    """F, precision, recall, error rate, accuracy, sensitivity and specificity, over cells of a second and a class."""
    hits = extra = missed = quiet = swapped = 0
    for wanted, found in zip(references, estimates, strict=True):
        end = max((math.ceil(event.offset_s) for event in (*wanted, *found)), default=0)
        for second in range(end):
            active = [
                {event.label for event in events if event.onset_s < second + 1 and math.ceil(event.offset_s) > second}
                for events in (wanted, found)
            ]
            here_missed, here_extra = len(active[0] - active[1]), len(active[1] - active[0])
            hits, missed, extra = hits + len(active[0] & active[1]), missed + here_missed, extra + here_extra
            swapped += min(here_missed, here_extra)
            quiet += classes - len(active[0] | active[1])

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    return [
        ratio(2 * hits, 2 * hits + missed + extra),
        ratio(hits, hits + extra),
        ratio(hits, hits + missed),
        ratio(missed + extra - swapped, hits + missed),
        ratio(hits + quiet, hits + quiet + missed + extra),
        ratio(hits, hits + missed),
        ratio(quiet, quiet + extra),
    ]


# Inputs


def some_events(rng: Generator, most: int = 4, classes: int = 2) -> list[Event]:
    found = []
    for _ in range(rng.integers(0, most + 1)):
        onset, length = int(rng.integers(0, 3000)), int(rng.integers(1, 800))
        found.append(Event(onset / 1000, (onset + length) / 1000, int(rng.integers(classes))))
    return found


def event_clips(rng: Generator, n: int) -> Arguments:
    return [some_events(rng) for _ in range(n)], [some_events(rng) for _ in range(n)]


def event_logits(rng: Generator, n: int) -> Arguments:
    lengths = [3, *rng.integers(1, 12, n).tolist()]
    logits = [quarters(rng, length, 3) - 0.5 for length in lengths]
    targets = [torch.from_numpy((rng.random((length, 3)) < 0.3).astype(np.float64)) for length in lengths]
    return logits, targets, 100, 0.3, "micro" if rng.random() < 0.5 else "macro"


def frame_probabilities(rng: Generator, n: int) -> Arguments:
    return torch.from_numpy(rng.random((n, 2)).astype(np.float32)), torch.arange(n) * 10.0


# Cases

EVENTS = [
    MetricCase(
        metric=events.frame_targets,
        keywords=("hop_ms", "duration_s"),
        reference=reference_frame_targets,
        inputs=seeded(lambda rng, n: (some_events(rng, n), 2, int(rng.integers(15, 100)), 4.0)),
        bounds=(0, 1),
        items=(0,),
        degenerate={
            "unknown class": (([Event(0.0, 1.0, 2)], 2, 40, 1.0), DataError),
            "no hop": (([], 2, 0, 1.0), ConfigError),
            "no event": (([], 1, 500, 1.0), [0, 0]),
        },
    ),
    MetricCase(
        metric=events.segment_f1,
        keywords=("hop_ms", "segment_s", "average"),
        reference=reference_segment_f1,
        inputs=seeded(event_logits),
        bounds=(0, 1),
        items=(0, 1),
        dtypes=FLOATS,
        degenerate={
            "empty": (([], [], 100, 0.3, "micro"), DataError),
            "too short": (([torch.zeros(2, 1)], [torch.zeros(2, 1)], 100, 0.3, "micro"), DataError),
            "misfit": (([torch.zeros(3, 1)], [torch.zeros(4, 1)], 100, 0.3, "micro"), DataError),
            "nothing active": (([torch.zeros(3, 2)], [torch.zeros(3, 2)], 100, 0.3, "macro"), 0.0),
        },
    ),
    *(
        MetricCase(
            metric=events.events_from_frames,
            options={"min_duration_ms": 0, "median_filter_ms": width * 10},
            reference=partial(reference_events_from_frames, frames=width),
            inputs=seeded(frame_probabilities),
            degenerate={
                "no frames": ((torch.zeros(0, 1), torch.zeros(0)), DataError),
                "times that stop": ((torch.zeros(2, 1), torch.ones(2)), DataError),
                "at the threshold": ((torch.full((2, 1), 0.5), torch.arange(2.0)), []),
            },
        )
        for width in (0, 2, 5)
    ),
    MetricCase(
        metric=events.onset_scores,
        options={"tolerance_s": 0.2},
        select=lambda scores: scores.overall[:3],
        reference=partial(reference_onset_scores, tolerance=0.2),
        inputs=seeded(event_clips, most=3, large=5),
        bounds=(0, 1),
        items=(0, 1),
        degenerate={"empty": (([], []), [0, 0, 0]), "misfit": (([[]], []), DataError)},
    ),
    MetricCase(
        metric=events.segment_scores,
        options={"classes": 2},
        select=lambda found: (*found.overall[:4], found.accuracy, found.sensitivity, found.specificity),
        reference=partial(reference_segment_scores, classes=2),
        inputs=seeded(event_clips),
        items=(0, 1),
        degenerate={
            "empty": (([], []), [0] * 7),
            "misfit": (([[]], []), DataError),
            "unknown class": (([[Event(0.0, 1.0, 7)]], [[]]), DataError),
        },
    ),
]
