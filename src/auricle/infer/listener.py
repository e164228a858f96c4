"""Sound in, words out: describe, ask, transcribe and chat, one clip or many, each with a receipt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.audio.decode import as_clip
from auricle.audio.facts import SILENCE, Clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.batches import prefetch
from auricle.data.wording import CAPTION_PROMPT, NO_SPEECH, TRANSCRIBE_PROMPT
from auricle.errors import AudioError, AuricleError, ConfigError
from auricle.infer.engine import Decoding, check_room, generate
from auricle.infer.prompt import Message, Prompt, PromptWriter
from auricle.infer.receipt import Receipt, write_receipt
from auricle.infer.results import Answer, Description, Segment, Transcript
from auricle.infer.windows import quiet_windows

if TYPE_CHECKING:
    from auricle.weights import LoadedLM

SILENT_CAPTION = "Silence."
MAX_NEW_TOKENS = 128  # a caption of several sentences, or 30 s of fast speech
MAX_AUDIO_S = 30.0  # longest training clip of MiDashengLM (arXiv 2508.03983)
MAX_AUDIO_KEY = "auricle_max_audio_s"  # of generation_config.json, where a model was trained on other lengths
_DECODERS = 2  # threads that decode ahead; soundfile and soxr release the interpreter


@dataclass(frozen=True, slots=True)
class _Task:
    """One question to every clip, and how to put the answers of a long clip together."""

    question: str
    join: str
    decoding: Decoding
    silent: str | None = None  # the answer to digital silence, for which no model is needed
    nothing: str | None = None  # an answer that means the empty text


class _Job:
    """A clip on its way: its windows, and the answers that are there already."""

    def __init__(self, clip: Clip, windows: list[tuple[int, int]]) -> None:
        self.clip, self.windows = clip, windows
        self.answers: dict[int, tuple[str, float | None]] = {}

    def part(self, window: int) -> Clip:
        start, stop = self.windows[window]
        return Clip(self.clip.waveform[start:stop], self.clip.facts)


class Listener:
    """A language model with ears."""

    def __init__(self, loaded: LoadedLM, *, max_audio_s: float = MAX_AUDIO_S, limits: Limits = DEFAULT_LIMITS) -> None:
        """Listen with a loaded model.

        Args:
            loaded: model, tokenizer and chat template.
            max_audio_s: longer sounds are heard in windows of at most this many seconds; at least 0.4.
            limits: budgets of every sound.

        Raises:
            ConfigError: windows too short to cut.
        """
        if not max_audio_s >= 0.4:
            raise ConfigError(f"max_audio_s is {max_audio_s}; expected at least 0.4 s, two audio tokens")
        self.loaded, self.max_audio_s, self.limits = loaded, max_audio_s, limits
        self._factor = loaded.model.config.subsample_factor
        self._writer = PromptWriter(
            loaded.tokenizer,
            loaded.chat_template,
            audio_token_id=loaded.model.config.audio_token_id,
            subsample_factor=self._factor,
            whole_tokens=loaded.model.config.whole_tokens,
        )

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.loaded.identity["name"])

    def describe(self, source: Any, *, max_new_tokens: int = MAX_NEW_TOKENS) -> Description:
        """Caption one sound.

        Args:
            source: path, bytes, binary file object, waveform (N,) at 16 kHz, or ``(waveform, sample_rate)``.
            max_new_tokens: of each segment's caption.

        Raises:
            AudioError: the sound cannot be read.
            PromptError: no room in the model's context.
        """
        return _only(self.describe_many([source], max_new_tokens=max_new_tokens))

    def transcribe(self, source: Any, *, max_new_tokens: int = MAX_NEW_TOKENS) -> Transcript:
        """Write down what is said in one sound; arguments and errors as `describe`."""
        return _only(self.transcribe_many([source], max_new_tokens=max_new_tokens))

    def ask(
        self,
        source: Any,
        prompt: str,
        *,
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
            prompt: the question; asked of every segment of a long sound.
            max_new_tokens: of each answer; this and the rest as in `auricle.infer.engine.Decoding`.
            do_sample: draw at random.
            temperature: of the draw.
            top_p: nucleus.
            top_k: candidates, 0: all.
            repetition_penalty: 1: none.
            seed: of the draw.

        Raises: as `describe`; ConfigError for a setting out of range.
        """
        decoding = Decoding(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        return _only(self.ask_many([source], prompt, decoding=decoding)).text

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
            max_new_tokens: this and the rest as for `ask`.
            do_sample: see `ask`.
            temperature: see `ask`.
            top_p: see `ask`.
            top_k: see `ask`.
            repetition_penalty: see `ask`.
            seed: see `ask`.

        Raises: as `ask`.
        """
        decoding = Decoding(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        return self._generate([self._writer.write(messages, limits=self.limits)], decoding)[0][0]

    def describe_many(
        self, sources: Iterable[Any], *, batch_size: int = 8, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Iterator[Description | AuricleError]:
        """Caption many sounds; one that fails yields its error in its place, and the others go on.

        Args:
            sources: as for `describe`; taken as they are needed.
            batch_size: segments in one batch.
            max_new_tokens: of each segment's caption.

        Yields:
            Results in the order of the sources.
        """
        decoding = Decoding(max_new_tokens=max_new_tokens)
        task = _Task(CAPTION_PROMPT, " ", decoding, silent=SILENT_CAPTION)
        return self._run(sources, task, batch_size, _description)

    def transcribe_many(
        self, sources: Iterable[Any], *, batch_size: int = 8, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Iterator[Transcript | AuricleError]:
        """Transcribe many sounds; as `describe_many`."""
        decoding = Decoding(max_new_tokens=max_new_tokens)
        task = _Task(TRANSCRIBE_PROMPT, " ", decoding, silent="", nothing=NO_SPEECH)
        return self._run(sources, task, batch_size, _transcript)

    def ask_many(
        self, sources: Iterable[Any], prompt: str, *, batch_size: int = 8, decoding: Decoding | None = None
    ) -> Iterator[Answer | AuricleError]:
        """Ask one question about many sounds; as `describe_many`."""
        return self._run(sources, _Task(prompt, "; ", decoding or Decoding()), batch_size, _answer)

    def _run(
        self,
        sources: Iterable[Any],
        task: _Task,
        batch_size: int,
        finish: Callable[[_Task, tuple[Segment, ...], Receipt], Any],
    ) -> Iterator[Any]:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        for heard in self._hear(sources, task, batch_size):
            if isinstance(heard, AuricleError):
                yield heard
            else:
                segments = _segments(heard, task)
                yield finish(task, segments, self._receipt(heard))

    def _hear(self, sources: Iterable[Any], task: _Task, batch_size: int) -> Iterator[_Job | AuricleError]:
        """Clips with all their answers, in order; batches are filled across clips."""
        waiting: deque[_Job | AuricleError] = deque()
        batch: list[tuple[_Job, int, Prompt]] = []
        for loaded in prefetch(self._load, sources, depth=2 * _DECODERS, workers=_DECODERS):
            job, pending = self._prepare(loaded, task)
            waiting.append(job)
            batch.extend(pending)
            while len(batch) >= batch_size:
                self._answer(batch[:batch_size], task)
                del batch[:batch_size]
            while waiting and _is_done(waiting[0]):
                yield waiting.popleft()
        while batch:
            self._answer(batch[:batch_size], task)
            del batch[:batch_size]
        yield from waiting

    def _load(self, source: Any) -> Clip | AuricleError:
        try:
            return as_clip(source, limits=self.limits)
        except AuricleError as error:
            return error
        except Exception as error:  # one hostile file must not end the work on all others
            return AudioError(f"{_name(source)}: cannot be read ({type(error).__name__}: {error}); give other audio")

    def _prepare(
        self, loaded: Clip | AuricleError, task: _Task
    ) -> tuple[_Job | AuricleError, list[tuple[_Job, int, Prompt]]]:
        if isinstance(loaded, AuricleError):
            return loaded, []
        job = _Job(loaded, quiet_windows(loaded.waveform, int(self.max_audio_s * SAMPLE_RATE)))
        pending = []
        try:
            for window in range(len(job.windows)):
                part = job.part(window)
                if task.silent is not None and float(np.abs(part.waveform).max(initial=0.0)) <= SILENCE:
                    job.answers[window] = (task.silent, None)
                    continue
                prompt = self._writer.write([_question(part, task.question)], limits=self.limits)
                check_room(self.loaded.model, prompt, task.decoding.max_new_tokens)
                pending.append((job, window, prompt))
        except AuricleError as error:
            return type(error)(f"{loaded.facts.name}: {error}"), []
        return job, pending

    def _answer(self, batch: list[tuple[_Job, int, Prompt]], task: _Task) -> None:
        answers = self._generate([prompt for _, _, prompt in batch], task.decoding)
        for (job, window, _), (text, logprob) in zip(batch, answers, strict=True):
            job.answers[window] = (text, logprob)

    def _generate(self, prompts: list[Prompt], decoding: Decoding) -> list[tuple[str, float]]:
        generations = generate(
            self.loaded.model,
            prompts,
            eos_token_ids=self.loaded.eos_token_ids,
            pad_token_id=self.loaded.pad_token_id,
            **asdict(decoding),
        )
        return [(self.loaded.tokenizer.decode(g.ids).strip(), g.mean_logprob) for g in generations]

    def _receipt(self, job: _Job) -> Receipt:
        ruled = [job.windows[w] for w, (_, logprob) in sorted(job.answers.items()) if logprob is None]
        receipt = write_receipt(
            job.clip,
            job.windows,
            subsample_factor=self._factor,
            whole_tokens=self.loaded.model.config.whole_tokens,
        )
        if not ruled:
            return receipt
        times = ", ".join(f"{start / SAMPLE_RATE:g}-{stop / SAMPLE_RATE:g} s" for start, stop in ruled)
        note = f"answered by rule, without the model, because nothing exceeds -90 dB of full scale: {times}"
        return replace(receipt, notes=(*receipt.notes, note))


def load(
    name: str = "auricle-tiny",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    adapter: str | None = None,
) -> Listener:
    """Load an audio language model.

    Args:
        name: embedded name, hub id, or folder in a published layout.
        device: ``cpu``, ``cuda``, …
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: of a hub id: branch, tag or commit.
        adapter: folder or hub id of a PEFT adapter to merge.

    Raises:
        WeightsError: unknown, unsafe or unfitting weights.
    """
    from auricle.weights import load_midashenglm

    loaded = load_midashenglm(name, device=device, dtype=dtype, revision=revision, adapter=adapter)
    return Listener(loaded, max_audio_s=_max_audio_s(Path(str(loaded.identity["path"]))))


def _max_audio_s(folder: Path) -> float:
    from auricle.weights.safe import read_json

    file = folder / "generation_config.json"
    stated = read_json(file).get(MAX_AUDIO_KEY, MAX_AUDIO_S) if file.is_file() else MAX_AUDIO_S
    if not isinstance(stated, int | float):
        raise ConfigError(f"{file}: {MAX_AUDIO_KEY} is {stated!r}; expected seconds")
    return float(stated)


def _question(clip: Clip, text: str) -> Message:
    # Audio first is the trained order.
    return {"role": "user", "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": text}]}


def _is_done(job: _Job | AuricleError) -> bool:
    return isinstance(job, AuricleError) or len(job.answers) == len(job.windows)


def _segments(job: _Job, task: _Task) -> tuple[Segment, ...]:
    segments = []
    for window, (start, stop) in enumerate(job.windows):
        text, logprob = job.answers[window]
        if task.nothing is not None and text.rstrip(".").lower() == task.nothing:
            text = ""
        origin = job.clip.facts.start_s
        segments.append(
            Segment(
                start_s=round(origin + start / SAMPLE_RATE, 4),
                stop_s=round(origin + stop / SAMPLE_RATE, 4),
                text=text,
                mean_logprob=None if logprob is None else round(logprob, 4),
            )
        )
    return tuple(segments)


def _distinct(segments: Sequence[Segment], join: str) -> str:
    return join.join(dict.fromkeys(segment.text for segment in segments if segment.text))


def _description(task: _Task, segments: tuple[Segment, ...], receipt: Receipt) -> Description:
    return Description(caption=_distinct(segments, task.join), segments=segments, receipt=receipt)


def _answer(task: _Task, segments: tuple[Segment, ...], receipt: Receipt) -> Answer:
    return Answer(text=_distinct(segments, task.join), segments=segments, receipt=receipt)


def _transcript(task: _Task, segments: tuple[Segment, ...], receipt: Receipt) -> Transcript:
    # Words repeated in neighbouring segments were said twice.
    text = task.join.join(segment.text for segment in segments if segment.text)
    return Transcript(text=text, segments=segments, receipt=receipt)


def _only(results: Iterator[Any]) -> Any:
    (result,) = results
    if isinstance(result, AuricleError):
        raise result
    return result


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else f"<{type(source).__name__}>"
