"""What scoring a file of answers found, with everything that decides the numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from auricle import __version__
from auricle.data.untrusted_json import parse_json, shorten
from auricle.errors import DataError
from auricle.metrics.intervals import Score, plain_score
from auricle.metrics.scoring_rule import ScoringRule

FORMAT = "auricle-score/1"
MAX_BYTES = 1 << 30  # of one file; those of 100,000 questions of MECAT take about 200 MB
MAX_DEPTH = 8  # of lists and objects within settings and data
MAX_TEXT = 10_000  # characters of a name or text; an item may be called after its question
_FIELDS = ("task", "protocol", "rule", "scores", "parts", "counts", "settings", "data", "version")
_WITH_ITEMS = ("items", "groups")
_FIX = "score the answers again, or leave the file out"


class Rule(NamedTuple):
    """How a task is scored; the number grows whenever a change of code could change a score."""

    id: str
    version: int
    metric: str  # the one that stands for the task


# By task and protocol. What each rule does is told in the module that holds it.
RULES: Mapping[tuple[str, ScoringRule], Rule] = {
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
    protocol: ScoringRule
    rule: Rule
    scores: Mapping[str, Score]  # by metric
    parts: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)  # as languages, groups; by name, then metric
    counts: Mapping[str, float] = field(default_factory=dict)  # rows, unparseable answers, …
    items: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by metric, then item: for paired tests
    groups: Mapping[str, int] = field(default_factory=dict)  # items of one number are resampled together
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
            "scores": {name: plain_score(score) for name, score in self.scores.items()},
            "parts": {
                name: {metric: plain_score(score) for metric, score in own.items()} for name, own in self.parts.items()
            },
            "counts": dict(self.counts),
            "settings": dict(self.settings),
            "data": dict(self.data),
            "version": self.version,
        }
        if items:
            found["items"] = {name: dict(own) for name, own in self.items.items()}
        if items and self.groups:
            found["groups"] = dict(self.groups)
        return found

    def to_json(self) -> str:
        """Text of a file."""
        return json.dumps(self.content(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def references_digest(references: Mapping[str, Any]) -> str:
    """SHA-256 over items and what should have been answered, by name; the same for every order and every model."""
    pairs = [[name, references[name]] for name in sorted(references)]
    return sha256(json.dumps(pairs, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def group_numbers(items: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """Groups of items as `Scored` holds them; nothing where each item is a group of its own."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    if len(numbers) == len(set(items)):
        return {}
    return {item: numbers[name] for item, name in zip(items, groups, strict=True)}


def read_scored(path: str | Path) -> Scored:
    """The scores in a file, as `Scored.to_json` wrote them.

    Raises:
        DataError: unreadable, larger than `MAX_BYTES`, or no scores; the field is named.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES} bytes, expected scores of at most that; {_FIX}")
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable ({error}), expected scores in UTF-8; {_FIX}") from None
    return parse_scored(text, str(path))


def parse_scored(text: str, origin: str = "scores") -> Scored:
    """Scores from the text of their file.

    Raises:
        DataError: no JSON, another format, or a field that is absent, unknown or impossible; `origin` is named.
    """
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin}: no readable JSON ({error}); expected scores of {FORMAT}: {_FIX}") from None
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != FORMAT:
        raise DataError(f"{origin}: found format {shorten(found)}, expected {FORMAT!r}; {_FIX}")
    absent, unknown = sorted(set(_FIELDS) - set(content)), sorted(set(content) - {*_FIELDS, *_WITH_ITEMS})
    if absent or unknown:
        raise DataError(f"{origin}: fields {absent} are missing and {shorten(unknown)} are unknown; {_FIX}")
    at = {name: f"{origin}: {name}" for name in content}
    _check_texts(content, at)
    return Scored(
        task=content["task"],
        protocol=content["protocol"],
        rule=_rule(content["rule"], at["rule"]),
        scores=_scores(content["scores"], at["scores"]),
        parts={name: _scores(own, f"{at['parts']}.{shorten(name)}") for name, own in _object(content, "parts", at)},
        counts={name: _number(own, f"{at['counts']}.{shorten(name)}") for name, own in _object(content, "counts", at)},
        items={
            name: {item: float(_number(value, f"{where}.{shorten(item)}")) for item, value in _named(own, where)}
            for name, own in _object(content, "items", at)
            for where in [f"{at['items']}.{shorten(name)}"]
        },
        groups={name: _count(own, f"{at['groups']}.{shorten(name)}") for name, own in _object(content, "groups", at)},
        settings=dict(_object(content, "settings", at)),
        data=dict(_object(content, "data", at)),
        version=content["version"],
    )


def _check_texts(content: Mapping[str, Any], at: Mapping[str, str]) -> None:
    known = list(dict.fromkeys(task for task, _ in RULES))
    if content["task"] not in known:
        _refuse(at["task"], content["task"], f"one of {', '.join(known)}")
    if content["protocol"] not in ("compat", "strict"):
        _refuse(at["protocol"], content["protocol"], "compat or strict")
    if not _is_text(content["version"]):
        _refuse(at["version"], content["version"], "text")
    for name in ("settings", "data"):
        _check_json(content[name], at[name])


def _rule(value: Any, where: str) -> Rule:
    if not isinstance(value, dict) or set(value) != set(Rule._fields):
        _refuse(where, value, f"an object with {', '.join(Rule._fields)}")
    for name in ("id", "metric"):
        if not _is_text(value[name]):
            _refuse(f"{where}.{name}", value[name], "text")
    return Rule(value["id"], _count(value["version"], f"{where}.version"), value["metric"])


def _scores(value: Any, where: str) -> dict[str, Score]:
    return {name: _score(own, f"{where}.{shorten(name)}") for name, own in _named(value, where)}


def _score(value: Any, where: str) -> Score:
    if not isinstance(value, dict) or set(value) != set(Score._fields):
        _refuse(where, value, f"an object with {', '.join(Score._fields)}")
    found, low, high = (_known(value[name], f"{where}.{name}") for name in ("value", "low", "high"))
    if math.isnan(low) != math.isnan(high) or low > high:
        _refuse(where, [value["low"], value["high"]], "low before high, or neither")
    return Score(found, low, high, _count(value["n"], f"{where}.n"))


def _known(value: Any, where: str) -> float:
    return math.nan if value is None else float(_number(value, where))


def _object(content: Mapping[str, Any], name: str, at: Mapping[str, str]) -> Sequence[tuple[str, Any]]:
    return _named(content.get(name, {}), at.get(name, name))


def _named(value: Any, where: str) -> Sequence[tuple[str, Any]]:
    if not isinstance(value, dict):
        _refuse(where, value, "an object")
    if wrong := [name for name in value if not _is_text(name)]:
        _refuse(where, wrong[0], f"names of at most {MAX_TEXT} characters")
    return list(value.items())


def _number(value: Any, where: str) -> float:
    # A bool is an int to Python; an int may be beyond any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        _refuse(where, value, "a number of at most 1e15")
    return value


def _count(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        _refuse(where, value, "a whole number of at least 0")
    return value


def _check_json(value: Any, where: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        _refuse(where, value, f"at most {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, own in _named(value, where):
            _check_json(own, f"{where}.{shorten(name)}", depth + 1)
    elif isinstance(value, list):
        for number, own in enumerate(value):
            _check_json(own, f"{where}[{number}]", depth + 1)
    elif isinstance(value, str):
        if not _is_text(value):
            _refuse(where, value, f"at most {MAX_TEXT} characters")
    elif value is not None and not isinstance(value, bool):
        _number(value, where)


def _is_text(value: Any) -> bool:
    # It may be empty, as a label can be, and hold halves of a surrogate pair, as odd names of files do.
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _refuse(where: str, value: Any, expected: str) -> NoReturn:
    raise DataError(f"{where} is {shorten(value)}, expected {expected}; {_FIX}")
