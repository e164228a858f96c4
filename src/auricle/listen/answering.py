"""Prompts → replies: generated, bound to options or a schema, or weighed among options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from auricle.audio.resample import SAMPLE_RATE
from auricle.data.wording import NO_SPEECH
from auricle.engine.engine import Engine
from auricle.engine.request import Generation, SamplingParams
from auricle.listen.hearing import Hearing, Reply
from auricle.listen.no_speech import NoSpeechRule, is_no_speech
from auricle.listen.options import Options, best, weigh
from auricle.models.midashenglm import audio_token_count
from auricle.weights.processor import Prompt

if TYPE_CHECKING:
    from auricle.engine.request import Constraint
    from auricle.models.midashenglm import MiDashengLM
    from auricle.weights import LoadedLM

_KEPT = 16  # prompts whose sound is kept, of the longest; as many as the engine answers at once
_TEXT_TOKENS = 64  # of a prompt, beside its audio

Answer = Callable[[Sequence[Prompt]], Sequence[Reply]]


class Answering:
    """One engine, and the ways in which it can be asked."""

    def __init__(self, loaded: LoadedLM, *, max_audio_s: float, engine: Engine | None = None) -> None:
        """Ask a loaded model through an engine on it; None: one of its own, which keeps a batch of the longest windows.

        More would be of no use, since what is asked of one sound is asked at once, and would grow with a long sound.
        """
        self._loaded = loaded
        audio_mb, prefix_mb = _cache_mb(loaded.model, max_audio_s)
        self.engine = engine or Engine(loaded, max_batch=_KEPT, audio_cache_mb=audio_mb, prefix_cache_mb=prefix_mb)
        self.end_id = min(loaded.eos_token_ids)

    def generating(self, sampling: SamplingParams, constraint: Callable[[], Constraint] | None = None) -> Answer:
        """Let the model speak.

        Args:
            sampling: how tokens are chosen.
            constraint: makes the constraint of one answer.
        """

        def answer(prompts: Sequence[Prompt]) -> list[Reply]:
            constraints = None if constraint is None else [constraint() for _ in prompts]
            generations = self.engine.generate(prompts, sampling, constraints=constraints)
            return [Reply(text=self.text(g.ids), mean_logprob=g.mean_logprob) for g in generations]

        return answer

    def transcribing(self, sampling: SamplingParams, rule: NoSpeechRule) -> Answer:
        """Let the model write down speech, and say nothing where it holds it likelier that there is none."""
        denial = self.ids(NO_SPEECH)

        def answer(prompts: Sequence[Prompt]) -> list[Reply]:
            generations = self.engine.generate(prompts, sampling)
            return [self._checked(prompt, g, denial, rule) for prompt, g in zip(prompts, generations, strict=True)]

        return answer

    def choosing(self, options: Options, *, per_token: bool) -> Answer:
        """Let the model weigh options."""

        def answer(prompts: Sequence[Prompt]) -> list[Reply]:
            replies = []
            for prompt in prompts:
                odds = weigh(options, partial(self.engine.score, prompt))
                chosen = best(odds, per_token=per_token)
                replies.append(Reply(text=chosen.text, mean_logprob=chosen.mean_logprob, odds=odds))
            return replies

        return answer

    def asking_text(self, hearing: Hearing) -> Callable[[str], str]:
        """A way to ask about text alone, greedily; for summaries."""

        def ask(question: str) -> str:
            return self.generating(SamplingParams())([hearing.text_prompt(question)])[0].text

        return ask

    def ids(self, text: str) -> list[int]:
        """An answer as tokens, with the end."""
        return [*self._loaded.tokenizer.encode(text, add_special_tokens=False).ids, self.end_id]

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as an answer."""
        return self._loaded.tokenizer.decode(list(ids)).strip()

    def _checked(self, prompt: Prompt, found: Generation, denial: list[int], rule: NoSpeechRule) -> Reply:
        text = self.text(found.ids)
        if not text or is_no_speech(text) or not rule.can_deny(sum(found.logprobs)):
            return Reply(text="" if is_no_speech(text) else text, mean_logprob=found.mean_logprob)
        (scores,) = self.engine.score(prompt, [denial])
        is_denied = rule.denies(sum(scores))
        return Reply(text="" if is_denied else text, mean_logprob=found.mean_logprob, no_speech_logprob=sum(scores))


def _cache_mb(model: MiDashengLM, max_audio_s: float) -> tuple[float, float]:
    """Megabytes of the audio tokens, and of the keys and values, of as many prompts as are kept."""
    text, size = model.decoder.config, model.decoder.dtype.itemsize
    width, heads = int(text.hidden_size or 0), int(text.num_attention_heads or 1)
    shared = int(text.num_key_value_heads or heads) / heads  # of the width, by grouped-query attention
    audio = audio_token_count(int(max_audio_s * SAMPLE_RATE), model.config.subsample_factor)
    kept_bytes = 2 * int(text.num_hidden_layers or 1) * width * shared * size
    return _KEPT * audio * width * size / 1e6, _KEPT * (audio + _TEXT_TOKENS) * kept_bytes / 1e6
