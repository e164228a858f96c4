"""Sources → windows → prompts → replies of the engine → results, for every verb of `AudioLM`.

Batches are filled across sources, and results come in the order of the sources.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.audio.facts import Clip
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, check_several
from auricle.data.batches import prefetch
from auricle.data.untrusted_json import check_characters
from auricle.engine.request import SamplingParams
from auricle.errors import AudioError, AuricleError, ConfigError, check_number
from auricle.listen.long_audio import Recording, Reply, try_open
from auricle.listen.windows import Window, Windowing

if TYPE_CHECKING:
    from auricle.encode.receipt import TokenGrid
    from auricle.engine.prompt import CheckedPrompt
    from auricle.engine.request import Generation
    from auricle.listen.aggregate import Growing
    from auricle.listen.model import AudioLM
    from auricle.weights.processor import Message

_DECODERS = 2  # threads that decode ahead; soundfile and soxr release the interpreter

SourcePrompts = tuple[AudioSource, Sequence[str]]  # a source, and the questions about it


class Task(ABC):
    """What a verb asks about every window, and how it makes a result of the replies."""

    def __init__(
        self, model: AudioLM, sampling: SamplingParams, windowing: Windowing, config: TokenGrid | None = None
    ) -> None:
        """Prepare to ask.

        Args:
            model: the one that answers.
            sampling: how tokens are chosen.
            windowing: how sources are cut.
            config: how the model makes audio tokens; None: that of the loaded language model.
        """
        self.model, self.sampling, self.windowing = model, sampling, windowing
        self.config = config or model.token_grid
        self.max_new_tokens = sampling.max_new_tokens  # that the context must have room for behind a prompt

    def rule(self, window: Window) -> Reply | None:
        """The reply about a window that needs no model; None: ask the model."""
        return None

    def prompt(self, recording: Recording, windows: Sequence[Window], question: str) -> Any:
        """What `answer` takes for a question about windows.

        Raises:
            PromptError: no room in the context.
        """
        return window_prompt(self, recording, windows, question)

    def answer(self, prompts: Sequence[Any]) -> Sequence[Reply | AuricleError]:
        """The replies of the model to one batch of prompts; an error ends the work on its source alone."""
        return [reply_of(generation) for generation in self.model.engine.generate(prompts, self.sampling)]

    def growing(self) -> Growing | None:
        """What makes segments final while the windows are answered; None: the result has none of its own."""
        return None

    @abstractmethod
    def result(self, recording: Recording) -> Any:
        """The result for a recording with all its replies."""


class _Pending(NamedTuple):
    """A prompt without reply."""

    recording: Recording
    key: tuple[int, int]  # index of the span, and of the question
    prompt: Any  # of `Task.prompt`


def process(task: Task, requests: Iterable[SourcePrompts], batch_size: int) -> Iterator[Any]:
    """Yield the result of each request, or its error in its place, in order; a batch has prompts of any sources.

    Raises:
        ConfigError: a batch size below 1, before the first source is taken.
    """
    check_number("batch_size", batch_size, least=1, whole=True)
    return _process(task, requests, batch_size)


def _process(task: Task, requests: Iterable[SourcePrompts], batch_size: int) -> Iterator[Any]:
    opened: deque[Recording | AuricleError] = deque()
    try:
        for batch in _batches(task, requests, batch_size, opened):
            pending = [each for each in batch if each.recording.error is None]
            replies = task.answer([each.prompt for each in pending]) if pending else []
            for each, reply in zip(pending, replies, strict=True):
                if isinstance(reply, AuricleError):
                    each.recording.error = _named(reply, each.recording)
                    continue
                each.recording.replies[each.key] = reply
                _report(task, each.recording, each.key)
            batch.clear()  # waveforms are large
            pending.clear()
            _report_segments(task, opened)
            while opened and (isinstance(opened[0], AuricleError) or opened[0].is_done):
                yield _result(task, opened.popleft())
                _report_segments(task, opened)
    finally:
        for left in opened:
            if isinstance(left, Recording):
                left.close()


def _batches(
    task: Task, requests: Iterable[SourcePrompts], batch_size: int, opened: deque[Recording | AuricleError]
) -> Iterator[list[_Pending]]:
    """Open sources into ``opened``; full batches, an empty one behind each source that is read, and the rest."""
    batch: list[_Pending] = []
    opening = partial(_open, task)
    for recording in prefetch(opening, requests, depth=2 * _DECODERS, workers=_DECODERS):
        opened.append(recording)
        for pending in _prompts(task, recording) if isinstance(recording, Recording) else ():
            batch.append(pending)
            if len(batch) >= batch_size:
                yield batch
                batch = []
        yield []
    yield batch


def _open(task: Task, request: SourcePrompts) -> Recording | AuricleError:
    return try_open(*request, task.windowing, task.model.limits)


def _prompts(task: Task, recording: Recording) -> Iterator[_Pending]:
    """Write the prompts of a recording while it is read; its error ends it, and is kept with it."""
    name = recording.facts.name
    try:
        for place, windows in enumerate(recording.take()):
            reply = task.rule(windows[0]) if len(windows) == 1 else None
            for number, question in enumerate(recording.prompts):
                if reply is not None:
                    recording.replies[place, number] = reply
                    _report(task, recording, (place, number))
                else:
                    yield _Pending(recording, (place, number), task.prompt(recording, windows, question))
    except AuricleError as error:
        recording.error = _named(error, recording)
    except Exception as error:  # a decoder may fail with any exception, hours into a file
        recording.error = AudioError(
            f"{name}: cannot be read further ({type(error).__name__}: {error}); give other audio"
        )
    finally:
        recording.close()


def _named(error: AuricleError, recording: Recording) -> AuricleError:
    name = recording.facts.name
    return error if str(error).startswith(name) else type(error)(f"{name}: {error}")


def _report(task: Task, recording: Recording, key: tuple[int, int]) -> None:
    """Report the seconds of a span to `AudioLM.on_audio` with the last reply about it."""
    if task.model.on_audio is not None and key[1] == len(recording.prompts) - 1:
        start, stop = recording.spans[key[0]]
        task.model.on_audio((stop - start) / SAMPLE_RATE)


def _report_segments(task: Task, opened: Sequence[Recording | AuricleError]) -> None:
    """Report the segments of the first source that have become final to `AudioLM.on_segment`."""
    report = task.model.on_segment
    if report is None or not opened or isinstance(opened[0], AuricleError):
        return
    recording = opened[0]
    growing = recording.growing = recording.growing or task.growing()
    if growing is None:
        return
    found = [segment for parts in recording.next_parts() for segment in growing.add(*parts)]
    if recording.is_done and recording.error is None:
        found += growing.end()
    for segment in found:
        report(recording.facts.name, segment)


def _result(task: Task, recording: Recording | AuricleError) -> Any:
    """The result, or an error that names the source."""
    if isinstance(recording, AuricleError) or recording.error is not None:
        return recording if isinstance(recording, AuricleError) else recording.error
    try:
        return task.result(recording)
    except AuricleError as error:
        return type(error)(f"{recording.facts.name}: {error}")


def window_prompt(task: Task, recording: Recording, windows: Sequence[Window], question: str) -> CheckedPrompt:
    """Write one question about windows, audio first: the trained order, and what lets questions share the audio.

    Raises:
        PromptError: no room in the context.
    """
    clips = [{"type": "audio", "audio": Clip(window.waveform, recording.facts)} for window in windows]
    messages = [{"role": "user", "content": [*clips, {"type": "text", "text": question}]}]
    return write_prompt(task.model, messages, task.max_new_tokens)


def write_prompt(model: AudioLM, messages: Sequence[Message], max_new_tokens: int) -> CheckedPrompt:
    """Write messages by the model's chat template, and check that the context has room for the answer.

    Raises:
        PromptError: messages of another shape, or no room in the context.
        AudioError: a clip cannot be read.
    """
    return model.engine.check(model.prompt_writer.write(messages, limits=model.limits), max_new_tokens)


def reply_of(generation: Generation) -> Reply:
    """An answer without surrounding white space."""
    return Reply(text=(generation.text or "").strip(), mean_logprob=generation.mean_logprob)


def check_questions(questions: Sequence[str]) -> Sequence[str]:
    """Refuse what is not a list of questions.

    Raises:
        ConfigError: a text, an empty list, or a question that is no text, or empty.
    """
    if not isinstance(questions, list | tuple) or not questions:
        raise ConfigError(f"the questions are {questions!r}; expected a list of at least one")
    for question in questions:
        check_characters(question, "the prompt")
        if not question.strip():
            raise ConfigError("the prompt is empty; expected a question or an instruction")
    return questions


def each_source(sources: Iterable[AudioSource], prompts: Sequence[str], single: str) -> Iterator[SourcePrompts]:
    """Pair every source with the prompts; ``single``: the method to name where one source was given."""
    check_several(sources, f"{single} takes one")
    return ((source, prompts) for source in sources)
