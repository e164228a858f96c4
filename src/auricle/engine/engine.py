"""Prompts → generated tokens, for any number of requests at once, each answered as if it were alone.

`Engine` is what long-lived users keep: it hears every clip once, reads common beginnings of prompts once, and lets
requests join and leave at any time. `generate` answers one list of prompts with nothing kept.

On a GPU all of it is valid but unmeasured; attention is `scaled_dot_product_attention` there too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from auricle.engine.audio_cache import AudioCache, read_prompt
from auricle.engine.detokenizer import Detokenizer
from auricle.engine.kv_cache import name_blocks
from auricle.engine.loglikelihood import group_continuations, score_group
from auricle.engine.request import Constraint, EngineBusy, Generation, PromptLike, SamplingParams, Token
from auricle.engine.sampling import Sampler
from auricle.engine.scheduler import Counts, Request, Scheduler
from auricle.engine.turn_lock import Turns
from auricle.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from auricle.models.midashenglm import MiDashengLM
    from auricle.weights import LoadedLM

__all__ = ["Constraint", "Engine", "EngineBusy", "Generation", "PromptLike", "Request", "SamplingParams", "Token"]
__all__ += ["check_room", "generate"]

_MB = 1_000_000


class Engine:
    """Answers requests of any number of threads on one model.

    There is no thread of its own: whoever waits for a result drives the engine, for all requests at once. A server may
    instead call `step` in a thread of its own; nothing else changes.
    """

    def __init__(
        self,
        loaded: LoadedLM,
        *,
        max_batch: int = 32,
        max_waiting: int = 1024,
        audio_cache_mb: float = 256,
        prefix_cache_mb: float = 256,
        memory_mb: float | None = None,
        prefill_tokens: int = 2048,
    ) -> None:
        """Start with nothing to do.

        Args:
            loaded: model and tokenizer; the model must stay as it is while the engine is in use, see `forget`.
            max_batch: requests in work at once.
            max_waiting: requests that may wait for their turn.
            audio_cache_mb: megabytes of audio tokens kept, 30 s of a 7B model are 2.2 in float32; 0: none.
            prefix_cache_mb: megabytes of keys and values of beginnings of prompts kept; 0: none, and nothing is shared.
            memory_mb: megabytes of keys and values of running requests, above which others wait; None: no limit.
            prefill_tokens: prompt tokens read in one step at most; running answers wait for no more.

        Raises:
            ConfigError: a setting out of range.
        """
        for name, value, least in (
            ("max_batch", max_batch, 1),
            ("max_waiting", max_waiting, 1),
            ("audio_cache_mb", audio_cache_mb, 0),
            ("prefix_cache_mb", prefix_cache_mb, 0),
            ("memory_mb", 0 if memory_mb is None else memory_mb, 0),
            ("prefill_tokens", prefill_tokens, 1),
        ):
            if not value >= least:
                raise ConfigError(f"{name} is {value}; expected at least {least}")
        self.loaded = loaded
        self._lm, self._ends = loaded.model, frozenset(loaded.eos_token_ids)
        self._max_waiting, self._prefill_tokens = max_waiting, prefill_tokens
        self._sizes = int(audio_cache_mb * _MB), int(prefix_cache_mb * _MB)
        self._turns = Turns()
        self._audio = AudioCache(self._lm, self._sizes[0])
        self._scheduler = Scheduler(
            self._lm.decoder,
            self._audio.embed,
            max_batch=max_batch,
            prefill_tokens=prefill_tokens,
            prefix_bytes=self._sizes[1],
            memory_bytes=None if memory_mb is None else int(memory_mb * _MB),
        )

    @property
    def counts(self) -> Counts:
        """Steps and tokens so far."""
        return self._scheduler.counts

    @property
    def encoded_clips(self) -> int:
        """Clips that went through the encoder so far; those heard before and still known did not."""
        return self._audio.encoded

    @property
    def num_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._scheduler.waiting)

    def submit(
        self,
        prompt: PromptLike,
        sampling: SamplingParams = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraint: Constraint | None = None,
        wait: bool = True,
    ) -> Request:
        """Hand in a request; `result` gives its answer.

        Args:
            prompt: token ids and clips; must not be changed afterwards.
            sampling: how its tokens are chosen.
            constraint: which answers are allowed; an object of its own for each request.
            wait: work off other requests while too many wait; else fail.

        Raises:
            PromptError: it is empty, does not fit its clips, or leaves no room for the answer in the context.
            EngineBusy: ``max_waiting`` requests wait already.
        """
        return self._submit(self._request(prompt, sampling, constraint, is_streamed=False), wait)

    def stream(
        self,
        prompt: PromptLike,
        sampling: SamplingParams = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraint: Constraint | None = None,
        wait: bool = True,
    ) -> Iterator[Token]:
        """The tokens of an answer as they come; arguments and errors as `submit`.

        The texts put together are the answer's text. Leaving the iteration early cancels the request.
        """
        request = self._submit(self._request(prompt, sampling, constraint, is_streamed=True), wait)
        return self._follow(request)

    def result(self, request: Request) -> Generation:
        """The answer to a request; works until it is there.

        Raises: what went wrong with this request, such as an error of its constraint.
        """
        self._drive(lambda: request.is_done)
        if request.error is not None:
            raise request.error
        found = request.generation
        assert found is not None
        return found if found.text is not None else replace(found, text=self.loaded.tokenizer.decode(found.ids))

    def cancel(self, request: Request) -> None:
        """Stop working on a request; its result is what is there by the next step."""
        request.is_cancelled = True

    def generate(
        self,
        prompts: Sequence[PromptLike],
        samplings: SamplingParams | Sequence[SamplingParams] = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraints: Sequence[Constraint | None] | None = None,
    ) -> list[Generation]:
        """Answer prompts; any number, of which ``max_batch`` are in work at once.

        Args:
            prompts: see `submit`.
            samplings: of each prompt, or one for all.
            constraints: of each prompt.

        Returns:
            Answers in the order of the prompts.

        Raises:
            ConfigError: not as many samplings or constraints as prompts.
            PromptError: a prompt cannot be answered, see `submit`; then none is.
        """
        each = [samplings] * len(prompts) if isinstance(samplings, SamplingParams) else list(samplings)
        bounds = [None] * len(prompts) if constraints is None else list(constraints)
        if not len(each) == len(bounds) == len(prompts):
            raise ConfigError(
                f"{len(prompts)} prompts came with {len(each)} samplings and {len(bounds)} constraints; "
                "expected one of each a prompt"
            )
        requests = [
            self._request(prompt, sampling, constraint, is_streamed=False)
            for prompt, sampling, constraint in zip(prompts, each, bounds, strict=True)
        ]
        try:
            for request in requests:
                self._submit(request, wait=True)
            return [self.result(request) for request in requests]
        finally:
            for request in requests:
                self.cancel(request)

    def score(self, prompt: PromptLike, continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each continuation of a prompt, which is heard and read once.

        Args:
            prompt: see `submit`.
            continuations: token ids, with an end token where the probability of ending there counts.

        Returns:
            Nats, one per token.

        Raises:
            PromptError: see `submit`.
        """
        longest = max((len(ids) for ids in continuations), default=0)
        check_room(self._lm, prompt, longest)
        read, names = self._read(prompt)
        length = len(read.ids)
        groups = list(group_continuations(continuations, self._prefill_tokens))
        most = max((sum(len(continuations[i]) for i in group) for group in groups), default=0)
        with self._turns.turn():
            memory, last = self._scheduler.read_alone(read, length, names, length + most)
        scores: list[list[float]] = []
        for group in groups:
            # Between groups others may go on; the memory is this call's own.
            with self._turns.turn():
                chosen = [continuations[index] for index in group]
                scores += score_group(self._lm.decoder, (memory, length, last), chosen)
        return scores

    def step(self) -> bool:
        """Do one step of the work that is there, for a server's own thread; False where there is none."""
        with self._turns.turn():
            if self._scheduler.has_work:
                self._scheduler.step()
            return self._scheduler.has_work

    def wait_for_work(self, timeout_s: float | None = None) -> bool:
        """Sleep until there is something to do, or for ``timeout_s``; whether there is."""
        return self._turns.wait_for(lambda: self._scheduler.has_work, timeout_s)

    def forget(self) -> None:
        """Drop all that is known of clips and prompts, as must be done when the model's weights have changed."""
        with self._turns.turn():
            self._audio.clear()
            self._scheduler.prefixes.clear()

    def _read(self, prompt: PromptLike) -> tuple[Any, list[bytes]]:
        read = read_prompt(self._lm, prompt)
        # The last token is always computed: what it is followed by comes from its hidden state.
        shared = read.tokens()[:-1] if self._sizes[1] else read.tokens()[:0]
        return read, name_blocks(shared)

    def _request(
        self, prompt: PromptLike, sampling: SamplingParams, constraint: Constraint | None, *, is_streamed: bool
    ) -> Request:
        check_room(self._lm, prompt, sampling.max_new_tokens)
        read, names = self._read(prompt)
        text = Detokenizer(self.loaded.tokenizer, sampling.stop) if is_streamed or sampling.stop else None
        return Request(read, len(read.ids), names, Sampler(sampling, self._ends, constraint), text)

    def _submit(self, request: Request, wait: bool) -> Request:
        if len(self._scheduler.waiting) >= self._max_waiting:
            if not wait:
                raise EngineBusy(
                    f"{len(self._scheduler.waiting)} requests wait already, max_waiting is {self._max_waiting}; "
                    "try again later"
                )
            self._drive(lambda: len(self._scheduler.waiting) < self._max_waiting)
        self._scheduler.waiting.append(request)
        self._turns.wake()
        return request

    def _follow(self, request: Request) -> Iterator[Token]:
        try:
            while True:
                self._drive(lambda: bool(request.tokens) or request.is_done)
                while request.tokens:
                    yield request.tokens.popleft()
                if request.is_done and not request.tokens:
                    break
            if request.error is not None:
                raise request.error
        finally:
            self.cancel(request)

    def _drive(self, is_ready: Callable[[], bool]) -> None:
        def work() -> None:
            if not self._scheduler.has_work:
                raise ConfigError("this request is not the engine's; ask the engine that it was handed in to")
            self._scheduler.step()

        self._turns.work_until(is_ready, work)


def generate(
    lm: MiDashengLM,
    prompts: Sequence[PromptLike],
    *,
    eos_token_ids: Collection[int],
    pad_token_id: int = 0,
    max_new_tokens: int = 128,
    min_new_tokens: int = 0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
) -> list[Generation]:
    """Answer prompts as one batch; the clips of all of them are encoded once, packed.

    Args:
        lm: the model, in evaluation mode; only its ``decoder`` and ``embed`` are used.
        prompts: at least one token each.
        eos_token_ids: tokens that end an answer; empty: only the length does.
        pad_token_id: not used: no row is padded.
        max_new_tokens: tokens per answer at most.
        min_new_tokens: see `SamplingParams`, as for all that follows.
        do_sample: draw instead of taking the likeliest token.
        temperature: divides the logits.
        top_p: nucleus.
        top_k: candidates.
        repetition_penalty: above 1 discourages tokens generated before.
        seed: of the random numbers of every prompt.

    Returns:
        One `Generation` per prompt, in order.

    Raises:
        ConfigError: a setting out of range.
        PromptError: an empty prompt, placeholders that do not fit the clips, or no room for the answer in the context.
    """
    sampling = SamplingParams(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        do_sample=do_sample,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    for prompt in prompts:
        check_room(lm, prompt, max_new_tokens)
    total = max(1, sum(len(prompt.input_ids) for prompt in prompts))
    scheduler = Scheduler(
        lm.decoder,
        lambda asked: _embed(lm, [prompt for prompt, _ in asked]),
        max_batch=max(1, len(prompts)),
        prefill_tokens=total,
    )
    ends = frozenset(eos_token_ids)
    requests = [Request(prompt, len(prompt.input_ids), [], Sampler(sampling, ends)) for prompt in prompts]
    scheduler.waiting.extend(requests)
    while scheduler.has_work:
        scheduler.step()
    answers = []
    for request in requests:
        if request.error is not None:
            raise request.error
        assert request.generation is not None
        answers.append(request.generation)
    return answers


def check_room(lm: MiDashengLM, prompt: PromptLike, max_new_tokens: int) -> None:
    """Raise `PromptError` where a prompt is empty, or does not fit into the context of the decoder with its answer."""
    if not prompt.input_ids:
        raise PromptError("a prompt is empty; expected at least one token")
    context = lm.decoder.config.max_position_embeddings
    if len(prompt.input_ids) + max_new_tokens > context:
        raise PromptError(
            f"the prompt has {len(prompt.input_ids)} tokens and asks for {max_new_tokens} more; "
            f"the model's context holds {context}. Shorten the audio or text, or lower max_new_tokens"
        )


def _embed(lm: MiDashengLM, prompts: Sequence[PromptLike]) -> list[Tensor]:
    """Decoder inputs (L_i, H) of prompts laid end to end, so that nothing is padded."""
    device = lm.decoder.device
    ids = torch.tensor([[token for prompt in prompts for token in prompt.input_ids]], device=device)
    clips = [clip.to(device) for prompt in prompts for clip in prompt.clips]
    return list(lm.embed(ids, clips)[0].split([len(prompt.input_ids) for prompt in prompts]))
