"""The verbs that run tasks on a model: evaluate run and evaluate tasks."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from auricle.cli.evaluate import load_detector, open_cache, read_task, scoring_config, show_scored, split_task
from auricle.cli.listen import Adapter, AsJson, BatchSize, Device, Dtype, Model, Quantize
from auricle.cli.options import (
    SCORING_RULES,
    Cache,
    Detector,
    Limit,
    MissingAnswers,
    ScoringRules,
    Seed,
    SentenceModel,
    TaskMaxNewTokens,
    Tasks,
    check_choice,
    check_scoring,
)
from auricle.cli.output import print_json, print_line, progress
from auricle.cli.printing import Tally
from auricle.cores import granted_cores
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.generate import Reply
    from auricle.evaluate.questions import Question
    from auricle.evaluate.run import Evaluator, Share, TaskRun
    from auricle.evaluate.scores import ScoringConfig
    from auricle.evaluate.task import LanguageTask

CACHE = "cache"  # folder of answers inside the output


class _Settings(NamedTuple):
    """The model, its tasks and how answers are generated; a worker process is given this."""

    opened: dict[str, Any]  # of `auricle.load`
    tasks: list[str]  # NAME=SOURCE
    prompt: str | None
    choose: Any  # how the choices of closed questions are offered; None: free answers
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
    scoring_rule: ScoringRules = "strict",
    prompt: Annotated[str | None, typer.Option("--prompt", help="In place of the task's own.")] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            "--choose", help="Closed questions: take the likeliest choice, of texts or of letters, not a free answer."
        ),
    ] = None,
    limit: Limit = None,
    share: Annotated[
        str,
        typer.Option("--share", metavar="K/N", help="Only generate answers for this part, 0/4 to 3/4; then run all."),
    ] = "0/1",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each with the model.")] = 1,
    cache: Cache = None,
    missing: MissingAnswers = "error",
    max_new_tokens: TaskMaxNewTokens = None,
    batch_size: BatchSize = 8,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    encoder: SentenceModel = "minilm",
    error_detector: Detector = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate the answers of a model to all questions of tasks and score them; a stopped run continues.

    A source is a manifest, a file of predictions, a folder of shards, or MECAT's references. No answer is generated
    twice. On several machines that share --cache, run each --share, then once without.

    Example: auricle evaluate run --model auricle-tiny --task digits=shards -o results --scoring-rule both
    """
    check_scoring(scoring_rule, missing)
    if choose is not None:
        check_choice("--choose", choose, ("texts", "letters"))
    from auricle.evaluate.run import read_share

    part = read_share(share)
    opened = {"name": model, "device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter}
    settings = _Settings(
        opened, task, prompt, choose, limit, max_new_tokens, batch_size, output, cache or output / CACHE
    )
    tally = Tally()
    jobs = _jobs(settings, lambda name, error: _report_error(tally, name, error, as_json=as_json))
    if workers > 1 and jobs:
        _generate_in_processes(settings, part, workers, sum(len(job.questions) for job in jobs))
    scoring = scoring_config(encoder, error_detector, device, missing=missing, seed=seed)
    runs = _runs(settings, part, jobs, scoring, SCORING_RULES[scoring_rule], quiet=as_json)
    for job, done, model_name, generated in runs:
        if isinstance(done, AuricleError):
            _report_error(tally, job.task.name, str(done), as_json=as_json)
        else:
            _report(tally, model_name, job, done, generated=generated, as_json=as_json)
    tally.leave()


def tasks(
    suite: Annotated[str | None, typer.Option("--suite", help="Only the tasks of this suite.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks: the kind that scores each, its prompt, and published scores in percent.

    Example: auricle evaluate tasks --suite midashenglm
    """
    from auricle.evaluate.task import language_tasks

    for each in language_tasks(suite):
        if as_json:
            print_json(each.content())
            continue
        published = ", ".join(f"{name} {value:g}" for name, value in each.published.items())
        prompts = " | ".join(dict.fromkeys(each.prompts.values()))
        print_line(f"{each.name:24} {each.suite:12} {each.domain:7} {each.kind:8} {published}".rstrip())
        print_line(f"    {prompts}")


def _runs(
    settings: _Settings,
    part: Share,
    jobs: Sequence[_Job],
    scoring: ScoringConfig,
    scoring_rules: Sequence[Any],
    *,
    quiet: bool,
) -> Iterator[tuple[_Job, TaskRun | AuricleError, str, int]]:
    """Each job with its result or error, the name of the model, and the number of generated answers."""
    if not jobs:
        return
    import auricle
    from auricle.evaluate.run import run_task

    load_detector(scoring, [job.task for job in jobs])
    model = auricle.load(**settings.opened)
    with open_cache(settings.cache) as cache:
        for job in jobs:
            before = cache.added
            result: TaskRun | AuricleError
            name = ""
            try:
                evaluator = dataclasses.replace(_evaluator(settings, job, model, cache), scoring=scoring)
                name = evaluator.model.model
                with progress(f"{name} on {job.task.name}", len(job.questions), quiet=quiet) as advance:
                    result = run_task(
                        dataclasses.replace(evaluator, on_reply=_each(advance)),
                        job.questions,
                        settings.output,
                        source=job.source,
                        scoring_rules=scoring_rules,
                        share=part,
                    )
            except ConfigError:
                raise
            except AuricleError as error:
                result = error
            yield job, result, name, cache.added - before


def _each(done: Callable[[], None]) -> Callable[[Question, Reply], None]:
    """Calls ``done`` for every reply."""
    return lambda question, reply: done()


def _evaluator(settings: _Settings, job: _Job, model: Any, cache: AnswerCache) -> Evaluator:
    from auricle.engine.request import SamplingParams
    from auricle.evaluate.generate import ChoosingLM
    from auricle.evaluate.run import Evaluator

    return Evaluator(
        model=model if settings.choose is None else ChoosingLM(model, job.questions, settings.choose),
        task=job.task,
        cache=cache,
        sampling=SamplingParams(max_new_tokens=settings.max_new_tokens or job.task.max_new_tokens),
        batch_size=settings.batch_size,
    )


def _jobs(
    settings: _Settings,
    on_error: Callable[[str, str], None],
    on_note: Callable[[str], None] | None = None,
) -> list[_Job]:
    """Tasks with their questions; a source that cannot be understood is reported, and the others continue."""
    chosen = [split_task(text) for text in settings.tasks]
    names = [task.name for task, _ in chosen]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"--task names {', '.join(repeated)} twice; expected each task once, its results have one place"
        )
    if settings.prompt is not None:
        prompts = {task.name: {field: settings.prompt for field in task.prompts} for task, _ in chosen}
        chosen = [(dataclasses.replace(task, prompts=prompts[task.name]), source) for task, source in chosen]
    found = []
    for task, source in chosen:
        try:
            found.append(_Job(task, source, read_task(task, source, settings.limit, on_note)))
        except ConfigError:
            raise
        except AuricleError as error:
            on_error(task.name, str(error))
    return found


# --- processes


def _generate_in_processes(settings: _Settings, part: Share, workers: int, questions: int) -> None:
    """Have several processes add answers to the cache; what one of them could not do is left to this one."""
    from multiprocessing import get_context
    from multiprocessing.connection import wait

    context = get_context("spawn")
    threads = max(1, granted_cores() // workers)
    processes: dict[Any, Any] = {}
    try:
        for share in part.split(workers):
            receiver, sender = context.Pipe(duplex=False)
            processes[receiver] = context.Process(target=_work, args=(settings, share, threads, sender), daemon=True)
            processes[receiver].start()
            sender.close()  # the other process has it too: its end is the end of the pipe
        with progress(f"{workers} processes", questions) as advance:
            open_pipes = set(processes)
            while open_pipes:
                ready: Any
                for ready in wait(list(open_pipes)):
                    try:
                        ready.recv()
                        advance()
                    except EOFError:
                        open_pipes.remove(ready)
        for process in processes.values():
            process.join()
            if process.exitcode:
                print_line(
                    f"auricle: a process ended with {process.exitcode}; its other answers are generated now", err=True
                )
    finally:
        for process in processes.values():
            if process.is_alive():
                process.terminate()


def _work(settings: _Settings, share: Share, threads: int, sender: Any) -> None:
    """Answer a share and report every answer; errors are reported by the parent process, which meets them too."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    import auricle
    from auricle.evaluate.answer_cache import AnswerCache

    try:
        jobs = _jobs(settings, lambda name, error: None, lambda text: None)
        model = auricle.load(**settings.opened)
        with AnswerCache(settings.cache) as cache:
            for job in jobs:
                evaluator = _evaluator(settings, job, model, cache)
                own = [question for question in job.questions if share.has(question.audio.name)]
                dataclasses.replace(evaluator, on_reply=_each(lambda: sender.send(None))).generate(own)
    except (AuricleError, KeyboardInterrupt):
        sys.exit(1)


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- printing


def _report(tally: Tally, model: str, job: _Job, done: TaskRun, *, generated: int, as_json: bool) -> None:
    for name, error in done.failed.items():
        tally.note_error(name, error, quiet=as_json)
    for name in done.partial:
        tally.partial += 1
        if not as_json:
            print_line(f"auricle: {name}: processed in part", err=True)
    answered = sum(reply.text is not None for reply in done.replies)
    if as_json:
        print_json(
            {
                "model": model,
                "name": job.task.name,
                "folder": None if done.folder is None else str(done.folder),
                "questions": len(done.replies),
                "answered": answered,
                "asked": generated,
                "failed": done.failed,
                "heard_in_part": done.partial,
                "scores": {rule: scored.content(items=False) for rule, scored in done.scored.items()},
                "error": None,
            }
        )
        return
    where = "" if done.folder is None else f"; {done.folder}"
    print_line(f"{model} on {job.task.name}: {answered} of {len(done.replies)} answered, {generated} generated{where}")
    if done.folder is not None and not done.scored:
        print_line("not scored: answers are missing; fix or leave out their clips, or give --missing worst", err=True)
    for scored in done.scored.values():
        show_scored(scored)


def _report_error(tally: Tally, name: str, error: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "error": error})
    tally.note_error(name, error, quiet=as_json)
