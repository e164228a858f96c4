"""Scores printed in papers and talks: of encoders on X-ARES, and of GLAP, with own results for comparison.

They are copied from tables (``declared/published_scores.json`` and ``declared/glap.json``, each with its source), as
printed but for units and under our names of the tasks, and never measured again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from auricle.bench.results import Result
from auricle.data.untrusted_json import StrictFields, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable(StrictFields):
    """One table of a paper or talk."""

    name: str
    source: str
    note: str = ""
    head: str
    systems: Mapping[str, Mapping[str, float]]  # system, then task; from 0 to 1


class PublishedScore(NamedTuple):
    """One number of GLAP's paper."""

    system: str
    task: str  # our name; of a data set of the user, the name that makes it comparable
    title: str
    metric: str  # accuracy, mAP or R@1
    direction: str | None  # audio_to_text or text_to_audio; None: classes
    value: float  # from 0 to 1
    source: str


@dataclass(frozen=True, slots=True)
class MeasuredScore:
    """A number of ours for the same task, metric and direction."""

    model: str
    scoring_rule: str
    value: float
    low: float | None
    high: float | None


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Every table of X-ARES scores in the package."""
    name = "published_scores.json"
    return tuple(validate(PublishedTable, row, f"declared/{name}") for row in _declared(name)["tables"])


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Every score of GLAP in the package."""
    stored = _declared("glap.json")
    fields = ("task", "title", "metric", "direction")
    return tuple(
        PublishedScore(
            system=stored["system"],
            value=round(row["value"] / 100, 6),
            source=stored["source"],
            **{name: row[name] for name in fields},
        )
        for row in stored["rows"]
    )


def compare_published(results: Iterable[Result]) -> list[tuple[PublishedScore, list[MeasuredScore]]]:
    """Each published score of GLAP with own ones of its task, metric and direction.

    Whether the clips are the same is not known: the published ones are not. ``compat`` is the published rule where
    several clips have the same caption.
    """
    held = list(results)
    return [(row, [own for result in held if (own := _own(result, row)) is not None]) for row in published_scores()]


def _own(result: Result, row: PublishedScore) -> MeasuredScore | None:
    if result.task.name != row.task:
        return None
    if row.direction is None:
        score = result.scores.get("zero_shot")
        if score is None or result.task.metric != row.metric:
            return None
        return MeasuredScore(result.encoder.name, result.scoring_rule, score.value, score.low, score.high)
    score = result.scores.get("retrieval")
    found = score.settings.get(row.direction) if score else None
    recall = found.get("r1") if isinstance(found, dict) else None
    if not isinstance(recall, dict) or not {"value", "low", "high"} <= recall.keys():
        return None
    return MeasuredScore(result.encoder.name, result.scoring_rule, recall["value"], recall["low"], recall["high"])


def _declared(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("auricle.bench") / "declared" / name).read_text(encoding="utf-8"))
    return found
