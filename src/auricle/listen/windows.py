"""Where to cut audio that is longer than a model was trained on: whole waveforms, and streams in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from auricle.audio.facts import SILENCE, Samples
from auricle.audio.resample import SAMPLE_RATE
from auricle.encode.long_clips import Buffer
from auricle.errors import ConfigError
from auricle.models.midashenglm import MIN_CLIP_SAMPLES

_TOLERANCE = 0.2  # a window may be this share shorter or longer than an even cut, to end where it is quiet
_AHEAD = 4  # windows held before one is cut; with less than this left, the rest is cut evenly
_PAUSE_DB = -25.0  # 0.2 s this far below the mean power of their window are a pause: no word is cut in two there
_MAX_OVERLAP = 1 / 3  # of a window; beyond this most of the work would be done twice


@dataclass(frozen=True, kw_only=True, slots=True)
class Windowing:
    """How a source is cut for one task."""

    max_samples: int  # longest window, at 16 kHz
    overlap_samples: int = 0  # in both windows around a cut outside a pause
    split_silence: bool = False  # long digital silence gets windows of its own
    together_samples: int = 0  # sources of up to this length go into one prompt, window beside window

    def __post_init__(self) -> None:
        """Refuse windows that cannot be cut, see `check_overlap`."""
        check_overlap(self.max_samples, self.overlap_samples)


@dataclass(frozen=True, slots=True)
class Window:
    """A span of a source, continued by the next window without gap, and the waveform the model is given for it."""

    start: int  # first sample of the span, at 16 kHz
    stop: int  # end of the span
    before: int  # samples of the waveform in front of the span; they belong to the previous window
    waveform: Samples  # from ``start - before`` on; may reach beyond ``stop``

    @property
    def audio_stop(self) -> int:
        """End of the waveform, in samples of the source."""
        return self.start - self.before + len(self.waveform)

    @property
    def is_silent(self) -> bool:
        """Whether nothing in it exceeds -90 dB of full scale."""
        return float(np.abs(self.waveform).max(initial=0.0)) <= SILENCE


def quiet_windows(waveform: Samples, max_samples: int) -> list[tuple[int, int]]:
    """Cut a waveform (N,) into about equal windows that cover all of it and end where it is quiet.

    Cuts fall on whole audio tokens (0.2 s), so that no sample is dropped between windows.

    Args:
        waveform: 16 kHz.
        max_samples: longest window, at least 0.4 s.

    Returns:
        (start, stop) in samples, ascending; as few as fit.
    """
    longest = max_samples // MIN_CLIP_SAMPLES * MIN_CLIP_SAMPLES
    windows, start = [], 0
    while len(waveform) - start > max_samples:
        stop = start + _even_cut(waveform[start:], longest)
        windows.append((start, stop))
        start = stop
    return [*windows, (start, len(waveform))]


def stream_quiet_windows(blocks: Iterable[Samples], max_samples: int, overlap_samples: int = 0) -> Iterator[Window]:
    """Cut a stream of any length into windows that cover all of it and end where it is quiet.

    Memory does not grow with the stream. One of up to four windows is cut as `quiet_windows` cuts it. Where windows may
    overlap, they do so only around cuts outside pauses; around a pause there is no need.

    Args:
        blocks: consecutive samples at 16 kHz, of any lengths; where they are cut does not matter.
        max_samples: longest waveform of a window, at least 0.4 s.
        overlap_samples: in both windows around a cut outside a pause.

    Yields:
        Windows as soon as they are certain; one without samples for an empty stream.

    Raises:
        ConfigError: settings that leave no window.
    """
    half = check_overlap(max_samples, overlap_samples)
    longest = (max_samples - 2 * half) // MIN_CLIP_SAMPLES * MIN_CLIP_SAMPLES
    enough = _AHEAD * longest + MIN_CLIP_SAMPLES
    held, coming = Buffer(), iter(blocks)
    start, before, has_more = 0, 0, True
    while True:
        while has_more and held.stop - start < enough:
            block = next(coming, None)
            has_more = block is not None
            if block is not None:
                held.append(block)
        left = held.stop - start
        if left + before <= max_samples:
            yield Window(start, held.stop, before, held.between(start - before, held.stop).copy())
            return
        rest = held.between(start, start + min(left, enough))
        cut = _long_cut(rest, longest) if left >= enough else _even_cut(rest, longest)
        after = 0 if half == 0 or _is_pause(rest[: longest + half], cut) else min(half, left - cut)
        stop = start + cut
        yield Window(start, stop, before, held.between(start - before, stop + after).copy())
        start, before = stop, after
        held.drop(start - before)


def check_overlap(max_samples: int, overlap_samples: int) -> int:
    """Give half the overlap in whole audio tokens, in samples.

    Raises:
        ConfigError: a window under two audio tokens, or an overlap that is negative or more than a third of a window.
    """
    if max_samples < 2 * MIN_CLIP_SAMPLES:
        raise ConfigError(f"a window is {max_samples / SAMPLE_RATE:g} s; expected at least 0.4 s, two audio tokens")
    if not 0 <= overlap_samples <= max_samples * _MAX_OVERLAP:
        raise ConfigError(
            f"the overlap is {overlap_samples / SAMPLE_RATE:g} s; expected 0 to a third of the window, "
            f"{max_samples * _MAX_OVERLAP / SAMPLE_RATE:g} s"
        )
    return overlap_samples // 2 // MIN_CLIP_SAMPLES * MIN_CLIP_SAMPLES


def _even_cut(waveform: Samples, longest: int) -> int:
    """Where to end the first of as few about equal windows as a rest (N,) needs."""
    step, left = MIN_CLIP_SAMPLES, len(waveform)
    pieces = math.ceil(left / longest)
    even = left / pieces
    # The rest must fit into one window less.
    first = math.ceil(max(even * (1 - _TOLERANCE), left - (pieces - 1) * longest, step) / step)
    last = max(first, math.floor(min(even * (1 + _TOLERANCE), longest) / step))
    return _quietest(waveform, first, last)


def _long_cut(waveform: Samples, longest: int) -> int:
    """Where to end the first window of a stream that goes on for more than ``_AHEAD`` windows."""
    step = MIN_CLIP_SAMPLES
    first = max(1, math.ceil(longest * (1 - _TOLERANCE) / (1 + _TOLERANCE) / step))
    return _quietest(waveform, first, longest // step)


def _quietest(waveform: Samples, first: int, last: int) -> int:
    """The quietest of the cuts after ``first`` to ``last`` whole tokens."""
    step = MIN_CLIP_SAMPLES
    return min(range(step * first, step * last + 1, step), key=lambda cut: _loudness(waveform, cut))


def _is_pause(waveform: Samples, cut: int) -> bool:
    around = _loudness(waveform, cut)
    return around <= SILENCE**2 or around <= float(np.mean(np.square(waveform, dtype=np.float64))) * 10 ** (
        _PAUSE_DB / 10
    )


def _loudness(waveform: Samples, at: int) -> float:
    """Mean power of the 0.2 s around a sample."""
    half = MIN_CLIP_SAMPLES // 2
    around = waveform[max(0, at - half) : at + half].astype(np.float64)
    return float(np.mean(around**2))
