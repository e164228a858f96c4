"""Which of two encoders is better, and whether chance explains it: paired tests over the items of both.

A positive difference always means that the first encoder is better, also where lower scores are better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.bench.results import Result, by_encoder
from auricle.errors import DataError, check_number
from auricle.metrics.intervals import MAX_ROUNDS, Score
from auricle.metrics.paired import holm_correction, sign_test
from auricle.metrics.scoring_rule import ScoringRule

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """Two encoders on one task with the same head."""

    task: str
    scoring_rule: ScoringRule
    head: str
    first: float  # the scores of the results: of the whole test set or the mean of its folds
    second: float
    difference: Score  # mean over the items of first - second (second - first where lower is better), 95 % interval
    wins: int  # items on which the first encoder is better
    losses: int
    ties: int
    test: Literal["mcnemar", "sign"]  # items of 0 and 1, or any; the sign test is about the median difference
    p: float  # two-sided
    p_holm: float  # corrected for the number of tasks of this scoring rule and head


@dataclass(frozen=True, kw_only=True, slots=True)
class Overall:
    """The difference of the weighted averages over the tasks both encoders have."""

    scoring_rule: ScoringRule
    head: str
    scores: float  # of the results' scores, weighted by task
    tasks: tuple[str, ...]  # behind `scores`
    items: Score | None  # of the items' means, with its interval over items; None: no task has items of both
    item_tasks: tuple[str, ...]  # behind `items`


class LeftOut(NamedTuple):
    """A task or head that was not compared, and why."""

    task: str
    scoring_rule: ScoringRule
    head: str | None  # None: the whole task
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two encoders on all tasks they share."""

    first: str
    second: str
    tests: tuple[PairedTest, ...]  # in the order of the first encoder's results
    overall: tuple[Overall, ...]  # one for each scoring rule and head
    left_out: tuple[LeftOut, ...]


class _Pair(NamedTuple):
    """One head on one task, before the test."""

    one: Result
    head: str
    first: float
    second: float
    differences: Array  # (n,), positive where the first encoder is better; empty: no items to pair
    is_binary: bool  # all items of both are 0 or 1

    @property
    def gain(self) -> float:
        return (self.first - self.second) * (1 if self.one.task.higher_is_better else -1)


def compare(first: Sequence[Result], second: Sequence[Result], *, rounds: int = 2000, seed: int = 0) -> Comparison:
    """Paired tests of two encoders on the tasks they share.

    A task is shared if scoring rule and manifest of the data are the same, and tested if both results have scores of
    the same items. Items are taken as independent: where several are of one recording, intervals are too narrow.

    Args:
        first: results of one encoder.
        second: results of another.
        rounds: resamples behind each interval.
        seed: of the resampling.

    Raises:
        DataError: no results, or those of several encoders, on one side.
        ConfigError: fewer than one round.
    """
    check_number("rounds", rounds, least=1, most=MAX_ROUNDS, whole=True)
    check_number("seed", seed, least=0, most=2**63, whole=True)
    names = [_only_encoder(first, "first"), _only_encoder(second, "second")]
    pairs, left_out = _pairs(first, second)
    groups: dict[tuple[ScoringRule, str], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.one.scoring_rule, pair.head), []).append(pair)
    tests: list[PairedTest] = []
    overall: list[Overall] = []
    for (scoring_rule, head), group in groups.items():
        tested = [pair for pair in group if len(pair.differences)]
        means = {pair.one.task.name: _resampled_means(pair, rounds, seed) for pair in tested}
        own = [_test(pair, means[pair.one.task.name]) for pair in tested]
        corrected = holm_correction([test.p for test in own])
        tests += [replace(test, p_holm=p) for test, p in zip(own, corrected, strict=True)]
        overall.append(_overall(scoring_rule, head, group, means))
    return Comparison(
        first=names[0], second=names[1], tests=tuple(tests), overall=tuple(overall), left_out=tuple(left_out)
    )


def _only_encoder(results: Sequence[Result], side: str) -> str:
    grouped = by_encoder(results)
    if len(grouped) != 1:
        found = ", ".join(grouped) or "none"
        raise DataError(f"found results of {found} on the {side} side, expected those of one encoder; split them")
    keys = [(result.task.name, result.scoring_rule) for result in results]
    if len(set(keys)) < len(keys):
        raise DataError(f"found a task twice on the {side} side, expected one result of each; leave one out")
    return next(iter(grouped))


def _pairs(first: Sequence[Result], second: Sequence[Result]) -> tuple[list[_Pair], list[LeftOut]]:
    theirs = {(result.task.name, result.scoring_rule): result for result in second}
    pairs: list[_Pair] = []
    left_out: list[LeftOut] = []
    for one in first:
        two = theirs.pop((one.task.name, one.scoring_rule), None)
        reason = _task_differs(one, two) if two else "only the first encoder has this task"
        if two is None or reason:
            left_out.append(LeftOut(one.task.name, one.scoring_rule, None, reason or ""))
            continue
        for head in dict.fromkeys([*one.scores, *two.scores]):
            if head not in one.scores or head not in two.scores:
                side = "first" if head in one.scores else "second"
                left_out.append(
                    LeftOut(one.task.name, one.scoring_rule, head, f"only the {side} encoder has this head")
                )
                continue
            differences, lacking = _differences(one, two, head)
            if lacking:
                left_out.append(LeftOut(one.task.name, one.scoring_rule, head, lacking))
            is_binary = all(set(side.items.get(head, {}).values()) <= {0.0, 1.0} for side in (one, two))
            values = one.scores[head].value, two.scores[head].value
            pairs.append(_Pair(one, head, *values, differences, is_binary))
    left_out += [LeftOut(*key, None, "only the second encoder has this task") for key in theirs]
    return pairs, left_out


def _task_differs(one: Result, two: Result) -> str | None:
    if one.data.manifest != two.data.manifest:
        return f"other data: manifest {one.data.manifest[:12]} and {two.data.manifest[:12]}"
    if (one.task.metric, one.task.higher_is_better) != (two.task.metric, two.task.higher_is_better):
        return f"other metric: {one.task.metric} and {two.task.metric}"
    return None


def _differences(one: Result, two: Result, head: str) -> tuple[Array, str | None]:
    """Per item in the order of their ids; or why there are none."""
    mine, other = one.items.get(head) or {}, two.items.get(head) or {}
    if not mine or not other:
        return np.empty(0), "scores compared, not tested: no scores of single items"
    if mine.keys() != other.keys():
        count = len(mine.keys() ^ other.keys())
        return np.empty(0), f"scores compared, not tested: {count} items belong to one encoder only"
    ids = sorted(mine)
    difference = np.array([mine[i] - other[i] for i in ids], dtype=np.float64)
    return (difference if one.task.higher_is_better else -difference), None


def _resampled_means(pair: _Pair, rounds: int, seed: int) -> Array:
    """(rounds,) means of as many items sampled with replacement; tasks are sampled independently of each other."""
    n = len(pair.differences)
    task = int.from_bytes(sha256(f"{pair.one.task.name}/{pair.one.scoring_rule}".encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, task])
    values, counts = np.unique(pair.differences, return_counts=True)
    if len(values) <= 64:  # counts alone are enough: faster, and the same distribution
        times = rng.multinomial(n, counts / n, size=rounds)
        return np.asarray(times @ values / n, dtype=np.float64)
    return np.array([pair.differences[rng.integers(n, size=n)].mean() for _ in range(rounds)])


def _test(pair: _Pair, means: Array) -> PairedTest:
    differences = pair.differences
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    p = sign_test(wins, losses)
    return PairedTest(
        task=pair.one.task.name,
        scoring_rule=pair.one.scoring_rule,
        head=pair.head,
        first=pair.first,
        second=pair.second,
        difference=_interval(float(differences.mean()), means, len(differences)),
        wins=wins,
        losses=losses,
        ties=len(differences) - wins - losses,
        test="mcnemar" if pair.is_binary else "sign",
        p=p,
        p_holm=p,
    )


def _overall(scoring_rule: ScoringRule, head: str, group: Sequence[_Pair], means: Mapping[str, Array]) -> Overall:
    items = None
    if tested := [pair for pair in group if len(pair.differences)]:
        shares = np.array(_shares(tested))
        centre = float(shares @ [pair.differences.mean() for pair in tested])
        resampled = shares @ np.stack([means[pair.one.task.name] for pair in tested])
        items = _interval(centre, resampled, sum(len(pair.differences) for pair in tested))
    return Overall(
        scoring_rule=scoring_rule,
        head=head,
        scores=sum(share * pair.gain for share, pair in zip(_shares(group), group, strict=True)),
        tasks=tuple(pair.one.task.name for pair in group),
        items=items,
        item_tasks=tuple(pair.one.task.name for pair in tested),
    )


def _shares(pairs: Sequence[_Pair]) -> list[float]:
    """Of each task in the average; equal ones where no task has a weight."""
    total = sum(pair.one.task.weight for pair in pairs)
    return [pair.one.task.weight / total if total else 1 / len(pairs) for pair in pairs]


def _interval(value: float, resampled: Array, n: int) -> Score:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(value, float(low), float(high), n)
