"""How much of a model's score is left when the audio is corrupted: the robustness card.

Every question is answered at every level of every corruption. Of each level the card reports the score, the difference
to clean audio on the same items, and the retention: score over clean score; of an error rate, what it leaves to 1, at
least 0, is compared. Of each corruption it reports the area under the retention and the level where the retention falls
below 0.9 and 0.5.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Strict

from auricle import __version__
from auricle.data.untrusted_json import StrictFields, parse_object, read_text, validate
from auricle.errors import ConfigError, DataError
from auricle.evaluate.corruptions import CORRUPTIONS, Corruption, corrupted_questions
from auricle.evaluate.questions import Question
from auricle.evaluate.run import Evaluation, Evaluator
from auricle.evaluate.scores import Count, FileScore, Missing, Number, Plain, Rule, ScoreFields, Text
from auricle.metrics.intervals import Score, plain_score
from auricle.metrics.paired import LOWER_IS_BETTER, pair
from auricle.metrics.scoring_rule import ScoringRule

FORMAT = "auricle-robustness/1"
FALLS = (0.9, 0.5)  # retentions whose level is sought
_FIX = "make it again, or leave it out"


class Crossing(NamedTuple):
    """Where the retention first falls below a share, from mild to severe."""

    direction: str  # of the levels: "up" or "down"
    level: float | None  # between two measured ones by interpolation, unless levels are counted; None: it never does
    at_mildest: bool  # it is below at the mildest level already, so the true level may be milder


@dataclass(frozen=True, kw_only=True, slots=True)
class Level(StrictFields):
    """A corruption at one level."""

    level: Number
    score: FileScore
    retention: FileScore
    difference: FileScore  # of the paired metric, to clean audio
    lost: Count = 0  # items that only one of both has
    failed: Count = 0  # questions without an answer
    partial: Count = 0  # answers about clips that were processed in part


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A corruption, mild to severe; a two-sided one from low to high."""

    corruption: str  # of `auricle.evaluate.corruptions.CORRUPTIONS`
    levels: tuple[Level, ...]
    area: float  # mean retention over the range of levels, with clean audio where that is a level; may be nan
    falls: Mapping[float, tuple[Crossing, ...]]  # by retention


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One model on one task."""

    identity: Mapping[str, Any]  # see `Evaluator.identity`
    rule: Rule  # by which it was scored
    metric: str
    paired_metric: str  # of the differences
    clean: Score
    questions: int
    clips: int
    clean_failed: int  # questions without an answer
    clean_partial: int
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the scores
    curves: tuple[Curve, ...]
    version: str = __version__

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self.identity["model"])

    @property
    def task(self) -> str:
        """Of the task."""
        return str(self.identity["task"])

    @property
    def scoring_rule(self) -> str:
        """``compat`` or ``strict``."""
        return str(self.identity["protocol"])

    def to_json(self) -> str:
        """Text of a file."""
        content = {
            "format": FORMAT,
            **self.identity,
            "rule": asdict(self.rule),
            "metric": self.metric,
            "lower_is_better": self.metric in LOWER_IS_BETTER,
            "paired_metric": self.paired_metric,
            "questions": self.questions,
            "sounds": self.clips,
            "clean": {**plain_score(self.clean), "failed": self.clean_failed, "partial": self.clean_partial},
            "conditions": [_curve_content(curve) for curve in self.curves],
            "settings": dict(self.settings),
            "version": self.version,
        }
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def robustness_card(
    evaluator: Evaluator,
    questions: Sequence[Question],
    corruptions: Sequence[tuple[Corruption, Sequence[float]]],
    *,
    on_level: Callable[[str, float], None] | None = None,
) -> Card:
    """Measure a model on corrupted audio.

    Args:
        evaluator: the model and the task; with a cache a killed run continues where it stopped.
        questions: of the task.
        corruptions: each with its levels, mild to severe.
        on_level: called with the corruption and level that come next.

    Raises:
        ConfigError: no corruptions, or a duplicated one.
        DataError: no questions, or answers that cannot be scored; the level is named.
    """
    names = [corruption.name for corruption, _ in corruptions]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"corruptions are {', '.join(names) or 'none'}; expected at least one, each once")
    if not questions:
        raise DataError(f"{evaluator.task.name}: found no questions, expected some; is it the right source?")
    clean = evaluator.evaluate(questions)
    curves = []
    for corruption, levels in corruptions:
        found = []
        for level in levels:
            if on_level:
                on_level(corruption.name, level)
            try:
                corrupted = evaluator.evaluate(corrupted_questions(questions, corruption, level))
            except DataError as error:
                raise DataError(f"{corruption.name}, {level:g} {corruption.unit}: {error}") from None
            found.append(_level(level, corrupted, clean, evaluator))
        curves.append(_curve(corruption, found))
    return Card(
        identity=evaluator.identity(),
        rule=clean.scored.rule,
        metric=clean.measured.metric,
        paired_metric=clean.measured.paired_metric,
        clean=clean.measured.score,
        questions=len(questions),
        clips=len({question.audio.name for question in questions}),
        clean_failed=clean.failed,
        clean_partial=clean.partial,
        settings={name: value for name, value in clean.scored.settings.items() if name not in _RESULTS},
        curves=tuple(curves),
    )


_RESULTS = frozenset({"average_precision", "date_by_number_of_clips", "difficulties"})  # among the settings of scores


def _level(level: float, corrupted: Evaluation, clean: Evaluation, evaluator: Evaluator) -> Level:
    groups = {item: str(number) for item, number in clean.scored.groups.items()}
    scoring = evaluator.scoring
    pairing = pair(clean.measured, corrupted.measured, groups, rounds=scoring.rounds, seed=scoring.seed)
    return Level(
        level=level,
        score=corrupted.measured.score,
        retention=pairing.retention,
        difference=pairing.difference,
        lost=pairing.lost,
        failed=corrupted.failed,
        partial=corrupted.partial,
    )


def _curve(corruption: Corruption, levels: Sequence[Level]) -> Curve:
    points = {each.level: each.retention.value for each in levels}
    return Curve(
        corruption=corruption.name,
        levels=tuple(levels),
        area=area_under(corruption, points),
        falls={share: crossings(corruption, points, share) for share in FALLS},
    )


def area_under(corruption: Corruption, points: Mapping[float, float]) -> float:
    """Mean of the retention over the range of levels or octaves, straight between them; nan where one is unknown."""
    known = _with_clean(corruption, points)
    places = [math.log2(level) if corruption.in_octaves else level for level in sorted(known)]
    values = [known[level] for level in sorted(known)]
    if len(places) < 2:
        return values[0] if values else math.nan
    pieces = zip(pairwise(places), pairwise(values), strict=True)
    return sum((right - left) * (a + b) / 2 for (left, right), (a, b) in pieces) / (places[-1] - places[0])


def crossings(corruption: Corruption, points: Mapping[float, float], share: float) -> tuple[Crossing, ...]:
    """Where the retention first falls below ``share``: one way for most corruptions, two where both ends are severe.

    Nothing where a retention is not known.
    """
    known = _with_clean(corruption, points)
    if any(map(math.isnan, known.values())):
        return ()
    ordered = sorted(known)
    ways = {"down": ordered[::-1], "up": ordered}
    if corruption.severe:
        ways = {"up": ordered} if corruption.severe > 0 else {"down": ordered[::-1]}
    elif corruption.neutral is not None:
        at = ordered.index(corruption.neutral)
        ways = {"down": ordered[at::-1], "up": ordered[at:]}
    return tuple(
        _crossing(corruption, direction, [(level, known[level]) for level in way], share)
        for direction, way in ways.items()
        if any(level != corruption.neutral for level in way)
    )


def _crossing(corruption: Corruption, direction: str, way: Sequence[tuple[float, float]], share: float) -> Crossing:
    first_level, first = way[0]
    if first < share:
        return Crossing(direction, first_level, True)
    for (before, high), (after, low) in pairwise(way):
        if low < share <= high:
            return Crossing(direction, _between(corruption, before, after, (high - share) / (high - low)), False)
    return Crossing(direction, None, False)


def _between(corruption: Corruption, before: float, after: float, part: float) -> float:
    """The level at a part of the way between two, straight as areas are."""
    if corruption.is_counted:
        return after
    if corruption.in_octaves:
        return before * (after / before) ** part
    return before + part * (after - before)


def _with_clean(corruption: Corruption, points: Mapping[float, float]) -> dict[float, float]:
    return dict(points) if corruption.neutral is None else {corruption.neutral: 1.0, **points}


# --- files


def _curve_content(curve: Curve) -> dict[str, Any]:
    corruption = CORRUPTIONS[curve.corruption]
    return {
        "name": curve.corruption,
        "title": corruption.title,
        "unit": corruption.unit,
        "clean_at": corruption.neutral,
        "area": None if math.isnan(curve.area) else curve.area,
        "falls_below": {f"{share:g}": [each._asdict() for each in own] for share, own in curve.falls.items()},
        "levels": [
            {name: plain_score(own) if isinstance(own, Score) else own for name, own in asdict(each).items()}
            for each in curve.levels
        ],
    }


@dataclass(frozen=True, slots=True)
class _CleanFields(ScoreFields):
    failed: Count
    partial: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class _CurveFields(StrictFields):
    name: Text
    title: Text
    unit: Text
    clean_at: Number | None
    area: Number | None
    falls_below: Plain
    levels: Annotated[tuple[Level, ...], Strict(False)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _CardFields(StrictFields):
    format: Literal["auricle-robustness/1"]
    model: Text
    fingerprint: Text
    task: Text
    title: Text
    protocol: ScoringRule
    missing: Missing
    decoding: Plain
    group_by: Text
    rounds: Count
    seed: Count
    rule: Rule
    metric: Text
    lower_is_better: bool
    paired_metric: Text
    questions: Count
    sounds: Count
    clean: _CleanFields
    conditions: list[_CurveFields]
    settings: Plain
    version: Text


_IDENTITY = ("model", "fingerprint", "task", "title", "protocol", "missing", "decoding", "group_by", "rounds", "seed")


def read_card(path: str | Path) -> Card:
    """A card from its file; areas and crossings are computed again.

    Raises:
        DataError: no readable card; the field is named.
    """
    stored = validate(_CardFields, parse_object(read_text(path), str(path), allow_nan=False), str(path), fix=_FIX)
    if unknown := [each.name for each in stored.conditions if each.name not in CORRUPTIONS]:
        raise DataError(f"{path}: holds corruption {unknown[0]!r}, expected some of {', '.join(CORRUPTIONS)}; {_FIX}")
    return Card(
        identity={name: getattr(stored, name) for name in _IDENTITY},
        rule=stored.rule,
        metric=stored.metric,
        paired_metric=stored.paired_metric,
        clean=stored.clean.score(),
        questions=stored.questions,
        clips=stored.sounds,
        clean_failed=stored.clean.failed,
        clean_partial=stored.clean.partial,
        settings=stored.settings,
        curves=tuple(_curve(CORRUPTIONS[each.name], each.levels) for each in stored.conditions),
        version=stored.version,
    )
