"""Audio language models that are asked in messages and answer with texts: behind a server, or of another library.

Windows, their aggregation and receipts are those of `AudioLM`; only the way from a prompt to a reply differs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits, check_seconds
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, check_single
from auricle.data.wording import CAPTION_PROMPT
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError
from auricle.listen.aggregate import Aggregation, check_aggregation
from auricle.listen.capabilities import Capabilities
from auricle.listen.confidence import Calibration
from auricle.listen.long_audio import Recording, Reply, open_recording
from auricle.listen.model import MAX_NEW_TOKENS, AudioLM
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.outputs import Answer, Choice, Description, Output, Transcript
from auricle.listen.pipeline import Task, check_questions, each_source, process
from auricle.listen.streaming import AnswerStream
from auricle.listen.verbs import Captioning, Questions, Transcription
from auricle.listen.windows import Window
from auricle.weights.processor import ROLES

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from auricle.encode.receipt import TokenGrid
    from auricle.engine.request import SamplingOptions
    from auricle.weights.processor import Message

Result = TypeVar("Result", bound=Output)


@dataclass(frozen=True, slots=True)
class _Grid:
    """For receipts, where audio tokens are not those of Auricle: whole windows are read, and no token is counted."""

    subsample_factor: int = 1
    min_samples: int = 1
    whole_tokens: bool = True


class Turn(NamedTuple):
    """One message."""

    role: str  # of `auricle.weights.processor.ROLES`
    content: tuple[str | Clip, ...]  # texts and clips in order


Turns = Sequence[Turn]


class PromptedLM(AudioLM):
    """An audio language model that is asked in messages, see `AudioLM`; a verb it lacks is a ConfigError."""

    def __init__(self, name: str, *, max_audio_s: float, limits: Limits = DEFAULT_LIMITS) -> None:
        """State the name and the longest clip of one prompt, s."""
        self._name, self.limits = name, limits
        self.max_audio_s = self.max_prompt_s = max_audio_s
        self.no_speech, self.unsure_below, self.open_speech_below = NoSpeechRule(), None, None
        self.verb_limits, self.calibration = {}, Calibration()
        self.on_audio = self.on_segment = self.journal = None

    def __getattr__(self, name: str) -> Any:
        """Refuse the parts of a model of Auricle's own."""
        if name in ("loaded", "engine", "prompt_writer"):
            raise ConfigError(
                f"{self._name} is asked in messages, and this needs a model of Auricle's own; load one, as auricle-tiny"
            )
        raise AttributeError(name)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._name

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can be asked for."""

    @property
    def token_grid(self) -> TokenGrid:
        """See `_Grid`."""
        return _Grid()

    @abstractmethod
    def replies(self, prompts: Sequence[Turns], sampling: SamplingParams) -> Sequence[Reply | AuricleError]:
        """The reply to each prompt, or why there is none.

        Raises:
            AuricleError: none of them can be answered.
        """

    def transcripts(
        self, clips: Sequence[Clip], language: str | None, sampling: SamplingParams
    ) -> Sequence[Reply | AuricleError]:
        """The transcript of each clip; by the prompt `transcribe_prompt`, unless a model has its own way."""
        prompt = self.transcribe_prompt(language)
        return self.replies([[Turn("user", (clip, prompt))] for clip in clips], sampling)

    def transcribe_prompt(self, language: str | None) -> str:
        """The prompt of transcripts, in words that any model understands.

        Raises:
            ConfigError: a language that the model cannot be told.
        """
        named = "" if language is None else f" The language is {language}."
        return f"Transcribe the speech in this audio word for word.{named} Answer with the transcript alone."

    def require(self, verb: Any) -> None:
        """Refuse a verb that the model lacks.

        Raises:
            ConfigError: with those that it has.
        """
        if verb not in self.capabilities.verbs:
            own = ", ".join(self.capabilities.verbs)
            raise ConfigError(f"{self.model} cannot {verb}; it can {own}. See `auricle models --capabilities`")

    def describe_many(
        self,
        sources: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        dense: bool = False,
        window_s: float | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Iterator[Description | AuricleError]:
        """As `AudioLM.describe_many`."""
        self.require("describe")
        task = _Captioning(self, dense=dense, window_s=window_s, max_new_tokens=max_new_tokens)
        return process(task, each_source(sources, [CAPTION_PROMPT], "describe"), batch_size)

    def transcribe_many(
        self,
        sources: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        window_s: float | None = None,
        overlap_s: float | None = None,
        vad: bool = False,
        language: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Iterator[Transcript | AuricleError]:
        """As `AudioLM.transcribe_many`."""
        self.require("transcribe")
        settings: dict[str, Any] = {"window_s": window_s, "overlap_s": overlap_s, "vad": vad}
        most = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        task = _Transcription(self, language, max_new_tokens=most, **settings)
        return process(task, each_source(sources, [""], "transcribe"), batch_size)

    def ask_many(
        self,
        sources: Iterable[AudioSource],
        prompt: str,
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[Answer | AuricleError]:
        """As `AudioLM.ask_many`."""
        if choices is not None or schema is not None:
            raise ConfigError(f"{self.model} cannot be held to choices or a schema; ask without, or load auricle-tiny")
        requests = each_source(sources, check_questions([prompt]), "ask")
        found = self.ask_each(requests, batch_size=batch_size, sampling=sampling, reduce=reduce, window_s=window_s)
        return (each if isinstance(each, AuricleError) else each[0] for each in found)

    def ask_all_many(
        self,
        sources: Iterable[AudioSource],
        prompts: Sequence[str],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """As `AudioLM.ask_all_many`."""
        requests = each_source(sources, check_questions(prompts), "ask_all")
        return self.ask_each(requests, batch_size=batch_size, sampling=sampling, reduce=reduce, window_s=window_s)

    def ask_each(
        self,
        requests: Iterable[tuple[AudioSource, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """As `AudioLM.ask_each`."""
        self.require("ask")
        task = _Questions(self, sampling, reduce=reduce, window_s=window_s)
        return process(task, ((source, check_questions(questions)) for source, questions in requests), batch_size)

    def choose_many(
        self,
        sources: Iterable[AudioSource],
        question: str,
        options: Sequence[str],
        *,
        batch_size: int = 8,
        letters: bool = False,
        per_token: bool = False,
        window_s: float | None = None,
    ) -> Iterator[Choice | AuricleError]:
        """Refuse to choose: the probabilities of given answers are not known."""
        self.require("choose")
        raise ConfigError(f"{self.model} states no way to choose")

    def stream(
        self,
        source: AudioSource,
        prompt: str,
        *,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> AnswerStream:
        """As `AudioLM.stream`; a piece is the answer about one window."""
        self.require("ask")
        check_single(source, "ask_many")
        check_aggregation(reduce)
        (question,) = check_questions([prompt])
        task = _Questions(self, sampling, reduce=reduce, window_s=window_s)
        return AnswerStream(_stream(task, source, question))

    def chat(self, messages: Sequence[Message], **sampling: Unpack[SamplingOptions]) -> str:
        """As `AudioLM.chat`.

        Raises: as `AudioLM.chat`; ConfigError for turns or clips that the model does not take.
        """
        self.require("chat")
        able, turns = self.capabilities, [turn_of(message, self.limits) for message in messages]
        if not turns:
            raise ConfigError('there are no messages; expected at least [{"role": "user", "content": "…"}]')
        if not able.system_turns and any(turn.role == "system" for turn in turns):
            raise ConfigError(f"{self.model} takes no system turn; put it into the first of the user")
        clips = [part for turn in turns for part in turn.content if isinstance(part, Clip)]
        if len(clips) > 1 and not able.several_clips:
            raise ConfigError(f"{self.model} takes one clip, and there are {len(clips)}; join them, or ask about each")
        for number, clip in enumerate(clips, 1):
            check_seconds(len(clip.waveform) / SAMPLE_RATE, f"clip {number}")
            if len(clip.waveform) > able.max_audio_s * SAMPLE_RATE:
                raise ConfigError(
                    f"clip {number} is longer than the {able.max_audio_s:g} s that {self.model} takes at once; use "
                    "ask, which cuts it into windows"
                )
        (found,) = self.replies([turns], SamplingParams.of(sampling))
        if isinstance(found, AuricleError):
            raise found
        return found.text


def turn_of(message: Any, limits: Limits) -> Turn:
    """A message in the form of `AudioLM.chat`.

    Raises:
        ConfigError: another form.
        AudioError: a clip cannot be read.
    """
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ROLES:
        raise ConfigError(f"the role of a message is {role!r}; expected one of {', '.join(ROLES)}")
    content = message.get("content")
    parts: list[str | Clip] = []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind == "audio" and part.get("audio") is not None:
            parts.append(as_clip(part["audio"], limits=limits))
        else:
            raise ConfigError(f'a part has the type {kind!r}; expected {{"type": "text", …}} or {{"type": "audio", …}}')
    return Turn(role, tuple(parts))


class InMessages(Task):
    """Makes a prompt of windows and a question, and has the model reply."""

    model: PromptedLM

    def prompt(self, recording: Recording, windows: Sequence[Window], question: str) -> Turns:
        """One turn of the user, audio first."""
        clips = [Clip(window.waveform, recording.facts) for window in windows]
        return [Turn("user", (*clips, question))]

    def answer(self, prompts: Sequence[Any]) -> Sequence[Reply | AuricleError]:
        """Ask the model."""
        return self.model.replies(prompts, self.sampling)


class _Captioning(InMessages, Captioning):
    """Captions, see `Captioning`."""

    def result(self, recording: Recording) -> Description:
        """Join the captions."""
        return _uncounted(super().result(recording))


class _Questions(InMessages, Questions):
    """Answers, see `Questions`."""

    def result(self, recording: Recording) -> list[Answer]:
        """Aggregate the answers."""
        return [_uncounted(each) for each in super().result(recording)]

    def _summarise(self, question: str) -> str:
        (found,) = self.model.replies([[Turn("user", (question,))]], SamplingParams())
        if isinstance(found, AuricleError):
            raise found
        return found.text


class _Transcription(InMessages, Transcription):
    """Transcripts, see `Transcription`."""

    def __init__(self, model: PromptedLM, language: str | None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._language = language

    def prompt(self, recording: Recording, windows: Sequence[Window], question: str) -> Clip:  # type: ignore[override]
        """The clip alone."""
        (window,) = windows
        return Clip(window.waveform, recording.facts)

    def answer(self, prompts: Sequence[Any]) -> Sequence[Reply | AuricleError]:
        """Have the model transcribe."""
        return self.model.transcripts(prompts, self._language, self.sampling)

    def result(self, recording: Recording) -> Transcript:
        """Stitch the transcripts."""
        return _uncounted(super().result(recording))


def _uncounted(result: Result) -> Result:
    """The tokens that another model makes of audio are not those that receipts count."""
    return replace(result, receipt=replace(result.receipt, audio_tokens=0, padded_s=0.0))


def _stream(task: Task, source: Any, question: str) -> Generator[str, None, Any]:
    recording = open_recording(source, [question], task.windowing, task.model.limits)
    try:
        for place, windows in enumerate(recording.take()):
            reply = task.rule(windows[0]) if len(windows) == 1 else None
            if reply is None:
                (found,) = task.answer([task.prompt(recording, windows, question)])
                if isinstance(found, AuricleError):
                    raise found
                reply = found
            recording.replies[place, 0] = reply
            yield f"\n{reply.text}" if place else reply.text
        return task.result(recording)[0]
    finally:
        recording.close()
