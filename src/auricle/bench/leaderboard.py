"""Own results beside published ones: weighted averages over a suite, and what they leave out.

Published scores are copied from tables (`auricle.bench.published`) and never measured again; every entry says which of
the two it is. Domains and weights are those of the suite's declaration, whatever a result file claims, so that no file
can raise its own average.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict, get_args

from auricle.bench.published import published_tables
from auricle.bench.results import Result, by_encoder
from auricle.bench.task import LOWER_IS_BETTER, Domain, Task, tasks
from auricle.errors import DataError
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.suite_average import weighted_average

DOMAINS: tuple[str, ...] = get_args(Domain)


class Average(NamedTuple):
    """A weighted average, and over how much of the suite."""

    value: float | None  # None: nothing to average
    counted: int  # tasks behind the value
    total: int  # tasks the suite has for this head

    @property
    def is_partial(self) -> bool:
        """Whether tasks are missing, so that complete averages cannot be compared with this one."""
        return self.counted < self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardEntry:
    """One system with one head."""

    system: str
    origin: Literal["measured", "published"]
    source: str  # of a published one its table, of a measured one the versions of auricle
    scoring_rule: Literal["compat", "strict", "as published"]
    head: str
    is_random: bool  # weights were never trained
    scores: Mapping[str, float]  # by task, in the suite's order
    averages: Mapping[str, Average]  # "public", "private", "all"; under "compat" as X-ARES names them
    domains: Mapping[str, Average]

    @property
    def headline(self) -> Average:
        """The average systems are ranked by: over the public tasks, which everybody can repeat."""
        return self.averages["all" if self.scoring_rule == "compat" else "public"]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks that must be shown with the numbers."""
        found = ["published, not re-measured"] if self.origin == "published" else []
        if self.is_random:
            found.append("random weights")
        if self.headline.is_partial:
            found.append(f"partial: {self.headline.counted} of {self.headline.total} tasks")
        return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """All own results with scores of one head under one scoring rule."""

    scoring_rule: ScoringRule
    head: str
    encoders: Mapping[str, Mapping[str, Result]]  # by label, then name of the task; in order of appearance

    @property
    def tasks(self) -> dict[str, list[Result]]:
        """Results of each task, by domain and title."""
        found: dict[str, list[Result]] = {}
        for own in self.encoders.values():
            for name, result in own.items():
                found.setdefault(name, []).append(result)
        facts = {name: results[0].task for name, results in found.items()}
        return {n: found[n] for n in sorted(found, key=lambda n: (DOMAINS.index(facts[n].domain), facts[n].title, n))}

    @property
    def shared(self) -> list[str]:
        """Tasks that may be averaged: every encoder has them, on the same data, from 0 to 1, where higher is better."""
        return [
            name
            for name, results in self.tasks.items()
            if len(results) == len(self.encoders)
            and len({(result.data.manifest, result.task.metric) for result in results}) == 1
            and all(result.task.higher_is_better and 0 <= self.value(result) <= 1 for result in results)
        ]

    def value(self, result: Result) -> float:
        """The score of the head."""
        return result.scores[self.head].value

    def is_random(self, encoder: str) -> bool:
        """Whether its weights were never trained."""
        return any(result.encoder.random for result in self.encoders[encoder].values())

    def average(self, encoder: str, names: Sequence[str]) -> float:
        """Over tasks it has, weighted as the first encoder's results say; plain where no task has a weight."""
        lead = next(iter(self.encoders.values()))
        weights = [lead[name].task.weight for name in names]
        values = [self.value(self.encoders[encoder][name]) for name in names]
        return weighted_average(zip(values, weights if any(weights) else [1.0] * len(names), strict=True))


def suite_tasks(suite: str = "xares") -> list[Task]:
    """The tasks that an average over the suite is about; those of X-ARES include its private ones.

    Raises:
        ConfigError: no such suite.
    """
    return [*tasks(suite), *(tasks("private") if suite == "xares" else [])]


def leaderboard(
    results: Iterable[Result] = (),
    *,
    suite: str = "xares",
    published: bool = True,
    known: Sequence[Task] | None = None,
) -> list[LeaderboardEntry]:
    """Entries of all systems: head by head, complete averages before partial ones, the best first.

    Under ``strict`` the averages are over the public tasks and, if a private one was scored, over the private and over
    all; tasks where lower is better are left out. Under ``compat`` they are what the released X-ARES prints: over all
    tasks run, and as "public" that over the private ones, printed only if there are any (its filter is inverted).

    Args:
        results: own ones; those of other suites are ignored.
        suite: whose tasks are averaged.
        published: whether to add the published tables of X-ARES scores.
        known: tasks instead of the declared ones of the suite.

    Raises:
        ConfigError: no such suite.
        DataError: two results of the same encoder, task and scoring rule.
    """
    known = suite_tasks(suite) if known is None else known
    entries = _measured(results, known)
    if published and suite == "xares":
        for table in published_tables():
            for system, scores in table.systems.items():
                entries.append(
                    LeaderboardEntry(
                        system=system,
                        origin="published",
                        source=table.source,
                        scoring_rule="as published",
                        head=table.head,
                        is_random=False,
                        **_averaged(scores, table.head, known),
                    )
                )
    return sorted(entries, key=_rank)


def score_tables(results: Iterable[Result]) -> list[ScoreTable]:
    """Own results by scoring rule and head, ``strict`` first.

    Raises:
        DataError: two results of the same encoder, task and scoring rule.
    """
    cells: dict[tuple[ScoringRule, str], dict[str, dict[str, Result]]] = {}
    for label, own in by_encoder(results).items():
        for result in own:
            for head in result.scores:
                held = cells.setdefault((result.scoring_rule, head), {}).setdefault(label, {})
                if result.task.name in held:
                    raise DataError(f"found {label} on {result.task.name} twice, expected it once; leave one out")
                held[result.task.name] = result
    keys = sorted(cells, key=lambda key: (key[0] != "strict", key[1] != "mlp", key[1]))
    return [ScoreTable(scoring_rule=rule, head=head, encoders=cells[rule, head]) for rule, head in keys]


def _rank(entry: LeaderboardEntry) -> tuple[str, bool, float, str]:
    value = entry.headline.value
    return entry.head, entry.headline.is_partial, 1.0 if value is None else -value, entry.system


def _measured(results: Iterable[Result], known: Sequence[Task]) -> list[LeaderboardEntry]:
    names = {task.name for task in known}
    entries = []
    for system, own in by_encoder(results).items():
        for rule in get_args(ScoringRule):
            held = [result for result in own if result.scoring_rule == rule and result.task.name in names]
            if len({result.task.name for result in held}) < len(held):
                raise DataError(f"found a task twice for {system} under {rule}, expected it once; leave one out")
            for head in dict.fromkeys(head for result in held for head in result.scores):
                scores = {result.task.name: result.scores[head].value for result in held if head in result.scores}
                entries.append(
                    LeaderboardEntry(
                        system=system,
                        origin="measured",
                        source="auricle " + ", ".join(sorted({result.version for result in held})),
                        scoring_rule=rule,
                        head=head,
                        is_random=any(result.encoder.random for result in own),
                        **_averaged(scores, head, known, is_compat=rule == "compat"),
                    )
                )
    return entries


class _Averaged(TypedDict):
    scores: dict[str, float]
    averages: dict[str, Average]
    domains: dict[str, Average]


def _averaged(scores: Mapping[str, float], head: str, known: Sequence[Task], *, is_compat: bool = False) -> _Averaged:
    # The tasks of this head; one that was scored nevertheless counts as well.
    run = [task for task in known if task.name in scores or (task.enabled and (task.knn or head != "knn"))]
    counted = [task for task in run if is_compat or task.metric not in LOWER_IS_BETTER]
    domains = {
        domain: _average(scores, [task for task in counted if task.domain == domain])
        for domain in dict.fromkeys(task.domain for task in counted)
    }
    return {
        "scores": {task.name: scores[task.name] for task in known if task.name in scores},
        "averages": (_compat_averages if is_compat else _strict_averages)(scores, counted),
        "domains": {domain: average for domain, average in domains.items() if average.counted},
    }


def _strict_averages(scores: Mapping[str, float], group: Sequence[Task]) -> dict[str, Average]:
    found = {"public": _average(scores, [task for task in group if not task.is_private])}
    private = [task for task in group if task.is_private]
    if any(task.name in scores for task in private):
        found |= {"private": _average(scores, private), "all": _average(scores, group)}
    return found


def _compat_averages(scores: Mapping[str, float], group: Sequence[Task]) -> dict[str, Average]:
    private = [task for task in group if task.is_private]
    if not any(task.name in scores for task in private):
        return {"all": _average(scores, [task for task in group if not task.is_private], none=0.0)}
    # Sic: what X-ARES prints as public is the average over the private ones.
    return {"all": _average(scores, group, none=0.0), "public": _average(scores, private, none=0.0)}


def _average(scores: Mapping[str, float], group: Sequence[Task], *, none: float | None = None) -> Average:
    """Over the tasks of a group that were scored; ``none`` where no weight is left."""
    counted = [task for task in group if task.name in scores]
    if not any(task.weight for task in counted):
        return Average(none, len(counted), len(group))
    return Average(weighted_average((scores[task.name], task.weight) for task in counted), len(counted), len(group))
