"""Words for the classes of tasks: ``declared/class_words.json``."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from auricle.bench.task import Task
from auricle.encode.zero_shot import ENGLISH, TEMPLATES, Prompts
from auricle.errors import ConfigError


def task_prompts(
    task: Task,
    *,
    templates: Sequence[str] = (),
    phrases: Mapping[str, tuple[str, ...]] | None = None,
    language: str = ENGLISH,
) -> Prompts:
    """The prompts of a task: the template of its domain, and words for classes whose names are no words.

    Args:
        task: of clips with classes.
        templates: instead of that of its domain.
        phrases: words for classes, by the name of the class or by the declared word for it; other classes keep
            theirs.
        language: of all words.

    Raises:
        ConfigError: its classes cannot be put into words, and there are no phrases; or a template without slot.
    """
    stored = _stored()
    if not phrases and task.name in stored["wordless"]:
        raise ConfigError(
            f"the classes of task {task.name!r} are {stored['wordless'][task.name]}, which cannot be put into words; "
            "choose another task, or give words for them"
        )
    declared = declared_words(task)
    class_of = {words: name for name, words in declared.items()}
    given = {class_of.get(name, name): own for name, own in (phrases or {}).items() if own}
    domain = stored["tasks"].get(task.name, {}).get("domain", task.domain)
    return Prompts(
        templates=tuple(templates) or TEMPLATES.get(domain, TEMPLATES["none"]),
        phrases={name: (words,) for name, words in declared.items()} | given,
        language=language,
    )


def declared_words(task: Task) -> dict[str, str]:
    """Names of classes of a task that are no words, and the words for them."""
    return dict(_stored()["tasks"].get(task.name, {}).get("words", {}))


@cache
def _stored() -> dict[str, Any]:
    file = files("auricle.bench") / "declared" / "class_words.json"
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return stored
