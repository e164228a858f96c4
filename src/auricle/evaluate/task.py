"""Tasks for audio language models, as data: the prompts, how answers are scored, and published scores.

The declarations are in ``declared/language.json``. A task knows no model and no folder of audio;
`auricle.evaluate.questions` makes its questions from a source.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, Strict

from auricle.data.untrusted_json import StrictFields, parse_object, validate
from auricle.errors import ConfigError, DataError, hint_names
from auricle.evaluate.mecat import FIELDS
from auricle.evaluate.official import OfficialFormat
from auricle.evaluate.scores import TaskKind
from auricle.metrics.languages import language_code

LanguageDomain: TypeAlias = Literal["speech", "sound", "music", "mixed"]
Composed: TypeAlias = Literal["event", "captions", "questions"]
Name: TypeAlias = Annotated[str, Field(min_length=1)]
Names: TypeAlias = Annotated[tuple[str, ...], Strict(False)]

_SLOTS: Mapping[str, tuple[str, ...]] = {  # that the prompt of a kind of task may have
    "asr": ("lang",),
    "qa": ("question", "choices"),
    "caption": ("question",),
    "mecat": ("question",),
}
_COMPOSED_FOR: Mapping[str, tuple[str, ...]] = {
    "event": ("tagging", "multitag"),
    "captions": ("caption",),
    "questions": ("qa",),
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageTask(StrictFields):
    """A data set, its prompt, and how answers are scored."""

    name: str
    title: Name  # as published tables print it
    suite: Name
    domain: LanguageDomain
    kind: Annotated[TaskKind, Field(alias="judge")]  # which of `auricle.evaluate.scores.RULES` score it
    # Templates by field of the answer; "": the only one.
    prompts: Mapping[str, str] = field(hash=False)
    lang: str | None = None  # of transcripts, where rows have none
    fact: str | None = None  # column or fact that holds the reference, where its name differs from the usual one
    group_by: Name = "audio"  # field of the rows that are resampled together, as a speaker's utterances
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    synonyms: Mapping[str, Names] = field(default_factory=dict, hash=False)  # other names of labels, strict
    published: Mapping[str, float] = field(default_factory=dict, hash=False)  # percent, compat rule, by model
    official: OfficialFormat | None = None  # form of its source, where that is the file of its release
    choice_form: Name = "({letter}) {text}"  # of a choice in the prompt
    composed: Composed | None = None  # what references are composed of, where only facts are known
    # Values that facts of its clips may have; a clip without the fact is not excluded.
    only: Mapping[str, Names] = field(default_factory=dict, hash=False)
    note: str = ""  # for readers of its scores

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise ConfigError(f"task {self.name!r}: {fault}")

    @property
    def has_questions(self) -> bool:
        """Whether each clip has a question of its own."""
        return any("question" in slots(template) for template in self.prompts.values())

    def content(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"judge" if name == "kind" else name: value for name, value in dataclasses.asdict(self).items()}

    def _fault(self) -> str | None:
        if not _NAME.fullmatch(self.name):
            return "names are of a-z, 0-9 and _"
        for name, known in (("domain", get_args(LanguageDomain)), ("kind", get_args(TaskKind))):
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
        if self.composed is not None and self.kind not in _COMPOSED_FOR[self.composed]:
            return f"composed is {self.composed!r}, which makes no references for {self.kind}"
        fields = set(self.prompts)
        if fields != {""} and not (self.kind == "mecat" and fields == set(FIELDS)):
            return f'prompts are of {sorted(fields)}, expected one under "", or for mecat those of {", ".join(FIELDS)}'
        if set(slots(self.choice_form)) != {"letter", "text"}:
            return f"choice_form is {self.choice_form!r}, expected {{letter}} and {{text}} in it"
        if self.lang is not None:
            try:
                language_code(self.lang)
            except DataError as error:
                return str(error)
        allowed = _SLOTS.get(self.kind, ())
        for template in self.prompts.values():
            if not template.strip():
                return f"prompt is {template!r}, expected text"
            if unknown := sorted(slots(template) - set(allowed)):
                expected = " and ".join(f"{{{name}}}" for name in allowed) or "nothing"
                return f"prompt {template!r} asks for {unknown}, expected {expected} in a prompt of {self.kind}"
        is_spoken = self.official == "voicebench"
        if self.kind in ("qa", "mecat") and "" in self.prompts and not self.has_questions and not is_spoken:
            return f"prompt {self.prompts['']!r} has no {{question}}"
        return None


def slots(template: str) -> frozenset[str]:
    """Names in braces that a template asks for.

    Raises:
        ConfigError: braces that are not closed, or more than a name in them.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(
            f"prompt {template!r} is no template ({error}); double a brace that is meant as such"
        ) from None
    if any(shape or conversion for _, _, shape, conversion in parts):
        raise ConfigError(f"prompt {template!r} formats what it asks for, expected a plain name in braces")
    return frozenset(name for _, name, _, _ in parts if name is not None)


def load_language_task(name: str) -> LanguageTask:
    """The task of that name.

    Raises:
        ConfigError: there is none; near matches are listed.
    """
    known = _declared()
    if name not in known:
        raise ConfigError(f"no language task {name!r}.{hint_names(name, known)}")
    return known[name]


def language_tasks(suite: str | None = None) -> list[LanguageTask]:
    """All tasks, or those of one suite, in the order of their declaration.

    Raises:
        ConfigError: no such suite.
    """
    suites = list(dict.fromkeys(task.suite for task in _declared().values()))
    if suite is not None and suite not in suites:
        raise ConfigError(f"no suite {suite!r}; expected one of {', '.join(suites)}")
    return [task for task in _declared().values() if suite in (None, task.suite)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Suite(StrictFields):
    suite: str
    defaults: Mapping[str, Any] = field(default_factory=dict)  # fields of its tasks
    tasks: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Declaration(StrictFields):
    format: Literal["auricle-language-tasks/1"]
    suites: list[_Suite]


def read_language_tasks(text: str, origin: str) -> list[LanguageTask]:
    """Tasks from the text of a declaration.

    Args:
        text: JSON, ``{"format": …, "suites": [{"suite": …, "defaults": {…}, "tasks": [{…}, …]}, …]}``; the fields of a
            task are those of `LanguageTask` (``judge`` for ``kind``) and win over the defaults; ``prompt`` may replace
            ``prompts`` where there is one.
        origin: of the text, for messages.

    Raises:
        ConfigError: no JSON of that shape, a field that is unknown or absent, a task that contradicts itself, or a name
            that is given twice.
    """
    try:
        content = parse_object(text, origin, allow_nan=False)
    except DataError as error:
        raise ConfigError(str(error)) from None
    declared = validate(_Declaration, content, origin, error=ConfigError)
    found: dict[str, dict[str, Any]] = {}
    for suite in declared.suites:
        for number, row in enumerate(suite.tasks):
            values = {"suite": suite.suite, **suite.defaults, **row}
            name = values["name"] if isinstance(values.get("name"), str) else f"{suite.suite}[{number}]"
            if name in found:
                raise ConfigError(f"{origin}: {name} is given twice; expected each task once")
            if "prompt" in values and "prompts" in values:
                raise ConfigError(f"{origin}: task {name!r} has prompt and prompts, expected one of them")
            if "prompt" in values:
                values["prompts"] = {"": values.pop("prompt")}
            found[name] = values
    return list(validate(dict[str, LanguageTask], found, origin, error=ConfigError).values())


@cache
def _declared() -> dict[str, LanguageTask]:
    text = (files("auricle.evaluate") / "declared" / "language.json").read_text(encoding="utf-8")
    return {task.name: task for task in read_language_tasks(text, "declared/language.json")}
