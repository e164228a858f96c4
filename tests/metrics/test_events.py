import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError
from auricle.metrics.events import (
    Event,
    events_from_frames,
    frame_targets,
    onset_scores,
    pad_or_trim,
    segment_f1,
    segment_scores,
    segment_window,
)

MILLISECONDS = st.integers(0, 3000)


@st.composite
def event_lists(draw: st.DrawFn, classes: int = 3, most: int = 5) -> list[Event]:
    found = []
    for _ in range(draw(st.integers(0, most))):
        onset, length = draw(MILLISECONDS), draw(st.integers(1, 800))
        found.append(Event(onset / 1000, (onset + length) / 1000, draw(st.integers(0, classes - 1))))
    return found


# Frames


def test_frames_of_named_classes() -> None:
    events = [Event(0.0, 0.3, "dog"), Event(0.1, 0.2, "cat")]
    assert frame_targets(events, ("cat", "dog"), hop_ms=100).tolist() == [[0, 1], [1, 1], [0, 1]]
    assert frame_targets([], 2, hop_ms=40).shape == (0, 2)
    with pytest.raises(DataError, match="'cow'"):
        frame_targets([Event(0.0, 1.0, "cow")], ("cat", "dog"), hop_ms=100)
    with pytest.raises(DataError, match="class 2"):
        frame_targets([Event(0.0, 1.0, 2)], 2, hop_ms=100)
    with pytest.raises(ConfigError, match="above 0"):
        frame_targets(events, 2, hop_ms=0)


def test_rounding_does_not_make_frames() -> None:
    """0.3 s of 100 ms frames are three, though 0.3 / 0.1 is more in floating point."""
    for frames in range(1, 200):
        assert len(frame_targets([], 1, hop_ms=100, duration_s=frames * 0.1)) == frames
    assert [segment_window(1.0, hop) for hop in (40, 20, 25.6, 10)] == [25, 50, 40, 100]
    assert segment_window(0.1, 40) == 3 and segment_window(0.1, 200) == 1
    with pytest.raises(ConfigError):
        segment_window(0.0, 40)


def test_pad_or_trim() -> None:
    frames = torch.arange(6.0).view(3, 2)
    assert pad_or_trim(frames, 2).tolist() == [[0, 1], [2, 3]]
    assert pad_or_trim(frames, 4).tolist() == [[0, 1], [2, 3], [4, 5], [0, 0]]
    assert pad_or_trim(frames[None], 5).shape == (1, 5, 2)
    assert torch.equal(pad_or_trim(frames, 3), frames)


# Segment F1


def test_a_probability_of_one_half_is_inactive_and_incomplete_windows_are_dropped() -> None:
    targets = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]])
    logits = torch.tensor([[0.0], [1e-9], [-5.0], [5.0], [-5.0]])
    # Windows of two: the first is missed (0.5 is rounded to 0), the second found, the fifth frame does not count.
    assert segment_f1([logits], [targets], hop_ms=500, average="micro") == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no clip has the 2 frames"):
        segment_f1([logits[:1]], [targets[:1]], hop_ms=500, average="micro")
    with pytest.raises(DataError, match=r"\(T, C\)"):
        segment_f1([logits], [targets[:4]], hop_ms=500, average="micro")


# Events from frames


def test_runs_become_events() -> None:
    active = torch.zeros(12, 2)
    active[2:8, 0] = 0.9
    active[10:, 0] = 0.9
    active[4, 1] = 0.9
    times = torch.arange(12) * 50.0
    found = events_from_frames(active, times, min_duration_ms=0, median_filter_ms=0, classes=("a", "b"))
    assert found == [Event(0.1, 0.35, "a"), Event(0.2, 0.2, "b"), Event(0.5, 0.55, "a")]
    kept = events_from_frames(active, times, min_duration_ms=125, median_filter_ms=0)
    assert kept == [Event(0.1, 0.35, 0)]
    filtered = events_from_frames(active, times, min_duration_ms=0, median_filter_ms=150)
    assert filtered == [Event(0.1, 0.35, 0), Event(0.5, 0.55, 0)]  # one frame is no majority of three
    assert events_from_frames(torch.full((3, 1), 0.5), times[:3], min_duration_ms=0) == []
    assert events_from_frames(torch.ones(1, 1), times[:1], min_duration_ms=0) == [Event(0.0, 0.0, 0)]


def test_times_must_rise() -> None:
    with pytest.raises(DataError, match="rising"):
        events_from_frames(torch.zeros(2, 1), torch.tensor([1.0, 1.0]), min_duration_ms=0)
    with pytest.raises(DataError, match="rising"):
        events_from_frames(torch.zeros(2, 1), torch.zeros(3), min_duration_ms=0)


# Events found


@given(event_lists(classes=2), event_lists(classes=2), st.sampled_from([0.05, 0.2, 0.7]))
def test_errors_are_substitutions_deletions_and_insertions(
    reference: list[Event], estimate: list[Event], tolerance: float
) -> None:
    found = onset_scores([reference], [estimate], tolerance_s=tolerance).overall
    parts = found.substitution_rate + found.deletion_rate + found.insertion_rate
    assert found.error_rate == pytest.approx(parts)
    assert min(found) >= 0


@given(st.lists(event_lists(), min_size=1, max_size=3))
def test_the_truth_is_found(clips: list[list[Event]]) -> None:
    is_any = any(clips)
    overall, average = onset_scores(clips, clips, tolerance_s=0.0)
    assert overall.f_measure == average.f_measure == is_any
    segments = segment_scores(clips, clips, 3)
    assert overall.error_rate == segments.overall.error_rate == 0
    assert segments.overall.f_measure == is_any


def test_a_swapped_class_is_one_error_overall_and_two_by_class() -> None:
    reference, estimate = [Event(1.0, 2.0, "a"), Event(5.0, 6.0, "b")], [Event(1.0, 9.0, "b"), Event(5.0, 6.0, "b")]
    overall, average = onset_scores([reference], [estimate], tolerance_s=0.2)
    assert (overall.error_rate, overall.substitution_rate, overall.f_measure) == (0.5, 0.5, 0.5)
    assert average.error_rate == (1 + 1) / 2  # a: deleted; b: inserted
    assert onset_scores([reference], [reference], tolerance_s=0.2).overall.f_measure == 1
    # Clips are not mixed: the same onset in another clip is no match.
    assert onset_scores([reference, []], [[], reference], tolerance_s=0.2).overall.f_measure == 0
    with pytest.raises(DataError, match="as many"):
        onset_scores([reference], [], tolerance_s=0.2)
    with pytest.raises(ConfigError, match="0 or more"):
        onset_scores([reference], [estimate], tolerance_s=-1)


def test_segments() -> None:
    found = segment_scores([[Event(0.5, 2.0, "a")]], [[Event(1.5, 2.5, "a")]], ("a", "b"))
    # Reference: seconds 0 and 1; estimate: 1 and 2; class b is quiet in all three.
    assert found.overall[:3] == (0.5, 0.5, 0.5)
    assert found.overall.error_rate == 1.0 and found.overall.substitution_rate == 0.0
    assert found.accuracy == pytest.approx(4 / 6)
    assert (found.sensitivity, found.specificity) == (0.5, 0.75)
    with pytest.raises(ConfigError, match="above 0"):
        segment_scores([], [], 2, segment_s=0)
