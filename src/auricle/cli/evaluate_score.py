"""The verb that scores predictions in files: evaluate score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.evaluate import ScoringOptions, scored_lines, scoring_config, write_result
from auricle.cli.options import AsJson, check_choice, with_groups
from auricle.cli.output import print_line, print_result, progress
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.mecat import MecatPredictions
    from auricle.evaluate.predictions import Predictions

KINDS = ("asr", "tagging", "gender", "multitag", "qa", "caption", "mecat")


@with_groups
def score(
    predictions: Annotated[
        list[str],
        typer.Argument(
            metavar="PRED...", help="Predictions of a model; for mecat also FIELD=FILE, or six files in its order."
        ),
    ],
    task: Annotated[str, typer.Option("--task", "-t", help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    references: Annotated[
        Path | None, typer.Option("--references", help="Folder of MECAT's references of a split.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metrics of mecat: date, fense or bleu; repeat; all by default."),
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option("--synonyms", help='JSON of other names: {"label": ["name", ...]}.')
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option("--unit", help="Unit of strict error rates: word, character or mixed; else by language."),
    ] = None,
    group_by: Annotated[
        str, typer.Option("--group-by", help="Field of the rows; rows that agree in it are resampled together.")
    ] = "audio",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results with the score of every item, as JSON.")
    ] = None,
    as_json: AsJson = False,
    *,
    options: ScoringOptions,
) -> None:
    """Score the predictions of a model in files.

    A missing or duplicated row is an error. Scores are fractions with 95 % intervals.

    Example: auricle evaluate score answers.jsonl --task asr --scoring-rule both --json
    """
    check_choice("--task", task, KINDS)
    if unit is not None:
        check_choice("--unit", unit, ("word", "character", "mixed"))
    if (task == "mecat") != (references is not None):
        raise ConfigError("--references names the folder of MECAT's references; mecat needs it, and no other task")
    from auricle.evaluate.score_answers import read_synonyms, score_predictions
    from auricle.files import check_folder

    chosen: dict[str, Any] = {"unit": unit, "group_by": group_by}
    if metric:
        chosen["metrics"] = metric
    if synonyms:
        chosen["synonyms"] = read_synonyms(synonyms)
    if output:
        check_folder(output)
    config = scoring_config(options, **chosen)
    parsed = _read(predictions, task, references)
    for rule in options.rules:
        with progress(f"scoring, {rule}", quiet=as_json):
            scored = score_predictions(parsed, replace(config, scoring_rule=rule))
        if output:
            print_line(str(write_result(output, scored.kind, rule, scored.to_json())), err=True)
        print_result(scored.content(items=False), scored_lines(scored), as_json=as_json)


def _read(files: Sequence[str], kind: Any, references: Path | None) -> Predictions | MecatPredictions:
    from auricle.evaluate.mecat import read_mecat_predictions
    from auricle.evaluate.predictions import read_predictions

    if references is not None:
        return read_mecat_predictions(_by_field(files), references)
    if len(files) != 1:
        raise ConfigError(f"found {len(files)} files, expected one for {kind}; score them one by one")
    return read_predictions(files[0], kind)


def _by_field(files: Sequence[str]) -> dict[str, str]:
    """MECAT's files by field: named, one for all, or six in the order of its fields."""
    from auricle.evaluate.mecat import CATEGORIES, FIELDS

    fields = {*FIELDS, *(group.name for group in CATEGORIES)}
    named = [file.partition("=") for file in files]
    if all(sign and field in fields for field, sign, _ in named) and len({field for field, *_ in named}) == len(named):
        return {field: file for field, _, file in named}
    if len(files) == 1:
        return {"": files[0]}
    if len(files) == len(FIELDS):
        return dict(zip(FIELDS, files, strict=True))
    raise ConfigError(
        f"found {len(files)} files, expected one for all fields, {len(FIELDS)} in the order {', '.join(FIELDS)}, or "
        "FIELD=FILE with each field once"
    )
