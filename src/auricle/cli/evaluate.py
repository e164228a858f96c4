"""What the verbs of `auricle evaluate` share: the application, options, and what is done around each task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.options import AsJson, BatchSize, LoadOptions, RuleOptions, Seed, check_choice
from auricle.cli.output import print_line, print_result, progress, warn
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.questions import Question
    from auricle.evaluate.run import Evaluator
    from auricle.evaluate.scores import Scored, ScoringConfig
    from auricle.evaluate.task import LanguageTask
    from auricle.metrics.intervals import Score
    from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

evaluate = typer.Typer(
    no_args_is_help=True,
    help="Evaluate an audio language model.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Models = Annotated[list[str] | None, typer.Option("--model", help="Name, hub id or folder; repeat [auricle-tiny].")]


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(RuleOptions):
    """How answers are scored."""

    missing: Annotated[
        str, typer.Option("--missing", help="Rows without an answer: error, or worst to count them as wrong.")
    ] = "error"
    encoder: Annotated[
        str, typer.Option("--encoder", help="Sentence encoder: minilm, or a folder or hub id; published is TinyBERT.")
    ] = "minilm"
    error_detector: Annotated[
        Path | None, typer.Option("--error-detector", help="Folder of FENSE's detector; without it no FENSE.")
    ] = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Refuse unknown values."""
        super().__post_init__()
        check_choice("--missing", self.missing, ("error", "worst"))


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoadOptions, ScoringOptions):
    """How answers to the questions of tasks are generated, kept and scored."""

    task: Annotated[
        list[str],
        typer.Option("--task", "-t", metavar="NAME=SOURCE", help="Task and its clips; repeat. See `evaluate tasks`."),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results, OUTPUT/MODEL/TASK.")]
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Clips at most, evenly spaced over all.")] = None
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of answers, kept for later runs [default: OUTPUT/cache].")
    ] = None
    batch_size: BatchSize = 8
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens [default: the task's].")
    ] = None
    as_json: AsJson = False

    @property
    def cache_folder(self) -> Path:
        """Folder of answers."""
        return self.cache or self.output / "cache"

    def evaluator(self, model: Any, task: LanguageTask, answers: AnswerCache) -> Evaluator:
        """A model on a task; how its answers are scored is left to set."""
        from auricle.engine.request import SamplingParams
        from auricle.evaluate.run import Evaluator

        sampling = SamplingParams(max_new_tokens=self.max_new_tokens or task.max_new_tokens)
        return Evaluator(model=model, task=task, cache=answers, sampling=sampling, batch_size=self.batch_size)


def scoring_config(options: ScoringOptions, tasks: Sequence[LanguageTask] = (), **settings: Any) -> ScoringConfig:
    """How answers are scored; the networks behind the scores of captions are loaded once, when they are needed.

    Args:
        options: of the command line; its rules are set one after the other.
        tasks: where one of them needs FENSE's detector, it is loaded here: a fault is found before answers are
            generated.
        settings: further fields.
    """
    from auricle.evaluate.scores import ScoringConfig

    @cache
    def load_encoder() -> SentenceEncoder:
        from auricle.weights.sentence_encoders import load_sentence_encoder

        return load_sentence_encoder(options.encoder, device=options.device)

    @cache
    def load_detector() -> ErrorDetector | None:
        from auricle.weights.sentence_encoders import load_error_detector

        folder = options.error_detector
        return None if folder is None else load_error_detector(folder, device=options.device)

    if any(task.kind in ("caption", "mecat") for task in tasks):
        load_detector()
    shared: dict[str, Any] = {"missing": options.missing, "seed": options.seed, **settings}
    return ScoringConfig(encoder=load_encoder, detector=load_detector, **shared)


def split_task(text: str) -> tuple[LanguageTask, str]:
    """Task and source of ``NAME=SOURCE``.

    Raises:
        ConfigError: no such form, or no such task.
    """
    from auricle.evaluate.task import load_language_task

    name, sign, source = text.partition("=")
    if not sign or not source:
        raise ConfigError(f"--task is {text!r}, expected NAME=SOURCE, as digits=shards")
    return load_language_task(name), source


def read_tasks(options: RunOptions) -> list[tuple[LanguageTask, list[Question]]]:
    """The chosen tasks with their questions; notes on their sources are printed.

    Raises:
        OutputError: the folder for the results cannot be written.
    """
    from auricle.evaluate.questions import read_questions
    from auricle.files import check_folder

    check_folder(options.output)
    chosen = map(split_task, options.task)
    return [(task, read_questions(task, source, limit=options.limit, on_note=warn)) for task, source in chosen]


@contextmanager
def open_cache(folder: Path) -> Iterator[AnswerCache]:
    """The answers of a folder; damaged lines are reported."""
    from auricle.evaluate.answer_cache import AnswerCache

    with AnswerCache(folder) as answers:
        for fault in answers.damaged:
            warn(f"{fault}; skipped")
        yield answers


def report_spent(model: Any, *, as_json: bool) -> None:
    """Say what was asked of a server, where the model is behind one."""
    from auricle.listen.other_models.openai_model import EndpointLM

    if isinstance(model, EndpointLM):
        record = {"name": model.model, "spent": model.spent.as_dict(), "error": None}
        print_result(record, [f"{model.model}: {model.spent.line()}"], as_json=as_json)


def measure_tasks(
    kind: str,
    models: Sequence[str] | None,
    tasks: Sequence[tuple[LanguageTask, Any]],
    measure: Callable[[Evaluator, Any], Any],
    lines: Callable[[Any], Iterable[str]],
    *,
    options: RunOptions,
    tally: Tally,
) -> Iterator[Any]:
    """Results of each model, task and scoring rule, written and printed; errors are reported, the others continue.

    Args:
        kind: of the results, for the names of their files.
        models: names, hub ids or folders; None: the embedded one.
        tasks: each with what ``measure`` is given.
        measure: an evaluator and that → a result, with ``identity`` and ``to_json``.
        lines: a result → what people read.
        options: of the command line.
        tally: counts the errors.
    """
    from auricle.evaluate.run import run_folder

    config = scoring_config(options, [task for task, _ in tasks])
    with open_cache(options.cache_folder) as answers:
        for name in models or ["auricle-tiny"]:
            model = options.load(name, quiet=options.as_json)
            model.journal = answers.replies
            for task, subject in tasks:
                evaluator = options.evaluator(model, task, answers)
                for scoring_rule in options.rules:
                    scoring = replace(config, scoring_rule=scoring_rule)
                    try:
                        with progress(f"{name} on {task.name}, answers", quiet=options.as_json) as advance:
                            found = measure(replace(evaluator, scoring=scoring, on_reply=lambda *_: advance()), subject)
                    except ConfigError:
                        raise
                    except AuricleError as error:
                        tally.note_error(task.name, str(error))
                        continue
                    folder = run_folder(options.output, str(found.identity["model"]), task)
                    path = write_result(folder, kind, scoring_rule, found.to_json())
                    record = {"file": str(path), **json.loads(found.to_json())}
                    print_result(record, lines(found), as_json=options.as_json)
                    if not options.as_json:
                        print_line(str(path), err=True)
                    yield found


def write_result(folder: Path, kind: str, scoring_rule: str, text: str) -> Path:
    """Write ``FOLDER/KIND.RULE.json``."""
    from auricle.evaluate.predictions import utf8
    from auricle.files import make_folder, write_bytes

    path = make_folder(folder) / f"{kind}.{scoring_rule}.json"
    write_bytes(path, utf8(text))
    return path


def scored_lines(scored: Scored) -> Iterator[str]:
    """A score as a table for people."""
    yield f"{scored.kind}, {scored.scoring_rule}: {scored.rule.id} version {scored.rule.version}"
    for name, found in scored.scores.items():
        yield _line(name, found)
    for part, metrics in scored.parts.items():
        for name, found in metrics.items():
            yield _line(f"  {part}, {name}", found)
    yield ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in scored.counts.items())


def _line(name: str, found: Score) -> str:
    interval = "" if found.low != found.low else f"  [{found.low:.4f}, {found.high:.4f}]"
    return f"{name:44} {found.value:9.4f}{interval}  n = {found.n}"
