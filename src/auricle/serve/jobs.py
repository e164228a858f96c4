"""One thread that computes, for the engines of all models; requests wait for it asleep, and can be cancelled."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from copy import copy
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from auricle.engine.engine import Engine
from auricle.engine.request import Generation, SamplingParams
from auricle.listen.other_models.prompted import PromptedLM
from auricle.listen.other_models.whisper import Network, Whisper

if TYPE_CHECKING:
    from auricle.audio.facts import Samples
    from auricle.audio.limits import Limits
    from auricle.engine.prompt import CheckedPrompt
    from auricle.engine.request import Constraint, PromptLike
    from auricle.engine.scheduler import Request
    from auricle.listen.model import AudioLM
    from auricle.serve.monitoring import Monitoring

T = TypeVar("T")
_LOOK_S = 1.0  # the thread looks again after this long, even where nobody woke it


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class ModelThread:
    """The thread that computes: steps of engines, and one call of anything else between two of them."""

    def __init__(self, engines: Iterable[Engine], monitoring: Monitoring) -> None:
        """Prepare to work for ``engines``."""
        self.monitoring, self._engines = monitoring, list(engines)
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wanted, self._is_stopped = Event(), False
        self._thread = Thread(target=self._run, name="auricle-model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step."""
        self._is_stopped = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Say that there is work."""
        self._wanted.set()

    def call(self, function: Callable[[], T]) -> T:
        """Have the thread call a function; waits for its result, and raises what it raises."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        self._wanted.set()
        return future.result()

    def _run(self) -> None:
        with ExitStack() as stack:
            for engine in self._engines:
                stack.enter_context(engine.own_thread())
            while not self._is_stopped:
                self._wanted.clear()
                has_work = self._call_one()
                for engine in self._engines:
                    has_work |= engine.step()
                if not has_work:
                    self._wanted.wait(_LOOK_S)

    def _call_one(self) -> bool:
        try:
            function, future = self._calls.get_nowait()
        except queue.Empty:
            return False
        try:
            future.set_result(function())
        except BaseException as error:  # the caller's to handle
            future.set_exception(error)
        return True


class Job:
    """The work for one request: what it asked of the engine, and whether anybody still waits."""

    def __init__(self, thread: ModelThread) -> None:
        """Start with nothing asked."""
        self.thread, self.is_cancelled = thread, False
        self.prompt_tokens = self.audio_tokens = self.completion_tokens = 0
        self.is_cut = False  # whether an answer ended at its longest length
        self._requests: list[Request] = []

    def cancel(self) -> None:
        """Stop the work at the next token."""
        self.is_cancelled = True
        for request in self._requests:
            request.is_cancelled = True
        self.thread.wake()

    def check(self) -> None:
        """Raise `Cancelled` where nobody waits."""
        if self.is_cancelled:
            raise Cancelled

    def add(self, request: Request) -> None:
        """Count a request that was submitted to the engine."""
        self._requests.append(request)
        self.thread.monitoring.clips += len(request.prompt.spans)
        self.prompt_tokens += len(request.prompt.ids)
        self.audio_tokens += sum(count for _, count in request.prompt.spans)
        if self.is_cancelled:
            request.is_cancelled = True

    def note(self, request: Request, generation: Generation) -> None:
        """Count a request that is done."""
        self.check()
        self._requests.remove(request)
        self.completion_tokens += len(generation.ids)
        self.is_cut |= generation.stopped == "length"
        self.thread.monitoring.note_generation(request, monotonic())

    def call(self, function: Callable[[], T]) -> T:
        """Have the model's thread call a function."""
        self.check()
        return self.thread.call(function)

    def view(self, model: AudioLM, limits: Limits) -> AudioLM:
        """The model for this job alone: its work is counted and can be cancelled, and its reports are the job's."""
        own = copy(model)
        own.limits, own.on_audio, own.on_segment = limits, None, None
        if isinstance(own, PromptedLM):
            self.check()  # it waits for a server of its own, in the thread of this job
        elif isinstance(own, Whisper):
            own.network = _JobNetwork(own.network, self)
        else:
            own.engine = JobEngine(model.engine, self)
        return own


class _JobNetwork:
    """Whisper's network for one job: each window is one call of the model's thread, between those of others."""

    def __init__(self, network: Network, job: Job) -> None:
        self._network, self._job = network, job

    @property
    def supported_languages(self) -> list[str]:
        """See `Network`."""
        return self._network.supported_languages

    def transcribe(self, audio: Samples, **options: Any) -> tuple[Iterable[Any], Any]:
        """See `Network`; the segments are made at once, for making them is the work."""

        def whole() -> tuple[list[Any], Any]:
            segments, info = self._network.transcribe(audio, **options)
            return list(segments), info

        return self._job.call(whole)


class JobEngine(Engine):
    """The engine of a model for one job; everything else is the engine's."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job = engine, job

    def __getattr__(self, name: str) -> Any:
        """What the engine has."""
        return getattr(self._engine, name)

    def submit(self, *arguments: Any, **settings: Any) -> Request:
        """As `Engine.submit`."""
        self._job.check()
        request = self._engine.submit(*arguments, **settings)
        self._job.add(request)
        self._job.thread.wake()
        return request

    def result(self, request: Request) -> Generation:
        """As `Engine.result`."""
        found = self._engine.result(request)
        self._job.note(request, found)
        return found

    def generate(
        self,
        prompts: Sequence[PromptLike | CheckedPrompt],
        samplings: SamplingParams | Sequence[SamplingParams] = SamplingParams(),  # noqa: B008 - frozen
        *,
        constraints: Sequence[Constraint | None] | None = None,
    ) -> list[Generation]:
        """As `Engine.generate`."""
        each = [samplings] * len(prompts) if isinstance(samplings, SamplingParams) else samplings
        bounds = [None] * len(prompts) if constraints is None else constraints
        requests = [
            self.submit(prompt, sampling, constraint=bound)
            for prompt, sampling, bound in zip(prompts, each, bounds, strict=True)
        ]
        try:
            return [self.result(request) for request in requests]
        finally:
            for request in requests:
                self.cancel(request)

    def score(self, prompt: PromptLike | CheckedPrompt, continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `Engine.score`, on the model's thread."""
        return self._job.call(partial(self._engine.score, prompt, continuations))
