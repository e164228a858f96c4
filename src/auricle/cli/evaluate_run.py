"""The verbs that run tasks on a model: evaluate run and evaluate tasks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from auricle.cli.evaluate import RunOptions, open_cache, report_spent, scored_lines, scoring_config, split_task
from auricle.cli.options import AsJson, Model, check_choice, with_groups
from auricle.cli.output import print_json, print_line, print_result, progress, table_lines, warn
from auricle.cli.printing import Tally
from auricle.cores import granted_cores
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.questions import Question
    from auricle.evaluate.run import Evaluator, Share, TaskRun
    from auricle.evaluate.task import LanguageTask


class _Settings(NamedTuple):
    """The model, and how its answers are generated; a worker process is given this."""

    model: str
    prompt: str | None
    choose: Any  # how the choices of closed questions are offered; None: free answers
    options: RunOptions


class _Job(NamedTuple):
    """One task with its questions."""

    task: LanguageTask
    source: str
    questions: list[Question]


@with_groups
def run(
    model: Model = "auricle-tiny",
    prompt: Annotated[str | None, typer.Option("--prompt", help="Question to ask in place of the task's own.")] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            "--choose", help="Closed questions: take the likeliest choice, of texts or of letters, not a free answer."
        ),
    ] = None,
    share: Annotated[
        str,
        typer.Option("--share", metavar="K/N", help="Only generate answers for this part, 0/4 to 3/4; then run all."),
    ] = "0/1",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each with the model.")] = 1,
    *,
    options: RunOptions,
) -> None:
    """Generate the answers of a model to all questions of tasks and score them; a stopped run continues.

    A source is a manifest, a file of predictions, a folder of shards, or MECAT's references. No answer is generated
    twice; results of the same model and task in OUTPUT are replaced. On several machines that share --cache, run each
    --share, then once without.

    Example: auricle evaluate run --model auricle-tiny --task digits=shards -o results --scoring-rule both
    """
    if choose is not None:
        check_choice("--choose", choose, ("texts", "letters"))
    from auricle.evaluate.run import read_share
    from auricle.files import check_folder

    part = read_share(share)
    check_folder(options.output)
    settings = _Settings(model, prompt, choose, options)
    tally = Tally(quiet=options.as_json)

    def on_error(name: str, error: str) -> None:
        if options.as_json:
            print_json({"name": name, "error": error})
        tally.note_error(name, error)

    jobs = _jobs(settings, on_error)
    if workers > 1 and jobs:
        _generate_in_processes(settings, part, workers, sum(len(job.questions) for job in jobs))
    if jobs:
        _run_all(settings, part, jobs, tally, on_error)
    tally.leave()


def tasks(
    suite: Annotated[str | None, typer.Option("--suite", help="Only the tasks of this suite.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks: the kind that scores each, its prompt, and published scores in percent.

    Example: auricle evaluate tasks --suite midashenglm
    """
    from auricle.evaluate.task import language_tasks

    found = language_tasks(suite)
    if as_json:
        for each in found:
            print_json(each.content())
        return
    rows = [
        (
            each.name,
            each.suite,
            each.domain,
            each.kind,
            ", ".join(f"{name} {value:g}" for name, value in each.published.items()),
            " | ".join(dict.fromkeys(each.prompts.values())),
        )
        for each in found
    ]
    for line in table_lines(("task", "suite", "domain", "kind", "published", "prompt"), rows):
        print_line(line)


def _run_all(
    settings: _Settings, part: Share, jobs: Sequence[_Job], tally: Tally, on_error: Callable[[str, str], None]
) -> None:
    from auricle.evaluate.run import run_task
    from auricle.weights.cards import training_clips

    options = settings.options
    scoring = scoring_config(options, [job.task for job in jobs])
    model = options.load(settings.model, quiet=options.as_json)
    training = training_clips([settings.model])
    with open_cache(options.cache_folder) as cache:
        model.journal = cache.replies
        for job in jobs:
            before = cache.added
            try:
                evaluator = replace(_evaluator(settings, job, model, cache), scoring=scoring, training=training)
                what = f"{evaluator.model.model} on {job.task.name}"
                with progress(what, len(job.questions), quiet=options.as_json) as advance:
                    done = run_task(
                        replace(evaluator, on_reply=lambda *_: advance()),
                        job.questions,
                        options.output,
                        source=job.source,
                        scoring_rules=options.rules,
                        share=part,
                    )
            except ConfigError:
                raise
            except AuricleError as error:
                on_error(job.task.name, str(error))
            else:
                _report(tally, evaluator.model.model, job, done, cache.added - before, as_json=options.as_json)
        report_spent(model, as_json=options.as_json)


def _evaluator(settings: _Settings, job: _Job, model: Any, cache: AnswerCache) -> Evaluator:
    from auricle.evaluate.generate import ChoosingLM, TranscribingLM

    answering = model if settings.choose is None else ChoosingLM(model, job.questions, settings.choose)
    if settings.choose is None and job.task.kind == "asr" and "ask" not in model.capabilities.verbs:
        answering = TranscribingLM(model, job.questions)
    return settings.options.evaluator(answering, job.task, cache)


def _jobs(
    settings: _Settings, on_error: Callable[[str, str], None], on_note: Callable[[str], None] = warn
) -> list[_Job]:
    """Tasks with their questions; a source that cannot be understood is reported, and the others continue."""
    from auricle.evaluate.questions import read_questions

    chosen = [split_task(text) for text in settings.options.task]
    names = [task.name for task, _ in chosen]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"--task names {', '.join(repeated)} twice; expected each task once, its results have one place"
        )
    if settings.prompt is not None:
        prompts = {task.name: {field: settings.prompt for field in task.prompts} for task, _ in chosen}
        chosen = [(replace(task, prompts=prompts[task.name]), source) for task, source in chosen]
    found = []
    for task, source in chosen:
        try:
            questions = read_questions(task, source, limit=settings.options.limit, on_note=on_note)
            found.append(_Job(task, source, questions))
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
                warn(f"a process ended with {process.exitcode}; its other answers are generated now")
    finally:
        for process in processes.values():
            if process.is_alive():
                process.terminate()


def _work(settings: _Settings, share: Share, threads: int, sender: Any) -> None:
    """Answer a share and report every answer; errors are reported by the parent process, where they occur too."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    from auricle.evaluate.answer_cache import AnswerCache

    try:
        jobs = _jobs(settings, lambda name, error: None, lambda text: None)
        model = settings.options.load(settings.model, quiet=True)
        with AnswerCache(settings.options.cache_folder) as cache:
            model.journal = cache.replies
            for job in jobs:
                evaluator = _evaluator(settings, job, model, cache)
                own = [question for question in job.questions if share.has(question.audio.name)]
                replace(evaluator, on_reply=lambda *_: sender.send(None)).generate(own)
    except (AuricleError, KeyboardInterrupt):
        sys.exit(1)


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- printing


def _report(tally: Tally, model: str, job: _Job, done: TaskRun, generated: int, *, as_json: bool) -> None:
    for name, error in done.failed.items():
        tally.note_error(name, error)
    for name in done.partial:
        tally.note_partial(name, "partly processed")
    answered = sum(reply.text is not None for reply in done.replies)
    record = {
        "model": model,
        "name": job.task.name,
        "folder": None if done.folder is None else str(done.folder),
        "questions": len(done.replies),
        "answered": answered,
        "asked": generated,
        "failed": done.failed,
        "heard_in_part": done.partial,
        "contamination": dict(done.contamination),
        "scores": {rule: scored.content(items=False) for rule, scored in done.scored.items()},
        "error": None,
    }
    where = "" if done.folder is None else f"; {done.folder}"
    line = f"{model} on {job.task.name}: {answered} of {len(done.replies)} answered, {generated} generated{where}"
    tables = (row for scored in done.scored.values() for row in scored_lines(scored))
    print_result(record, [line, *tables], as_json=as_json)
    if done.contamination.get("sounds") and not as_json:
        number, share = done.contamination["sounds"], 100 * done.contamination["share"]
        warn(
            f"{model} was trained on {number} of the clips of {job.task.name} ({share:.0f} %): its scores on them are "
            "no held-out scores"
        )
    if done.folder is not None and not done.scored and not as_json:
        print_line("not scored: answers are missing; fix or leave out their clips, or give --missing worst", err=True)
