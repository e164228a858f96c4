"""A lock for threads that wait for one engine: one of them works for all, and the others wake after each turn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from auricle.errors import ConfigError

_NAP_S = 0.02  # a waiting thread looks again after this long, even where no turn ended
_FORK_WAIT_S = 10.0  # a turn is one step of a model, mostly far below a second


class TurnLock:
    """Lets one thread at a time work, and wakes the waiting ones after every turn.

    A plain lock is not enough: the thread that releases it usually gets it back at once, and a thread whose result is
    ready would go on waiting.
    """

    def __init__(self) -> None:
        self._is_cut, self._is_held = False, False  # by a fork: within a turn, for its time
        self._reset()
        _LOCKS.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._queued = 0  # threads in `turn`; those in `turn_unless` give way to them

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the lock, and hold it.

        Raises:
            ConfigError: this process was forked within a turn, so that what the turn worked on is half done.
        """
        self._check()
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
            self._release()

    @contextmanager
    def turn_unless(self, is_ready: Callable[[], bool]) -> Iterator[bool]:
        """Hold the lock where it is free, else wait until a turn of another thread ends.

        Yields:
            Whether this thread holds the lock and ``is_ready`` is still false, so that there is work to do.

        Raises:
            ConfigError: as `turn`.
        """
        self._check()
        if self._queued or not self._lock.acquire(blocking=False):
            with self._changed:
                if not is_ready():
                    self._changed.wait(_NAP_S)
            yield False
            return
        try:
            yield not is_ready()
        finally:
            self._release()

    def wake(self) -> None:
        """Let the waiting threads look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, is_ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Sleep until ``is_ready`` or for ``timeout_s``; whether it is."""
        with self._changed:
            return self._changed.wait_for(is_ready, timeout_s)

    def _release(self) -> None:
        self._lock.release()
        self.wake()

    def _check(self) -> None:
        if self._is_cut:
            raise ConfigError("this process was forked while the model was answering; load the model again in it")

    def _before_fork(self) -> None:
        self._is_held = self._lock.acquire(timeout=_FORK_WAIT_S)

    def _after_fork_in_parent(self) -> None:
        if self._is_held:
            self._release()

    def _after_fork_in_child(self) -> None:
        self._is_cut |= not self._is_held
        self._reset()


_LOCKS: WeakSet[TurnLock] = WeakSet()


def _each(step: Callable[[TurnLock], None]) -> Callable[[], None]:
    def run() -> None:
        for lock in list(_LOCKS):
            step(lock)

    return run


if hasattr(os, "register_at_fork"):
    # A fork waits for the end of a turn: the threads that would end it are not copied.
    os.register_at_fork(
        before=_each(TurnLock._before_fork),
        after_in_parent=_each(TurnLock._after_fork_in_parent),
        after_in_child=_each(TurnLock._after_fork_in_child),
    )
