"""Audio in, text out: describe, ask, choose, transcribe and chat, one source or many, each result with a receipt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from auricle.audio.limits import DEFAULT_LIMITS, MAX_S, Limits, check_seconds
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, check_single
from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.engine.audio_cache import cache_sizes_mb
from auricle.engine.engine import Engine, not_copied
from auricle.engine.request import SamplingOptions, SamplingParams
from auricle.errors import AuricleError, ConfigError, check_number
from auricle.listen.aggregate import Aggregation
from auricle.listen.capabilities import VERBS, Capabilities, Journal
from auricle.listen.confidence import Calibration, ConfidenceRule
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.outputs import Answer, Choice, Description, Segment, Transcript
from auricle.listen.pipeline import check_questions, each_source, process, reply_of
from auricle.listen.streaming import AnswerStream, stream_answer
from auricle.listen.verbs import Captioning, Choosing, PromptedTranscription, Questions
from auricle.weights.loaders import prompt_writer
from auricle.weights.processor import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from typing_extensions import Self, Unpack

    from auricle.encode.receipt import TokenGrid
    from auricle.weights import LoadedLM

MAX_NEW_TOKENS = 128  # a caption of several sentences, or 30 s of fast speech
MAX_AUDIO_S = 30.0  # longest training clip of MiDashengLM (arXiv 2508.03983)
_MAX_BATCH = 16  # prompts that the engine answers at once

Result = TypeVar("Result")


class AudioLM:
    """An audio language model.

    A *source* is a path, bytes, a binary file object, a waveform (N,) at 16 kHz, or ``(waveform, sample_rate)``. It may
    be of any length from 0.1 s: files are processed in windows, in constant memory. Every result has a receipt, which
    states what of the source was processed, and how much it was padded where it is shorter than an audio token.
    """

    def __init__(
        self,
        loaded: LoadedLM,
        *,
        max_audio_s: float = MAX_AUDIO_S,
        max_prompt_s: float | None = None,
        no_speech: NoSpeechRule | None = None,
        unsure_below: float | None = None,
        verb_limits: Mapping[str, str] | None = None,
        language_prompt: str | None = None,
        engine: Engine | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Use a loaded model.

        Args:
            loaded: model, tokenizer and chat template.
            max_audio_s: longer sources are processed in windows of at most this many seconds; at least 0.4.
            max_prompt_s: a source of up to this length goes into one prompt of a question, window beside window, for
                models that were trained on several clips; None: ``max_audio_s``, so that a prompt has one window.
            no_speech: when a transcript is withheld; None: only where the model itself answers "no speech".
            unsure_below: a confidence (see `auricle.listen.Answer`) below this is reported as low; None: none is.
            verb_limits: what the model was not trained for, by verb, as its card states it: ``transcribe``, ``schema``
                for answers of a JSON schema. It is noted in the receipts of that verb.
            language_prompt: for transcripts in a known language, with ``{language}`` in it; None: the model was trained
                on none.
            engine: on the same model, to share its caches with others; None: a new one.
            limits: budgets of every source.

        Raises:
            ConfigError: windows too short to cut.
        """
        check_number("max_audio_s", max_audio_s, least=0.4, most=MAX_S, expected="at least 0.4 s, two audio tokens")
        if max_prompt_s is not None:
            check_number("max_prompt_s", max_prompt_s, least=0, most=MAX_S)
        self.loaded, self.max_audio_s, self.limits = loaded, max_audio_s, limits
        self.max_prompt_s = max(max_audio_s, max_prompt_s or 0.0)
        self.no_speech = no_speech or NoSpeechRule()
        self.unsure_below, self.verb_limits = unsure_below, dict(verb_limits or {})
        self.calibration = Calibration()
        # Less confident transcripts are taken for speech that the card says the model cannot transcribe.
        self.open_speech_below = (unsure_below or 0.0) if "transcribe" in self.verb_limits else None
        self._language_prompt = language_prompt
        self.prompt_writer = prompt_writer(loaded)
        # Caches of more than one batch are of no use, since all questions about a source are asked at once.
        audio_mb, prefix_mb = cache_sizes_mb(loaded.model, max_audio_s, _MAX_BATCH)
        self.on_audio: Callable[[float], None] | None = None  # called with seconds of audio as they are processed
        # Called with the name of a source and each segment of its transcript or dense description, once it is final.
        self.on_segment: Callable[[str, Segment], None] | None = None
        # Keeps the replies of a server, so that none is asked for twice; models of this machine have no use for it.
        self.journal: Journal | None = None
        self.engine = engine or Engine(loaded, max_batch=_MAX_BATCH, audio_cache_mb=audio_mb, prefix_cache_mb=prefix_mb)

    def __reduce__(self) -> NoReturn:
        raise not_copied(self.model)

    def __copy__(self) -> Self:
        """The same weights and engine, for other limits and reports; a deep copy is refused."""
        own = object.__new__(type(self))
        own.__dict__.update(self.__dict__)
        return own

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.loaded.identity["name"])

    def confidence_rule(self, kind: str) -> ConfidenceRule:
        """How the confidence of a ``caption``, ``answer``, ``transcript`` or ``label`` is made, and when it is low."""
        return ConfidenceRule(getattr(self.calibration, kind), self.unsure_below)

    @property
    def capabilities(self) -> Capabilities:
        """What it can be asked for."""
        return own_capabilities(self.max_audio_s)

    @property
    def token_grid(self) -> TokenGrid:
        """How it makes audio tokens, for receipts."""
        return self.loaded.model.config

    @property
    def answer_tokens(self) -> tuple[Tokenizer, int]:
        """The tokenizer of answers, and the token that ends one."""
        return self.loaded.tokenizer, min(self.loaded.eos_token_ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides its answers: weights, data type, tokenizer, template, longest windows."""
        loaded, identity = self.loaded, dict(self.loaded.identity)
        if identity["sha256"] is not None:  # the same weights give the same answers at any path, under any name
            for name in ("name", "path", "revision"):
                identity.pop(name, None)
        decided = {
            "identity": identity,
            "dtype": str(loaded.model.decoder.dtype),
            "tokenizer": loaded.tokenizer.to_str(),
            "chat_template": loaded.chat_template,
            "eos_token_ids": sorted(loaded.eos_token_ids),
            "max_audio_s": self.max_audio_s,
            "max_prompt_s": self.max_prompt_s,
        }
        return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def describe(
        self,
        source: AudioSource,
        *,
        dense: bool = False,
        window_s: float | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Description:
        """Caption one source.

        Args:
            source: see `AudioLM`.
            dense: neighbouring windows with the same caption are one segment.
            window_s: longest window, s; None: ``max_audio_s``, the longest the model was trained on.
            max_new_tokens: of each window's caption.

        Raises:
            AudioError: the source cannot be read.
            ConfigError: a window of under 0.4 s, or longer than ``max_audio_s``.
            PromptError: no room in the model's context.
        """
        check_single(source, "describe_many")
        (found,) = self.describe_many([source], dense=dense, window_s=window_s, max_new_tokens=max_new_tokens)
        return _unwrap(found)

    def transcribe(
        self,
        source: AudioSource,
        *,
        window_s: float | None = None,
        overlap_s: float | None = None,
        vad: bool = False,
        language: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Transcript:
        """Write down the words spoken in one source.

        Of a model whose card states a limit of its transcripts, speech that it takes for another kind than it was
        trained on has no words in the text, see `auricle.listen.Transcript`.

        Args:
            source: as for `describe`, as are errors.
            window_s: longest window, s.
            overlap_s: of two windows around a cut that does not fall into a pause, s, at most a third of the window;
                None: 2 s, or a fifth of shorter windows. The transcripts are stitched where they agree.
            vad: leave out windows in which silero-vad finds no speech; needs the extra ``vad``.
            language: that is spoken, as ``en`` or ``zh``, where the model's prompt can name it: of MiDashengLM and
                Whisper, not of models trained with Auricle.
            max_new_tokens: of each window's transcript; None: 128, and of Whisper all that its context holds.
        """
        options: dict[str, Any] = {"window_s": window_s, "overlap_s": overlap_s, "vad": vad, "language": language}
        check_single(source, "transcribe_many")
        (found,) = self.transcribe_many([source], **options, max_new_tokens=max_new_tokens)
        return _unwrap(found)

    def ask(
        self,
        source: AudioSource,
        prompt: str,
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        reduce: Aggregation = "auto",
        **sampling: Unpack[SamplingOptions],
    ) -> Answer:
        """Answer a question about one source, greedily unless ``do_sample``; ``str`` of the answer is its text.

        Args:
            source: as for `describe`.
            prompt: the question; about every window of a source longer than ``max_prompt_s``.
            choices: the answer is one of these, generated token by token; `choose` scores them as wholes.
            schema: the answer is JSON of this JSON Schema, parsed as ``.value``; needs the extra ``schema``.
            reduce: how the answers about the windows become one, see `auricle.listen.aggregate.aggregate_answers`.
            sampling: ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_p``, ``top_k``, ``repetition_penalty``,
                ``seed`` and the other fields of `auricle.engine.SamplingParams`.

        Raises: as `describe`; ConfigError for an unknown option or one out of range; PromptError for JSON cut short.
        """
        params = SamplingParams.of(sampling)
        check_single(source, "ask_many")
        (found,) = self.ask_many([source], prompt, sampling=params, choices=choices, schema=schema, reduce=reduce)
        return _unwrap(found)

    def ask_all(
        self,
        source: AudioSource,
        prompts: Sequence[str],
        *,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
    ) -> list[Answer]:
        """Answer several questions about one source, which is read, encoded and prefilled once; as `ask`."""
        check_single(source, "ask_all_many")
        (found,) = self.ask_all_many([source], prompts, sampling=sampling, reduce=reduce)
        return _unwrap(found)

    def choose(
        self,
        source: AudioSource,
        question: str,
        options: Sequence[str],
        *,
        letters: bool = False,
        per_token: bool = False,
        window_s: float | None = None,
    ) -> Choice:
        """Choose among options by the log-probability of each as the whole answer.

        Args:
            source: as for `describe`.
            question: without the options; they are not part of the prompt, unless ``letters``.
            options: at least two.
            letters: list the options as ``(A) …`` in the prompt, and count every usual spelling of one.
            per_token: choose by the mean log-probability per token, which favours no short option.
            window_s: longest window, s.

        Raises: as `describe`; ConfigError for options that cannot be used.
        """
        settings: dict[str, Any] = {"letters": letters, "per_token": per_token, "window_s": window_s}
        check_single(source, "choose_many")
        (found,) = self.choose_many([source], question, options, **settings)
        return _unwrap(found)

    def stream(
        self,
        source: AudioSource,
        prompt: str,
        *,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> AnswerStream:
        """Answer a question about one source piece by piece, while the answer is generated.

        Returns:
            An iterator over text, each window of a long source on its own line. Afterwards ``.answer`` is the whole.

        Raises: as `ask`; what concerns the source while it is iterated.
        """
        check_single(source, "ask_many")
        task = Questions(self, sampling, reduce=reduce, window_s=window_s)
        return AnswerStream(stream_answer(task, source, *check_questions([prompt])))

    def chat(self, messages: Sequence[Message], **sampling: Unpack[SamplingOptions]) -> str:
        """Continue a conversation: any turns, any order of text and audio, any number of clips, none cut into windows.

        Args:
            messages: ``{"role": "system" | "user" | "assistant", "content": …}``; the content is a str or a list of
                ``{"type": "text", "text": …}`` and ``{"type": "audio", "audio": source}``.
            sampling: as for `ask`.

        Raises: as `ask`.
        """
        params = SamplingParams.of(sampling)
        prompt = self.prompt_writer.write(messages, limits=self.limits)
        for number, waveform in enumerate(prompt.clips, 1):
            check_seconds(len(waveform) / SAMPLE_RATE, f"clip {number}")
        (found,) = self.engine.generate([prompt], params)
        return reply_of(found).text

    def describe_many(
        self,
        sources: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        dense: bool = False,
        window_s: float | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Iterator[Description | AuricleError]:
        """Caption many sources, in order; one that fails yields its error in its place, and the others go on.

        As `describe`; sources are taken as they are needed, and ``batch_size`` windows are one batch.
        """
        task = Captioning(self, dense=dense, window_s=window_s, max_new_tokens=max_new_tokens)
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
        """Transcribe many sources; as `describe_many` and `transcribe`."""
        most = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        task = PromptedTranscription(self, window_s=window_s, overlap_s=overlap_s, vad=vad, max_new_tokens=most)
        return process(task, each_source(sources, [self._transcribe_prompt(language)], "transcribe"), batch_size)

    def _transcribe_prompt(self, language: str | None) -> str:
        """The prompt of transcripts.

        Raises:
            ConfigError: no code of a language, or the model's prompt names none.
        """
        if language is None:
            return TRANSCRIBE_PROMPT
        if self._language_prompt is None:
            raise ConfigError(
                f"{self.model} was trained on a prompt for transcripts that names no language; leave out {language!r}"
            )
        if not re.fullmatch("[a-z]{2,3}", language):
            raise ConfigError(f"language is {language!r}; expected a code of two or three letters, as en or zh")
        return self._language_prompt.format(language=language)

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
        """Ask one question about many sources; as `describe_many` and `ask`."""
        task = Questions(self, sampling, reduce=reduce, window_s=window_s, choices=choices, schema=schema)
        found = process(task, each_source(sources, check_questions([prompt]), "ask"), batch_size)
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
        """Ask the same questions about many sources; as `describe_many` and `ask_all`."""
        task = Questions(self, sampling, reduce=reduce, window_s=window_s)
        return process(task, each_source(sources, check_questions(prompts), "ask_all"), batch_size)

    def ask_each(
        self,
        requests: Iterable[tuple[AudioSource, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """Ask different questions about each source, which is read and encoded once; as `describe_many`, `ask_all`.

        Args:
            requests: sources, each with its questions; taken as they are needed.
            batch_size: questions in one batch, of any sources.
            sampling: how tokens are chosen; None: greedily.
            reduce: see `ask`.
            window_s: see `describe`.
        """
        task = Questions(self, sampling, reduce=reduce, window_s=window_s)
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
        """Choose among the same options for many sources; as `describe_many` and `choose`."""
        task = Choosing(self, question, options, letters=letters, per_token=per_token, window_s=window_s)
        return process(task, each_source(sources, [task.options.prompt], "choose"), batch_size)


def own_capabilities(max_audio_s: float) -> Capabilities:
    """What a model of Auricle's own can be asked for."""
    return Capabilities(verbs=VERBS, max_audio_s=max_audio_s)


def _unwrap(found: Result | AuricleError) -> Result:
    if isinstance(found, AuricleError):
        raise found
    return found
