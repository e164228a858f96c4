"""Own results beside published ones: weighted averages over a suite, and what they leave out.

Published scores are copied from tables (``declared/published_scores.json``, each with its source) and never measured
again; every standing says which of the two it is. Domains and weights are those of the suite's declaration, whatever a
result file claims, so that no file can raise its own average.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple, get_args

from auricle.bench.results import Result, by_encoder
from auricle.bench.task import Domain, tasks
from auricle.errors import DataError
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.suite_average import weighted_average

# Titles of published tables, in lower case without anything but letters and digits, and our names of the tasks.
TASK_OF_TITLE: Mapping[str, str] = {
    "asv2015": "asvspoof2015",
    "clotho": "clotho",
    "cremad": "cremad",
    "desed": "desed",
    "esc50": "esc50",
    "fingersnapsound": "finger_snap",
    "fluentspeechcommands": "fluentspeechcommands",
    "freemusicarchivesmall": "freemusicarchive",
    "fsd18kaggle": "fsdkaggle2018",
    "fsd50k": "fsd50k",
    "gtzangenre": "gtzan_genre",
    "insideoutsidecar": "inside_outside_car",
    "keyscratchingcar": "key_scratching",
    "libricount": "libricount",
    "librispeech100h": "librispeech",
    "librispeechmf": "librispeechmalefemale",
    "liveenv": "liveenv",
    "maestro": "maestro",
    "nsynthinstruments": "nsynthinstument",  # spelled so by X-ARES
    "ravdess": "ravdess",
    "speechcommandsv1": "speechcommandsv1",
    "subwaybroadcast": "subway_broadcast",
    "urbansound8k": "urbansound8k",
    "vocalimitation": "vocalimitations",
    "vocalsound": "vocalsound",
    "voxceleb1": "voxceleb1",
    "voxlingua33": "voxlingua33",
}
DOMAINS: tuple[str, ...] = get_args(Domain)
_LOWER_IS_BETTER = {"MSE"}


class Average(NamedTuple):
    """A weighted average, and over how much of the suite."""

    value: float | None  # None: nothing to average
    counted: int  # tasks behind the value
    total: int  # tasks the suite has for this judge

    @property
    def is_partial(self) -> bool:
        """Whether tasks are missing, so that complete averages cannot be compared with this one."""
        return self.counted < self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteTask:
    """What an average needs to know of a task."""

    name: str
    title: str
    domain: Domain
    weight: float
    is_private: bool = False
    is_enabled: bool = True  # False: counts only where somebody scored it
    has_knn: bool = True
    is_averaged: bool = True  # False: lower is better, as for an error


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """One table of a paper or talk."""

    name: str
    source: str
    note: str  # may be empty
    judge: str
    systems: Mapping[str, Mapping[str, float]]  # system, then our name of the task; fractions


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One system under one judge."""

    system: str
    origin: Literal["measured", "published"]
    source: str  # of a published one its table, of a measured one the versions of auricle
    protocol: Literal["compat", "strict", "as published"]
    judge: str
    is_random: bool  # weights were never trained
    scores: Mapping[str, float]  # by task, in the suite's order
    averages: Mapping[str, Average]  # "public", "private", "all"; under "compat" as X-ARES names them
    domains: Mapping[str, Average]

    @property
    def headline(self) -> Average:
        """The average systems are ranked by: over the public tasks, which everybody can repeat."""
        return self.averages["all" if self.protocol == "compat" else "public"]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must stand beside the numbers wherever they are shown."""
        found = ["published, not re-measured"] if self.origin == "published" else []
        if self.is_random:
            found.append("random weights")
        if self.headline.is_partial:
            found.append(f"partial: {self.headline.counted} of {self.headline.total} tasks")
        return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """All own results that hold scores of one judge under one protocol."""

    protocol: ScoringRule
    judge: str
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
        """The score of the judge."""
        return result.scores[self.judge].value

    def is_random(self, encoder: str) -> bool:
        """Whether its weights were never trained."""
        return any(result.encoder.random for result in self.encoders[encoder].values())

    def average(self, encoder: str, names: Sequence[str]) -> float:
        """Over tasks it has, weighted as the first encoder's results say; plain where no task has a weight."""
        lead = next(iter(self.encoders.values()))
        weights = [lead[name].task.weight for name in names]
        values = [self.value(self.encoders[encoder][name]) for name in names]
        return weighted_average(zip(values, weights if any(weights) else [1.0] * len(names), strict=True))


def suite_tasks(suite: str = "xares") -> tuple[SuiteTask, ...]:
    """The tasks an average over the suite is about; those of X-ARES include its private ones.

    Raises:
        ConfigError: no such suite.
    """
    declared = [*tasks(suite), *(tasks("private") if suite == "xares" else [])]
    return tuple(
        SuiteTask(
            name=task.name,
            title=task.title,
            domain=task.domain,
            weight=task.weight,
            is_private=task.is_private,
            is_enabled=task.enabled,
            has_knn=task.knn,
            is_averaged=task.metric not in _LOWER_IS_BETTER,
        )
        for task in declared
    )


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Every table of X-ARES scores the package holds, as printed but for units and names."""
    file = files("auricle.bench") / "declared" / "published_scores.json"
    return tuple(_table(row) for row in json.loads(file.read_text(encoding="utf-8"))["tables"])


def task_of_title(title: str) -> str:
    """Our name of a task of a published table.

    Raises:
        DataError: the title is not known.
    """
    plain = "".join(letter for letter in title.casefold() if letter.isalnum())
    if plain not in TASK_OF_TITLE:
        raise DataError(f"found the title {title!r}, expected that of an X-ARES task; add it to TASK_OF_TITLE")
    return TASK_OF_TITLE[plain]


def leaderboard(
    results: Iterable[Result] = (),
    *,
    suite: str = "xares",
    published: bool = True,
    known: Sequence[SuiteTask] | None = None,
) -> list[Standing]:
    """Standings of all systems: judge by judge, complete averages before partial ones, the best first.

    Under ``strict`` the averages are over the public tasks and, if a private one was scored, over the private and over
    all; tasks where lower is better are left out. Under ``compat`` they are what the released X-ARES prints: over all
    tasks run, and as "public" that over the private ones, printed only if there are any (its filter is inverted).

    Args:
        results: own ones; those of other suites are passed over.
        suite: whose tasks are averaged.
        published: whether to add the published tables of X-ARES scores.
        known: tasks instead of the declared ones of the suite.

    Raises:
        ConfigError: no such suite.
        DataError: two results of the same encoder, task and protocol.
    """
    known = suite_tasks(suite) if known is None else known
    standings = _measured(results, known)
    if published and suite == "xares":
        standings += [
            _standing(system, table.judge, scores, known, origin="published", source=table.source)
            for table in published_tables()
            for system, scores in table.systems.items()
        ]
    return sorted(standings, key=_rank)


def score_tables(results: Iterable[Result]) -> list[ScoreTable]:
    """Own results by protocol and judge, ``strict`` first.

    Raises:
        DataError: two results of the same encoder, task and protocol.
    """
    cells: dict[tuple[ScoringRule, str], dict[str, dict[str, Result]]] = {}
    for label, own in by_encoder(results).items():
        for result in own:
            for judge in result.scores:
                held = cells.setdefault((result.protocol, judge), {}).setdefault(label, {})
                if result.task.name in held:
                    raise DataError(f"found {label} on {result.task.name} twice, expected it once; leave one out")
                held[result.task.name] = result
    keys = sorted(cells, key=lambda key: (key[0] != "strict", key[1] != "mlp", key[1]))
    return [ScoreTable(protocol=key[0], judge=key[1], encoders=cells[key]) for key in keys]


def _rank(standing: Standing) -> tuple[str, bool, float, str]:
    value = standing.headline.value
    return standing.judge, standing.headline.is_partial, 1.0 if value is None else -value, standing.system


def _table(row: Mapping[str, object]) -> PublishedTable:
    percent = {"percent": 100.0, "fraction": 1.0}[str(row["unit"])]
    systems = row["systems"]
    assert isinstance(systems, dict)
    return PublishedTable(
        name=str(row["name"]),
        source=str(row["source"]),
        note=str(row.get("note", "")),
        judge=str(row["judge"]),
        # Rounded, because 61.9 / 100 is not 0.619; no table prints more than three digits.
        systems={
            system: {task_of_title(title): round(value / percent, 6) for title, value in scores.items()}
            for system, scores in systems.items()
        },
    )


def _measured(results: Iterable[Result], known: Sequence[SuiteTask]) -> list[Standing]:
    names = {task.name for task in known}
    standings = []
    for system, own in by_encoder(results).items():
        for protocol in ("compat", "strict"):
            held = [result for result in own if result.protocol == protocol and result.task.name in names]
            if len({result.task.name for result in held}) < len(held):
                raise DataError(f"found a task twice for {system} under {protocol}, expected it once; leave one out")
            source = "auricle " + ", ".join(sorted({result.version for result in held}))
            for judge in dict.fromkeys(judge for result in held for judge in result.scores):
                scores = {result.task.name: result.scores[judge].value for result in held if judge in result.scores}
                standings.append(
                    _standing(
                        *(system, judge, scores, known),
                        origin="measured",
                        source=source,
                        protocol="compat" if protocol == "compat" else "strict",
                        is_random=any(result.encoder.random for result in own),
                    )
                )
    return standings


def _standing(
    system: str,
    judge: str,
    scores: Mapping[str, float],
    known: Sequence[SuiteTask],
    *,
    origin: Literal["measured", "published"],
    source: str,
    protocol: Literal["compat", "strict", "as published"] = "as published",
    is_random: bool = False,
) -> Standing:
    # The tasks there are for this judge; one that was scored nevertheless counts as well.
    asked = [t for t in known if t.name in scores or (t.is_enabled and (t.has_knn or judge != "knn"))]
    averages = _compat_averages if protocol == "compat" else _strict_averages
    averaged = [task for task in asked if task.is_averaged or protocol == "compat"]
    domains = {
        domain: _average(scores, [task for task in averaged if task.domain == domain])
        for domain in dict.fromkeys(task.domain for task in averaged)
    }
    return Standing(
        system=system,
        origin=origin,
        source=source,
        protocol=protocol,
        judge=judge,
        is_random=is_random,
        scores={task.name: scores[task.name] for task in known if task.name in scores},
        averages=averages(scores, averaged),
        domains={domain: average for domain, average in domains.items() if average.counted},
    )


def _strict_averages(scores: Mapping[str, float], asked: Sequence[SuiteTask]) -> dict[str, Average]:
    found = {"public": _average(scores, [task for task in asked if not task.is_private])}
    private = [task for task in asked if task.is_private]
    if any(task.name in scores for task in private):
        found |= {"private": _average(scores, private), "all": _average(scores, asked)}
    return found


def _compat_averages(scores: Mapping[str, float], asked: Sequence[SuiteTask]) -> dict[str, Average]:
    private = [task for task in asked if task.is_private]
    has_private = any(task.name in scores for task in private)
    averaged = {"all": asked if has_private else [task for task in asked if not task.is_private]}
    if has_private:
        averaged["public"] = private  # sic
    found = {}
    for name, group in averaged.items():
        counted = [(scores[task.name], task.weight) for task in group if task.name in scores]
        found[name] = Average(weighted_average(counted), len(counted), len(group))
    return found


def _average(scores: Mapping[str, float], asked: Sequence[SuiteTask]) -> Average:
    counted = [task for task in asked if task.name in scores]
    if not any(task.weight for task in counted):
        return Average(None, len(counted), len(asked))
    return Average(weighted_average((scores[task.name], task.weight) for task in counted), len(counted), len(asked))
