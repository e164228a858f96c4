"""Prompts → generated tokens, for any number of requests at once, each answered as if it were alone.

`Engine` is for long-lived use: it encodes every clip once, computes shared prefixes of prompts once, and lets requests
join and leave at any time. `generate` answers one list of prompts and keeps nothing.

On a GPU all of it is valid but unmeasured; attention is `scaled_dot_product_attention` there too.

Shape legend: N samples, n audio tokens of a clip, L prompt tokens, H decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from auricle.engine.audio_cache import AudioCache
from auricle.engine.detokenizer import Detokenizer
from auricle.engine.loglikelihood import group_continuations, score_group
from auricle.engine.prompt import CheckedPrompt, check_prompt, check_room, place_tokens
from auricle.engine.request import Constraint, EngineBusy, Generation, PromptLike, SamplingParams, Token
from auricle.engine.sampling import Sampler
from auricle.engine.scheduler import Counts, Prefill, Request, Scheduler
from auricle.engine.turn_lock import TurnLock
from auricle.errors import AuricleError, ConfigError
from auricle.models.inference import inference

if TYPE_CHECKING:
    from auricle.models.midashenglm import MiDashengLM
    from auricle.weights import LoadedLM

_MB = 1_000_000
_LOOK_S = 1.0  # a thread that sleeps looks again after this long, even where nothing woke it


class Engine:
    """Answers requests of any number of threads on one model.

    It starts no thread: the thread that waits for a result does the work, for all requests at once. A server may
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
        """Start without requests.

        Args:
            loaded: model and tokenizer; the weights must not change while the engine is in use, see `forget`.
            max_batch: requests in work at once.
            max_waiting: requests that may wait for their turn.
            audio_cache_mb: megabytes of audio tokens kept, 30 s of a 7B model are 2.2 in float32; 0: none.
            prefix_cache_mb: megabytes of keys and values of prompt prefixes kept; 0: none, and nothing is shared.
            memory_mb: megabytes of keys and values of running requests, above which others wait; None: no limit.
            prefill_tokens: prompt tokens computed in one step at most; running answers wait for no more.

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
        self.encoded_clips = 0  # clips that went through the encoder so far; those in the cache did not
        self._lm, self._ends = loaded.model, frozenset(loaded.eos_token_ids)
        self._max_waiting, self._prefill_tokens = max_waiting, prefill_tokens
        self._turns, self._has_own_thread = TurnLock(), False
        self._audio = AudioCache(int(audio_cache_mb * _MB))
        self._scheduler = Scheduler(
            self._lm.decoder,
            max_batch=max_batch,
            prefill_tokens=prefill_tokens,
            prefix_bytes=int(prefix_cache_mb * _MB),
            memory_bytes=None if memory_mb is None else int(memory_mb * _MB),
        )

    def __reduce__(self) -> NoReturn:
        raise not_copied(str(self.loaded.identity["name"]))

    @property
    def counts(self) -> Counts:
        """Steps and tokens so far."""
        return self._scheduler.counts

    @property
    def num_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._scheduler.waiting)

    def check(self, prompt: PromptLike, max_new_tokens: int) -> CheckedPrompt:
        """Check a prompt before it is submitted; `generate`, `stream` and `score` check what is not checked yet.

        Args:
            prompt: token ids and clips; must not be changed afterwards.
            max_new_tokens: the longest answer it will be used for.

        Raises:
            PromptError: it is empty, does not fit its clips, or leaves no room for the answer in the context.
        """
        return check_prompt(self._lm, prompt, max_new_tokens, share=bool(self._scheduler.prefixes.max_bytes))

    def submit(
        self,
        prompt: PromptLike | CheckedPrompt,
        sampling: SamplingParams = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraint: Constraint | None = None,
        wait: bool = True,
        is_streamed: bool = False,
    ) -> Request:
        """Submit a request; `result` returns its answer.

        Args:
            prompt: token ids and clips; must not be changed afterwards.
            sampling: how its tokens are chosen.
            constraint: which answers are allowed; one object for each request.
            wait: where too many requests wait, work until fewer do; else fail.
            is_streamed: whether `follow` will read its tokens.

        Raises:
            PromptError: see `check`.
            EngineBusy: ``max_waiting`` requests wait already.
        """
        return self._submit(self._request(prompt, sampling, constraint, is_streamed=is_streamed), wait)

    def stream(
        self,
        prompt: PromptLike | CheckedPrompt,
        sampling: SamplingParams = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraint: Constraint | None = None,
        wait: bool = True,
    ) -> Iterator[Token]:
        """The tokens of an answer as they are generated; arguments and errors as `submit`.

        The texts put together are the answer's text. Leaving the iteration early cancels the request.
        """
        return self.follow(self.submit(prompt, sampling, constraint=constraint, wait=wait, is_streamed=True))

    def follow(self, request: Request) -> Iterator[Token]:
        """The tokens of a request that was submitted as streamed; `result` is at hand afterwards.

        Leaving the iteration early cancels the request.
        """
        try:
            while not request.is_done or request.tokens:
                self._work_until(lambda: bool(request.tokens) or request.is_done)
                while request.tokens:
                    yield request.tokens.popleft()
            _answer(request)
        finally:
            self.cancel(request)

    def result(self, request: Request) -> Generation:
        """The answer to a request; works until it is complete.

        Raises: what went wrong with this request, such as an error of its constraint.
        """
        self._work_until(lambda: request.is_done)
        found = _answer(request)
        return found if found.text is not None else replace(found, text=self.loaded.tokenizer.decode(found.ids))

    def cancel(self, request: Request) -> None:
        """Stop working on a request; its result is the answer so far."""
        request.is_cancelled = True

    def generate(
        self,
        prompts: Sequence[PromptLike | CheckedPrompt],
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
            PromptError: a prompt cannot be answered, see `check`; then none is.
        """
        each = [samplings] * len(prompts) if isinstance(samplings, SamplingParams) else list(samplings)
        bounds = [None] * len(prompts) if constraints is None else list(constraints)
        if not len(each) == len(bounds) == len(prompts):
            raise ConfigError(
                f"{len(prompts)} prompts have {len(each)} samplings and {len(bounds)} constraints; "
                "expected one of each for every prompt"
            )
        requests = [self._request(*given) for given in zip(prompts, each, bounds, strict=True)]
        try:
            for request in requests:
                self._submit(request, wait=True)
            self._work_until(lambda: all(r.is_done for r in requests) or any(r.error is not None for r in requests))
            return [self.result(request) for request in requests]
        finally:
            for request in requests:
                self.cancel(request)

    def score(self, prompt: PromptLike | CheckedPrompt, continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each continuation of a prompt, which is encoded and computed once.

        Args:
            prompt: see `submit`.
            continuations: token ids, with an end token where the probability of ending there counts.

        Returns:
            Nats, one per token.

        Raises:
            PromptError: see `check`.
        """
        if not isinstance(prompt, CheckedPrompt):
            prompt = self.check(prompt, max((len(ids) for ids in continuations), default=0))
        length = len(prompt.ids)
        groups = list(group_continuations(continuations, self._prefill_tokens))
        most = max((sum(len(continuations[i]) for i in group) for group in groups), default=0)
        with self._turns.turn(), inference():
            prefill = self._scheduler.open(prompt, length + most)
            (embeddings,) = self._embed([prefill])
            memory, last = self._scheduler.read_alone(prefill, embeddings)
        scores: list[list[float]] = []
        for group in groups:
            # Between groups other threads may work; the memory belongs to this call alone.
            with self._turns.turn():
                chosen = [continuations[index] for index in group]
                scores += score_group(self._lm.decoder, (memory, length, last), chosen)
        return scores

    def step(self) -> bool:
        """Do one step of the work, for a server's own thread; whether there is more."""
        with self._turns.turn():
            if self._scheduler.has_work:
                self._step()
            return self._scheduler.has_work

    def wait_for_work(self, timeout_s: float | None = None) -> bool:
        """Sleep until there is work, or for ``timeout_s``; whether there is."""
        return self._turns.wait_for(lambda: self._scheduler.has_work, timeout_s)

    @contextmanager
    def own_thread(self) -> Iterator[None]:
        """While the block runs, all work is left to a thread that calls `step`; those that wait for results sleep.

        Each thread that computes has threads of torch of its own, so that one for many requests takes less.
        """
        self._has_own_thread = True
        try:
            yield
        finally:
            self._has_own_thread = False
            self._turns.wake()

    def forget(self) -> None:
        """Drop all cached clips and prompts, as must be done when the model's weights have changed."""
        with self._turns.turn():
            self._audio.clear()
            self._scheduler.prefixes.clear()

    def _request(
        self,
        prompt: PromptLike | CheckedPrompt,
        sampling: SamplingParams,
        constraint: Constraint | None,
        *,
        is_streamed: bool = False,
    ) -> Request:
        checked = prompt if isinstance(prompt, CheckedPrompt) else self.check(prompt, sampling.max_new_tokens)
        text = Detokenizer(self.loaded.tokenizer, sampling.stop) if is_streamed or sampling.stop else None
        return Request(checked, Sampler(sampling, self._ends, constraint), text)

    def _submit(self, request: Request, wait: bool) -> Request:
        if self.num_waiting >= self._max_waiting:
            if not wait:
                raise EngineBusy(
                    f"{self.num_waiting} requests wait already, max_waiting is {self._max_waiting}; try again later"
                )
            self._work_until(lambda: self.num_waiting < self._max_waiting)
        self._scheduler.waiting.append(request)
        self._turns.wake()
        return request

    def _work_until(self, is_ready: Callable[[], bool]) -> None:
        """Do the engine's work, or wait while another thread does it, until ``is_ready``."""
        while not is_ready():
            if self._has_own_thread:
                self._turns.wait_for(lambda: is_ready() or not self._has_own_thread, _LOOK_S)
                continue
            with self._turns.turn_unless(is_ready) as is_ours:
                if is_ours:
                    if not self._scheduler.has_work:
                        raise ConfigError("this request belongs to another engine; call result() of that engine")
                    self._step()

    @inference()
    def _step(self) -> None:
        """Admit requests, encode their clips, run the decoder once; where that fails, all requests in work fail."""
        scheduler = self._scheduler
        try:
            prefills = scheduler.admit()
            scheduler.start(prefills, self._embed(prefills))
            scheduler.advance()
        except Exception as error:
            scheduler.abandon(error)
        except BaseException:  # an interrupt: what is half done must not go on
            scheduler.abandon(
                AuricleError("the engine was interrupted while it worked on this request; submit it again")
            )
            raise

    def _embed(self, prefills: Sequence[Prefill]) -> list[Tensor | Exception]:
        """Decoder inputs (L - start, H) of each prompt; clips that are not in the cache are encoded together, packed.

        Only clips that reach beyond ``start`` are encoded. Where encoding them together fails, each prompt is tried
        alone, and those that fail have their error here.
        """
        clips = {
            prefill.prompt.digests[i]: prefill.prompt.clips[i]
            for prefill in prefills
            for i in prefill.prompt.clips_from(prefill.start)
        }
        tokens = self._audio.get(clips)
        missing = [digest for digest in clips if digest not in tokens]
        try:
            if missing:
                device = self._lm.decoder.device
                new = self._lm.audio_tokens([clips[digest].to(device) for digest in missing])
                # Copied, since a part of the packed matrix would keep all of it alive.
                added = {digest: own.clone() for digest, own in zip(missing, new, strict=True)}
                self.encoded_clips += len(missing)
                self._audio.add(added)
                tokens |= added
            return [place_tokens(self._lm, each.prompt, each.start, tokens) for each in prefills]
        except Exception as error:
            if len(prefills) == 1:
                return [error]
            return [found for prefill in prefills for found in self._embed([prefill])]


def generate(
    lm: MiDashengLM,
    prompts: Sequence[PromptLike],
    sampling: SamplingParams = SamplingParams(),  # noqa: B008 - frozen
    *,
    eos_token_ids: Collection[int],
) -> list[Generation]:
    """Answer prompts as one batch; the clips of all of them are encoded once, packed.

    Args:
        lm: the model, in evaluation mode; only its ``decoder`` and ``embed`` are used.
        prompts: at least one token each.
        sampling: how tokens are chosen, for every prompt.
        eos_token_ids: tokens that end an answer; empty: only the length does.

    Returns:
        One `Generation` per prompt, in order; without ``text``.

    Raises:
        PromptError: an empty prompt, placeholders that do not fit the clips, or no room for the answer in the context.
    """
    if not prompts:
        return []
    for prompt in prompts:
        check_room(lm, prompt, sampling.max_new_tokens)
    lengths, device, ends = [len(prompt.input_ids) for prompt in prompts], lm.decoder.device, frozenset(eos_token_ids)
    requests = [Request(CheckedPrompt(tuple(prompt.input_ids)), Sampler(sampling, ends)) for prompt in prompts]
    scheduler = Scheduler(lm.decoder, max_batch=len(prompts), prefill_tokens=sum(lengths))
    scheduler.waiting.extend(requests)
    with inference():
        # Laid end to end, so that nothing is padded.
        ids = torch.tensor([[token for prompt in prompts for token in prompt.input_ids]], device=device)
        clips = [clip.to(device) for prompt in prompts for clip in prompt.clips]
        scheduler.start(scheduler.admit(), list(lm.embed(ids, clips)[0].split(lengths)))
        while scheduler.has_work:
            scheduler.advance()
    return [_answer(request) for request in requests]


def _answer(request: Request) -> Generation:
    """The answer to a request that is done, or its error."""
    if request.error is not None:
        raise request.error
    assert request.generation is not None
    return request.generation


def not_copied(name: str) -> ConfigError:
    """The error of who pickles or copies a model in use: its lock and its requests belong to one process."""
    return ConfigError(
        f"{name}: a loaded model is neither pickled nor copied; share it between threads, and load it by its name in "
        "each process that is not forked"
    )
