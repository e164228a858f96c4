"""What scoring a file of answers found, with everything that decides the numbers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from auricle import __version__
from auricle.evaluate.results import Protocol
from auricle.evaluate.statistics import Score

FORMAT = "auricle-score/1"


class Rule(NamedTuple):
    """How a task is scored; the number grows whenever a change of code could change a score."""

    id: str
    version: int
    metric: str  # the one that stands for the task


# By task and protocol. What each rule does is told in the module that holds it.
RULES: Mapping[tuple[str, Protocol], Rule] = {
    ("asr", "compat"): Rule("wer-dasheng-lm", 1, "error_rate"),
    ("asr", "strict"): Rule("wer-by-language", 1, "error_rate"),
    ("tagging", "compat"): Rule("tag-substring", 1, "accuracy"),
    ("tagging", "strict"): Rule("tag-whole-words", 1, "accuracy"),
    ("gender", "compat"): Rule("gender-substring", 1, "accuracy"),
    ("gender", "strict"): Rule("gender-whole-words", 1, "accuracy"),
    ("multitag", "compat"): Rule("map-of-split-labels", 1, "mAP"),
    ("multitag", "strict"): Rule("map-of-known-labels", 1, "mAP"),
    ("qa", "compat"): Rule("qa-token-sets", 1, "accuracy"),
    ("qa", "strict"): Rule("qa-letter-or-text", 1, "accuracy"),
    ("caption", "compat"): Rule("sbert-mean", 1, "sbert"),
    ("caption", "strict"): Rule("fense", 1, "fense"),
    ("mecat", "compat"): Rule("date-released", 1, "date"),
    ("mecat", "strict"): Rule("date-of-others", 1, "date"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One file of answers under one protocol; rates are fractions, never rounded."""

    task: str
    protocol: Protocol
    rule: Rule
    scores: Mapping[str, Score]  # by metric
    parts: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)  # as languages, groups; by name, then metric
    counts: Mapping[str, float] = field(default_factory=dict)  # rows, unparseable answers, …
    items: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by metric, then item: for paired tests
    settings: Mapping[str, Any] = field(default_factory=dict)  # encoder, normalisers, seed, …
    data: Mapping[str, Any] = field(default_factory=dict)  # data sets, models, hashes of files
    version: str = __version__

    @property
    def headline(self) -> Score | None:
        """The score that stands for the task; None where it could not be had, as FENSE without a detector."""
        return self.scores.get(self.rule.metric)

    def content(self, *, items: bool = True) -> dict[str, Any]:
        """As JSON holds it; a number that does not exist is null."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "task": self.task,
            "protocol": self.protocol,
            "rule": self.rule._asdict(),
            "scores": {name: _plain(score) for name, score in self.scores.items()},
            "parts": {
                name: {metric: _plain(score) for metric, score in own.items()} for name, own in self.parts.items()
            },
            "counts": dict(self.counts),
            "settings": dict(self.settings),
            "data": dict(self.data),
            "version": self.version,
        }
        return {**found, "items": {name: dict(own) for name, own in self.items.items()}} if items else found

    def to_json(self) -> str:
        """Text of a file."""
        return json.dumps(self.content(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(score: Score) -> dict[str, float | int | None]:
    return {name: None if math.isnan(value) else value for name, value in score._asdict().items()}
