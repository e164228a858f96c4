"""Which requests are taken: by the seconds of audio in work and how long they take, and by the budget of each client.

Used on the thread of the event loop alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from auricle.serve.faults import ApiError

if TYPE_CHECKING:
    from auricle.serve.settings import Settings

_LEAST_S = 1.0  # a request costs as much as this much audio, since text is generated for the shortest clip too
_MOST_WAITING_S = 3600.0  # of decoded audio in memory: 230 MB
_MOST_BYTES = 512_000_000  # of requests that are being read
_FIRST_FACTOR = 0.02  # seconds of work a second of audio, before any was measured
_MEMORY_S = 120.0  # of audio, over which the factor is averaged
_DECODE_WEIGHT = 0.1  # of one clip in the average
_LANES = ("short", "long")


class Admission:
    """Audio in work, and an estimate of how long a new request would wait."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        """Start without requests; ``clock`` gives seconds."""
        self._settings, self._clock = settings, clock
        self.factor = _FIRST_FACTOR  # seconds of work a second of audio
        self.seconds = dict.fromkeys(_LANES, 0.0)  # of audio in work
        self.num_decoding, self.decode_s = 0, 0.0  # clips that are being decoded, or wait for it; time for one of them
        self.is_closed = False  # for good: what is in work is finished, and nothing else taken
        self._bytes = 0
        self._running: Counter[str] = Counter()  # requests of each client
        self._used: dict[str, deque[tuple[float, float]]] = {}  # of each client, when it gave how many seconds
        self._last_end = 0.0

    def wait_s(self, lane: str = "short") -> float:
        """How long a new request would wait, s; short clips share with long ones, and need not wait for them."""
        short, long = self.seconds["short"], self.seconds["long"]
        work_s = self.factor * (short + long if lane == "long" else short + min(short, long))
        return work_s + self.num_decoding * self.decode_s

    def check(self, lane: str = "short") -> None:
        """Refuse a request before it is read.

        Raises:
            ApiError: 503 where the server is about to end, 429 where the queue is too long.
        """
        if self.is_closed:
            raise ApiError(
                503,
                "the server is about to stop; try again",
                "draining",
                retry_after_s=2,
                headers={"x-should-retry": "true"},
            )
        wait, most = self.wait_s(lane), self._settings.queue_s
        is_full = sum(self.seconds.values()) > _MOST_WAITING_S
        if (self.seconds[lane] or self.num_decoding) and (wait > most or is_full):
            raise ApiError(
                429,
                f"the queue is full: a request would wait {wait:.0f} s, the limit is {most:g} s; try again later",
                "overloaded",
                retry_after_s=max(1.0, wait - most / 2),
            )

    @contextmanager
    def reading(self, client: str, num_bytes: int) -> Iterator[None]:
        """Count a request of a client while it is in the server.

        Raises:
            ApiError: 429, too many of this client, or too many bytes.
        """
        if self._running[client] >= self._settings.max_requests:
            raise ApiError(
                429,
                f"{self._running[client]} requests of this client are in work; wait for one of them",
                "too_many_requests",
                retry_after_s=1,
            )
        if self._bytes and self._bytes + num_bytes > _MOST_BYTES:
            raise ApiError(429, "too much is being uploaded; try again later", "overloaded", retry_after_s=2)
        self._running[client] += 1
        self._bytes += num_bytes
        try:
            yield
        finally:
            self._bytes -= num_bytes
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    @contextmanager
    def working(self, client: str, seconds: float, lane: str) -> Iterator[None]:
        """Take a request with so many seconds of audio, and learn from the time it takes.

        Raises:
            ApiError: as `check`, or 429 where the client's budget of audio is used up.
        """
        self.check(lane)
        self._charge(client, seconds)
        cost = max(_LEAST_S, seconds)
        start = self._clock()
        self.seconds[lane] += cost
        try:
            yield
        finally:
            self.seconds[lane] = round(max(0.0, self.seconds[lane] - cost), 6)  # sums would drift from 0
            now = self._clock()
            # While requests overlap, the time since the last one ended is what this one took of the machine.
            taken, self._last_end = now - max(start, self._last_end), now
            weight = min(1.0, cost / _MEMORY_S)
            self.factor += weight * (taken / cost - self.factor)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count a clip while it is decoded, or waits for that."""
        self.num_decoding += 1
        try:
            yield
        finally:
            self.num_decoding -= 1

    def note_decoding(self, taken_s: float) -> None:
        """Learn from the time that the decoding of one clip held all others up."""
        self.decode_s += _DECODE_WEIGHT * (taken_s - self.decode_s)

    def _charge(self, client: str, seconds: float) -> None:
        most = self._settings.seconds_per_minute
        if most is None:
            return
        now, used = self._clock(), self._used.setdefault(client, deque())
        while used and used[0][0] <= now - 60:
            used.popleft()
        total = sum(each for _, each in used)
        if used and total + seconds > most:
            raise ApiError(
                429,
                f"{total:.0f} s of audio in the last minute; the budget is {most:g} s a minute",
                "budget_exceeded",
                retry_after_s=used[0][0] + 60 - now,
            )
        used.append((now, seconds))
