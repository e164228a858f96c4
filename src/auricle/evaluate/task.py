"""What a task for an audio language model is, as data: what is asked, how answers are judged, what was published.

The declarations are in ``declared/language.json``. A task knows nothing of models and no folder of audio;
`auricle.evaluate.questions` finds its sounds and writes its questions.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any, Literal, TypeAlias, get_args

from auricle.errors import ConfigError, hint_names
from auricle.evaluate.mecat import FIELDS
from auricle.evaluate.predictions import LINES_TASKS, LinesTask

LanguageDomain: TypeAlias = Literal["speech", "sound", "music", "mixed"]
Judge: TypeAlias = LinesTask | Literal["mecat"]
Composed: TypeAlias = Literal["event", "captions", "questions"]

FORMAT = "auricle-language-tasks/1"
_SLOTS: Mapping[str, tuple[str, ...]] = {  # what the template of a judge's prompt may ask for
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
class LanguageTask:
    """A data set, the prompt it is asked with, and its judge."""

    name: str
    title: str  # as published tables print it
    suite: str
    domain: LanguageDomain
    judge: Judge  # which rules of `auricle.evaluate.scores.RULES` score it
    prompts: Mapping[str, str] = field(
        hash=False
    )  # template of what is asked, by field of the answer; "": the only one
    lang: str | None = None  # of transcripts, where rows do not tell
    fact: str | None = None  # column or fact that holds the reference, where it is not called as the judge calls it
    group_by: str = "audio"  # field of the rows that are resampled together, as a speaker's utterances
    max_new_tokens: int = 128
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)  # other names of labels, strict
    published: Mapping[str, float] = field(default_factory=dict, hash=False)  # percent, compat rule, by model
    composed: Composed | None = None  # how references are put into words where facts alone are known
    # values that facts of its sounds may have; where a fact is not known, a sound is not ruled out
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    note: str = ""  # what who reads its scores should know

    def __post_init__(self) -> None:
        """Refuse what nobody could ask or judge."""
        if fault := self._fault():
            raise ConfigError(f"task {self.name!r}: {fault}")

    @property
    def asks_questions(self) -> bool:
        """Whether each row brings a question of its own."""
        return any("question" in slots(template) for template in self.prompts.values())

    def _fault(self) -> str | None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            return "names are of a-z, 0-9 and _"
        for name in ("title", "suite", "group_by"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                return f"{name} is {getattr(self, name)!r}, expected text"
        for name, known in (("domain", get_args(LanguageDomain)), ("judge", (*LINES_TASKS, "mecat"))):
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            return f"max_new_tokens is {self.max_new_tokens!r}, expected a whole number of at least 1"
        if self.composed is not None and self.judge not in _COMPOSED_FOR.get(self.composed, ()):
            return f"composed is {self.composed!r}, which makes no references that {self.judge} could judge by"
        for model, value in self.published.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return f"published is {value!r} for {model}, expected percent"
        return self._fault_of_prompts()

    def _fault_of_prompts(self) -> str | None:
        fields = set(self.prompts)
        if fields != {""} and not (self.judge == "mecat" and fields == set(FIELDS)):
            return f'prompts are of {sorted(fields)}, expected one under "", or for mecat those of {", ".join(FIELDS)}'
        allowed = _SLOTS.get(self.judge, ())
        for template in self.prompts.values():
            if not isinstance(template, str) or not template.strip():
                return f"prompt is {template!r}, expected text"
            if unknown := sorted(slots(template) - set(allowed)):
                expected = " and ".join(f"{{{name}}}" for name in allowed) or "nothing"
                return f"prompt {template!r} asks for {unknown}, expected {expected} in a prompt of {self.judge}"
        if self.judge in ("qa", "mecat") and "" in self.prompts and not self.asks_questions:
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


def read_language_tasks(text: str, origin: str) -> list[LanguageTask]:
    """Tasks from the text of a declaration.

    Args:
        text: JSON, ``{"format": …, "suites": [{"suite": …, "defaults": {…}, "tasks": [{…}, …]}, …]}``; the fields of a
            task are those of `LanguageTask` and win over the defaults; ``prompt`` stands for the only one of
            ``prompts``.
        origin: of the text, for messages.

    Raises:
        ConfigError: no JSON of that shape, a field that is unknown or absent, a task that contradicts itself, or a name
            that stands twice.
    """
    try:
        stored = json.loads(text)
        if stored["format"] != FORMAT:
            raise ValueError(f"format is {stored['format']!r}, expected {FORMAT!r}")
        found = [task for suite in stored["suites"] for task in _tasks(suite)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{origin}: no usable declaration of language tasks ({error!r})") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    names = [task.name for task in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{origin}: {', '.join(repeated)} stands twice; expected each task once")
    return found


def _tasks(suite: Mapping[str, Any]) -> Iterator[LanguageTask]:
    if unknown := sorted(set(suite) - {"suite", "defaults", "tasks"}):
        raise ConfigError(f"unknown fields {unknown} of a suite")
    for row in suite["tasks"]:
        yield _task({"suite": suite["suite"], **suite.get("defaults", {}), **row})


def _task(row: Mapping[str, Any]) -> LanguageTask:
    values = dict(row)
    if "prompt" in values:
        if "prompts" in values:
            raise ConfigError(f"task {row.get('name')!r}: has prompt and prompts, expected one of them")
        values["prompts"] = {"": values.pop("prompt")}
    for name in ("synonyms", "only"):
        values[name] = {key: tuple(_texts(own, name)) for key, own in values.get(name, {}).items()}
    known = {each.name: each for each in dataclasses.fields(LanguageTask)}
    needed = {name for name, each in known.items() if each.default is each.default_factory is dataclasses.MISSING}
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"task {row.get('name')!r}: unknown fields {unknown}")
    if absent := sorted(needed - set(values)):
        raise ConfigError(f"task {row.get('name')!r}: has no {', '.join(absent)}")
    return LanguageTask(**values)


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{name} holds {value!r}, expected a list of texts")
    return value


@cache
def _declared() -> dict[str, LanguageTask]:
    text = (files("auricle.evaluate") / "declared" / "language.json").read_text(encoding="utf-8")
    return {task.name: task for task in read_language_tasks(text, "declared/language.json")}
