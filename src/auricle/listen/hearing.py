"""Sounds, windows and questions → replies: batches are filled across sounds, and results come in the sounds' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.audio.facts import Clip, Facts
from auricle.audio.limits import Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.batches import prefetch
from auricle.encode.receipt import Receipt
from auricle.engine.prompt import check_room
from auricle.errors import AudioError, AuricleError, ConfigError
from auricle.listen.long_audio import Coverage, Sound, try_open
from auricle.listen.outputs import Odds, Segment
from auricle.listen.windows import Window
from auricle.weights.processor import Message, Prompt, PromptWriter

if TYPE_CHECKING:
    from auricle.models.midashenglm import MiDashengLM

_DECODERS = 2  # threads that decode ahead; soundfile and soxr release the interpreter


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What was answered to one question about one stretch."""

    text: str
    mean_logprob: float | None = None  # nats per token; None where a rule gave the text
    odds: tuple[Odds, ...] = ()  # of every option, where there were some
    no_speech_logprob: float | None = None  # see `Segment`
    because: str = ""  # the rule that gave the text without the model


class Asked(NamedTuple):
    """A sound and what is asked about it."""

    source: Any
    questions: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """How questions about sounds are answered."""

    answer: Callable[[Sequence[Prompt]], Sequence[Reply]]  # of one batch
    max_new_tokens: int  # that the context must have room for
    max_samples: int  # longest window
    overlap_samples: int = 0  # see `auricle.listen.windows.stream_quiet_windows`
    silence_apart: bool = False  # long digital silence gets windows of its own
    together_samples: int = 0  # sounds of up to this length are heard in one prompt, window beside window
    rule: Callable[[Window], Reply | None] | None = None  # answers without the model where it can


class Heard:
    """One sound on its way: what was heard of it, and the replies that are there already."""

    def __init__(self, sound: Sound, questions: Sequence[str]) -> None:
        """Start with nothing heard."""
        self.sound, self.questions, self.coverage = sound, questions, Coverage()
        self.spans: list[tuple[int, int]] = []  # samples that a reply is about; several windows in one prompt make one
        self.replies: dict[tuple[int, int], Reply] = {}  # by place of the span and of the question
        self.awaited = 0
        self.is_read = False
        self.error: AuricleError | None = None

    @property
    def facts(self) -> Facts:
        """Facts of the source, final once all is heard."""
        return self.sound.facts

    @property
    def is_done(self) -> bool:
        """Whether nothing is awaited."""
        return self.error is not None or (self.is_read and len(self.replies) == self.awaited)

    def take(self, together_samples: int) -> Iterator[list[Window]]:
        """Take the windows of one prompt after another, and note that they were heard.

        Args:
            together_samples: a sound of up to this length is taken at once, a longer one window by window.
        """
        for windows in _together(self.sound, together_samples):
            self.spans.append((windows[0].start, windows[-1].stop))
            for window in windows:
                self.coverage.add(window)
            yield windows

    def segments(self, question: int = 0) -> list[Segment]:
        """The replies to one question, with times of the source."""
        segments = []
        for place, (start, stop) in enumerate(self.spans):
            reply, origin = self.replies[place, question], self.facts.start_s
            segments.append(
                Segment(
                    start_s=round(origin + start / SAMPLE_RATE, 4),
                    stop_s=round(origin + stop / SAMPLE_RATE, 4),
                    text=reply.text,
                    mean_logprob=_rounded(reply.mean_logprob),
                    no_speech_logprob=_rounded(reply.no_speech_logprob),
                )
            )
        return segments

    def ruled(self) -> list[tuple[tuple[int, int], str]]:
        """Spans that were answered by rule, as samples, with the reasons."""
        found = {place: reply.because for (place, _), reply in self.replies.items() if reply.because}
        return [(self.spans[place], found[place]) for place in sorted(found)]


class Hearing:
    """The walk of sounds through one model."""

    def __init__(self, model: MiDashengLM, writer: PromptWriter, limits: Limits) -> None:
        """Hear with a model.

        Args:
            model: for the room in its context, and how it counts audio.
            writer: of its prompts.
            limits: budgets of every sound.
        """
        self._model, self._writer, self.limits = model, writer, limits

    def hear(self, asked: Iterable[Asked], task: Task, batch_size: int) -> Iterator[Heard | AuricleError]:
        """Yield sounds with all their replies, or the error in their place, in the order they are asked about.

        Raises:
            ConfigError: a batch size below 1, before the first sound is taken.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        return self._hear(asked, task, batch_size)

    def _hear(self, asked: Iterable[Asked], task: Task, batch_size: int) -> Iterator[Heard | AuricleError]:
        waiting: deque[Heard | AuricleError] = deque()
        batch: list[tuple[Heard, tuple[int, int], Prompt]] = []
        opening = partial(self._open, task)
        try:
            for heard in prefetch(opening, asked, depth=2 * _DECODERS, workers=_DECODERS):
                waiting.append(heard)
                if isinstance(heard, Heard):
                    for key, prompt in self._prompts(heard, task):
                        batch.append((heard, key, prompt))
                        if len(batch) >= batch_size:
                            _answer(batch, task)
                            yield from _finished(waiting)
                yield from _finished(waiting)
            _answer(batch, task)
            yield from _finished(waiting)
        finally:
            for left in waiting:
                if isinstance(left, Heard):
                    left.sound.close()

    def _open(self, task: Task, asked: Asked) -> Heard | AuricleError:
        opened = try_open(
            asked.source,
            max_samples=task.max_samples,
            overlap_samples=task.overlap_samples,
            silence_apart=task.silence_apart,
            limits=self.limits,
        )
        return opened if isinstance(opened, AuricleError) else Heard(opened, asked.questions)

    def _prompts(self, heard: Heard, task: Task) -> Iterator[tuple[tuple[int, int], Prompt]]:
        """Write the prompts of one sound while it is read; its error ends it, and is kept with it."""
        try:
            for place, windows in enumerate(heard.take(task.together_samples)):
                ruled = task.rule(windows[0]) if task.rule is not None and len(windows) == 1 else None
                heard.awaited += len(heard.questions)
                for number, question in enumerate(heard.questions):
                    if ruled is not None:
                        heard.replies[place, number] = ruled
                    else:
                        yield (place, number), self.prompt(windows, question, task.max_new_tokens, heard.facts)
            heard.is_read = True
        except AuricleError as error:
            name = heard.facts.name
            heard.error = error if str(error).startswith(name) else type(error)(f"{name}: {error}")
        except Exception as error:  # a decoder may fail in its own words, hours into a file
            heard.error = AudioError(
                f"{heard.facts.name}: cannot be read further ({type(error).__name__}: {error}); give other audio"
            )
        finally:
            heard.sound.close()

    def prompt(self, windows: Sequence[Window], question: str, max_new_tokens: int, facts: Facts) -> Prompt:
        """Write one question about windows, audio first: the trained order, and what lets questions share it.

        Raises:
            PromptError: no room in the context.
        """
        clips = [{"type": "audio", "audio": Clip(window.waveform, facts)} for window in windows]
        message: Message = {"role": "user", "content": [*clips, {"type": "text", "text": question}]}
        prompt = self._writer.write([message], limits=self.limits)
        check_room(self._model, prompt, max_new_tokens)
        return prompt

    def text_prompt(self, question: str) -> Prompt:
        """Write a question without audio; raises as `prompt`."""
        prompt = self._writer.write([{"role": "user", "content": question}])
        check_room(self._model, prompt, 1)
        return prompt

    def receipt(self, heard: Heard, notes: Iterable[str] = ()) -> Receipt:
        """State what became of a sound, with notes on what else was done."""
        receipt = heard.coverage.receipt(heard.facts, self._model.config)
        return replace(receipt, notes=(*receipt.notes, *notes))


def _together(windows: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """All windows at once where they last no longer than ``most`` samples, else one by one."""
    held: list[Window] = []
    for window in windows:
        held.append(window)
        if window.stop > most:
            yield from ([each] for each in held)
            held.clear()
    if held:
        yield held


def _answer(batch: list[tuple[Heard, tuple[int, int], Prompt]], task: Task) -> None:
    """Answer what belongs to sounds without error; the batch is emptied."""
    wanted = [(heard, key, prompt) for heard, key, prompt in batch if heard.error is None]
    batch.clear()
    replies = task.answer([prompt for _, _, prompt in wanted]) if wanted else []
    for (heard, key, _), reply in zip(wanted, replies, strict=True):
        heard.replies[key] = reply


def _finished(waiting: deque[Heard | AuricleError]) -> Iterator[Heard | AuricleError]:
    while waiting and (isinstance(waiting[0], AuricleError) or waiting[0].is_done):
        done = waiting.popleft()
        yield done.error if isinstance(done, Heard) and done.error is not None else done


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
