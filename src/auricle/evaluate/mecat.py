"""MECAT: captions of six kinds and questions of six categories, over clips with speech (S), music (M) and sound (A).

Nine groups of captions and six of questions each get a DATE; the weights of `caption_score` and `question_score` make
one number of them. A domain code says what a clip holds: ``S0A`` is speech and sound without music. Where a kind of
content is absent, the references state it in words ("None"), which the released groups score as any caption.

Source: `utils.py` and `DATE.py` of github.com/xiaomi-research/mecat.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from auricle.data.untrusted_json import has_half_pair, parse_object, read_text, shorten
from auricle.errors import DataError

Kind: TypeAlias = Literal["caption", "qa"]
Field: TypeAlias = Literal["long", "short", "speech", "music", "sound", "environment"]

DOMAINS = ("000", "00A", "0M0", "0MA", "S00", "S0A", "SM0", "SMA")
MIXED = ("SMA", "SM0", "S0A", "0MA")
FIELDS: tuple[Field, ...] = ("long", "short", "speech", "music", "sound", "environment")  # order of the released files
_LETTERS = {"speech": "S", "music": "M", "sound": "A"}
_ANSWERS = ("answer", "response", "model_output")  # names of a predicted answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Clips and the text of them that is scored."""

    name: str
    domains: tuple[str, ...]
    field: str  # of a caption; of a question its category
    delta: float  # scores this close are equal; as the release states it
    released_delta: float  # the one its code takes: the first entry of a field wins


GROUPS: tuple[Group, ...] = tuple(
    Group(name=name, domains=domains, field=field, delta=delta, released_delta=released)
    for name, domains, field, delta, released in (
        ("content_long", DOMAINS, "long", 0.1703, 0.1703),
        ("content_short", DOMAINS, "short", 0.1772, 0.1772),
        ("pure_speech", ("S00",), "speech", 0.2078, 0.2078),
        ("mixed_speech", MIXED, "speech", 0.2078, 0.2078),
        ("pure_music", ("0M0",), "music", 0.1566, 0.1566),
        ("mixed_music", MIXED, "music", 0.1851, 0.1566),
        ("pure_sound", ("00A",), "sound", 0.1988, 0.1988),
        ("mixed_sound", MIXED, "sound", 0.2593, 0.1988),
        ("environment", DOMAINS, "environment", 0.2150, 0.2150),
    )
)
CATEGORIES: tuple[Group, ...] = tuple(
    Group(name=name, domains=DOMAINS, field=name, delta=0.1703, released_delta=0.1703)
    for name in (
        *("direct_perception", "sound_characteristics", "quality_assessment"),
        *("environment_reasoning", "inference_judgement", "application_context"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What a clip, or a question on one, should be answered with."""

    domain: str
    texts: Mapping[str, tuple[str, ...]]  # by field; of a question one entry, its category
    difficulty: str  # of a question; of captions empty


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """A split, by clip or question."""

    kind: Kind
    entries: Mapping[str, Reference]

    @property
    def groups(self) -> tuple[Group, ...]:
        """What is scored."""
        return GROUPS if self.kind == "caption" else CATEGORIES

    def clip(self, name: str) -> str:
        """The clip of an entry; the name of a question ends in eight digits of a hash."""
        return name.rpartition("_")[0] if self.kind == "qa" else name


class Value(NamedTuple):
    """A named value of a file."""

    where: str  # for messages
    name: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class MecatPredictions:
    """The predictions of a model for a split, beside the references."""

    references: References
    texts: Mapping[str, Mapping[str, str]]  # by field, then clip or question; under "" those of all fields
    sha256: Mapping[str, str]  # of the files of predictions, by field; "all": of a single one
    origin: str  # of the references, for messages

    def text(self, name: str, field: str) -> str | None:
        """The prediction for a field of a clip or question; None where there is none."""
        return self.texts.get(field, {}).get(name, self.texts.get("", {}).get(name))


def caption_score(groups: Mapping[str, float]) -> float | None:
    """The overall caption score of the nine groups' scores; None if one is absent.

    0.4 content (0.8 long, 0.2 short), 0.4 kinds (0.6 speech, 0.3 music, 0.1 sound, each the mean of pure and mixed),
    0.2 environment.
    """
    if any(group.name not in groups for group in GROUPS):
        return None
    content = 0.8 * groups["content_long"] + 0.2 * groups["content_short"]
    speech, music, sound = ((groups[f"pure_{kind}"] + groups[f"mixed_{kind}"]) / 2 for kind in _LETTERS)
    return 0.4 * content + 0.4 * (0.6 * speech + 0.3 * music + 0.1 * sound) + 0.2 * groups["environment"]


def question_score(groups: Mapping[str, float]) -> float | None:
    """The mean over the six categories; None if one is absent."""
    if any(group.name not in groups for group in CATEGORIES):
        return None
    return sum(groups[group.name] for group in CATEGORIES) / len(CATEGORIES)


def is_absent(domain: str, field: str) -> bool:
    """Whether clips of a domain have no content of a field; every clip has a caption and an environment."""
    return field in _LETTERS and _LETTERS[field] not in domain


# A sentence that is only about something not being there.
_NOTHING = re.compile(
    r"\s*(?:(?:there (?:is|are|was|were) )?no(?:ne|thing)?\b(?! (?:longer|doubt))|n/?a\b|"
    r"non-(?:musical|speech|verbal)\b|"
    r"(?:(?:complete|total|entire) )?(?:absence|absent|lack|devoid)\b|lack(?:s|ing)\b|without\b|silence\b|"
    r"[\w\s,/-]{0,60}\b(?:absent|non-?existent|devoid of|undetect(?:ed|able)|"
    r"not (?:present|detected|detectable|audible|identifi(?:ed|able)|discernible|found|heard|applicable))\b)",
    re.IGNORECASE,
)


def states_absence(text: str) -> bool:
    """Whether a text states that there is nothing of its kind: "None", "No musical elements", "Speech is absent"."""
    return _NOTHING.match(text) is not None


def read_values(path: Path) -> Iterator[Value]:
    """The values of a file by clip or question, in its order.

    Args:
        path: ``.csv`` of two columns without a header, ``.txt`` with a tab between both, ``.jsonl`` or ``.json`` of
            ``{"clip": "text"}`` or ``{"clip": {"long": "text", …}}``. "None" is a text.

    Raises:
        DataError: another ending, or a damaged row; the row is named.
    """
    for each in _values(path):
        if has_half_pair(list(each[1:])):
            raise DataError(f"{each[0]}: {shorten(each[1:])} holds half of a surrogate pair, expected valid characters")
        yield each


def _values(path: Path) -> Iterator[Value]:
    content, ending = read_text(path), path.suffix.lower()
    if ending == ".jsonl":
        for number, line in enumerate(content.split("\n"), 1):
            where = f"{path}, line {number}"
            if line.strip():
                yield from (Value(where, name, value) for name, value in parse_object(line, where).items())
    elif ending == ".json":
        yield from (Value(str(path), name, value) for name, value in parse_object(content, str(path)).items())
    elif ending in (".csv", ".txt"):
        yield from _columns(content, path, csv_rules=ending == ".csv")
    else:
        raise DataError(f"{path}: ends in {ending or 'nothing'}, expected .csv, .txt, .jsonl or .json")


def read_references(folder: str | Path) -> References:
    """The references of a split.

    Args:
        folder: with ``000.jsonl`` … ``SMA.jsonl``, lines ``{"clip": {"short": […], …, "domain": …}}`` of captions, or
            ``{"clip_question": {"category": …, "answer": …, …}}``. Domains whose file is absent are left out.

    Raises:
        DataError: no such files, a damaged line, a duplicated clip, or captions and questions in one folder.
    """
    paths = {domain: Path(folder) / f"{domain}.jsonl" for domain in DOMAINS}
    return parse_references({name: read_values(path) for name, path in paths.items() if path.is_file()}, str(folder))


def parse_references(domains: Mapping[str, Iterable[Value]], origin: str) -> References:
    """The references of a split from the values of its files, by domain; otherwise as `read_references`."""
    entries: dict[str, Reference] = {}
    kinds: set[Kind] = set()
    for domain in DOMAINS:
        for where, name, value in domains.get(domain, ()):
            if name in entries:
                raise DataError(f"{where}: {name} is given twice in {origin}; expected each clip once")
            kind, entries[name] = _reference(value, domain, where)
            kinds.add(kind)
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "nothing"
        raise DataError(
            f"{origin}: holds {found}, expected captions or questions in {', '.join(DOMAINS)} with the ending .jsonl"
        )
    return References(kind=kinds.pop(), entries=entries)


def _reference(value: Any, domain: str, where: str) -> tuple[Kind, Reference]:
    if isinstance(value, dict) and "category" in value:
        category, answer = value["category"], value.get("answer")
        if category not in {group.name for group in CATEGORIES} or not isinstance(answer, str):
            raise DataError(f"{where}: category {category!r} or its answer is not one of MECAT's questions")
        return "qa", Reference(domain=domain, texts={category: (answer,)}, difficulty=str(value.get("difficulty", "")))
    texts = {field: value[field] for field in FIELDS if field in value} if isinstance(value, dict) else {}
    texts = {field: [own] if isinstance(own, str) else own for field, own in texts.items()}
    is_valid = all(
        isinstance(own, list) and own and all(isinstance(each, str) for each in own) for own in texts.values()
    )
    if not texts or not is_valid:
        raise DataError(f"{where}: expected lists of texts in {', '.join(FIELDS)}, or a question with its category")
    return "caption", Reference(domain=domain, texts={field: tuple(own) for field, own in texts.items()}, difficulty="")


def read_question_texts(folder: str | Path) -> dict[str, str]:
    """The questions of a split by name; scoring does not need them.

    Raises:
        DataError: a damaged line, or an entry without a question.
    """
    found: dict[str, str] = {}
    for path in (Path(folder) / f"{domain}.jsonl" for domain in DOMAINS):
        for where, name, value in read_values(path) if path.is_file() else ():
            if not isinstance(value.get("question"), str) or not value["question"].strip():
                raise DataError(f"{where}: {name} has no question; expected text in 'question'")
            found[name] = value["question"]
    return found


def read_mecat_predictions(files: Mapping[str, str | Path], references: str | Path) -> MecatPredictions:
    """Predictions of a model for a split of MECAT.

    Args:
        files: by field (``long``, …); a single one under "" holds all fields, or one text for all of them.
        references: folder of a split, see `read_references`.

    Raises:
        DataError: files that cannot be read.
    """
    values = {field: read_values(Path(path)) for field, path in files.items()}
    return MecatPredictions(
        references=read_references(references),
        texts=merge_texts(values, {field: str(path) for field, path in files.items()}),
        sha256={field or "all": sha256(Path(files[field]).read_bytes()).hexdigest() for field in sorted(files)},
        origin=str(references),
    )


def merge_texts(values: Mapping[str, Iterable[Value]], origins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Texts by field and clip from the values of files by field; a single file under "" serves every field.

    Raises:
        DataError: an unknown field, a file without values, a value that is no text, or a duplicated clip.
    """
    known = (*FIELDS, *(group.name for group in CATEGORIES))
    merged: dict[str, dict[str, str]] = {}
    for field, own_values in values.items():
        if field and field not in known:
            raise DataError(f"{origins[field]}: is given for {field!r}, expected one of {', '.join(known)}")
        for name, value in _texts(own_values, origins[field]).items():
            own = {field: value} if isinstance(value, str) else value
            if field and isinstance(value, dict):
                own = {field: value[field]} if field in value else {}
            for each, text in own.items():
                merged.setdefault(each, {})[name] = text
    return merged


def _texts(values: Iterable[Value], origin: str) -> dict[str, str | dict[str, str]]:
    found: dict[str, str | dict[str, str]] = {}
    for where, name, value in values:
        if name in found:
            raise DataError(f"{where}: {name} is given twice; expected one answer, leave one of them out")
        found[name] = _text(value, where)
    if not found:
        raise DataError(f"{origin}: has no rows; expected an answer for each clip")
    return found


def _text(value: Any, where: str) -> str | dict[str, str]:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        texts = {key: own[0] if isinstance(own, list) and len(own) == 1 else own for key, own in value.items()}
        texts = {key: own for key, own in texts.items() if isinstance(own, str)}
        for name in _ANSWERS:
            if name in texts:
                return texts[name]
        if texts:
            return texts
    if not isinstance(value, str):
        raise DataError(f"{where}: holds {shorten(value)}, expected a text or texts by field")
    return value


def _columns(content: str, path: Path, *, csv_rules: bool) -> Iterator[Value]:
    rows: Iterator[tuple[int, Sequence[str]]]
    if csv_rules:
        reader = csv.reader(io.StringIO(content, newline=""))
        rows = ((reader.line_num, row) for row in reader)
    else:
        rows = ((number, line.split("\t", 1)) for number, line in enumerate(content.split("\n"), 1) if line.strip())
    for number, row in rows:
        if row and len(row) != 2:
            raise DataError(f"{path}, line {number}: has {len(row)} columns, expected clip and text; quote commas")
        if row:
            yield Value(f"{path}, line {number}", row[0].strip(), row[1])
