"""The verbs of `AudioLM`: what each asks about every window, and how it makes a result of the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from auricle.audio.limits import MAX_S
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.wording import NO_SPEECH
from auricle.engine.json_schema import read_answer
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError, check_number
from auricle.listen import aggregate
from auricle.listen.long_audio import Recording, Reply
from auricle.listen.no_speech import SUGGESTED, is_no_speech, is_open_speech
from auricle.listen.options import answer_ids, best, constraint_of, weigh, write_options
from auricle.listen.outputs import Answer, Choice, Description, Output, Transcript
from auricle.listen.pipeline import Task, reply_of, write_prompt
from auricle.listen.vad import SpeechDetector
from auricle.listen.windows import Window, Windowing

if TYPE_CHECKING:
    from auricle.encode.receipt import TokenGrid
    from auricle.engine.prompt import CheckedPrompt
    from auricle.engine.request import Generation
    from auricle.listen.aggregate import Aggregation, Growing
    from auricle.listen.model import AudioLM

SILENT_CAPTION = "Silence."
_OVERLAP_S = 2.0  # of a transcript's windows around cuts into sound: longer than a word, and time to recognise it
_SILENT = "nothing exceeds -90 dB of full scale"

Result = TypeVar("Result", bound=Output)


class Captioning(Task):
    """A caption of every window; digital silence is captioned by rule."""

    def __init__(self, model: AudioLM, *, dense: bool, window_s: float | None, max_new_tokens: int) -> None:
        super().__init__(model, SamplingParams(max_new_tokens=max_new_tokens), _windowing(model, window_s))
        self._dense = dense

    def rule(self, window: Window) -> Reply | None:
        """Caption digital silence."""
        return Reply(text=SILENT_CAPTION, rule=_SILENT) if window.is_silent else None

    def growing(self) -> Growing | None:
        """Only a dense description is read by its segments."""
        return aggregate.growing_captions() if self._dense else None

    def result(self, recording: Recording) -> Description:
        """Join the captions."""
        return aggregate.describe(recording, self.config, dense=self._dense)


class Transcription(Task):
    """A transcript of every window; windows without speech are empty by rule."""

    def __init__(
        self,
        model: AudioLM,
        *,
        window_s: float | None,
        overlap_s: float | None,
        vad: bool,
        max_new_tokens: int,
        config: TokenGrid | None = None,
    ) -> None:
        if overlap_s is not None:
            check_number("overlap_s", overlap_s, least=0, most=MAX_S)
        share = min(_OVERLAP_S, _longest(model, window_s) / 5) if overlap_s is None else overlap_s
        windowing = _windowing(model, window_s, overlap_samples=int(share * SAMPLE_RATE), split_silence=True)
        super().__init__(model, SamplingParams(max_new_tokens=max_new_tokens), windowing, config)
        self._detector = SpeechDetector() if vad else None

    def rule(self, window: Window) -> Reply | None:
        """Leave windows empty in which nobody can be speaking."""
        if window.is_silent:
            return Reply(text="", rule=_SILENT)
        if self._detector is not None and not self._detector.has_speech(window.waveform):
            return Reply(text="", rule="silero-vad finds no speech")
        return None

    def growing(self) -> Growing | None:
        """Stitch as the windows come."""
        return aggregate.growing_transcript()

    def result(self, recording: Recording) -> Transcript:
        """Stitch the transcripts."""
        return _with_limit(aggregate.transcribe(recording, self.config), self.model, "transcribe")


class PromptedTranscription(Transcription):
    """Transcripts by a prompt; one that is taken for open speech suggests another model."""

    def __init__(self, model: AudioLM, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._no_speech = answer_ids(model.loaded.tokenizer, NO_SPEECH, min(model.loaded.eos_token_ids))
        self.max_new_tokens = max(self.max_new_tokens, len(self._no_speech))  # either may follow a prompt

    def answer(self, prompts: Sequence[CheckedPrompt]) -> list[Reply]:
        """Transcribe, and withhold words where the model rates "no speech" likely, see `NoSpeechRule`."""
        generations = self.model.engine.generate(prompts, self.sampling)
        return [self._checked(*each) for each in zip(prompts, generations, strict=True)]

    def _checked(self, prompt: CheckedPrompt, generation: Generation) -> Reply:
        reply, rule = reply_of(generation), self.model.no_speech
        if is_no_speech(reply.text):
            return replace(reply, text="")
        if not reply.text or not rule.can_deny(sum(generation.logprobs)):
            return reply
        (scores,) = self.model.engine.score(prompt, [self._no_speech])
        text = "" if rule.denies(sum(scores)) else reply.text
        return replace(reply, text=text, no_speech_logprob=sum(scores))

    def result(self, recording: Recording) -> Transcript:
        """Say which model transcribes what this one was not trained for."""
        transcript = super().result(recording)
        is_open = is_open_speech(transcript.text, transcript.confidence, self.model.open_speech_below)
        return replace(transcript, suggested_model=SUGGESTED) if is_open else transcript


class Questions(Task):
    """Answers to questions about every window, which may be constrained to choices or to a JSON schema."""

    def __init__(
        self,
        model: AudioLM,
        sampling: SamplingParams | None,
        *,
        reduce: Aggregation,
        window_s: float | None,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        aggregate.check_aggregation(reduce)
        windowing = _windowing(model, window_s, together_samples=int(model.max_prompt_s * SAMPLE_RATE))
        super().__init__(model, sampling or SamplingParams(), windowing)
        is_free = choices is None and schema is None
        self._constraint, self._schema = None if is_free else constraint_of(model.loaded, choices, schema), schema
        # Joined answers would be none of those allowed.
        self._reduce: Aggregation = "majority" if self._constraint is not None and reduce == "auto" else reduce

    def answer(self, prompts: Sequence[CheckedPrompt]) -> Sequence[Reply | AuricleError]:
        """Answer under the constraint."""
        constraints = None if self._constraint is None else [self._constraint() for _ in prompts]
        generations = self.model.engine.generate(prompts, self.sampling, constraints=constraints)
        return [reply_of(generation) for generation in generations]

    def result(self, recording: Recording) -> list[Answer]:
        """Aggregate the answers to each question, and parse them by the schema."""
        found = [
            aggregate.answer(recording, self.config, index, self._reduce, self._summarise)
            for index in range(len(recording.prompts))
        ]
        if self._schema is None:
            return found
        found = [replace(each, value=read_answer(each.text, self._schema, self.max_new_tokens)) for each in found]
        return [_with_limit(each, self.model, "schema") for each in found]

    def _summarise(self, question: str) -> str:
        greedy = SamplingParams()
        prompt = write_prompt(self.model, [{"role": "user", "content": question}], greedy.max_new_tokens)
        return reply_of(*self.model.engine.generate([prompt], greedy)).text


class Choosing(Task):
    """The log-probability of every option as the answer to a question."""

    def __init__(
        self,
        model: AudioLM,
        question: str,
        options: Sequence[str],
        *,
        letters: bool,
        per_token: bool,
        window_s: float | None,
    ) -> None:
        tokenizer, end_id = model.answer_tokens
        self.options = write_options(tokenizer, question, options, end_id=end_id, letters=letters)
        longest = max(len(form) for forms in self.options.forms for form in forms)
        windowing = _windowing(model, window_s, together_samples=int(model.max_prompt_s * SAMPLE_RATE))
        super().__init__(model, SamplingParams(max_new_tokens=longest), windowing)
        self._question, self._per_token = question, per_token

    def answer(self, prompts: Sequence[CheckedPrompt]) -> list[Reply]:
        """Score the options behind each prompt."""
        replies = []
        for prompt in prompts:
            odds = weigh(self.options, partial(self.model.engine.score, prompt))
            chosen = best(odds, per_token=self._per_token)
            replies.append(Reply(text=chosen.text, mean_logprob=chosen.mean_logprob, odds=odds))
        return replies

    def result(self, recording: Recording) -> Choice:
        """Pool the odds."""
        return aggregate.choose(recording, self.config, self._question, per_token=self._per_token)


def _with_limit(result: Result, model: AudioLM, verb: str) -> Result:
    """Note in the receipt what the model's card states about a verb."""
    limit = model.verb_limits.get(verb)
    if limit is None:
        return result
    notes = (*result.receipt.notes, f"limit of {model.model}: {limit}")
    return replace(result, receipt=replace(result.receipt, notes=notes))


def _longest(model: AudioLM, window_s: float | None) -> float:
    """The longest window, s.

    Raises:
        ConfigError: no number of seconds, or longer than the model was trained on.
    """
    if window_s is None:
        return model.max_audio_s
    check_number("window_s", window_s, least=0, most=MAX_S)
    if window_s > model.max_audio_s:
        raise ConfigError(
            f"window_s is {window_s:g}; the model was trained on at most {model.max_audio_s:g} s, expected no more"
        )
    return window_s


def _windowing(model: AudioLM, window_s: float | None, **settings: Any) -> Windowing:
    """Windows of up to ``window_s``; errors as `_longest`, and ConfigError for windows too short to cut."""
    return Windowing(max_samples=int(_longest(model, window_s) * SAMPLE_RATE), **settings)
