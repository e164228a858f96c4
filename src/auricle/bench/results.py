"""What a benchmark run found, as a file: one JSON for each encoder, task and protocol.

A result may come from a stranger, so reading is strict: every field of the format ``auricle-bench/1`` must be there
with its type and range, and no other. Writing checks the same, writes aside and renames. Fields keep the order of the
classes below and names within a mapping are sorted, so the same run gives the same bytes.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from auricle.bench.task import Domain, Kind
from auricle.data.untrusted_json import parse_json, shorten
from auricle.errors import DataError
from auricle.files import make_folder, safe_file_name, write_text
from auricle.metrics.scoring_rule import ScoringRule

FORMAT = "auricle-bench/1"
MAX_BYTES = 256 * 2**20  # of one file; per-item scores of a million clips take about 60 MB
MAX_NUMBER = 1e15  # larger ones measure nothing, and sums of them would not be finite
MAX_NAME = 500  # characters of any text in a result
MAX_DEPTH = 8  # of lists and objects within the settings of a judge


_FIX = "write it again with auricle, or leave the file out"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """The task, so that a result can be shown without its declaration."""

    name: str
    title: str  # as the suite's tables print it
    suite: str
    domain: Domain
    kind: Kind
    metric: str
    higher_is_better: bool
    weight: float  # in the suite's average, at least 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFacts:
    """The encoder that was measured."""

    name: str
    fingerprint: str  # hash of weights and configuration
    output_dim: int
    hop_ms: float  # between two frames
    parameters: int | None  # None: not known
    random: bool  # weights were never trained: a floor, not a competitor


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """The sounds."""

    manifest: str  # SHA-256 of the list of sounds, labels and splits, 64 hexadecimal digits
    sounds: int
    pieces: int  # rows after cutting; equal to `sounds` where nothing is cut
    seconds: float  # of audio
    splits: Mapping[str, int]  # sounds of each


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadScore:
    """What one kind of head made of the embeddings."""

    value: float  # of the task's metric; with folds their plain mean
    low: float | None  # 95 % interval of it; None: not computed
    high: float | None
    n: int  # test items
    folds: Mapping[str, float]
    classes: Mapping[str, float]
    settings: Mapping[str, Any]  # of the head, plain JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaks:
    """Sounds that stand in two splits."""

    exact: tuple[tuple[str, str, str, str], ...] = ()  # item, split, item, split: the same bytes
    near: tuple[tuple[str, str, str, str, float], ...] = ()  # and the cosine of their embeddings


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What it took."""

    encode_s: float  # wall clock of encoding
    audio_s: float  # of the sounds encoded in this run; what the store held already does not count
    encoded: int  # sounds
    reused: int  # sounds
    heads_s: float  # wall clock of training and testing all heads
    peak_rss_mb: float
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One encoder on one task under one protocol."""

    task: TaskFacts
    encoder: EncoderFacts
    protocol: ScoringRule
    seed: int
    data: DataFacts
    scores: Mapping[str, HeadScore]  # by judge: "mlp", "knn", "hear", ...
    items: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by judge, then item; for paired tests
    leaks: Leaks = field(default_factory=Leaks)
    cost: Cost
    version: str  # of auricle

    def to_json(self) -> str:
        """The text of the file.

        Raises:
            DataError: a field is out of its type or range.
        """
        _read(Result, _plain(self), "result")
        content = {"format": FORMAT, **_plain(self)}
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def parse_result(text: str, origin: str = "result") -> Result:
    """A result from the text of its file.

    Raises:
        DataError: no JSON, another format, a missing, unknown or impossible field; `origin` is named.
    """
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin}: no readable JSON ({error}); expected a result of {FORMAT}: {_FIX}") from None
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != FORMAT:
        raise DataError(f"{origin}: found format {shorten(found)}, expected {FORMAT!r}; {_FIX}")
    result: Result = _read(Result, content, origin)
    return result


def read_result(path: str | Path) -> Result:
    """The result in a file.

    Raises:
        DataError: unreadable, larger than `MAX_BYTES`, or no result.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            found = file.read(MAX_BYTES + 1)
        if len(found) > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES} bytes, expected a result of at most that; {_FIX}")
        return parse_result(found.decode("utf-8"), str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}), expected a result in UTF-8; {_FIX}") from None


def read_results(sources: str | Path | Iterable[str | Path]) -> list[Result]:
    """The results of files and folders, in the order given; within a folder by name.

    Args:
        sources: one or several; of a folder the files ``*.compat.json`` and ``*.strict.json`` are taken.

    Raises:
        DataError: one cannot be read, a folder holds none, or the same encoder, task and protocol come twice.
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
        key = (result.encoder.name, result.encoder.fingerprint, result.task.name, result.protocol)
        if key in results:
            raise DataError(
                f"{path}: found a second result of {' · '.join((key[0], *key[2:]))}, expected one; leave one out"
            )
        results[key] = result
    return list(results.values())


def write_result(folder: str | Path, result: Result) -> Path:
    """Write ``ENCODER.TASK.PROTOCOL.json``; an older one is replaced only when the new one is whole.

    Names with other characters than letters, digits, ``_`` and ``-`` are changed and end in eight digits of their hash,
    so that two names never share a file.

    Raises:
        DataError: a field is out of its type or range.
        OutputError: the file cannot be written.
    """
    text = result.to_json()
    stem = ".".join(safe_file_name(part) for part in (result.encoder.name, result.task.name, result.protocol))
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
        while label in labelled:  # equal beginnings, or a name that imitates a label
            label += "'"
        labelled[label] = own
    return labelled


def _plain(value: Any) -> Any:
    """As JSON holds it: objects in the order of their class, mappings sorted."""
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value, key=str)}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type `kind`; `where` leads to it from the file's top."""
    if is_dataclass(kind):
        return _read_object(kind, value, where)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _read(parts[0], value, where)
    if origin is Literal:
        return value if value in parts else _refuse(where, value, f"one of {', '.join(parts)}")
    if origin is tuple:
        if not isinstance(value, list):
            _refuse(where, value, "a list")
        if parts[-1] is Ellipsis:
            return tuple(_read(parts[0], part, f"{where}[{i}]") for i, part in enumerate(value))
        if len(value) != len(parts):
            _refuse(where, value, f"{len(parts)} entries")
        return tuple(_read(part, own, f"{where}[{i}]") for i, (part, own) in enumerate(zip(parts, value, strict=True)))
    if origin is not None:
        if not isinstance(value, dict):
            _refuse(where, value, "an object")
        return {_read(str, key, where): _read(parts[1], own, f"{where}.{shorten(key)}") for key, own in value.items()}
    return _read_scalar(kind, value, where)


def _read_object(kind: Any, value: Any, where: str) -> Any:
    known = [part.name for part in fields(kind)]
    if not isinstance(value, dict):
        _refuse(where, value, f"an object with {', '.join(known)}")
    if set(value) != set(known):
        missing, unknown = sorted(set(known) - set(value)), sorted(set(value) - set(known))
        raise DataError(f"{where}: fields {missing} are missing and {shorten(unknown)} are unknown; {_FIX}")
    hints = get_type_hints(kind)
    read = kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in known})
    if fault := _fault(read):
        raise DataError(f"{where}: {fault}; {_FIX}")
    return read


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        _check_json(value, where)
        return value
    if kind is float:
        # A bool is an int to Python.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
            _refuse(where, value, f"a number of at most {MAX_NUMBER:g}")
        return float(value)
    if type(value) is not kind or (kind is int and abs(value) >= 2**63):
        _refuse(where, value, {int: "a whole number", bool: "true or false"}.get(kind, "text"))
    if kind is str and (not 0 < len(value) <= MAX_NAME or not _is_unicode(value)):
        _refuse(where, value, f"1 to {MAX_NAME} valid characters")
    return value


def _check_json(value: Any, where: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        _refuse(where, value, f"at most {MAX_DEPTH} levels")
    if isinstance(value, list | dict):
        for key, own in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict):
                _read_scalar(str, key, where)
            _check_json(own, where, depth + 1)
    elif isinstance(value, str):
        if not _is_unicode(value):
            _refuse(where, value, "valid characters")
    elif not (value is None or isinstance(value, bool | int | float)) or not _is_finite(value or 0):
        _refuse(where, value, "plain JSON with finite numbers")


def _fault(read: Any) -> str | None:
    """What types alone do not tell."""
    for part in fields(read):
        value = getattr(read, part.name)
        # Scores may lie anywhere; everything else that is a number counts or measures something.
        if part.name not in ("value", "low", "high") and isinstance(value, int | float) and value < 0:
            return f"{part.name} is {value}, expected at least 0"
    if isinstance(read, DataFacts):
        if not re.fullmatch(r"[0-9a-f]{64}", read.manifest):
            return f"manifest is {shorten(read.manifest)}, expected a SHA-256 in 64 hexadecimal digits"
        if wrong := [name for name, count in read.splits.items() if count < 0]:
            return f"splits {shorten(wrong)} have fewer than 0 sounds"
    if isinstance(read, HeadScore):
        if (read.low is None) != (read.high is None):
            return "found one end of the interval, expected both or none"
        if read.low is not None and read.high is not None and read.low > read.high:
            return f"the interval runs from {read.low} to {read.high}, expected low before high"
    if isinstance(read, Result):
        if not read.scores:
            return "found no scores, expected those of one judge or more"
        if unknown := sorted(set(read.items) - set(read.scores)):
            return f"items of {shorten(unknown)}, which gave no score"
    return None


def _refuse(where: str, value: Any, expected: str) -> NoReturn:
    raise DataError(f"{where} is {shorten(value)}, expected {expected}; {_FIX}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond any float
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
