"""Sound in, words out: describe, ask, choose, transcribe and chat, one clip or many, each with a receipt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError
from auricle.listen.aggregate import Aggregation
from auricle.listen.answering import Answering
from auricle.listen.hearing import Asked, Hearing
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.outputs import Answer, Choice, Description, Transcript
from auricle.listen.streaming import AnswerStream, stream_answer
from auricle.listen.tasks import Mind, Work, answers, captions, check_questions, choosing, transcripts
from auricle.weights.generation_config import MAX_AUDIO_KEY, MAX_PROMPT_KEY, NO_SPEECH_KEY, stated_settings
from auricle.weights.processor import Message, PromptWriter

if TYPE_CHECKING:
    from auricle.engine.engine import Engine
    from auricle.weights import LoadedLM

MAX_NEW_TOKENS = 128  # a caption of several sentences, or 30 s of fast speech
MAX_AUDIO_S = 30.0  # longest training clip of MiDashengLM (arXiv 2508.03983)


class AudioLM:
    """A language model with ears."""

    def __init__(
        self,
        loaded: LoadedLM,
        *,
        max_audio_s: float = MAX_AUDIO_S,
        max_prompt_s: float | None = None,
        no_speech: NoSpeechRule | None = None,
        engine: Engine | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Listen with a loaded model.

        Args:
            loaded: model, tokenizer and chat template.
            max_audio_s: longer sounds are heard in windows of at most this many seconds; at least 0.4.
            max_prompt_s: questions hear sounds of up to this length in one prompt, window beside window, for models
                that were trained on several clips; None: ``max_audio_s``, so that one window is the most.
            no_speech: when a transcript is withheld; None: never but where the model says so itself.
            engine: on the same model, to share its caches with others; None: one of its own.
            limits: budgets of every sound.

        Raises:
            ConfigError: windows too short to cut.
        """
        if not max_audio_s >= 0.4:
            raise ConfigError(f"max_audio_s is {max_audio_s}; expected at least 0.4 s, two audio tokens")
        self.loaded, self.max_audio_s, self.limits = loaded, max_audio_s, limits
        config = loaded.model.config
        self._writer = PromptWriter(
            loaded.tokenizer,
            loaded.chat_template,
            audio_token_id=config.audio_token_id,
            subsample_factor=config.subsample_factor,
            whole_tokens=config.whole_tokens,
        )
        self._mind = Mind(
            loaded,
            Answering(loaded, max_audio_s=max_audio_s, engine=engine),
            Hearing(loaded.model, self._writer, limits),
            max_audio_s=max_audio_s,
            max_prompt_s=max(max_audio_s, max_prompt_s or 0.0),
            no_speech=no_speech or NoSpeechRule(),
        )

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.loaded.identity["name"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides its answers: weights, data type, tokenizer, template, longest windows."""
        loaded, identity = self.loaded, dict(self.loaded.identity)
        if identity["sha256"] is not None:  # the same weights elsewhere, or by another name, answer alike
            for name in ("name", "path", "revision"):
                identity.pop(name, None)
        decided = {
            "identity": identity,
            "dtype": str(loaded.model.decoder.dtype),
            "tokenizer": loaded.tokenizer.to_str(),
            "chat_template": loaded.chat_template,
            "eos_token_ids": sorted(loaded.eos_token_ids),
            "max_audio_s": self.max_audio_s,
            "max_prompt_s": self._mind.max_prompt_s,
        }
        return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    @property
    def engine(self) -> Engine:
        """What answers: one for all questions to this listener, from any number of threads."""
        return self._mind.answering.engine

    def describe(
        self,
        source: Any,
        *,
        dense: bool = False,
        window_s: float | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Description:
        """Caption one sound.

        Args:
            source: path, bytes, binary file object, waveform (N,) at 16 kHz, or ``(waveform, sample_rate)``; of any
                length, files in constant memory.
            dense: one segment for each stretch that is captioned alike, instead of one for each window.
            window_s: longest window, s; None: ``max_audio_s``, the most the model was trained on.
            max_new_tokens: of each window's caption.

        Raises:
            AudioError: the sound cannot be read.
            ConfigError: a window of under 0.4 s, or longer than ``max_audio_s``.
            PromptError: no room in the model's context.
        """
        return _only(self.describe_many([source], dense=dense, window_s=window_s, max_new_tokens=max_new_tokens))

    def transcribe(
        self,
        source: Any,
        *,
        window_s: float | None = None,
        overlap_s: float | None = None,
        vad: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Transcript:
        """Write down what is said in one sound.

        Args:
            source: as for `describe`, as are errors.
            window_s: longest window, s.
            overlap_s: heard by both windows around a cut that does not fall into a pause, s, at most a third of the
                window; None: 2 s, or a fifth of shorter windows. What both wrote down is stitched where they agree.
            vad: leave windows to silero-vad in which it finds no speech; needs the extra ``vad``.
            max_new_tokens: of each window's transcript.
        """
        return _only(
            self.transcribe_many(
                [source], window_s=window_s, overlap_s=overlap_s, vad=vad, max_new_tokens=max_new_tokens
            )
        )

    def ask(
        self,
        source: Any,
        prompt: str,
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        reduce: Aggregation = "auto",
        max_new_tokens: int = MAX_NEW_TOKENS,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> str:
        """Answer a question about one sound, greedily unless ``do_sample``.

        Args:
            source: as for `describe`.
            prompt: the question; asked of every window of a sound longer than ``max_prompt_s``.
            choices: the answer is one of these, decoded token by token; `choose` weighs them as wholes.
            schema: the answer is JSON of this JSON Schema; needs the extra ``schema``.
            reduce: how the answers of a long sound become one, see `auricle.listen.aggregate.reduce_answers`.
            max_new_tokens: of each answer; this and the rest as in `auricle.engine.request.SamplingParams`.
            do_sample: draw at random.
            temperature: of the draw.
            top_p: nucleus.
            top_k: candidates, 0: all.
            repetition_penalty: 1: none.
            seed: of the draw.

        Raises: as `describe`; ConfigError for a setting out of range; PromptError for JSON cut short.
        """
        sampling = SamplingParams(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        answers = self.ask_many([source], prompt, sampling=sampling, choices=choices, schema=schema, reduce=reduce)
        return _only(answers).text

    def ask_all(
        self,
        source: Any,
        prompts: Sequence[str],
        *,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
    ) -> list[Answer]:
        """Answer several questions about one sound, which is read, encoded and prefilled once; as `ask`."""
        return _only(self.ask_all_many([source], prompts, sampling=sampling, reduce=reduce))

    def choose(
        self,
        source: Any,
        question: str,
        options: Sequence[str],
        *,
        letters: bool = False,
        per_token: bool = False,
        window_s: float | None = None,
    ) -> Choice:
        """Choose among options by how likely the model holds each as its whole answer.

        Args:
            source: as for `describe`.
            question: as asked; the options are not part of it, unless ``letters``.
            options: at least two.
            letters: list the options as ``(A) …`` in the prompt, and count every usual way to name one.
            per_token: choose by the mean log-probability per token, which favours no short option.
            window_s: longest window, s.

        Raises: as `describe`; ConfigError for options that cannot be offered.
        """
        return _only(
            self.choose_many([source], question, options, letters=letters, per_token=per_token, window_s=window_s)
        )

    def stream(
        self,
        source: Any,
        prompt: str,
        *,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> AnswerStream:
        """Answer a question about one sound piece by piece, as the words come.

        Returns:
            An iterator over text, each window of a long sound on its own line. Afterwards ``.answer`` is the whole.

        Raises: as `ask`, while it is iterated.
        """
        pieces = stream_answer(
            self._mind, source, prompt, sampling=sampling or SamplingParams(), reduce=reduce, window_s=window_s
        )
        return AnswerStream(pieces)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> str:
        """Continue a conversation: any turns, any order of text and audio, any number of clips, each heard whole.

        Args:
            messages: ``{"role": "system" | "user" | "assistant", "content": …}``; the content is a str or a list of
                ``{"type": "text", "text": …}`` and ``{"type": "audio", "audio": source}``.
            max_new_tokens: this and all that follows as for `ask`.

        Raises: as `ask`.
        """
        sampling = SamplingParams(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        (reply,) = self._mind.answering.generating(sampling)([self._writer.write(messages, limits=self.limits)])
        return reply.text

    def describe_many(
        self,
        sources: Iterable[Any],
        *,
        batch_size: int = 8,
        dense: bool = False,
        window_s: float | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Iterator[Description | AuricleError]:
        """Caption many sounds; one that fails yields its error in its place, and the others go on.

        Args:
            sources: as for `describe`; taken as they are needed.
            batch_size: windows in one batch.
            dense: see `describe`.
            window_s: see `describe`.
            max_new_tokens: of each window's caption.

        Yields:
            Results in the order of the sources.
        """
        work = captions(self._mind, dense=dense, window_s=window_s, max_new_tokens=max_new_tokens)
        return self._each(sources, work, batch_size)

    def transcribe_many(
        self,
        sources: Iterable[Any],
        *,
        batch_size: int = 8,
        window_s: float | None = None,
        overlap_s: float | None = None,
        vad: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Iterator[Transcript | AuricleError]:
        """Transcribe many sounds; as `describe_many` and `transcribe`."""
        work = transcripts(self._mind, window_s=window_s, overlap_s=overlap_s, vad=vad, max_new_tokens=max_new_tokens)
        return self._each(sources, work, batch_size)

    def ask_many(
        self,
        sources: Iterable[Any],
        prompt: str,
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[Answer | AuricleError]:
        """Ask one question about many sounds; as `describe_many` and `ask`."""
        work = answers(
            self._mind,
            [prompt],
            sampling=sampling or SamplingParams(),
            choices=choices,
            schema=schema,
            reduce=reduce,
            window_s=window_s,
        )
        found = self._each(sources, work, batch_size)
        return (each if isinstance(each, AuricleError) else each[0] for each in found)

    def ask_all_many(
        self,
        sources: Iterable[Any],
        prompts: Sequence[str],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """Ask the same questions about many sounds; as `describe_many` and `ask_all`."""
        work = answers(self._mind, prompts, sampling=sampling or SamplingParams(), reduce=reduce, window_s=window_s)
        return self._each(sources, work, batch_size)

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """Ask every sound questions of its own, each sound read and encoded once; as `describe_many` and `ask_all`.

        Args:
            requests: sounds, each with its questions; taken as they are needed.
            batch_size: questions in one batch, of any sounds.
            sampling: how tokens are chosen; None: greedily.
            reduce: see `ask`.
            window_s: see `describe`.
        """
        work = answers(self._mind, None, sampling=sampling or SamplingParams(), reduce=reduce, window_s=window_s)
        return self._hear(map(_asked, requests), work, batch_size)

    def choose_many(
        self,
        sources: Iterable[Any],
        question: str,
        options: Sequence[str],
        *,
        batch_size: int = 8,
        letters: bool = False,
        per_token: bool = False,
        window_s: float | None = None,
    ) -> Iterator[Choice | AuricleError]:
        """Choose among the same options for many sounds; as `describe_many` and `choose`."""
        work = choosing(self._mind, question, options, letters=letters, per_token=per_token, window_s=window_s)
        return self._each(sources, work, batch_size)

    def _each(self, sources: Iterable[Any], work: Work, batch_size: int) -> Iterator[Any]:
        return self._hear((Asked(source, work.questions) for source in sources), work, batch_size)

    def _hear(self, asked: Iterable[Asked], work: Work, batch_size: int) -> Iterator[Any]:
        return (work.result(heard) for heard in self._mind.hearing.hear(asked, work.task, batch_size))


def load(
    name: str = "auricle-tiny",
    *,
    device: str = "cpu",
    dtype: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    quantize: str | None = None,
) -> AudioLM:
    """Load an audio language model.

    Args:
        name: embedded name, hub id, or folder in a published layout.
        device: ``cpu``, ``cuda``, …
        dtype: ``float32``, ``bfloat16`` or ``float16``; None or ``auto``: the checkpoint's own, bfloat16 where it is
            stored so, else float32.
        revision: of a hub id: branch, tag or commit.
        adapter: folder or hub id of a PEFT adapter to merge.
        quantize: ``int8``, ``int8-dynamic``, ``int4`` or ``fp8``, see `auricle.weights.quantize`; None: as stored.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights.
    """
    from auricle.weights import load_midashenglm

    loaded = load_midashenglm(name, device=device, dtype=dtype, revision=revision, adapter=adapter, quantize=quantize)
    stated = stated_settings(Path(str(loaded.identity["path"])))
    return AudioLM(
        loaded,
        max_audio_s=stated.get(MAX_AUDIO_KEY, MAX_AUDIO_S),
        max_prompt_s=stated.get(MAX_PROMPT_KEY),
        no_speech=NoSpeechRule(stated.get(NO_SPEECH_KEY)),
    )


def _asked(request: tuple[Any, Sequence[str]]) -> Asked:
    source, questions = request
    check_questions(questions)
    return Asked(source, questions)


def _only(results: Iterator[Any]) -> Any:
    (result,) = results
    if isinstance(result, AuricleError):
        raise result
    return result
