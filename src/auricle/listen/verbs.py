"""The verbs of `AudioLM`: what each asks about every window, and how it makes a result of the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from auricle.audio.limits import MAX_S
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.vocabulary import names_source
from auricle.data.wording import CAPTION_PROMPT, NO_SPEECH, TRANSCRIBE_PROMPT
from auricle.encode.receipt import SILENT_NOTE
from auricle.engine.json_schema import read_answer
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError, check_number
from auricle.listen import aggregate, steady
from auricle.listen.long_audio import Recording, Reply
from auricle.listen.no_speech import SUGGESTED, UNWRITTEN, is_no_speech, open_speech, spoken_language
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
_KINDS = {CAPTION_PROMPT: "caption", TRANSCRIBE_PROMPT: "transcript"}  # of answers to these, whoever asks
_SILENT = "nothing exceeds -90 dB of full scale"

Result = TypeVar("Result", bound=Output)


class Captioning(Task):
    """A caption of every window; digital silence is captioned by rule, and tones and noise are noted in the receipt.

    A caption that names what makes the sound is unsure where nothing in it changes, as in no recording.
    """

    def __init__(self, model: AudioLM, *, dense: bool, window_s: float | None, max_new_tokens: int) -> None:
        super().__init__(model, SamplingParams(max_new_tokens=max_new_tokens), _windowing(model, window_s))
        self._dense = dense

    def rule(self, window: Window) -> Reply | None:
        """Caption digital silence."""
        return Reply(text=SILENT_CAPTION, rule=_SILENT) if window.is_silent else None

    def prompt(self, recording: Recording, windows: Sequence[Window], question: str) -> Any:
        """Note where little changes."""
        if remark := steady.remark(windows[0].waveform):
            recording.remarks.setdefault(remark, []).append(len(recording.spans) - 1)
        return super().prompt(recording, windows, question)

    def growing(self) -> Growing | None:
        """Only a dense description is read by its segments."""
        return aggregate.growing_captions() if self._dense else None

    def result(self, recording: Recording) -> Description:
        """Join the captions."""
        found = aggregate.describe(recording, self.config, dense=self._dense)
        rule = self.model.confidence_rule("caption")
        is_constant = len(recording.remarks.get(steady.CONSTANT, ())) == len(recording.spans)
        return replace(found, rule=replace(rule, is_contradicted=is_constant and names_source(found.text)))


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
        found = replace(aggregate.transcribe(recording, self.config), rule=self.model.confidence_rule("transcript"))
        return _with_limit(found, self.model, "transcribe")


class PromptedTranscription(Transcription):
    """Transcripts by a prompt; windows that are taken for open speech have no words, and suggest another model."""

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
        if reply.text and rule.can_deny(sum(generation.logprobs)):
            (scores,) = self.model.engine.score(prompt, [self._no_speech])
            reply = replace(reply, no_speech_logprob=sum(scores))
            if rule.denies(sum(scores)):
                return replace(reply, text="")
        return self._without_open_speech(reply)

    def _without_open_speech(self, reply: Reply) -> Reply:
        mean = reply.mean_logprob
        confidence = None if mean is None else self.model.confidence_rule("transcript").of(mean)
        phrase = open_speech(reply.text, confidence, self.model.open_speech_below)
        if not phrase:
            return reply
        return replace(
            reply, text="", open_speech=phrase, withheld=reply.text, language=spoken_language(phrase) or reply.language
        )

    def result(self, recording: Recording) -> Transcript:
        """Say what is not written down, and which model would."""
        transcript = super().result(recording)
        if not transcript.open_speech:
            return transcript
        phrases = dict.fromkeys(reply.open_speech for reply in recording.replies.values() if reply.open_speech)
        limit = self.model.verb_limits.get("transcribe", UNWRITTEN)
        notice = f"{', '.join(phrases)}; {limit} (try --model {SUGGESTED})"
        return replace(transcript, suggested_model=SUGGESTED, notice=notice)


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
        rules = [self.model.confidence_rule(_KINDS.get(prompt, "answer")) for prompt in recording.prompts]
        found = [replace(_of_sound(each), rule=rule) for each, rule in zip(found, rules, strict=True)]
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
        found = aggregate.choose(recording, self.config, self._question, per_token=self._per_token)
        return replace(_of_sound(found), rule=self.model.confidence_rule("label"))


def _of_sound(result: Result) -> Result:
    """Warn that nothing is heard in digital silence, which questions are asked about all the same."""
    receipt = result.receipt
    if not any(note == SILENT_NOTE for note in receipt.notes):
        return result
    return replace(result, receipt=replace(receipt, warnings=(*receipt.warnings, SILENT_NOTE)))


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
