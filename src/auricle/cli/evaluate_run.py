"""The verbs that put tasks to a model: evaluate run and evaluate tasks."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from auricle.cli.evaluate import (
    PROTOCOLS,
    Cache,
    Detector,
    Encoder,
    Limit,
    MaxNewTokens,
    MissingAnswers,
    Protocol,
    Seed,
    Tasks,
    Tools,
    check_choice,
    show_scored,
    split_task,
)
from auricle.cli.listen import Adapter, AsJson, BatchSize, Device, Dtype, Model, Quantize
from auricle.cli.output import print_json, print_line, progress
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.questions import Question
    from auricle.evaluate.run import Share, TaskRun
    from auricle.evaluate.task import LanguageTask

CACHE = "cache"  # folder of answers inside the output


class _Order(NamedTuple):
    """What is asked of whom; a process that helps is given this."""

    opened: dict[str, Any]  # of `auricle.load`
    tasks: list[str]  # NAME=SOURCE
    prompt: str | None
    choose: Any  # how the choices of closed questions are weighed; None: answers in the model's own words
    limit: int | None
    max_new_tokens: int | None
    batch_size: int
    output: Path
    cache: Path


class _Job(NamedTuple):
    """One task with its questions."""

    task: LanguageTask
    source: str
    questions: list[Question]


def run(
    task: Tasks,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results, OUTPUT/MODEL/TASK.")],
    model: Model = "auricle-tiny",
    protocol: Protocol = "strict",
    prompt: Annotated[str | None, typer.Option("--prompt", help="Asked in the place of the task's own.")] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            "--choose", help="Closed questions: take the likeliest choice, of texts or of letters, not what is said."
        ),
    ] = None,
    limit: Limit = None,
    share: Annotated[
        str, typer.Option("--share", metavar="K/N", help="Only ask this part of the sounds, 0/4 to 3/4; then run all.")
    ] = "0/1",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that ask, each with the model.")] = 1,
    cache: Cache = None,
    missing: MissingAnswers = "error",
    max_new_tokens: MaxNewTokens = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    encoder: Encoder = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a model all questions of tasks and score its answers; a run that was stopped goes on.

    A source is a manifest, an official file of answers, a folder of shards, or MECAT's references. Nothing is asked
    twice. On several machines that share --cache, run each --share, then once without.

    Example: auricle evaluate run --model auricle-tiny --task digits=shards -o results --protocol both
    """
    check_choice("--protocol", protocol, tuple(PROTOCOLS))
    check_choice("--missing", missing, ("error", "worst"))
    if choose is not None:
        check_choice("--choose", choose, ("texts", "letters"))
    from auricle.evaluate.run import read_share

    part = read_share(share)
    opened = {"name": model, "device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter}
    order = _Order(opened, task, prompt, choose, limit, max_new_tokens, batch_size, output, cache or output / CACHE)
    tally = Tally()
    jobs = _jobs(
        order,
        lambda name, error: _tell_error(tally, name, error, as_json=as_json),
        lambda text: print_line(f"auricle: {text}", err=True),
    )
    if workers > 1 and jobs:
        _ask_in_processes(order, part, workers, sum(len(job.questions) for job in jobs))
    judging = {"protocols": PROTOCOLS[protocol], "missing": missing, "seed": seed}
    _run_jobs(order, part, jobs, judging, Tools(encoder, error_detector, device), tally, as_json=as_json)
    tally.leave()


def tasks(
    suite: Annotated[str | None, typer.Option("--suite", help="Only the tasks of this suite.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks: how each is judged, what is asked, and the scores that were published, in percent.

    Example: auricle evaluate tasks --suite midashenglm
    """
    from auricle.evaluate.task import language_tasks

    for each in language_tasks(suite):
        if as_json:
            print_json(dataclasses.asdict(each))
            continue
        published = ", ".join(f"{name} {value:g}" for name, value in each.published.items())
        prompts = " | ".join(dict.fromkeys(each.prompts.values()))
        print_line(f"{each.name:24} {each.suite:12} {each.domain:7} {each.judge:8} {published}".rstrip())
        print_line(f"    {prompts}")


def _run_jobs(
    order: _Order,
    part: Share,
    jobs: Sequence[_Job],
    judging: dict[str, Any],
    tools: Tools,
    tally: Tally,
    *,
    as_json: bool,
) -> None:
    if not jobs:
        return
    import auricle
    from auricle.evaluate.answer_cache import AnswerCache

    listener = auricle.load(**order.opened)
    with AnswerCache(order.cache) as cache:
        for fault in cache.damaged:
            print_line(f"auricle: {fault}; passed over", err=True)
        for job in jobs:
            before = cache.added
            try:
                asked = _asked(order, job, listener)
                with progress(f"{asked.model} on {job.task.name}", len(job.questions), quiet=as_json) as advance:
                    done = _ask(order, part, job, asked, cache, advance, tools=tools, **judging)
            except ConfigError:
                raise
            except AuricleError as error:
                _tell_error(tally, job.task.name, str(error), as_json=as_json)
                continue
            _tell(tally, asked.model, job, done, asked=cache.added - before, as_json=as_json)


def _ask(
    order: _Order,
    part: Share,
    job: _Job,
    listener: Any,
    cache: AnswerCache,
    advance: Callable[[], None],
    *,
    tools: Tools | None = None,
    **judging: Any,
) -> TaskRun:
    from auricle.engine.request import SamplingParams
    from auricle.evaluate.run import run_task

    if tools is not None and job.task.judge in ("caption", "mecat"):
        judging |= {"encoder": tools.encoder, "detector": tools.detector()}
    return run_task(
        listener,
        job.task,
        job.questions,
        order.output,
        source=job.source,
        share=part,
        cache=cache,
        sampling=SamplingParams(max_new_tokens=order.max_new_tokens or job.task.max_new_tokens),
        batch_size=order.batch_size,
        on_answer=lambda question, reply: advance(),
        **judging,
    )


def _asked(order: _Order, job: _Job, listener: Any) -> Any:
    """The model as it is asked."""
    if order.choose is None:
        return listener
    from auricle.evaluate.choosing import ChoosingLM

    return ChoosingLM(listener, job.questions, order.choose)


def _jobs(order: _Order, on_error: Callable[[str, str], None], on_note: Callable[[str], None]) -> list[_Job]:
    """Tasks with their questions; a source that cannot be understood leaves its error, and the others go on."""
    from auricle.evaluate.questions import read_questions

    chosen = [split_task(text) for text in order.tasks]
    names = [task.name for task, _ in chosen]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"--task names {', '.join(repeated)} twice; expected each task once, its results have one place"
        )
    if order.prompt is not None:
        prompts = {task.name: {field: order.prompt for field in task.prompts} for task, _ in chosen}
        chosen = [(dataclasses.replace(task, prompts=prompts[task.name]), source) for task, source in chosen]
    found = []
    for task, source in chosen:
        try:
            found.append(_Job(task, source, read_questions(task, source, limit=order.limit, on_note=on_note)))
        except ConfigError:
            raise
        except AuricleError as error:
            on_error(task.name, str(error))
    return found


# --- processes


def _ask_in_processes(order: _Order, part: Share, workers: int, questions: int) -> None:
    """Have several processes ask into the cache; what one of them could not do is left to this one."""
    from multiprocessing import get_context
    from multiprocessing.connection import wait

    context = get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    processes: dict[Any, Any] = {}
    try:
        for share in part.split(workers):
            receiver, sender = context.Pipe(duplex=False)
            processes[receiver] = context.Process(target=_work, args=(order, share, threads, sender), daemon=True)
            processes[receiver].start()
            sender.close()  # the other process holds it too: its end is the end of the pipe
        with progress(f"{workers} processes", questions) as advance:
            listening = set(processes)
            while listening:
                ready: Any
                for ready in wait(list(listening)):
                    try:
                        ready.recv()
                        advance()
                    except EOFError:
                        listening.remove(ready)
        for process in processes.values():
            process.join()
            if process.exitcode:
                print_line(
                    f"auricle: a process ended with {process.exitcode}; what it did not ask is asked now", err=True
                )
    finally:
        for process in processes.values():
            if process.is_alive():
                process.terminate()


def _work(order: _Order, share: Share, threads: int, sender: Any) -> None:
    """Ask a share and tell of every answer; errors are told by who started this and meets them too."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    import auricle
    from auricle.evaluate.answer_cache import AnswerCache

    try:
        jobs = _jobs(order, lambda name, error: None, lambda text: None)
        listener = auricle.load(**order.opened)
        with AnswerCache(order.cache) as cache:
            for job in jobs:
                _ask(order, share, job, _asked(order, job, listener), cache, lambda: sender.send(None))
    except (AuricleError, KeyboardInterrupt):
        sys.exit(1)


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- telling


def _tell(tally: Tally, model: str, job: _Job, done: TaskRun, *, asked: int, as_json: bool) -> None:
    for name, error in done.failed.items():
        tally.note_error(name, error, quiet=as_json)
    for name in done.partial:
        tally.partial += 1
        if not as_json:
            print_line(f"auricle: {name}: heard in part", err=True)
    answered = sum(reply.text is not None for reply in done.replies)
    if as_json:
        print_json(
            {
                "model": model,
                "name": job.task.name,
                "folder": None if done.folder is None else str(done.folder),
                "questions": len(done.replies),
                "answered": answered,
                "asked": asked,
                "failed": done.failed,
                "heard_in_part": done.partial,
                "scores": {rule: scored.content(items=False) for rule, scored in done.scored.items()},
                "error": None,
            }
        )
        return
    where = "" if done.folder is None else f"; {done.folder}"
    print_line(f"{model} on {job.task.name}: {answered} of {len(done.replies)} answered, {asked} anew{where}")
    if done.folder is not None and not done.scored:
        print_line("not scored: answers are missing; mend or leave out their sounds, or give --missing worst", err=True)
    for scored in done.scored.values():
        show_scored(scored)


def _tell_error(tally: Tally, name: str, error: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "error": error})
    tally.note_error(name, error, quiet=as_json)
