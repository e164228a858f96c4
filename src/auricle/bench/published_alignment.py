"""What is published of audio–text models, and where own results stand beside it: ``declared/glap.json``."""

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from auricle.bench.results import Result


class PublishedScore(NamedTuple):
    """One number of a paper."""

    system: str
    task: str  # name of ours; of an own set, the name that makes it comparable
    title: str
    metric: str  # accuracy, mAP or R@1
    direction: str | None  # audio_to_text or text_to_audio; None: classes
    value: float  # share
    source: str


class OwnScore(NamedTuple):
    """A number of ours for the same task, metric and direction."""

    model: str
    protocol: str
    value: float
    low: float | None
    high: float | None


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Everything the package holds, as printed but for the unit."""
    file = files("auricle.bench") / "declared" / "glap.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    return tuple(
        PublishedScore(
            system=stored["system"],
            task=row["task"],
            title=row["title"],
            metric=row["metric"],
            direction=row["direction"],
            value=round(row["value"] / 100, 6),
            source=stored["source"],
        )
        for row in stored["rows"]
    )


def beside(results: Iterable[Result]) -> list[tuple[PublishedScore, list[OwnScore]]]:
    """Each published number with own ones of its task, metric and direction.

    Whether the sounds are the same, nobody can tell: what was measured on is not published. Protocol ``compat`` is the
    published rule where captions stand with several sounds.
    """
    held = list(results)
    return [(row, [own for result in held if (own := _own(result, row)) is not None]) for row in published_scores()]


def _own(result: Result, row: PublishedScore) -> OwnScore | None:
    if result.task.name != row.task:
        return None
    if row.direction is None:
        score = result.scores.get("zero_shot")
        if score is None or result.task.metric != row.metric:
            return None
        return OwnScore(result.encoder.name, result.protocol, score.value, score.low, score.high)
    score = result.scores.get("retrieval")
    found = score.settings.get(row.direction) if score else None
    recall = found.get("r1") if isinstance(found, dict) else None
    if not isinstance(recall, dict) or not {"value", "low", "high"} <= recall.keys():
        return None
    return OwnScore(result.encoder.name, result.protocol, recall["value"], recall["low"], recall["high"])
