"""Results of several language models side by side: a row for each task and scoring rule, and MECAT's groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from auricle.errors import DataError
from auricle.evaluate import mecat
from auricle.evaluate.compare import basis, has_items
from auricle.evaluate.results import SCORING_RULES, LmResult, published_answers
from auricle.evaluate.scores import Scored, measure
from auricle.evaluate.task import language_tasks
from auricle.metrics.intervals import Score, no_score, plain_score
from auricle.metrics.paired import LOWER_IS_BETTER, goodness
from auricle.metrics.scoring_rule import ScoringRule

Models: TypeAlias = Mapping[str, Sequence[LmResult]]  # by label

_DOMAINS = ("speech", "sound", "music", "mixed", "")
_BY_DOMAIN = "content_long"  # the group of captions that clips of every domain have


class Published(NamedTuple):
    """A figure of a paper or talk."""

    system: str
    source: str
    value: float  # fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """A task under one scoring rule."""

    task: str
    title: str
    domain: str  # empty where the task is not a declared one
    scoring_rule: ScoringRule
    metric: str
    results: Mapping[str, LmResult]  # by model
    scores: Mapping[str, Score]  # by model
    is_same: bool  # all on the same items, by the same rule and tools
    published: tuple[Published, ...] = ()  # of the same metric, made by the released rule

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error rate."""
        return self.metric in LOWER_IS_BETTER

    @property
    def best(self) -> list[str]:
        """Models with the best score; none where scores cannot be compared."""
        values = {model: score.value for model, score in self.scores.items() if not math.isnan(score.value)}
        if len(values) < 2 or not self.is_same:
            return []
        chosen = min(values.values()) if self.lower_is_better else max(values.values())
        return [model for model, value in values.items() if value == chosen]

    def goodness(self, model: str) -> float:
        """From 0 to 1, where more is better: the score, or what a rate of errors leaves to 1."""
        return min(1.0, max(0.0, goodness(self.scores[model].value, self.metric)))

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "task": self.task,
            "title": self.title,
            "domain": self.domain,
            "protocol": self.scoring_rule,
            "metric": self.metric,
            "lower_is_better": self.lower_is_better,
            "same_items_and_tools": self.is_same,
            "scores": {model: plain_score(score) for model, score in self.scores.items()},
            "best": self.best,
            "published": [each._asdict() for each in self.published],
        }


def task_rows(models: Models, *, published: bool = True) -> list[TaskRow]:
    """Of each scoring rule, strict first, the tasks in the order of their domains."""
    cells: dict[tuple[ScoringRule, str], dict[str, LmResult]] = {}
    for label, own in models.items():
        for result in own:
            cells.setdefault((result.scoring_rule, result.task), {})[label] = result
    rows = [_row(task, scoring_rule, results, published) for (scoring_rule, task), results in cells.items()]
    return sorted(rows, key=lambda row: (SCORING_RULES.index(row.scoring_rule), _DOMAINS.index(row.domain)))


def shared_rows(rows: Sequence[TaskRow], models: Models) -> list[TaskRow]:
    """Rows that every model has, on the same items, with a score."""
    return [
        row
        for row in rows
        if row.is_same
        and row.scores.keys() == models.keys()
        and not any(math.isnan(score.value) for score in row.scores.values())
    ]


def main_score(scored: Scored) -> tuple[str, Score]:
    """Main metric and score of a result: its rule's, or the nearest that could be computed."""
    if has_items(scored):
        measured = measure(scored)
        return measured.metric, measured.score
    return scored.rule.metric, scored.headline or no_score()


def _row(task: str, scoring_rule: ScoringRule, results: Mapping[str, LmResult], published: bool) -> TaskRow:
    declared = next((each for each in language_tasks() if each.name == task), None)
    found = {label: main_score(result.scored) for label, result in results.items()}
    metric = next(iter(found.values()))[0]
    same_basis = len({basis(result.scored) for result in results.values()}) == 1
    return TaskRow(
        task=task,
        title=task if declared is None else declared.title,
        domain="" if declared is None else declared.domain,
        scoring_rule=scoring_rule,
        metric=metric,
        results=results,
        scores={label: score for label, (_, score) in found.items()},
        is_same=same_basis and all(own == metric for own, _ in found.values()),
        published=tuple(_published(task, metric)) if published and scoring_rule == "compat" else (),
    )


def _published(task: str, metric: str) -> list[Published]:
    return [
        Published(system, table.source, scores[task])
        for table in published_answers()
        if table.metric in (None, metric)
        for system, scores in table.scores.items()
        if task in scores
    ]


# --- MECAT


@dataclass(frozen=True, kw_only=True, slots=True)
class MecatGroup:
    """A group of MECAT's clips or questions and a metric."""

    group: str
    metric: str
    scores: Mapping[str, Score]  # by model
    published: tuple[Published, ...] = ()


def mecat_groups(row: TaskRow) -> list[MecatGroup]:
    """Groups of a row of MECAT, in the order of the benchmark; metrics no model has are left out."""
    found = []
    for group in [each.name for each in (*mecat.GROUPS, *mecat.CATEGORIES)]:
        for metric in ("date", "fense", "absence_accuracy"):
            scores = {
                model: result.scored.parts[group][metric]
                for model, result in row.results.items()
                if metric in result.scored.parts.get(group, {})
            }
            if scores:
                own = tuple(_published_groups(row.task, group, metric)) if row.scoring_rule == "compat" else ()
                found.append(MecatGroup(group=group, metric=metric, scores=scores, published=own))
    return found


def _published_groups(task: str, group: str, metric: str) -> list[Published]:
    return [
        Published(system, table.source, groups[task][group])
        for table in published_answers()
        if table.metric == metric
        for system, groups in table.groups.items()
        if group in groups.get(task, {})
    ]


def mecat_domains(row: TaskRow) -> dict[str, dict[str, float]]:
    """By domain and model the mean DATE of its clips' long captions, or of its questions.

    Empty where the references of its clips are not beside a result.
    """
    found: dict[str, dict[str, float]] = {}
    for model, result in row.results.items():
        folder = result.path.parent / "references"
        if result.answers is None or not folder.is_dir():
            continue
        truth = mecat.read_references(folder)
        names = [_BY_DOMAIN] if truth.kind == "caption" else [group.name for group in mecat.CATEGORIES]
        values: dict[str, list[float]] = {}
        for item, value in (pair for name in names for pair in result.scored.items.get(f"{name}.date", {}).items()):
            if item not in truth.entries:
                raise DataError(f"{folder}: has no {item!r}, which {result.path} scores; run the task again")
            values.setdefault(truth.entries[item].domain, []).append(value)
        for domain in mecat.DOMAINS:
            if domain in values:
                found.setdefault(domain, {})[model] = fmean(values[domain])
    return {domain: found[domain] for domain in mecat.DOMAINS if domain in found}
