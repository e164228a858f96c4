"""Who does the work when many threads wait for one machine: one of those that wait, for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAP_S = 0.02  # a waiting thread looks again after this long even where nobody woke it


class Turns:
    """Lets one thread at a time at something, and wakes the others after every turn.

    A plain lock is not enough: the thread that lets it go usually gets it back at once, and one whose result is there
    already would wait on.
    """

    def __init__(self) -> None:
        """Nobody is at it."""
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._queued = 0  # threads in `turn`; those in `work_until` stand back for them

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only one for a while."""
        with self._changed:
            self._queued += 1
        try:
            self._lock.acquire()
        finally:
            with self._changed:
                self._queued -= 1
        try:
            yield
        finally:
            self._end()

    def work_until(self, is_ready: Callable[[], bool], work: Callable[[], None]) -> None:
        """Call ``work`` whenever nobody else does, until ``is_ready``, whoever's work made it so."""
        while not is_ready():
            if not self._queued and self._lock.acquire(blocking=False):
                try:
                    if not is_ready():
                        work()
                finally:
                    self._end()
            else:
                with self._changed:
                    if not is_ready():
                        self._changed.wait(_NAP_S)

    def wake(self) -> None:
        """Let the waiting threads look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, is_ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Sleep until ``is_ready`` or for ``timeout_s``; whether it is."""
        with self._changed:
            return self._changed.wait_for(is_ready, timeout_s)

    def _end(self) -> None:
        self._lock.release()
        self.wake()
