"""Tasks in this process or in several; a process that ends loses nothing, for its task is done again.

A task whose process ends twice is done in parts, clip by clip and expert by expert. The part that still ends its
process is given up, and reported with the way it ended.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from auricle.curate.factory.experts import Expert
from auricle.curate.factory.tasks import Task, Worker, WorkSettings, smaller
from auricle.errors import AuricleError, ConfigError

_ATTEMPTS = 2  # of a task, before it is done in parts
_LOST = 20  # processes in a row that end without having done anything: then something else is wrong


class Done(NamedTuple):
    """The end of a task; of one that was done in parts, one for each part."""

    number: int  # of the task
    task: Task
    result: Any
    death: str = ""  # how its process ended, where it was given up


@dataclass
class _Process:
    process: Any
    pipe: Any
    job: "_Job | None" = None


@dataclass
class _Job:
    number: int
    task: Task
    attempts: int = 0


@dataclass
class Pool:
    """Does tasks; see `pool`."""

    settings: WorkSettings
    workers: int  # 0: this process
    experts: list[Expert] = field(default_factory=list)  # of the run, without their code; known once it has started
    _here: Worker | None = None
    _processes: list[_Process] = field(default_factory=list)

    def do(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Do tasks; results come as they are ready, in no order.

        Raises:
            AuricleError: what a task raises: settings, or a disk that is full.
        """
        if self._here is not None:
            for number, task in enumerate(tasks):
                with _one_thread():
                    result = self._here.do(task)
                yield Done(number, task, result)
        else:
            yield from self._do_elsewhere(tasks)

    def start(self) -> None:
        """Load the experts.

        Raises:
            AuricleError: one cannot be loaded.
        """
        if self.workers == 0:
            self._here = Worker(self.settings)
        (described,) = self.do([Task("describe")])
        self.experts = described.result

    def stop(self) -> None:
        """End all processes."""
        for each in self._processes:
            each.pipe.close()
            each.process.terminate()
        for each in self._processes:
            each.process.join()
        self._processes = []

    def _do_elsewhere(self, tasks: Sequence[Task]) -> Iterator[Done]:
        from multiprocessing.connection import wait

        waiting = deque(_Job(number, task) for number, task in enumerate(tasks))
        lost = 0
        while waiting or any(each.job for each in self._processes):
            while waiting and len(self._processes) < self.workers:
                self._processes.append(self._new())
            for each in self._processes:
                if waiting and each.job is None:
                    each.job = waiting.popleft()
                    _send(each, each.job.task)
            busy = [each for each in self._processes if each.job is not None]
            ready = wait([each.pipe for each in busy])
            for each in [each for each in busy if each.pipe in ready]:
                job, each_job = each.job, each
                assert job is not None
                try:
                    answer = each_job.pipe.recv()
                except (EOFError, OSError):
                    lost += 1
                    if lost > _LOST:
                        raise AuricleError(f"{lost} processes ended one after the other; see their messages") from None
                    yield from self._again(each, job, waiting)
                    continue
                each.job, lost = None, 0
                if isinstance(answer, AuricleError):
                    raise answer
                yield Done(job.number, job.task, answer)

    def _again(self, dead: _Process, job: _Job, waiting: "deque[_Job]") -> Iterator[Done]:
        """Put the task of a process that ended back into the queue, whole or in parts."""
        self._processes.remove(dead)
        dead.process.join()
        dead.pipe.close()
        job.attempts += 1
        if job.attempts < _ATTEMPTS:
            waiting.appendleft(job)
        elif parts := smaller(job.task, self.experts):
            waiting.extendleft(_Job(job.number, part, attempts=_ATTEMPTS - 1) for part in reversed(parts))
        else:
            code = dead.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            yield Done(job.number, job.task, None, f"its process ended with {how}")

    def _new(self) -> _Process:
        from multiprocessing import get_context

        context: Any = get_context("spawn")
        own, other = context.Pipe()
        process = context.Process(target=_serve, args=(self.settings, other), daemon=True)
        process.start()
        other.close()  # the process has it too: its end is the end of the pipe
        return _Process(process, own)


@contextmanager
def pool(settings: WorkSettings, workers: int) -> Iterator[Pool]:
    """Processes with the experts of a run, ended with the block.

    Args:
        settings: of the run.
        workers: number of processes; 0: everything is done in this one.

    Raises:
        ConfigError: experts that are no names, which another process cannot load.
        AuricleError: an expert cannot be loaded.
    """
    if workers and any(isinstance(each, Expert) for each in settings.experts):
        raise ConfigError(
            "an expert that is an object stays in this process; use workers=0, or offer it as an entry point"
        )
    made = Pool(settings, workers)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _send(process: _Process, task: Task) -> None:
    try:
        process.pipe.send(task)
    except OSError:
        pass  # it has ended: reading from it says so


def _serve(settings: WorkSettings, pipe: Any) -> None:
    """Do tasks until the pipe ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # as `_one_thread`, where torch is not imported yet: not all experts need it
    worker = Worker(settings)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            result = worker.do(task)
        except AuricleError as error:
            result = error
        pipe.send(result)


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: the last digits of a probability depend on how many there are, and shards must not."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
