"""Which of two audio language models answers better, and whether the difference could be chance.

A task is compared where both have the same items, scored by the same rule with the same networks. The interval
resamples, and the test counts, what the scores themselves resample: an item, or all items of a clip or speaker. A
positive difference always means that the first model is better, also where lower scores are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from auricle.errors import ConfigError, check_number
from auricle.evaluate.results import SCORING_RULES, LmResult, find_results, only_model
from auricle.evaluate.scores import Scored, measure
from auricle.metrics.intervals import MAX_ROUNDS, ROUNDS, Score
from auricle.metrics.paired import LOWER_IS_BETTER, Measured, holm_correction, pair, sign_test
from auricle.metrics.scoring_rule import ScoringRule

Verdict: TypeAlias = Literal["first", "second", "none"]

LEVEL = 0.05  # of the corrected p, at which a difference is called one
# Settings that follow from the answers, or only concern the intervals; all others decide a score.
_NOT_DECIDING = {
    *("group_by", "rounds", "seed", "average_precision", "date_by_number_of_clips", "difficulties"),
}
_NOTES: Mapping[str, str] = {
    "mAP": "mAP is no sum over items: paired is the F1 of each item's labels",
    "date": "an item's DATE also depends on the other answers of its model",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedAnswers:
    """Two models on one task, scored by one rule."""

    task: str
    scoring_rule: ScoringRule
    metric: str  # of the scores
    first: Score
    second: Score
    paired_metric: str  # of the difference; another one only where a score is no function of sums over items
    difference: Score  # over items both have, positive where the first is better; 95 % interval, n counts items
    wins: int  # units on which the first is better: items, or what is resampled together
    losses: int
    ties: int
    test: Literal["mcnemar", "sign"]  # of units that are right or wrong, or any
    p: float  # two-sided
    p_holm: float  # corrected for the number of tasks of this scoring rule
    unpaired: int  # items that only one of both has, as where a rule leaves empty answers out
    note: str  # on the difference; may be empty

    @property
    def better(self) -> Verdict:
        """Which model is better; none unless corrected p and interval agree on it."""
        is_clear = self.difference.low > 0 or self.difference.high < 0
        sides = self.wins > self.losses, self.difference.value > 0
        if self.p_holm >= LEVEL or not is_clear or sides[0] != sides[1]:
            return "none"
        return "first" if self.difference.value > 0 else "second"


class LeftOut(NamedTuple):
    """A task that was not compared."""

    task: str
    scoring_rule: ScoringRule
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerComparison:
    """Two models on all tasks of both."""

    first: str
    second: str
    tests: tuple[PairedAnswers, ...]  # in the order of the first model's results
    left_out: tuple[LeftOut, ...]


def compare_runs(first: str | Path, second: str | Path, *, rounds: int = ROUNDS, seed: int = 0) -> AnswerComparison:
    """Compare two models by the files of their results.

    Args:
        first: folder of one model's results, ``OUT/MODEL``, or a single file of scores.
        second: of another; two single files are compared whatever their tasks are called.
        rounds: resamples behind each interval.
        seed: of the resampling.

    Raises:
        DataError: files that cannot be read, or a folder with several models.
        ConfigError: fewer than one round.
    """
    mine, theirs = find_results(first), find_results(second)
    if Path(first).is_file() and Path(second).is_file():
        theirs = [replace(theirs[0], task=mine[0].task)]
    names = only_model(mine, str(first)), only_model(theirs, str(second))
    if names[0] == names[1]:
        names = f"{names[0]} ({first})", f"{names[1]} ({second})"
    return compare_results(mine, theirs, names=names, rounds=rounds, seed=seed)


def compare_results(
    first: Sequence[LmResult],
    second: Sequence[LmResult],
    *,
    names: tuple[str, str],
    rounds: int = ROUNDS,
    seed: int = 0,
) -> AnswerComparison:
    """Paired tests on the tasks both have; arguments as `compare_runs`, with the names of both models."""
    check_number("rounds", rounds, least=1, most=MAX_ROUNDS, whole=True)
    check_number("seed", seed, least=0, most=2**63, whole=True)
    theirs = {(result.task, result.scoring_rule): result for result in second}
    tests: list[PairedAnswers] = []
    left_out: list[LeftOut] = []
    for one in first:
        two = theirs.pop((one.task, one.scoring_rule), None)
        reason = "only the first model has it" if two is None else why_not(one.scored, two.scored)
        if two is None or reason:
            left_out.append(LeftOut(one.task, one.scoring_rule, reason or ""))
        else:
            tests.append(compare_scored(one.scored, two.scored, task=one.task, rounds=rounds, seed=seed))
    left_out += [LeftOut(*key, "only the second model has it") for key in theirs]
    for scoring_rule in SCORING_RULES:
        own = [number for number, test in enumerate(tests) if test.scoring_rule == scoring_rule]
        for number, p in zip(own, holm_correction([tests[number].p for number in own]), strict=True):
            tests[number] = replace(tests[number], p_holm=p)
    return AnswerComparison(first=names[0], second=names[1], tests=tuple(tests), left_out=tuple(left_out))


def why_not(first: Scored, second: Scored) -> str | None:
    """Why two results cannot be compared; None where they can."""
    if (first.kind, first.scoring_rule) != (second.kind, second.scoring_rule):
        mine, other = (f"{scored.kind} ({scored.scoring_rule})" for scored in (first, second))
        return f"other kinds of task or scoring rules: {mine} and {other}"
    if first.rule != second.rule:
        mine, other = (f"{scored.rule.id} version {scored.rule.version}" for scored in (first, second))
        return f"other rules: {mine} and {other}"
    digests = [scored.data.get("references_sha256") for scored in (first, second)]
    if not all(isinstance(digest, str) and digest for digest in digests):
        return "not known to be about the same items, as the scores are of an older version; score the answers again"
    if digests[0] != digests[1]:
        return f"other items or references: {str(digests[0])[:12]} and {str(digests[1])[:12]}"
    if differing := sorted(name for name, _ in _deciding(first).items() ^ _deciding(second).items()):
        return f"other {' and '.join(dict.fromkeys(name.replace('_', ' ') for name in differing))}"
    if not all(has_items(scored) for scored in (first, second)):
        return "no scores of single items"
    return None


def basis(scored: Scored) -> tuple[Any, ...]:
    """What two results must have in common for their scores to be compared."""
    references = scored.data.get("references_sha256")
    return (scored.kind, scored.scoring_rule, scored.rule, repr(references), tuple(sorted(_deciding(scored).items())))


def has_items(scored: Scored) -> bool:
    """Whether a result holds what `auricle.metrics.paired.measure` pairs by."""
    metric = scored.rule.metric
    if scored.kind == "mecat":
        groups = [name for name, own in scored.parts.items() if metric in own]
        return bool(groups) and all(scored.items.get(f"{name}.{metric}") for name in groups)
    if metric == "error_rate":
        errors, tokens = scored.items.get("errors", {}), scored.items.get("tokens", {})
        return bool(errors) and errors.keys() == tokens.keys()
    if scored.kind == "caption" and metric not in scored.scores:  # FENSE without a detector
        metric = "sbert"
    return bool(scored.items.get("f1" if metric == "mAP" else metric))


def compare_scored(
    first: Scored, second: Scored, *, task: str = "", rounds: int = ROUNDS, seed: int = 0
) -> PairedAnswers:
    """The paired test of two results that `why_not` finds comparable; not yet corrected for other tasks.

    Raises:
        ConfigError: the results are not comparable.
    """
    if reason := why_not(first, second):
        raise ConfigError(f"{task or first.kind}: cannot be compared: {reason}")
    one, two = measure(first), measure(second)
    sign = -1.0 if one.paired_metric in LOWER_IS_BETTER else 1.0
    paired = pair(two, one, {item: str(number) for item, number in first.groups.items()}, rounds=rounds, seed=seed)
    units = _units(one, two, first.groups)
    wins, losses = (sum(sign * side * gain > 0 for gain in units.values()) for side in (1, -1))
    p = sign_test(wins, losses)
    values = {value for own in (one, two) for part in own.parts.values() for value in part.items.values()}
    is_binary = not first.groups and len(one.parts) == 1 and values <= {(0.0, 1.0), (1.0, 1.0)}
    return PairedAnswers(
        task=task or first.kind,
        scoring_rule=first.scoring_rule,
        metric=one.metric,
        first=one.score,
        second=two.score,
        paired_metric=one.paired_metric,
        difference=paired.difference if sign > 0 else _negated(paired.difference),
        wins=wins,
        losses=losses,
        ties=len(units) - wins - losses,
        test="mcnemar" if is_binary else "sign",
        p=p,
        p_holm=p,
        unpaired=paired.lost,
        note=_NOTES.get(first.rule.metric, ""),
    )


def _deciding(scored: Scored) -> dict[str, str]:
    """Settings without which a score would be another, as text."""
    return {name: repr(value) for name, value in scored.settings.items() if name not in _NOT_DECIDING}


def _units(one: Measured, two: Measured, groups: Mapping[str, int]) -> dict[Any, float]:
    """What each unit adds to the difference of both scores; rounding noise is none."""
    found: dict[Any, list[float]] = {}
    for name in one.parts.keys() & two.parts.keys():
        mine, other = one.parts[name], two.parts[name]
        shared = mine.items.keys() & other.items.keys()
        totals = [sum(part.items[item][1] for item in shared) or 1.0 for part in (mine, other)]
        for item in shared:
            (gain, size), (its_gain, its_size) = mine.items[item], other.items[item]
            # Where both are shares of the same amount, as words of one reference, the difference is exact.
            both = (gain - its_gain) / totals[0] if size == its_size else gain / totals[0] - its_gain / totals[1]
            found.setdefault(groups.get(item, item), []).append(mine.weight * both)
    gains = {unit: math.fsum(own) for unit, own in found.items()}
    return {unit: 0.0 if abs(gain) < 1e-12 else gain for unit, gain in gains.items()}


def _negated(score: Score) -> Score:
    return Score(0.0 - score.value, 0.0 - score.high, 0.0 - score.low, score.n)  # no -0.0
