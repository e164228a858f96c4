"""The score that stands for a run, and what its items contribute to it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from auricle.evaluate import mecat
from auricle.evaluate.scores import Scored
from auricle.metrics.intervals import Score
from auricle.metrics.paired import Measured, Part

_NOTHING = Score(math.nan, math.nan, math.nan, 0)


def item_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `auricle.evaluate.predictions` calls rows: the audio, with the question where the audio comes twice."""
    times: dict[str, int] = {}
    for row in rows:
        times[row["audio"]] = times.get(row["audio"], 0) + 1
    return [
        row["audio"]
        if times[row["audio"]] == 1
        else f"{row['dataset_name']} · {row['audio']} · {row.get('question') or row.get('prompt') or ''}"
        for row in rows
    ]


def measure(scored: Scored) -> Measured:
    """What stands for a run: the headline, or the nearest score where that could not be had."""
    if scored.task == "mecat":
        return _measure_mecat(scored)
    names = [scored.rule.metric, "sbert"] if scored.task == "caption" else [scored.rule.metric]
    metric = next((name for name in names if name in scored.scores), names[0])
    score = scored.scores.get(metric, _NOTHING)
    if metric == "error_rate":
        errors, tokens = scored.items["errors"], scored.items["tokens"]
        parts = {"": Part(1.0, {name: (errors[name], tokens[name]) for name in errors})}
        return Measured(metric, score, metric, parts)
    paired = "f1" if metric == "mAP" else metric
    parts = {"": Part(1.0, {name: (value, 1.0) for name, value in scored.items.get(paired, {}).items()})}
    return Measured(metric, score, paired, parts)


def _measure_mecat(scored: Scored) -> Measured:
    """By the weights of the whole where all groups are there, else by the plain mean of those that are."""
    metric = scored.rule.metric
    groups = [name for name, own in scored.parts.items() if metric in own]
    kind = scored.settings.get("kind")
    known = mecat.GROUPS if kind == "caption" else mecat.CATEGORIES
    combine = mecat.caption_score if kind == "caption" else mecat.question_score
    zeros = {group.name: 0.0 for group in known}
    whole = set(groups) == set(zeros)
    weights = {name: (combine(zeros | {name: 1.0}) or 0.0) if whole else 1 / len(groups) for name in groups}
    parts = {
        name: Part(weights[name], {item: (value, 1.0) for item, value in scored.items[f"{name}.{metric}"].items()})
        for name in groups
    }
    value = sum(weight * scored.parts[name][metric].value for name, weight in weights.items())
    items = sum(len(part.items) for part in parts.values())
    score = scored.scores.get(metric) or (Score(value, math.nan, math.nan, items) if groups else _NOTHING)
    return Measured(metric if whole else f"mean of {metric}", score, metric, parts)
