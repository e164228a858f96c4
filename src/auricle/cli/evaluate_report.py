"""The verbs on results of audio language models: evaluate compare, evaluate report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.options import AsJson, Seed
from auricle.cli.output import print_result

if TYPE_CHECKING:
    from auricle.evaluate.compare import AnswerComparison, PairedAnswers


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Results of a model: OUT/MODEL, or a file of scores.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Results of another, in the same form.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Resamples behind each interval.")] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two models: which answers better, and whether the difference could be chance.

    Tasks are compared where both answered the same items and were scored by the same rule; others are named. A model
    is better where the corrected p is below 0.05 and the interval of the difference does not contain zero.

    Example: auricle evaluate compare OUT/model-a OUT/model-b
    """
    from auricle.evaluate.compare import compare_runs

    found = compare_runs(first, second, rounds=rounds, seed=seed)
    print_result(_content(found), _lines(found), as_json=as_json)


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs, all models or one, or files of scores.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and its figures.")],
    worst: Annotated[int, typer.Option("--worst", min=0, max=100, help="Worst items shown of each task.")] = 6,
    audio: Annotated[
        list[Path] | None, typer.Option("--audio", help="Folder of audio, before the source of the run; repeat.")
    ] = None,
    players: Annotated[bool, typer.Option("--sounds/--no-sounds", help="Players of the clips.")] = True,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Figures need matplotlib.")] = True,
    published: Annotated[bool, typer.Option("--published/--no-published", help="Published scores beside.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write results as one page: tables, figures, the worst answers with players, and what decided the scores.

    Older files of these names in the folder are replaced.

    Example: auricle evaluate report OUT -o report
    """
    from auricle.evaluate.report import report_content, write_lm_report
    from auricle.evaluate.results import find_results

    found = find_results(results)
    paths = write_lm_report(
        found, output, published=published, worst=worst, players=players, audio=audio or (), figures=figures
    )
    files = [str(path) for path in paths]
    print_result({"files": files, **report_content(found, published=published)}, files, as_json=as_json)


def _content(found: AnswerComparison) -> dict[str, Any]:
    from auricle.metrics.intervals import plain_score

    tests = []
    for test in found.tests:
        scores = {name: plain_score(getattr(test, name)) for name in ("first", "second", "difference")}
        tests.append({**_keys(asdict(test)), **scores, "better": test.better})
    left_out = [_keys(each._asdict()) for each in found.left_out]
    return {"first": found.first, "second": found.second, "tests": tests, "left_out": left_out}


def _keys(record: dict[str, Any]) -> dict[str, Any]:
    """With the key that files have."""
    return {"protocol" if name == "scoring_rule" else name: value for name, value in record.items()}


def _lines(found: AnswerComparison) -> Iterator[str]:
    yield f"A: {found.first}"
    yield f"B: {found.second}"
    if found.tests:
        yield "percent; differences with 95 % intervals, above zero where A is better; p after Holm's correction"
    for test in found.tests:
        yield _line(test)
    for note in dict.fromkeys(f"{test.metric}: {test.note}" for test in found.tests if test.note):
        yield f"note: {note}"
    for test in found.tests:
        if test.unpaired:
            yield (f"note: {test.task} {test.scoring_rule}: {test.unpaired} items are not in both and were not paired")
    for left in found.left_out:
        yield f"not compared: {left.task} {left.scoring_rule}: {left.reason}"


def _line(test: PairedAnswers) -> str:
    gap = test.difference
    metric = test.metric if test.metric == test.paired_metric else f"{test.metric}, {test.paired_metric} paired"
    words = {"first": "A better", "second": "B better", "none": "no difference shown"}[test.better]
    scores = f"A {_percent(test.first.value)} B {_percent(test.second.value)}"
    return (
        f"{test.task:20} {test.scoring_rule:6} {metric:12} {scores}  "
        f"{100 * gap.value:+6.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]  {test.wins} : {test.losses}, "
        f"p {test.p_holm:.2g}  {words}"
    )


def _percent(value: float) -> str:
    return "    –" if value != value else f"{100 * value:5.1f}"
