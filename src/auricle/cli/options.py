"""Options that several verbs share, each with one name and one help text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

SCORING_RULES: dict[str, tuple[Any, ...]] = {
    "strict": ("strict",),
    "compat": ("compat",),
    "both": ("compat", "strict"),
}

ScoringRules = Annotated[
    str,
    typer.Option(
        "--scoring-rule", "--protocol", help="strict, compat (the published rules with their faults) or both."
    ),
]
SentenceModel = Annotated[
    str, typer.Option("--encoder", help="Of sentences: minilm, or a folder or hub id; published is TinyBERT.")
]
Detector = Annotated[
    Path | None, typer.Option("--error-detector", help="Folder of FENSE's detector; without it no FENSE.")
]
MissingAnswers = Annotated[
    str, typer.Option("--missing", help="Rows without an answer: error, or worst to count them as wrong.")
]
Tasks = Annotated[
    list[str],
    typer.Option("--task", "-t", metavar="NAME=SOURCE", help="Task and its clips; repeat. See `evaluate tasks`."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Clips at most, evenly spaced over all.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Folder of answers, kept for later runs [default: OUTPUT/cache].")
]
TaskMaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens [default: the task's].")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")]


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value of an option that is not among those known.

    Raises:
        typer.BadParameter: it is not.
    """
    if value not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, got {value!r}", param_hint=flag)


def check_scoring(scoring_rule: str, missing: str) -> None:
    """Refuse unknown values of --scoring-rule and --missing.

    Raises:
        typer.BadParameter: one of them is unknown.
    """
    check_choice("--scoring-rule", scoring_rule, tuple(SCORING_RULES))
    check_choice("--missing", missing, ("error", "worst"))
