"""The verb that measures audio–text models: bench align."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from auricle.cli.options import BenchOptions, Dtype, LabelsFile, Language, Template, domain_templates, with_groups
from auricle.cli.output import clip_progress, print_json, print_line, print_result, progress, to_json, warn
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.bench.results import Result
    from auricle.bench.task import Task
    from auricle.encode.aligner import Aligner
    from auricle.encode.zero_shot import Prompts
    from auricle.models.glap import Pooling

DEFAULT_MODEL = "auricle-tiny-glap"
_MANIFESTS = (".jsonl", ".csv", ".tsv")
_DIRECTIONS = {"audio_to_text": "audio → text", "text_to_audio": "text → audio"}
_METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "map10": "mAP@10", "mean_rank": "mean rank"}
_METRICS |= {"median_rank": "median rank"}


@with_groups
def align(
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", metavar="NAME[=DIR]", help="Task and its data, or NAME=MANIFEST with captions."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Audio–text model; repeat for several. [default: auricle-tiny-glap]"),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option("--fold", help="Split or fold to test on; repeatable. [default: all folds, or the test split]"),
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="Whose template is used: sound, speech, music or none.")
    ] = None,
    template: Template = None,
    labels_file: LabelsFile = None,
    language: Language = "eng_Latn",
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="Pooling of clips over 10.08 s: framemean, v013 or zeropad.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show published scores, and the results in OUTPUT beside them.")
    ] = False,
    dtype: Dtype = "float32",
    *,
    options: BenchOptions,
) -> None:
    """Measure audio–text models: zero-shot classification, and retrieval of clips and captions.

    Nothing is trained, so all clips of a task with folds are tested. Prompts are the published ones of the task's
    domain; --labels-file puts its classes into other words. Every clip is encoded once and kept. A result replaces an
    older one of the same model, task and scoring rule in OUTPUT.

    Example: auricle bench align -t esc10=data/esc10 -t mine=captions.jsonl -o bench
    """
    import auricle
    from auricle.files import check_folder

    if not task and not published:
        raise typer.BadParameter("name a task, or give --published", param_hint="--task")
    jobs = []
    for declared, place in [_task_and_data(text, options.data) for text in task or []]:
        prompts = _prompts(declared, domain, template, labels_file, language)
        ways = [{"scoring_rule": rule, "language": language} for rule in options.rules]
        jobs += [(declared, place, way) for way in ([{"prompts": prompts}] if prompts else ways)]
    if jobs:
        check_folder(options.output)
    tally = Tally()
    for name in (model or [DEFAULT_MODEL]) if jobs else []:
        rule = cast("Pooling | None", pooling)
        with progress(f"loading {name}", quiet=options.as_json):
            aligner = auricle.load_aligner(name, device=options.device, dtype=dtype, pooling=rule)
        for declared, place, way in jobs:
            shared = {"name": name, "store": options.store or options.output / "store", "splits": fold or []}
            _measure(aligner, declared, place, {**shared, **way}, options, tally)
    if published:
        _show_published(options)
    tally.leave()


def _task_and_data(text: str, data: Path) -> tuple[Task, Path]:
    """A declared task and its folder, or the manifest of a data set of the user."""
    from auricle.bench.examples import captioned_task
    from auricle.bench.task import load_task, tasks

    name, _, place = text.partition("=")
    if not place and Path(name).suffix.lower() in _MANIFESTS:
        name, place = Path(name).stem, name
    if Path(place).suffix.lower() in _MANIFESTS and name not in {task.name for task in tasks()}:
        return captioned_task(name), Path(place)
    return load_task(name), Path(place) if place else data / name


def _prompts(
    task: Task, domain: str | None, templates: list[str] | None, labels_file: Path | None, language: str
) -> Prompts | None:
    """The task's own prompts, replaced by those of options; None: the task has captions."""
    from auricle.bench.class_words import task_prompts
    from auricle.encode.zero_shot import read_labels

    if task.kind != "clip":
        return None
    phrases = read_labels(labels_file) if labels_file else {}
    sentences = templates or (domain_templates(domain) if domain else ())
    return task_prompts(task, templates=sentences, phrases=phrases, language=language)


def _measure(
    aligner: Aligner, task: Task, place: Path, settings: dict[str, Any], options: BenchOptions, tally: Tally
) -> None:
    """Measure, write and show, or report the failure; wrong usage is raised."""
    from auricle.bench.alignment import text_retrieval, zero_shot
    from auricle.bench.results import write_result

    name, run = settings["name"], zero_shot if "prompts" in settings else text_retrieval
    try:
        with clip_progress(f"{name} on {task.name}", quiet=options.as_json) as progress:
            result = run(aligner, task, place, progress=progress, **settings)
    except ConfigError:
        raise
    except AuricleError as error:
        tally.note_error(f"{name} on {task.name}", str(error))
        if options.as_json:
            print_json({"model": name, "task": task.name, "error": str(error)})
    else:
        path = write_result(options.output, result)
        print_result({"file": str(path), **result.to_dict()}, _lines(result), as_json=options.as_json)
        warn_contamination(result, quiet=options.as_json)


def warn_contamination(result: Result, *, quiet: bool) -> None:
    """Say that a model was trained on clips of the task; with JSON the result says it."""
    found = result.contamination
    if found.clips and not quiet:
        splits = ", ".join(f"{split}: {count}" for split, count in found.splits.items())
        warn(
            f"{result.encoder.name} was trained on {found.clips} of the {result.data.clips} clips of "
            f"{result.task.name} ({100 * found.share:.0f} %; {splits}): its scores on them are no held-out scores"
        )


def _lines(result: Result) -> Iterator[str]:
    for head, score in result.scores.items():
        metric = result.task.metric if head == "zero_shot" else "R@1 of both directions"
        kept = f"{result.cost.reused} of {result.data.clips} kept"
        yield (
            f"{result.encoder.name:28} {result.task.name:24} {result.scoring_rule:6} {head:9} {metric} "
            f"{_shares(score.value, score.low, score.high)}, chance {100 * score.settings['chance']:.1f} "
            f"({result.cost.encode_s + result.cost.heads_s:.1f} s, {kept})"
        )
        for key, words in _DIRECTIONS.items():
            if key in score.settings:
                yield from _direction_lines(words, score.settings[key])


def _direction_lines(words: str, table: dict[str, dict[str, float]]) -> Iterator[str]:
    for key, title in _METRICS.items():
        found = table[key]
        if key.endswith("rank"):
            shown = f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}], chance {found['chance']:.1f}"
        else:
            shown = f"{_shares(found['value'], found['low'], found['high'])}, chance {100 * found['chance']:.1f}"
        yield f"  {words}  {title:11} {shown}"


def _shares(value: float, low: float | None, high: float | None) -> str:
    """A share and its interval in per cent."""
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def _show_published(options: BenchOptions) -> None:
    from auricle.bench.published import compare_published
    from auricle.bench.results import read_results

    output = options.output
    has_results = any(output.glob("*.compat.json")) or any(output.glob("*.strict.json"))
    rows = compare_published(read_results(output) if has_results else [])
    for source in dict.fromkeys(row.source for row, _ in rows) if not options.as_json else ():
        print_line(f"published: {source}; the clips behind them are not published")
    for row, own in rows:
        shown = [f"{each.model} ({each.scoring_rule}) {_shares(each.value, each.low, each.high)}" for each in own]
        words = _DIRECTIONS.get(row.direction or "", "")
        theirs = f"{row.title:24} {row.metric:8} {words:12} {row.system} {100 * row.value:5.1f}"
        line = f"{theirs}  {'  '.join(shown)}".rstrip()
        print_result({**row._asdict(), "own": to_json(own)}, [line], as_json=options.as_json)
