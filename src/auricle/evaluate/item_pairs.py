"""The same items answered twice: differences and ratios of two scores, with intervals that know they are paired."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from auricle.evaluate import mecat
from auricle.evaluate.resampling import ROUNDS, Array, bootstrap_each, ratio
from auricle.evaluate.scored import Scored
from auricle.evaluate.statistics import Score

LOWER_IS_BETTER = frozenset({"error_rate"})
_NOTHING = Score(math.nan, math.nan, math.nan, 0)


class Measured(NamedTuple):
    """The score that stands for a run, and the one that items can be paired by."""

    metric: str  # of the rule, or the nearest there is
    score: Score
    paired_metric: str  # another one only where a score is no function of sums over items, as mAP
    parts: Mapping[str, "Part"]  # by name; most tasks have one


class Part(NamedTuple):
    """What items contribute: the sum of the first over the sum of the second, times the weight."""

    weight: float
    items: Mapping[str, tuple[float, float]]


class Pairing(NamedTuple):
    """A run beside the clean one."""

    difference: Score  # of the paired metric: run minus clean
    retention: Score  # share of the clean run's goodness that is left
    lost: int  # items that only one of both has, as where a rule leaves empty answers out


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


def goodness(value: float, metric: str) -> float:
    """What retention is about: the score, or what is left to 1 of a rate of errors, at least 0."""
    return max(0.0, 1.0 - value) if metric in LOWER_IS_BETTER else value


def pair(
    clean: Measured, other: Measured, groups: Mapping[str, str], *, rounds: int = ROUNDS, seed: int = 0
) -> Pairing:
    """Compare a run with the clean one on the items both have.

    Args:
        clean: what is compared with.
        other: of the same questions.
        groups: by item what is resampled together; an item without one is its own.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        Scores that are nan where there is nothing to divide by; retention has no interval where items pair by another
        metric than the one reported.
    """
    names = [name for name in clean.parts if name in other.parts]
    mine = [clean.parts[name].items for name in names]
    theirs = [other.parts[name].items for name in names]
    items = sorted({item for own, its in zip(mine, theirs, strict=True) for item in own.keys() & its.keys()})
    every = {item for own in (*mine, *theirs) for item in own}
    weights = [clean.parts[name].weight for name in names]
    found = bootstrap_each(
        _columns(items, mine, theirs),
        _statistics(weights, clean.paired_metric),
        groups=[groups.get(item, item) for item in items],
        rounds=rounds,
        seed=seed,
    )
    retention = found["retention"]
    if clean.metric != clean.paired_metric and clean.metric == "mAP":
        before, after = (goodness(each.score.value, each.metric) for each in (clean, other))
        retention = Score(after / before if before > 0 else math.nan, math.nan, math.nan, len(items))
    return Pairing(found["difference"], retention, len(every) - len(items))


def _columns(
    items: Sequence[str],
    clean: Sequence[Mapping[str, tuple[float, float]]],
    other: Sequence[Mapping[str, tuple[float, float]]],
) -> Array:
    """(items, 4 · parts): of each part both sums of the other run, then both of the clean one."""
    columns = np.zeros((len(items), 4 * len(clean)))
    for part, (before, after) in enumerate(zip(clean, other, strict=True)):
        for row, item in enumerate(items):
            if item in before and item in after:
                columns[row, 4 * part : 4 * part + 4] = (*after[item], *before[item])
    return columns


def _statistics(weights: Sequence[float], metric: str) -> dict[str, Any]:
    def of(sums: Array, first: int) -> Array:
        each = [weight * ratio(sums[:, 4 * part + first : 4 * part + first + 2]) for part, weight in enumerate(weights)]
        return np.asarray(np.sum(each, axis=0) if each else np.full(len(sums), np.nan), np.float64)

    def difference(sums: Array) -> Array:
        return of(sums, 0) - of(sums, 2)

    def retention(sums: Array) -> Array:
        after, before = of(sums, 0), of(sums, 2)
        if metric in LOWER_IS_BETTER:
            after, before = np.maximum(0.0, 1.0 - after), np.maximum(0.0, 1.0 - before)
        return ratio(np.stack([after, before], 1))

    return {"difference": difference, "retention": retention}
