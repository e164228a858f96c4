"""The same questions with other prompts, or with their choices in another order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from auricle.data import prompts as wordings
from auricle.data.untrusted_json import read_text
from auricle.errors import ConfigError, DataError
from auricle.evaluate.questions import Question
from auricle.evaluate.task import LanguageTask, slots
from auricle.metrics.closed_qa import LETTERS, list_choices, right_choices

WORDINGS: Mapping[str, tuple[str, ...]] = {  # by kind of task
    "asr": wordings.TRANSCRIBE,
    "tagging": wordings.EVENT,
    "gender": wordings.GENDER,
    "multitag": wordings.ALL_SOUNDS,
    "caption": wordings.CAPTION,
}


class Variant(NamedTuple):
    """One version of the questions of a task."""

    name: str  # the prompt, or the first choice
    questions: Sequence[Question]


def read_prompts(path: str | Path) -> list[str]:
    r"""Prompts of a file, one a line; ``\n`` within a line is a line break, empty lines are skipped.

    Raises:
        DataError: not readable, or empty.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    found = [line.replace("\\n", "\n") for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no prompts, expected one a line")
    return found


def known_prompts(task: LanguageTask) -> list[str]:
    """The task's own prompt and those that users write for its kind.

    Raises:
        ConfigError: there are none for this kind of task.
    """
    if task.kind not in WORDINGS or len(task.prompts) != 1:
        raise ConfigError(
            f"{task.name}: no other prompts are known for tasks of kind {task.kind}; give a file of prompts, or for "
            "closed questions move their choices"
        )
    return list(dict.fromkeys([*task.prompts.values(), *WORDINGS[task.kind]]))


def reworded(questions: Sequence[Question], prompts: Sequence[str], *, field: str | None = None) -> list[Variant]:
    """The questions with each prompt in turn.

    Args:
        questions: of one task.
        prompts: texts with the slots ``{question}``, ``{choices}`` and ``{lang}``, as in a task's own.
        field: of the answers whose prompt is changed, the others keep theirs; None: the only one there is.

    Raises:
        ConfigError: fewer than two different prompts, an unknown or ambiguous field, or a slot that cannot be filled.
    """
    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        raise ConfigError(f"found {len(different)} different prompts, expected at least 2 to compare")
    fields = list(dict.fromkeys(each.field for each in questions))
    if field is None and len(fields) > 1:
        raise ConfigError(f"the task has the fields {', '.join(fields)}; name the one whose prompt is changed")
    if field is not None and field not in fields:
        raise ConfigError(f"the task has no field {field!r}, expected one of {', '.join(fields)}")
    chosen = fields[0] if field is None and fields else field
    return [
        Variant(
            prompt, [_with_prompt(each, _filled(prompt, each)) if each.field == chosen else each for each in questions]
        )
        for prompt in different
    ]


def moved_choices(questions: Sequence[Question], count: int | None = None) -> list[Variant]:
    """Closed questions whose choices move up by one place from variant to variant, the first ones become the last.

    As many variants as the longest list has choices put every answer at every place.

    Args:
        questions: closed ones; their prompts list the choices as ``(A) …``.
        count: of variants; None: as many as there are choices.

    Raises:
        ConfigError: fewer than two variants, or more than there are choices.
        DataError: a question without choices, or whose prompt does not list them.
    """
    lacking = next((each for each in questions if len(each.row.get("choices") or ()) < 2), None)
    if lacking is not None or not questions:
        which = f"{lacking.audio.name}: is a question" if lacking else "found questions"
        raise DataError(f"{which} without choices to move, expected closed questions alone")
    most = max(len(each.row["choices"]) for each in questions)
    wanted = most if count is None else count
    if not 2 <= wanted <= most:
        raise ConfigError(f"{wanted} orders of choices, expected 2 to {most}: more would repeat the first")
    rights = right_places(questions)
    return [Variant(f"first choice was ({LETTERS[by]})", _all_moved(questions, rights, by)) for by in range(wanted)]


def right_places(questions: Sequence[Question]) -> list[int]:
    """Number of the right choice of each closed question."""
    answers = [str(each.row["answer"]) for each in questions]
    return right_choices(answers, [list(each.row["choices"]) for each in questions])


def _all_moved(questions: Sequence[Question], rights: Sequence[int], by: int) -> list[Question]:
    moved = [_moved(each, by % len(each.row["choices"])) for each in questions]
    wanted = [(place - by) % len(each.row["choices"]) for each, place in zip(moved, rights, strict=True)]
    if right_places(moved) == wanted:
        return moved
    # A letter that is now the text of a choice too would be taken for that.
    texts = [each.row["choices"][place] for each, place in zip(moved, wanted, strict=True)]
    return [replace(each, row={**each.row, "answer": text}) for each, text in zip(moved, texts, strict=True)]


def _moved(question: Question, by: int) -> Question:
    if not by:
        return question
    choices = list(question.row["choices"])
    moved = choices[by:] + choices[:by]
    answer = question.row["answer"]
    if answer.strip().upper() in LETTERS[: len(choices)] and answer.strip():
        answer = LETTERS[(LETTERS.index(answer.strip().upper()) - by) % len(choices)]
    before = list_choices(choices)
    if question.prompt.count(before) != 1:
        raise DataError(
            f"{question.audio.name}: its prompt does not list the choices once as (A) … on lines of their own, so they "
            "cannot be moved in it"
        )
    changed = _with_prompt(question, question.prompt.replace(before, list_choices(moved)))
    return replace(changed, row={**changed.row, "choices": moved, "answer": answer})


def _with_prompt(question: Question, prompt: str) -> Question:
    return replace(question, prompt=prompt, row={**question.row, "prompt": prompt})


def _filled(prompt: str, question: Question) -> str:
    row = question.row
    slot_texts: dict[str, Any] = {"question": row.get("question"), "lang": row.get("lang")}
    slot_texts["choices"] = list_choices(row["choices"]) if row.get("choices") else None
    known = {name: text for name, text in slot_texts.items() if isinstance(text, str)}
    if unknown := sorted(slots(prompt) - set(known)):
        raise ConfigError(
            f"prompt {prompt!r} has {', '.join(unknown)} in braces, which {question.audio.name} does not have; it has "
            f"{', '.join(known) or 'nothing to fill in'}"
        )
    return prompt.format(**known)
