"""What a benchmark run found, as a file: one JSON for each encoder, task and scoring rule.

A result is an untrusted file, so reading is strict: every field of the format ``auricle-bench/1`` must be there with
its type and range, and no other; writing checks the same. Fields keep the order of the classes below and names within a
mapping are sorted, so the same run gives the same bytes.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, Strict, TypeAdapter, WrapSerializer

from auricle.bench.task import LOWER_IS_BETTER, Domain, Kind, Listed, Task
from auricle.data.untrusted_json import StrictFields, check_plain, parse_json, read_text, shorten, validate
from auricle.errors import DataError
from auricle.files import make_folder, safe_file_name, write_text
from auricle.metrics.intervals import Score, fault_of_range
from auricle.metrics.scoring_rule import ScoringRule

FORMAT = "auricle-bench/1"
MAX_BYTES = 256 * 2**20  # of one file; per-item scores of a million clips take about 60 MB
MAX_NUMBER = 1e15  # larger ones measure nothing, and sums of them would not be finite
MAX_NAME = 500  # characters of any text in a result
_FIX = "write it again with auricle, or leave the file out"

T = TypeVar("T")


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value, key=str)}
    return [_sorted(part) for part in value] if isinstance(value, list | tuple) else value


Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Amount = Annotated[float, Field(ge=0, le=MAX_NUMBER)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
ByName = Annotated[Mapping[Text, T], WrapSerializer(lambda value, write: write(_sorted(value)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts(StrictFields):
    """The task, so that a result can be shown without its declaration."""

    name: Text
    title: Text  # as the suite's tables print it
    suite: Text
    domain: Domain
    kind: Kind
    metric: Text
    higher_is_better: bool
    weight: Amount  # in the suite's average

    @classmethod
    def of(cls, task: Task, *, kind: Kind | None = None, metric: str | None = None) -> "TaskFacts":
        """Of a declared task, or of its data with another ``kind`` and ``metric``."""
        return cls(
            name=task.name,
            title=task.title,
            suite=task.suite,
            domain=task.domain,
            kind=kind or task.kind,
            metric=metric or task.metric,
            higher_is_better=(metric or task.metric) not in LOWER_IS_BETTER,
            weight=task.weight,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFacts(StrictFields):
    """The encoder that was measured."""

    name: Text
    fingerprint: Text  # hash of weights and configuration
    output_dim: Count
    hop_ms: Amount  # between two frames
    parameters: Count | None  # None: not known
    random: bool  # weights were never trained: a floor, not a competitor


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts(StrictFields):
    """The clips."""

    manifest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # SHA-256 of the list of clips, labels and splits
    clips: Annotated[Count, Field(alias="sounds")]
    pieces: Count  # rows after cropping; equal to `clips` where nothing is cropped
    seconds: Amount  # of audio
    splits: ByName[Count]  # clips of each


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadScore(StrictFields):
    """The score of one kind of head on the embeddings."""

    value: Number  # of the task's metric; with folds their plain mean
    low: Number | None  # 95 % interval of it; None: not computed
    high: Number | None
    n: Count  # test items
    folds: ByName[Number]
    classes: ByName[Number]
    # of the head, plain JSON
    settings: Annotated[ByName[Any], AfterValidator(check_plain(max_number=sys.float_info.max))]

    @classmethod
    def of(
        cls,
        score: Score,
        *,
        settings: Mapping[str, Any],
        folds: Mapping[str, float] | None = None,
        classes: Mapping[str, float] | None = None,
    ) -> "HeadScore":
        """Of a value with its interval over test items."""
        return cls(
            value=score.value,
            low=score.low,
            high=score.high,
            n=score.n,
            folds=folds or {},
            classes=classes or {},
            settings=settings,
        )


def _check_interval(score: HeadScore) -> HeadScore:
    if (score.low is None) != (score.high is None):
        raise ValueError("both or none of low and high")
    if score.low is not None and score.high is not None and score.low > score.high:
        raise ValueError("low before high")
    return score


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaks(StrictFields):
    """Clips that are in two splits."""

    # item, split, item, split: the same bytes
    exact: Listed[Annotated[tuple[Text, Text, Text, Text], Strict(False)]]
    # and the share of equal bits of their acoustic fingerprints, the same recording
    near: Listed[Annotated[tuple[Text, Text, Text, Text, Number], Strict(False)]]


NO_LEAKS = Leaks(exact=(), near=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination(StrictFields):
    """Clips of the task that the model was trained on: a score on them is no held-out score."""

    known: bool  # whether the model states its training clips; False: nothing was compared
    sets: Listed[Text]  # data sets that it was trained on
    clips: Annotated[Count, Field(alias="sounds")]  # of the task that are among them
    share: Annotated[float, Field(ge=0, le=1)]  # of all clips of the task
    splits: ByName[Count]  # of these clips
    items: Listed[Text]


NOT_COMPARED = Contamination(known=False, sets=(), clips=0, share=0.0, splits={}, items=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost(StrictFields):
    """Time and memory of the run."""

    encode_s: Amount  # wall clock of encoding
    audio_s: Amount  # of the clips encoded in this run; what the store had already does not count
    encoded: Count  # clips
    reused: Count  # clips
    heads_s: Amount  # wall clock of training and testing all heads
    peak_rss_mb: Amount
    threads: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(StrictFields):
    """One encoder on one task under one scoring rule."""

    task: TaskFacts
    encoder: EncoderFacts
    scoring_rule: Annotated[ScoringRule, Field(alias="protocol")]
    seed: Count
    data: DataFacts
    # by head: "mlp", "knn", "hear", ...
    scores: Annotated[ByName[Annotated[HeadScore, AfterValidator(_check_interval)]], Field(min_length=1)]
    items: ByName[Mapping[Text, Number]]  # by head, then item; for paired tests
    leaks: Leaks
    cost: Cost
    version: Text  # of auricle
    contamination: Contamination = NOT_COMPARED  # absent from older files

    def to_dict(self) -> dict[str, Any]:
        """What JSON has of it, without the name of the format.

        Raises:
            DataError: a field is out of its type or range.
        """
        content: dict[str, Any] = _adapter().dump_python(self, by_alias=True, warnings=False)
        _checked(content, "result")
        return content

    def to_json(self) -> str:
        """The text of the file; errors as `to_dict`."""
        content = {"format": FORMAT, **self.to_dict()}
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def parse_result(text: str, origin: str = "result") -> Result:
    """A result from the text of its file.

    Raises:
        DataError: no JSON, another format, a missing, unknown or impossible field; `origin` is named.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"{origin}: no readable JSON ({error}); expected a result of {FORMAT}: {_FIX}") from None
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != FORMAT:
        raise DataError(f"{origin}: found format {shorten(found)}, expected {FORMAT!r}; {_FIX}")
    return _checked(content, origin)


def read_result(path: str | Path) -> Result:
    """The result in a file.

    Raises:
        DataError: unreadable, larger than `MAX_BYTES`, or no result.
    """
    return parse_result(read_text(path, max_bytes=MAX_BYTES), str(path))


def read_results(sources: str | Path | Iterable[str | Path]) -> list[Result]:
    """The results of files and folders, in the order given; within a folder by name.

    Args:
        sources: one or several; of a folder the files ``*.compat.json`` and ``*.strict.json`` are taken.

    Raises:
        DataError: one cannot be read, a folder has none, or an encoder, task and scoring rule are given twice.
    """
    paths: dict[Path, None] = {}
    for source in [Path(sources)] if isinstance(sources, str | Path) else map(Path, sources):
        within = sorted([*source.glob("*.compat.json"), *source.glob("*.strict.json")]) if source.is_dir() else [source]
        if not within:
            raise DataError(f"{source}: found no *.compat.json or *.strict.json, expected results; name another folder")
        paths.update(dict.fromkeys(path.resolve() for path in within))
    results: dict[tuple[str, ...], Result] = {}
    for path in paths:
        result = read_result(path)
        key = (result.encoder.name, result.encoder.fingerprint, result.task.name, result.scoring_rule)
        if key in results:
            raise DataError(
                f"{path}: found a second result of {' · '.join((key[0], *key[2:]))}, expected one; leave one out"
            )
        results[key] = result
    return list(results.values())


def write_result(folder: str | Path, result: Result) -> Path:
    """Write ``ENCODER.TASK.RULE.json``; an older one is replaced only when the new one is whole.

    Names with other characters than letters, digits, ``_`` and ``-`` are changed and end in eight digits of their hash,
    so that two names never share a file.

    Raises:
        DataError: a field is out of its type or range.
        OutputError: the file cannot be written.
    """
    text = result.to_json()
    stem = ".".join(safe_file_name(part) for part in (result.encoder.name, result.task.name, result.scoring_rule))
    path = make_folder(folder) / f"{stem}.json"
    write_text(path, text)
    return path


def by_encoder(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of each encoder, in order of appearance.

    An encoder is its fingerprint; where two share a name, eight characters of it are added to the name.
    """
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.encoder.name, result.encoder.fingerprint), []).append(result)
    names = [name for name, _ in grouped]
    labelled: dict[str, list[Result]] = {}
    for (name, fingerprint), own in grouped.items():
        label = name if names.count(name) == 1 else f"{name} ({fingerprint[:8]})"
        while label in labelled:  # fingerprints that start alike, or a name that imitates a label
            label += "'"
        labelled[label] = own
    return labelled


@cache
def _adapter() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def _checked(content: Any, origin: str) -> Result:
    result = validate(Result, content, origin, fix=_FIX)
    if unknown := sorted(set(result.items) - set(result.scores)):
        raise DataError(f"{origin}: items of {shorten(unknown)}, which gave no score; {_FIX}")
    for head, score in result.scores.items():
        values = (score.value, score.low, score.high, *score.folds.values(), *score.classes.values())
        if fault := fault_of_range(result.task.metric, values):
            raise DataError(f"{origin}: {fault} (head {shorten(head)}); {_FIX}")
    return result
