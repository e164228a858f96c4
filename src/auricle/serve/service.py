"""What all routes share: the models, the pools, and the way of a request from its clips to an answer."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from json import dumps
from time import monotonic, time
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from auricle.listen.other_models.prompted import PromptedLM
from auricle.listen.other_models.whisper import Whisper
from auricle.serve.admission import Admission
from auricle.serve.faults import ApiError, fault_of
from auricle.serve.jobs import Cancelled, Job, ModelThread
from auricle.serve.monitoring import Monitoring

if TYPE_CHECKING:
    from auricle.audio.facts import Clip
    from auricle.encode.aligner import Aligner
    from auricle.listen.model import AudioLM
    from auricle.search import Index
    from auricle.serve.inputs import Upload
    from auricle.serve.settings import Settings

T = TypeVar("T")

SHORT_WORKERS, LONG_WORKERS = 16, 2  # threads, which sleep for the most part
DECODERS, READERS = max(2, os.cpu_count() or 1), 4
LONG_BATCH = 4  # windows of a long clip in the engine at once: the rest of its places is for others
_MOST_KEPT = 512  # answers
_LITTLE = 1_000_000  # bytes that are hashed or parsed at once, without a thread
_KEEP_ALIVE_S = 10.0  # between signs of life in a stream without events

Work = Callable[[Job, list["Clip"]], T]
Emit = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Models:
    """What a server serves."""

    audio_lms: dict[str, AudioLM]  # audio language models by name, the first where a request names none
    aligner: Aligner | None = None
    aligner_name: str = ""
    index: Index | None = None
    device: str = "cpu"


@dataclass
class Service:
    """A server's state; used on the thread of the event loop, except where a method says otherwise."""

    settings: Settings
    models: Models | None = None  # None: they are being loaded
    started: int = field(default_factory=lambda: int(time()))
    is_leaving: bool = False  # whether requests should go to another server, as `/health` says

    def __post_init__(self) -> None:
        """Open the pools."""
        self.admission, self.monitoring = Admission(self.settings), Monitoring()
        self._shared: dict[bytes, _Shared] = {}
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._readers = ThreadPoolExecutor(READERS, "auricle-read")
        self._decoders = ThreadPoolExecutor(DECODERS, "auricle-decode")
        self._workers = {
            "short": ThreadPoolExecutor(SHORT_WORKERS, "auricle-short"),
            "long": ThreadPoolExecutor(LONG_WORKERS, "auricle-long"),
        }
        self._thread: ModelThread | None = None

    @property
    def is_ready(self) -> bool:
        """Whether models are loaded and requests are taken."""
        return self.models is not None and not self.is_leaving

    def serve(self, models: Models) -> None:
        """Start to serve models."""
        engines = [each.engine for each in models.audio_lms.values() if not isinstance(each, Whisper | PromptedLM)]
        self.monitoring.engines = engines
        self._thread = ModelThread(engines, self.monitoring)
        self._thread.start()
        self.models = models

    def close(self) -> None:
        """End all threads."""
        if self._thread is not None:
            self._thread.stop()
        for pool in (self._readers, self._decoders, *self._workers.values()):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> Models:
        """The models.

        Raises:
            ApiError: 503 where they are not loaded yet.
        """
        if self.models is None:
            raise ApiError(
                503,
                "the models are being loaded; try again",
                "loading",
                retry_after_s=2,
                headers={"x-should-retry": "true"},
            )
        return self.models

    async def in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that takes a while in a thread: parsing, hashing, fetching."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def answer(self, request: Request, uploads: Sequence[Upload], work: Work[T], decided: Any) -> T:
        """The result of ``work`` on the decoded clips, in a thread of its own.

        Args:
            request: where its client leaves, the work ends, unless others wait for the same.
            uploads: the clips.
            work: takes the job and the clips.
            decided: what decides the result beside the clips, as JSON: equal requests are answered by one result; None:
                each is answered by its own.

        Raises:
            AuricleError: what ``work`` or the decoding raises.
            ApiError: the request is not taken.
        """
        key = None if decided is None else await self._key(request, uploads, decided)
        if key is not None and key in self._kept:
            self._kept.move_to_end(key)
            self.monitoring.coalesced.labels("kept").inc()
            return self._kept[key]
        shared = self._shared.get(key) if key is not None else None
        if shared is None or shared.job.is_cancelled:
            job = self._job()
            shared = _Shared(job, asyncio.ensure_future(self._run(request, uploads, work, job)))
            if key is not None:
                self._share(key, shared)
        else:
            self.monitoring.coalesced.labels("shared").inc()
        return await shared.result(request)

    async def _key(self, request: Request, uploads: Sequence[Upload], decided: Any) -> bytes:
        """What tells requests with the same answer from others; where there are keys, those of other clients too.

        How fast an answer comes then says nothing of what others sent.
        """
        client = request.state.client if self.settings.keys else ""
        if sum(len(each.content) for each in uploads) < _LITTLE:
            return _digest(uploads, [client, decided])
        return await self.in_pool(_digest, uploads, [client, decided])

    def _share(self, key: bytes, shared: _Shared) -> None:
        self._shared[key] = shared

        def end(task: asyncio.Future[Any]) -> None:
            if self._shared.get(key) is shared:
                del self._shared[key]
            if not task.cancelled() and task.exception() is None:
                self._kept[key] = task.result()
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)

        shared.task.add_done_callback(end)

    async def stream(
        self, request: Request, uploads: Sequence[Upload], work: Callable[[Job, list[Clip], Emit], None]
    ) -> AsyncIterator[bytes]:
        """Start ``work``, which gives out events, and give them as server-sent events.

        What is wrong with the request or its clips is raised here, before the first event; later errors are events.
        """
        job, loop = self._job(), asyncio.get_running_loop()
        request.state.job = job  # ends with the request, see `auricle.serve.guard`
        events: asyncio.Queue[Any] = asyncio.Queue()
        has_begun = asyncio.Event()

        def put(event: Any) -> None:
            events.put_nowait(event)
            has_begun.set()

        def emit(event: Any) -> None:
            job.check()
            loop.call_soon_threadsafe(put, event)

        task = asyncio.ensure_future(self._run(request, uploads, lambda job, clips: work(job, clips, emit), job))
        task.add_done_callback(lambda _: put(None))
        left, first = (asyncio.ensure_future(each) for each in (_until_left(request), has_begun.wait()))
        try:
            await asyncio.wait({left, first}, return_when=asyncio.FIRST_COMPLETED)
            if not has_begun.is_set():
                raise Cancelled
            if task.done() and events.qsize() == 1:  # nothing but its end
                task.result()
        finally:
            left.cancel()
            first.cancel()
        return _events(task, events)

    async def _run(self, request: Request, uploads: Sequence[Upload], work: Work[T], job: Job) -> T:
        """Decode, wait for admission to a lane, and work in one of its threads."""
        endpoint = str(getattr(request.scope.get("route"), "path", ""))
        clips, loop = [], asyncio.get_running_loop()
        for upload in uploads:
            with self.admission.decoding():
                clip, taken = await loop.run_in_executor(self._decoders, self._decode, upload)
            self.admission.note_decoding(taken / DECODERS)
            clips.append(clip)
        lengths = [len(clip.waveform) / 16_000 for clip in clips]
        lane = "long" if max(lengths, default=0.0) > self.settings.long_s else "short"
        seconds = sum(lengths)
        with self.admission.working(request.state.client, seconds, lane):
            job.check()
            self.monitoring.waiting.inc()
            call = partial(self._work, work, job, clips)
            found = await asyncio.shield(loop.run_in_executor(self._workers[lane], call))
        self.monitoring.audio_seconds.labels(endpoint).inc(seconds)
        request.state.audio_s = seconds
        return found

    def _work(self, work: Work[T], job: Job, clips: list[Clip]) -> T:
        self.monitoring.waiting.dec()
        with self.monitoring.running.track_inprogress():
            job.check()
            return work(job, clips)

    def _decode(self, upload: Upload) -> tuple[Clip, float]:
        start = monotonic()
        clip = upload.decode(self.settings.limits)
        taken = monotonic() - start
        self.monitoring.audio_decode.observe(taken)
        return clip, taken

    def _job(self) -> Job:
        assert self._thread is not None
        return Job(self._thread)


@dataclass
class _Shared:
    """Work whose result one or several requests wait for."""

    job: Job
    task: asyncio.Future[Any]
    waiters: int = 0

    async def result(self, request: Request) -> Any:
        """The result; the work is cancelled where the last client that waits for it leaves."""
        self.waiters += 1
        left = asyncio.ensure_future(_until_left(request))
        try:
            await asyncio.wait({self.task, left}, return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                return self.task.result()
            raise Cancelled
        finally:
            left.cancel()
            self.waiters -= 1
            if not self.waiters and not self.task.done():
                self.job.cancel()
                self.task.add_done_callback(lambda task: task.cancelled() or task.exception())


def _digest(uploads: Sequence[Upload], decided: Any) -> bytes:
    parts = [decided, [each.digest.hex() for each in uploads]]
    return sha256(dumps(parts, sort_keys=True).encode()).digest()


async def _until_left(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(task: asyncio.Future[None], events: asyncio.Queue[Any]) -> AsyncIterator[bytes]:
    """Events as they come, signs of life between them, and at last the error, if there was one."""

    def line(event: Any) -> bytes:
        return f"data: {dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()

    while True:
        try:
            event = await asyncio.wait_for(events.get(), _KEEP_ALIVE_S)
        except asyncio.TimeoutError:
            yield b": keep-alive\n\n"
            continue
        if event is None:
            break
        yield line(event)
    error = task.exception()
    yield b"data: [DONE]\n\n" if error is None else line(fault_of(error).body())
