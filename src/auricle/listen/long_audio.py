"""One source of any length: windows read as they are needed, the replies about them, and the receipt.

Files are read as a stream, so that hours take no more memory than minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

from auricle.audio.decode import Stream, as_clip, stream
from auricle.audio.facts import Clip, Facts
from auricle.audio.limits import MIN_S, Limits, check_seconds
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import is_in_memory
from auricle.encode.receipt import Receipt, TokenGrid, write_receipt
from auricle.errors import AudioError, AuricleError
from auricle.listen.outputs import Odds, Segment
from auricle.listen.silence import stream_split_at_silence
from auricle.listen.windows import Window, Windowing, stream_quiet_windows

if TYPE_CHECKING:
    from auricle.listen.aggregate import Growing

_MIN_SAMPLES = round(MIN_S * SAMPLE_RATE)  # half an audio token; what is shorter would be zeros for the most part


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answer to one prompt about one span."""

    text: str
    mean_logprob: float | None = None  # nats per token; None where a rule set the text
    odds: tuple[Odds, ...] = ()  # of every option, where there were some
    no_speech_logprob: float | None = None  # see `Segment`
    rule: str = ""  # why the text was set without the model
    parts: tuple[Segment, ...] = ()  # with times of the source, where the model gives them
    languages: Mapping[str, float] | None = None  # probabilities, where the model gives them
    language: str | None = None  # that the text was written in, or that is spoken
    open_speech: str = ""  # speech that is not written down, see `auricle.listen.no_speech.open_speech`
    withheld: str = ""  # what the model wrote of it
    remark: str = ""  # what the receipt says of how the text came about


class Recording:
    """An opened source: its windows, and the replies so far."""

    def __init__(self, opened: Clip | Stream, prompts: Sequence[str], windowing: Windowing) -> None:
        """Take over an open stream, or a waveform, and read its first window."""
        self.prompts, self.windowing = prompts, windowing
        self.windows: list[tuple[int, int]] = []  # (start, stop) in samples, without what neighbours share
        self.given: list[tuple[int, int]] = []  # the same with it: what the model was given
        self.spans: list[tuple[int, int]] = []  # samples that a reply is about: one window, or several in one prompt
        self.replies: dict[tuple[int, int], Reply] = {}  # by index of the span and of the prompt
        self.remarks: dict[str, list[int]] = {}  # what was measured in the waveform, with indices of spans
        self.is_read = False
        self.error: AuricleError | None = None
        self.growing: Growing | None = None  # its segments as they become final, where somebody waits for them
        self._given_out = 0  # windows that `next_parts` gave
        self._opened = opened
        blocks = iter([opened.waveform]) if isinstance(opened, Clip) else opened
        cut = stream_split_at_silence if windowing.split_silence else stream_quiet_windows
        windows = cut(blocks, windowing.max_samples, windowing.overlap_samples)
        try:
            # Read here, so that decoding starts in the thread that opens; a short clip is then read to its end.
            first = [next(windows)]
            if first[0].stop < _MIN_SAMPLES:  # of a longer source where long silence follows
                first += islice(windows, 1)
            check_seconds(first[-1].stop / SAMPLE_RATE, self.facts.name)
            self._unread = chain(first, windows)
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> Facts:
        """Facts of the source, final once all of it is read."""
        return self._opened.facts

    @property
    def is_done(self) -> bool:
        """Whether no reply is missing."""
        complete = self.is_read and len(self.replies) == len(self.spans) * len(self.prompts)
        return complete or self.error is not None

    def take(self) -> Iterator[list[Window]]:
        """Read the windows of one prompt after another; raises what shows only while decoding."""
        for windows in _grouped(self._unread, self.windowing.together_samples):
            self.spans.append((windows[0].start, windows[-1].stop))
            for window in windows:
                self.windows.append((window.start, window.stop))
                self.given.append((window.start - window.before, window.audio_stop))
            yield windows
        self.is_read = True

    def segments(self, prompt: int = 0) -> list[Segment]:
        """The replies to one prompt, with times of the source."""
        return [self._segment(index, prompt) for index in range(len(self.spans))]

    def parts(self) -> list[tuple[Segment, ...]]:
        """The replies to the first prompt as segments: those that the model gave, or one for the span."""
        return [self._parts(index) for index in range(len(self.spans))]

    def next_parts(self) -> Iterator[tuple[tuple[Segment, ...], bool]]:
        """Of `parts` what was not given before, up to the first reply that is missing.

        Yields:
            The segments of a window, and whether it shares samples with the one before it.
        """
        while (self._given_out, 0) in self.replies:
            index = self._given_out
            self._given_out += 1
            yield self._parts(index), index > 0 and self.given[index][0] < self.given[index - 1][1]

    def overlaps(self) -> list[bool]:
        """Of each window whether it shares samples with the one before it."""
        return [False, *(after[0] < before[1] for before, after in pairwise(self.given))]

    def _parts(self, index: int) -> tuple[Segment, ...]:
        return self.replies[index, 0].parts or (self._segment(index, 0),)

    def _segment(self, index: int, prompt: int) -> Segment:
        (start_s, stop_s), reply = self.seconds(index), self.replies[index, prompt]
        return Segment(
            start_s=start_s,
            stop_s=stop_s,
            text=reply.text,
            mean_logprob=_rounded(reply.mean_logprob),
            no_speech_logprob=_rounded(reply.no_speech_logprob),
            open_speech=reply.open_speech,
        )

    def seconds(self, index: int) -> tuple[float, float]:
        """Start and end of a span in the source."""
        start, stop = (self.facts.start_s + edge / SAMPLE_RATE for edge in self.spans[index])
        return round(start, 4), round(stop, 4)

    def receipt(self, config: TokenGrid, notes: Iterable[str] = ()) -> Receipt:
        """State which parts of the source the model processed, with notes on what else was done."""
        receipt = write_receipt(
            self.facts,
            self.windows[-1][1] if self.windows else 0,
            self.windows,
            given=self.given,
            subsample_factor=config.subsample_factor,
            min_samples=config.min_samples,
            whole_tokens=config.whole_tokens,
        )
        return replace(receipt, notes=(*receipt.notes, *notes))

    def close(self) -> None:
        """Close the source."""
        if isinstance(self._opened, Stream):
            self._opened.close()


def open_recording(source: Any, prompts: Sequence[str], windowing: Windowing, limits: Limits) -> Recording:
    """Open what `auricle.audio.decode.as_clip` takes; files are read as a stream, waveforms are in memory already.

    Raises:
        AudioError: the source cannot be read.
    """
    opened = as_clip(source, limits=limits) if is_in_memory(source) else stream(source, limits=limits)
    return Recording(opened, prompts, windowing)


def try_open(source: Any, prompts: Sequence[str], windowing: Windowing, limits: Limits) -> Recording | AuricleError:
    """Open a source as `open_recording`, or give the error: one bad file must not end the work on all others."""
    try:
        return open_recording(source, prompts, windowing, limits)
    except AuricleError as error:
        return error
    except Exception as error:
        return AudioError(f"{_name(source)}: cannot be read ({type(error).__name__}: {error}); give other audio")


def _grouped(windows: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """All windows at once where they last no longer than ``most`` samples, else one by one."""
    held: list[Window] = []
    for window in windows:
        held.append(window)
        if window.stop > most:
            yield from ([each] for each in held)
            held.clear()
    if held:
        yield held


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else f"<{type(source).__name__}>"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
