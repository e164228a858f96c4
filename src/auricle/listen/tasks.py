"""What each verb asks of a model, and what it makes of the replies: captions, transcripts, answers, choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from auricle.audio.resample import SAMPLE_RATE
from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.engine.json_schema import JsonRules, read_answer
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError
from auricle.listen.aggregate import Aggregation, check_reduction
from auricle.listen.answering import Answering
from auricle.listen.conclusions import answer_heard, choose_heard, describe_heard, transcribe_heard
from auricle.listen.hearing import Heard, Hearing, Reply, Task
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.options import OptionTrie, check_options, write_options
from auricle.listen.outputs import Answer, Choice, Description, Transcript
from auricle.listen.windows import Window, check_overlap

if TYPE_CHECKING:
    from auricle.engine.request import Constraint
    from auricle.weights import LoadedLM

SILENT_CAPTION = "Silence."
OVERLAP_S = 2.0  # of a transcript's windows around cuts into sound: longer than a word, and time to recognise it
_SILENT = "nothing exceeds -90 dB of full scale"


@dataclass(frozen=True, slots=True)
class Mind:
    """A model, and what it was trained to hear."""

    loaded: LoadedLM
    answering: Answering
    hearing: Hearing
    max_audio_s: float  # longest window
    max_prompt_s: float  # longest sound heard in one prompt, window beside window
    no_speech: NoSpeechRule

    def samples(self, window_s: float | None) -> int:
        """Samples of the longest window.

        Raises:
            ConfigError: longer than the model was trained on.
        """
        if window_s is not None and not window_s <= self.max_audio_s:
            raise ConfigError(
                f"window_s is {window_s:g}; the model was trained on at most {self.max_audio_s:g} s, expected no more"
            )
        return int((window_s or self.max_audio_s) * SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of every sound unless it has questions of its own, and what becomes of the replies."""

    questions: tuple[str, ...]
    task: Task
    conclude: Callable[[Heard], Any]

    def result(self, heard: Heard | AuricleError) -> Any:
        """What a sound gives: a result, or an error that names it."""
        if isinstance(heard, AuricleError):
            return heard
        try:
            return self.conclude(heard)
        except AuricleError as error:
            return type(error)(f"{heard.facts.name}: {error}")


def captions(mind: Mind, *, dense: bool, window_s: float | None, max_new_tokens: int) -> Work:
    """Ask for a caption; digital silence is captioned by rule."""
    task = Task(
        answer=mind.answering.generating(SamplingParams(max_new_tokens=max_new_tokens)),
        max_new_tokens=max_new_tokens,
        max_samples=mind.samples(window_s),
        rule=lambda window: Reply(text=SILENT_CAPTION, because=_SILENT) if window.is_silent else None,
    )

    def conclude(heard: Heard) -> Description:
        return describe_heard(heard, mind.hearing, dense=dense)

    return Work((CAPTION_PROMPT,), task, conclude)


def transcripts(mind: Mind, *, window_s: float | None, overlap_s: float | None, vad: bool, max_new_tokens: int) -> Work:
    """Ask for what is said; windows overlap around cuts into sound, and those of silence are empty by rule."""
    if overlap_s is None:
        overlap_s = min(OVERLAP_S, (window_s or mind.max_audio_s) / 5)
    max_samples, overlap_samples = mind.samples(window_s), int(overlap_s * SAMPLE_RATE)
    check_overlap(max_samples, overlap_samples)
    task = Task(
        answer=mind.answering.transcribing(SamplingParams(max_new_tokens=max_new_tokens), mind.no_speech),
        max_new_tokens=max_new_tokens,
        max_samples=max_samples,
        overlap_samples=overlap_samples,
        silence_apart=True,
        rule=_speechless(vad),
    )

    def conclude(heard: Heard) -> Transcript:
        return transcribe_heard(heard, mind.hearing)

    return Work((TRANSCRIBE_PROMPT,), task, conclude)


def answers(
    mind: Mind,
    prompts: Sequence[str] | None,
    *,
    sampling: SamplingParams,
    choices: Sequence[str] | None = None,
    schema: Mapping[str, Any] | None = None,
    reduce: Aggregation = "auto",
    window_s: float | None = None,
) -> Work:
    """Ask questions, whose answers may be bound to choices or to a schema; None: every sound has its own.

    Raises:
        ConfigError: no question, both choices and schema, or unusable ones.
        MissingExtra: a schema without llguidance.
    """
    check_reduction(reduce)
    if prompts is not None:
        check_questions(prompts)
    constraint = _constraint(mind, choices, schema)
    if constraint is not None and reduce == "auto":
        reduce = "majority"  # joined answers would be none of those allowed
    task = Task(
        answer=mind.answering.generating(sampling, constraint),
        max_new_tokens=sampling.max_new_tokens,
        max_samples=mind.samples(window_s),
        together_samples=int(mind.max_prompt_s * SAMPLE_RATE),
    )

    def conclude(heard: Heard) -> list[Answer]:
        found = [
            answer_heard(heard, mind.hearing, number, prompt, reduce, mind.answering.asking_text(mind.hearing))
            for number, prompt in enumerate(heard.questions)
        ]
        if schema is None:
            return found
        return [replace(answer, value=read_answer(answer.text, schema, sampling.max_new_tokens)) for answer in found]

    return Work(tuple(prompts or ()), task, conclude)


def check_questions(questions: Sequence[str]) -> None:
    """Refuse what is no list of questions.

    Raises:
        ConfigError: a text, or an empty list.
    """
    if isinstance(questions, str) or not questions:
        raise ConfigError(f"the questions are {questions!r}; expected a list of at least one")


def choosing(
    mind: Mind, question: str, options: Sequence[str], *, letters: bool, per_token: bool, window_s: float | None
) -> Work:
    """Weigh options as answers to a question.

    Raises:
        ConfigError: options that cannot be offered.
    """
    offered = write_options(mind.loaded.tokenizer, question, options, end_id=mind.answering.end_id, letters=letters)
    task = Task(
        answer=mind.answering.choosing(offered, per_token=per_token),
        max_new_tokens=max(len(form) for forms in offered.forms for form in forms),
        max_samples=mind.samples(window_s),
        together_samples=int(mind.max_prompt_s * SAMPLE_RATE),
    )

    def conclude(heard: Heard) -> Choice:
        return choose_heard(heard, mind.hearing, question, per_token=per_token)

    return Work((offered.prompt,), task, conclude)


def _speechless(vad: bool) -> Callable[[Window], Reply | None]:
    """The rule for windows in which nobody can be speaking."""
    if vad:
        from auricle.listen.vad import SpeechDetector

        detector = SpeechDetector()

    def rule(window: Window) -> Reply | None:
        if window.is_silent:
            return Reply(text="", because=_SILENT)
        if vad and not detector.hears_speech(window.waveform):
            return Reply(text="", because="silero-vad finds no speech")
        return None

    return rule


def _constraint(
    mind: Mind, choices: Sequence[str] | None, schema: Mapping[str, Any] | None
) -> Callable[[], Constraint] | None:
    if choices is not None and schema is not None:
        raise ConfigError("both choices and a schema are given; expected one of them, or {'enum': [...]} as schema")
    loaded = mind.loaded
    if choices is not None:
        options = check_options(loaded.tokenizer, choices)
        trie = OptionTrie([mind.answering.ids(option)[:-1] for option in options], loaded.eos_token_ids)
        return lambda: trie
    if schema is not None:
        vocab_size = loaded.model.decoder.config.vocab_size
        rules = JsonRules(loaded.tokenizer, schema, vocab_size=vocab_size, end_ids=loaded.eos_token_ids)
        return rules.constraint
    return None
