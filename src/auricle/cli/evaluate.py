"""The verbs that evaluate an audio language model: evaluate score, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.listen import AsJson, Device
from auricle.cli.options import (
    SCORING_RULES,
    Detector,
    MissingAnswers,
    ScoringRules,
    Seed,
    SentenceModel,
    check_choice,
    check_scoring,
)
from auricle.cli.output import print_json, print_line, progress
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.answer_cache import AnswerCache
    from auricle.evaluate.mecat import MecatPredictions
    from auricle.evaluate.predictions import Predictions
    from auricle.evaluate.questions import Question
    from auricle.evaluate.scores import Scored, ScoringConfig
    from auricle.evaluate.task import LanguageTask
    from auricle.metrics.intervals import Score
    from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

KINDS = ("asr", "tagging", "gender", "multitag", "qa", "caption", "mecat")

evaluate = typer.Typer(
    no_args_is_help=True,
    help="Evaluate an audio language model.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@evaluate.command()
def score(
    predictions: Annotated[
        list[str],
        typer.Argument(
            metavar="PRED...", help="Predictions of a model; for mecat also FIELD=FILE, or six files in its order."
        ),
    ],
    task: Annotated[str, typer.Option("--task", "-t", help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    scoring_rule: ScoringRules = "strict",
    references: Annotated[
        Path | None, typer.Option("--references", help="Folder of MECAT's references of a split.")
    ] = None,
    encoder: SentenceModel = "minilm",
    error_detector: Detector = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Of mecat: date, fense or bleu; repeat; all by default.")
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option("--synonyms", help='JSON of other names: {"label": ["name", ...]}.')
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="Of strict error rates: word, character or mixed; else by language.")
    ] = None,
    missing: MissingAnswers = "error",
    group_by: Annotated[
        str, typer.Option("--group-by", help="Field of the rows; rows that agree in it are resampled together.")
    ] = "audio",
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results with the score of every item, as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score the predictions of a model in files.

    A missing or duplicated row is an error. Scores are fractions with 95 % intervals.

    Example: auricle evaluate score answers.jsonl --task asr --scoring-rule both --json
    """
    check_choice("--task", task, KINDS)
    check_scoring(scoring_rule, missing)
    if unit is not None:
        check_choice("--unit", unit, ("word", "character", "mixed"))
    if (task == "mecat") != (references is not None):
        raise ConfigError("--references names the folder of MECAT's references; mecat needs it, and no other task")
    from dataclasses import replace

    from auricle.evaluate.score_answers import read_synonyms, score_predictions

    chosen: dict[str, Any] = {"unit": unit, "group_by": group_by}
    if metric:
        chosen["metrics"] = metric
    if synonyms:
        chosen["synonyms"] = read_synonyms(synonyms)
    config = scoring_config(encoder, error_detector, device, missing=missing, seed=seed, **chosen)
    parsed = _read(predictions, task, references)
    for rule in SCORING_RULES[scoring_rule]:
        with progress(f"scoring, {rule}", quiet=as_json):
            scored = score_predictions(parsed, replace(config, scoring_rule=rule))
        if output:
            print_line(str(_write(output, scored)), err=True)
        if as_json:
            print_json(scored.content(items=False))
        else:
            show_scored(scored)


def scoring_config(encoder: str, detector: Path | None, device: str, **settings: Any) -> ScoringConfig:
    """How answers are scored; the networks behind the scores of captions are loaded once, when they are needed.

    Args:
        encoder: of sentences, see `auricle.weights.sentence_encoders.load_sentence_encoder`.
        detector: folder of FENSE's; None: there is none.
        device: of both.
        settings: further fields.
    """
    from auricle.evaluate.scores import ScoringConfig

    @cache
    def load_encoder() -> SentenceEncoder:
        from auricle.weights.sentence_encoders import load_sentence_encoder

        return load_sentence_encoder(encoder, device=device)

    @cache
    def load_detector() -> ErrorDetector | None:
        from auricle.weights.sentence_encoders import load_error_detector

        return None if detector is None else load_error_detector(detector, device=device)

    return ScoringConfig(encoder=load_encoder, detector=load_detector, **settings)


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


def show_scored(scored: Scored) -> None:
    """Print a score as a table for people."""
    print_line(f"{scored.kind}, {scored.scoring_rule}: {scored.rule.id} version {scored.rule.version}")
    for name, found in scored.scores.items():
        print_line(_line(name, found))
    for part, metrics in scored.parts.items():
        for name, found in metrics.items():
            print_line(_line(f"  {part}, {name}", found))
    print_line(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in scored.counts.items()))


def _line(name: str, found: Score) -> str:
    interval = "" if found.low != found.low else f"  [{found.low:.6f}, {found.high:.6f}]"
    return f"{name:44} {found.value:.10f}{interval}  n = {found.n}"


def _write(folder: Path, scored: Scored) -> Path:
    """Write ``KIND.RULE.json``."""
    from auricle.evaluate.predictions import utf8
    from auricle.files import make_folder, write_bytes

    path = make_folder(folder) / f"{scored.kind}.{scored.scoring_rule}.json"
    write_bytes(path, utf8(scored.to_json()))
    return path


# --- shared by the verbs that run a model


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


def read_task(
    task: LanguageTask, source: str, limit: int | None, on_note: Callable[[str], None] | None = None
) -> list[Question]:
    """Questions of a task; notes on its source are printed unless ``on_note`` takes them."""
    from auricle.evaluate.questions import read_questions

    return read_questions(
        task, source, limit=limit, on_note=on_note or (lambda note: print_line(f"auricle: {note}", err=True))
    )


@contextmanager
def open_cache(folder: Path) -> Iterator[AnswerCache]:
    """The answers of a folder; damaged lines are reported."""
    from auricle.evaluate.answer_cache import AnswerCache

    with AnswerCache(folder) as answers:
        for fault in answers.damaged:
            print_line(f"auricle: {fault}; skipped", err=True)
        yield answers


def load_detector(config: ScoringConfig, tasks: Sequence[LanguageTask]) -> None:
    """Load FENSE's detector where a task needs it: a fault is found before answers are generated."""
    if any(task.kind in ("caption", "mecat") for task in tasks):
        config.detector()
