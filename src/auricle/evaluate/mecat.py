"""MECAT: captions of six kinds and questions of six categories, over clips with speech (S), music (M) and sound (A).

Nine groups of captions and six of questions each get a DATE; the weights of `caption_score` and `question_score` make
one number of them. A domain code says what a clip holds: ``S0A`` is speech and sound without music. Where a kind of
content is absent, the references say so in words ("None"), which the released groups score as any caption.

Source: `utils.py` and `DATE.py` of github.com/xiaomi-research/mecat.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from auricle.errors import DataError
from auricle.evaluate.predictions import read_bounded, read_line

Kind: TypeAlias = Literal["caption", "qa"]
Field: TypeAlias = Literal["long", "short", "speech", "music", "sound", "environment"]

DOMAINS = ("000", "00A", "0M0", "0MA", "S00", "S0A", "SM0", "SMA")
MIXED = ("SMA", "SM0", "S0A", "0MA")
FIELDS: tuple[Field, ...] = ("long", "short", "speech", "music", "sound", "environment")  # order of the released files
_LETTERS = {"speech": "S", "music": "M", "sound": "A"}
_ANSWERS = ("answer", "response", "model_output")  # what a predicted answer is called


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
    """Whether a text says that there is nothing of its kind: "None", "No musical elements", "Speech is absent"."""
    return _NOTHING.match(text) is not None


def read_references(folder: str | Path) -> References:
    """The references of a split.

    Args:
        folder: with ``000.jsonl`` … ``SMA.jsonl``, lines ``{"clip": {"short": […], …, "domain": …}}`` of captions, or
            ``{"clip_question": {"category": …, "answer": …, …}}``. Domains whose file is absent are left out.

    Raises:
        DataError: no such files, a damaged line, a clip that stands twice, or captions and questions in one folder.
    """
    entries: dict[str, Reference] = {}
    kinds: set[Kind] = set()
    for domain in DOMAINS:
        path = Path(folder) / f"{domain}.jsonl"
        if not path.is_file():
            continue
        for where, name, value in _pairs(path):
            if name in entries:
                raise DataError(f"{where}: {name} stands twice in {folder}; expected each clip once")
            kind, entries[name] = _reference(value, domain, where)
            kinds.add(kind)
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "nothing"
        raise DataError(
            f"{folder}: holds {found}, expected captions or questions in {', '.join(DOMAINS)} with the ending .jsonl"
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
    sound = all(isinstance(own, list) and own and all(isinstance(each, str) for each in own) for own in texts.values())
    if not texts or not sound:
        raise DataError(f"{where}: expected lists of texts in {', '.join(FIELDS)}, or a question with its category")
    return "caption", Reference(domain=domain, texts={field: tuple(own) for field, own in texts.items()}, difficulty="")


def read_answers(path: str | Path) -> dict[str, str | dict[str, str]]:
    """What a model wrote, by clip or question: one text, or texts by field.

    Args:
        path: ``.csv`` of two columns without a header, ``.txt`` with a tab between both, ``.jsonl`` or ``.json`` of
            ``{"clip": "text"}`` or ``{"clip": {"long": "text", …}}``. Texts are taken as they stand: "None" is one.

    Raises:
        DataError: another ending, a damaged row, or a clip that stands twice; the row is named.
    """
    found: dict[str, str | dict[str, str]] = {}
    for where, name, value in _pairs(Path(path)):
        if name in found:
            raise DataError(f"{where}: {name} stands twice; expected one answer, leave one of them out")
        found[name] = _answer(value, where)
    if not found:
        raise DataError(f"{path}: has no rows; expected an answer for each clip")
    return found


def _answer(value: Any, where: str) -> str | dict[str, str]:
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
        raise DataError(f"{where}: holds {ascii(value)[:60]}, expected a text or texts by field")
    return value


def _pairs(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, name and value of everything in a file."""
    content, ending = read_bounded(path), path.suffix.lower()
    if ending == ".jsonl":
        for number, line in enumerate(content.split("\n"), 1):
            where = f"{path}, line {number}"
            if line.strip():
                yield from ((where, name, value) for name, value in read_line(line, where).items())
    elif ending == ".json":
        yield from ((str(path), name, value) for name, value in read_line(content, str(path)).items())
    elif ending in (".csv", ".txt"):
        yield from _columns(content, path, csv_rules=ending == ".csv")
    else:
        raise DataError(f"{path}: ends in {ending or 'nothing'}, expected .csv, .txt, .jsonl or .json")


def _columns(content: str, path: Path, *, csv_rules: bool) -> Iterator[tuple[str, str, Any]]:
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
            yield f"{path}, line {number}", row[0].strip(), row[1]


def merge_answers(files: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Answers by field and clip from files by field; a single file under "" serves every field.

    Raises:
        DataError: an unknown field, or a file without the texts of one.
    """
    known = (*FIELDS, *(group.name for group in CATEGORIES))
    merged: dict[str, dict[str, str]] = {}
    for field, path in files.items():
        if field and field not in known:
            raise DataError(f"{path}: is given for {field!r}, expected one of {', '.join(known)}")
        for name, value in read_answers(path).items():
            own = {field: value} if isinstance(value, str) else value
            if field and isinstance(value, dict):
                own = {field: value[field]} if field in value else {}
            for each, text in own.items():
                merged.setdefault(each, {})[name] = text
    return merged
