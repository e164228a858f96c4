"""How much of a model's score is left when its sounds arrive degraded: the robustness card.

Every question is asked about every sound at every level of every condition. Of each level the card tells the score,
the difference to the clean sounds on the same items, and the retention: score over clean score; of a rate of errors it
is what the rate leaves to 1, at least 0, that is compared. Of each condition it tells the area under the retention and
the level where the retention falls below 0.9 and 0.5.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from auricle import __version__
from auricle.errors import ConfigError, DataError
from auricle.evaluate.corruptions import CONDITIONS, Condition, degraded_questions
from auricle.evaluate.examiner import Examined, Examiner
from auricle.evaluate.predictions import read_bounded, read_line
from auricle.evaluate.question import Question
from auricle.metrics.intervals import Score, plain_score
from auricle.metrics.paired import LOWER_IS_BETTER, pair

FORMAT = "auricle-robustness/1"
FALLS = (0.9, 0.5)  # retentions whose level is sought


class Crossing(NamedTuple):
    """Where the retention first falls below a share, on the way from mild to severe."""

    direction: str  # of the levels on that way: "up" or "down"
    level: float | None  # between two measured ones by interpolation, unless levels are counted; None: it never does
    at_mildest: bool  # it is below at the mildest level already, so the true level may be milder


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A condition at one level."""

    level: float
    score: Score
    retention: Score
    difference: Score  # of the paired metric, to the clean sounds
    lost: int = 0  # items that only one of both has
    failed: int = 0  # questions without an answer
    partial: int = 0  # answers to sounds heard in part


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A condition, mild to severe; a two-sided one from low to high."""

    condition: str  # of `auricle.evaluate.corruptions.CONDITIONS`
    levels: tuple[Level, ...]
    area: float  # mean retention over the range of levels, the clean sound among them where it has one; may be nan
    falls: Mapping[float, tuple[Crossing, ...]]  # by retention


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One model on one task."""

    identity: Mapping[str, Any]  # see `Examiner.identity`
    rule: Mapping[str, Any]  # by which it was scored
    metric: str
    paired_metric: str  # of the differences
    clean: Score
    questions: int
    sounds: int
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

    def to_json(self) -> str:
        """Text of a file."""
        content = {
            "format": FORMAT,
            **self.identity,
            "rule": dict(self.rule),
            "metric": self.metric,
            "lower_is_better": self.metric in LOWER_IS_BETTER,
            "paired_metric": self.paired_metric,
            "questions": self.questions,
            "sounds": self.sounds,
            "clean": {**plain_score(self.clean), "failed": self.clean_failed, "partial": self.clean_partial},
            "conditions": [_curve_content(curve) for curve in self.curves],
            "settings": dict(self.settings),
            "version": self.version,
        }
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def robustness_card(
    examiner: Examiner,
    questions: Sequence[Question],
    conditions: Sequence[tuple[Condition, Sequence[float]]],
    *,
    on_level: Callable[[str, float], None] | None = None,
) -> Card:
    """Measure a model on degraded sounds.

    Args:
        examiner: the model, the task and how it is judged; a cache makes a killed run go on.
        questions: of the task.
        conditions: each with its levels, mild to severe.
        on_level: told the condition and level that come next.

    Raises:
        ConfigError: no conditions, or one twice.
        DataError: no questions, or answers that cannot be scored; the level is named.
    """
    names = [condition.name for condition, _ in conditions]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"conditions are {', '.join(names) or 'none'}; expected at least one, each once")
    if not questions:
        raise DataError(f"{examiner.task.name}: found no questions, expected some; is it the right source?")
    clean = examiner.examine(questions)
    groups = {item: str(number) for item, number in clean.scored.groups.items()}
    curves = []
    for condition, levels in conditions:
        found = []
        for level in levels:
            if on_level:
                on_level(condition.name, level)
            try:
                heard = examiner.examine(degraded_questions(questions, condition, level))
            except DataError as error:
                raise DataError(f"{condition.name}, {level:g} {condition.unit}: {error}") from None
            found.append(_level(level, heard, clean, groups, examiner))
        curves.append(_curve(condition, found))
    return Card(
        identity=examiner.identity(),
        rule=clean.scored.rule._asdict(),
        metric=clean.measured.metric,
        paired_metric=clean.measured.paired_metric,
        clean=clean.measured.score,
        questions=len(questions),
        sounds=len({question.sound.name for question in questions}),
        clean_failed=clean.failed,
        clean_partial=clean.partial,
        settings={name: value for name, value in clean.scored.settings.items() if name not in _PER_RUN},
        curves=tuple(curves),
    )


_PER_RUN = frozenset({"average_precision", "date_by_number_of_clips", "difficulties"})  # results among the settings


def _level(level: float, heard: Examined, clean: Examined, groups: Mapping[str, str], examiner: Examiner) -> Level:
    pairing = pair(clean.measured, heard.measured, groups, rounds=examiner.rounds, seed=examiner.seed)
    return Level(
        level=level,
        score=heard.measured.score,
        retention=pairing.retention,
        difference=pairing.difference,
        lost=pairing.lost,
        failed=heard.failed,
        partial=heard.partial,
    )


def _curve(condition: Condition, levels: Sequence[Level]) -> Curve:
    points = {each.level: each.retention.value for each in levels}
    return Curve(
        condition=condition.name,
        levels=tuple(levels),
        area=area_under(condition, points),
        falls={share: crossings(condition, points, share) for share in FALLS},
    )


def area_under(condition: Condition, points: Mapping[float, float]) -> float:
    """Mean of the retention over the range of levels, straight between them; nan where one is not known.

    Args:
        condition: tells whether levels count in octaves and which one is the clean sound.
        points: retention by level.
    """
    known = _with_clean(condition, points)
    places = [math.log2(level) if condition.in_octaves else level for level in sorted(known)]
    values = [known[level] for level in sorted(known)]
    if len(places) < 2:
        return values[0] if values else math.nan
    pieces = zip(pairwise(places), pairwise(values), strict=True)
    return sum((right - left) * (a + b) / 2 for (left, right), (a, b) in pieces) / (places[-1] - places[0])


def crossings(condition: Condition, points: Mapping[float, float], share: float) -> tuple[Crossing, ...]:
    """Where the retention first falls below ``share``: one way for most conditions, two where both ends are severe.

    Nothing where a retention is not known.
    """
    known = _with_clean(condition, points)
    if any(map(math.isnan, known.values())):
        return ()
    ordered = sorted(known)
    ways = {"down": ordered[::-1], "up": ordered}
    if condition.severe:
        ways = {"up": ordered} if condition.severe > 0 else {"down": ordered[::-1]}
    elif condition.neutral is not None:
        at = ordered.index(condition.neutral)
        ways = {"down": ordered[at::-1], "up": ordered[at:]}
    return tuple(
        _crossing(condition, direction, [(level, known[level]) for level in way], share)
        for direction, way in ways.items()
        if any(level != condition.neutral for level in way)
    )


def _crossing(condition: Condition, direction: str, way: Sequence[tuple[float, float]], share: float) -> Crossing:
    first_level, first = way[0]
    if first < share:
        return Crossing(direction, first_level, True)
    for (before, high), (after, low) in pairwise(way):
        if low < share <= high:
            return Crossing(direction, _between(condition, before, after, (high - share) / (high - low)), False)
    return Crossing(direction, None, False)


def _between(condition: Condition, before: float, after: float, part: float) -> float:
    """The level at a part of the way between two, straight as areas are."""
    if condition.is_counted:
        return after
    if condition.in_octaves:
        return before * (after / before) ** part
    return before + part * (after - before)


def _with_clean(condition: Condition, points: Mapping[float, float]) -> dict[float, float]:
    return dict(points) if condition.neutral is None else {condition.neutral: 1.0, **points}


# --- files


def _curve_content(curve: Curve) -> dict[str, Any]:
    condition = CONDITIONS[curve.condition]
    return {
        "name": curve.condition,
        "title": condition.title,
        "unit": condition.unit,
        "clean_at": condition.neutral,
        "area": None if math.isnan(curve.area) else curve.area,
        "falls_below": {f"{share:g}": [each._asdict() for each in own] for share, own in curve.falls.items()},
        "levels": [
            {
                "level": each.level,
                "score": plain_score(each.score),
                "retention": plain_score(each.retention),
                "difference": plain_score(each.difference),
                "lost": each.lost,
                "failed": each.failed,
                "partial": each.partial,
            }
            for each in curve.levels
        ],
    }


def read_card(path: Any) -> Card:
    """A card from its file; areas and crossings are computed anew.

    Raises:
        DataError: no readable card.
    """
    content = read_line(read_bounded(path), str(path))
    if content.get("format") != FORMAT:
        raise DataError(f"{path}: found format {ascii(content.get('format'))[:60]}, expected {FORMAT!r}")
    try:
        clean = content["clean"]
        return Card(
            identity={name: content[name] for name in _IDENTITY},
            rule=dict(content["rule"]),
            metric=str(content["metric"]),
            paired_metric=str(content["paired_metric"]),
            clean=_score(clean),
            questions=int(content["questions"]),
            sounds=int(content["sounds"]),
            clean_failed=int(clean["failed"]),
            clean_partial=int(clean["partial"]),
            settings=dict(content["settings"]),
            curves=tuple(_read_curve(each) for each in content["conditions"]),
            version=str(content["version"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: no whole card ({error!r}); make it again, or leave it out") from None


_IDENTITY = ("model", "fingerprint", "task", "title", "protocol", "missing", "decoding", "group_by", "rounds", "seed")


def _read_curve(content: Mapping[str, Any]) -> Curve:
    return _curve(
        CONDITIONS[content["name"]],
        [
            Level(
                level=float(each["level"]),
                score=_score(each["score"]),
                retention=_score(each["retention"]),
                difference=_score(each["difference"]),
                lost=int(each["lost"]),
                failed=int(each["failed"]),
                partial=int(each["partial"]),
            )
            for each in content["levels"]
        ],
    )


def _score(content: Mapping[str, Any]) -> Score:
    value, low, high = (
        math.nan if content[name] is None else float(content[name]) for name in ("value", "low", "high")
    )
    return Score(value, low, high, int(content["n"]))
