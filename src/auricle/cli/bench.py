"""The verbs of the encoder benchmark: bench run, tasks, report, compare, leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli import bench_align, bench_data
from auricle.cli.bench_align import warn_contamination
from auricle.cli.options import AsJson, BenchData, BenchOptions, FloatType, with_groups
from auricle.cli.output import clip_progress, print_json, print_line, print_result, progress, table_lines, to_json, warn
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.bench.compare import Comparison
    from auricle.bench.results import Result
    from auricle.bench.task import Task

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure encoders as X-ARES and HEAR do.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (bench_align.align, bench_data.download, bench_data.prepare):
    bench.command()(verb)
Results = Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Result files, or folders of them.")]


@bench.command()
@with_groups
def run(
    encoder: Annotated[list[str], typer.Option("--encoder", "-e", help="Encoder; repeat for several.")],
    task: Annotated[list[str], typer.Option("--task", "-t", metavar="NAME[=DIR]", help="Task and its data.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of heads and validation sets.")] = 42,
    language_model: Annotated[
        str, typer.Option("--language-model", help="Frozen, of ASR and caption tasks; X-ARES has Qwen/Qwen2.5-0.5B.")
    ] = "auricle-tiny",
    dtype: FloatType = "float32",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the .py file that --encoder gives, with all it may do here.")
    ] = False,
    *,
    options: BenchOptions,
) -> None:
    """Measure encoders on tasks; every clip is encoded once and kept, so a run that was stopped continues.

    A result replaces an older one of the same encoder, task and scoring rule in OUTPUT.

    Example: auricle bench run -e auricle-tiny-encoder -e log-mel -t esc10=data/esc10 -o bench
    """
    import auricle
    from auricle.bench.results import write_result
    from auricle.bench.run import run_benchmark
    from auricle.files import check_folder

    chosen = [_task_and_folder(text, options.data) for text in task]
    check_folder(options.output)
    # First what keeps frames, for their mean serves the others.
    chosen.sort(key=lambda pair: not pair[0].needs_frames)
    tally = Tally()
    for name in encoder:
        with progress(f"loading {name}", quiet=options.as_json):
            loaded = auricle.load_encoder(name, device=options.device, dtype=dtype, trust_code=trust_code)
        for declared, folder, rule in ((*pair, rule) for pair in chosen for rule in options.rules):
            what = f"{name} on {declared.name}"
            try:
                epochs = None if declared.hear else declared.epochs + (declared.kind == "asr")  # and the test set
                with (
                    clip_progress(what, quiet=options.as_json) as clips,
                    progress("training heads", epochs, quiet=options.as_json) as epoch,
                ):
                    result = run_benchmark(
                        loaded,
                        declared,
                        folder,
                        scoring_rule=rule,
                        store=options.store or options.output / "store",
                        seed=seed,
                        language_model=language_model,
                        progress=clips,
                        on_epoch=epoch,
                    )
            except ConfigError:
                raise
            except AuricleError as error:
                tally.note_error(what, str(error))
                if options.as_json:
                    print_json({"encoder": name, "task": declared.name, "protocol": rule, "error": str(error)})
                continue
            path = write_result(options.output, result)
            print_result({"file": str(path), **result.to_dict()}, _lines(result), as_json=options.as_json)
            absent = next(iter(result.scores.values())).settings.get("absent_classes")
            if absent and not options.as_json:
                print_line(f"auricle: the data has no clip of {len(absent)} classes: {', '.join(absent)}", err=True)
            for one, split, other, elsewhere in result.leaks.exact if not options.as_json else ():
                print_line(f"leak: {one} ({split}) and {other} ({elsewhere}) are the same file", err=True)
            for one, split, other, elsewhere, _ in result.leaks.near if not options.as_json else ():
                print_line(f"leak: {one} ({split}) and {other} ({elsewhere}) are the same recording", err=True)
            warn_contamination(result, quiet=options.as_json)
    tally.leave()


@bench.command()
def tasks(
    suite: Annotated[str | None, typer.Option("--suite", help="xares, hear, challenge, private or auricle.")] = None,
    data: BenchData = Path("data"),
    as_json: AsJson = False,
) -> None:
    """List the tasks, and which of them have data.

    Example: auricle bench tasks --suite xares --data data
    """
    from auricle.bench.task import tasks as declared

    rows = []
    for each in declared(suite):
        has_data = (data / each.name).exists()
        if as_json:
            print_json({**to_json(each), "data": str(data / each.name) if has_data else None})
        splits = f"{len(each.folds)} folds" if each.folds else "/".join(each.splits)
        classes = str(each.num_classes or "-")
        facts = (each.name, each.suite, each.domain, each.kind, each.metric, classes, splits)
        rows.append((*facts, "on disk" if has_data else ""))
    if not as_json:
        for line in table_lines(("task", "suite", "domain", "kind", "metric", "classes", "splits", "data"), rows):
            print_line(line)


@bench.command()
def report(
    results: Results,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path("report"),
    as_json: AsJson = False,
) -> None:
    """Write a page with tables and figures, and the figures as PNG; older files of these names are replaced.

    Example: auricle bench report bench -o report
    """
    from auricle.bench.report import write_report
    from auricle.bench.results import read_results

    for path in write_report(read_results(results), output):
        print_result({"file": str(path)}, [str(path)], as_json=as_json)


@bench.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Results of one encoder, or of both.")],
    second: Annotated[Path | None, typer.Argument(metavar="B", help="Results of another.")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option("--encoder", "-e", help="The two to compare, where there are results of more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test on the same items which of two encoders is better.

    Example: auricle bench compare bench-a bench-b

    Example: auricle bench compare bench -e auricle-tiny-encoder -e log-mel
    """
    from auricle.bench.compare import compare as paired
    from auricle.bench.results import by_encoder, read_results

    if second is not None and encoder:
        raise typer.BadParameter("chooses among the results of one folder; leave out B", param_hint="--encoder")
    if second is None:
        found = paired(*_two_encoders(by_encoder(read_results(first)), encoder or [], first))
    else:
        found = paired(read_results(first), read_results(second))
    print_result(to_json(found), _comparison(found), as_json=as_json)


@bench.command()
def leaderboard(
    results: Annotated[list[Path] | None, typer.Argument(metavar="RESULTS...", help="Own results to place.")] = None,
    as_json: AsJson = False,
) -> None:
    """Place own results among the published scores of X-ARES.

    Example: auricle bench leaderboard bench
    """
    from auricle.bench.leaderboard import leaderboard as entries
    from auricle.bench.leaderboard import suite_tasks
    from auricle.bench.results import read_results

    own = read_results(results) if results else []
    for each in entries(own):
        value = each.headline.value
        shown = "      -" if value is None else f"{value:7.3f}"
        line = f"{each.head:5}{shown}  {each.system:44} {each.scoring_rule:13} {'; '.join(each.remarks)}"
        print_result({**to_json(each), "remarks": list(each.remarks)}, [line], as_json=as_json)
    known = {task.name for task in suite_tasks()}
    if left_out := sorted({result.task.name for result in own} - known):
        warn(f"left out, since the suite has no such task: {', '.join(left_out)}")


def _two_encoders(
    results: Mapping[str, Sequence[Result]], chosen: Sequence[str], folder: Path
) -> tuple[Sequence[Result], Sequence[Result]]:
    """The results of the two encoders to compare.

    Raises:
        ConfigError: there are not two, or those named are not among them.
    """
    names = list(chosen or results)
    if len(names) != 2 or not all(name in results for name in names):
        said = f"--encoder names {', '.join(names)}" if chosen else "expected those of two"
        raise ConfigError(
            f"{folder} has results of {', '.join(results)}; {said}: name two of them with --encoder, or two folders"
        )
    return results[names[0]], results[names[1]]


def _task_and_folder(text: str, data: Path) -> tuple[Task, Path]:
    from auricle.bench.task import load_task

    name, _, folder = text.partition("=")
    return load_task(name), Path(folder) if folder else data / name


def _comparison(found: Comparison) -> Iterator[str]:
    yield f"{found.first} against {found.second}; p after Holm's correction"
    for test in found.tests:
        gap = test.difference
        yield (
            f"{test.task:28} {test.scoring_rule:6} {test.head:4} {test.first:7.3f} {test.second:7.3f}  "
            f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]  p {test.p_holm:.3g}"
        )
    for each in found.overall:
        interval = "" if each.items is None else f"  [{each.items.low:+.3f}, {each.items.high:+.3f}]"
        yield f"{'weighted average':28} {each.scoring_rule:6} {each.head:4} {each.scores:+23.3f}{interval}"
    for left in found.left_out:
        yield f"not compared: {left.task} {left.scoring_rule} {left.head or ''}: {left.reason}"


def _lines(result: Result) -> Iterator[str]:
    for head, score in result.scores.items():
        interval = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
        cost = f"{result.cost.encode_s + result.cost.heads_s:.1f} s, {result.cost.reused} of {result.data.clips} kept"
        yield (
            f"{result.encoder.name:28} {result.task.name:24} {result.scoring_rule:6} {head:4} "
            f"{result.task.metric if head != 'knn' else 'accuracy'} {score.value:.3f}{interval}  ({cost})"
        )
