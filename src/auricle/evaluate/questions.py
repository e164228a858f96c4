"""Sounds and what is asked about them: the questions of a task over a manifest, a file of answers, shards or MECAT.

References are called as files of answers call them (see `auricle.evaluate.predictions`), or as the task's ``fact``
says; what further is known about a sound goes along in the row.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from auricle.data.manifest import AUDIO_COLUMNS
from auricle.errors import ConfigError, DataError
from auricle.evaluate.composed_questions import caption_references, closed_questions, event_label
from auricle.evaluate.mecat_questions import mecat_questions
from auricle.evaluate.question import Question, SoundFile
from auricle.evaluate.question_sources import Clip, read_clips
from auricle.evaluate.task import LanguageTask
from auricle.metrics.closed_qa import LETTERS, list_choices
from auricle.metrics.tags import gender_matcher, plain

__all__ = ["Question", "SoundFile", "read_questions"]

_OF_ROWS = ("dataset_name", "audio", "prompt", "model_output", "model_name")
_REFERENCES = ("text", "lang", "label", "question", "choices", "answer")
_INITIALS = {"m": "male", "f": "female"}


def read_questions(
    task: LanguageTask,
    source: str | Path,
    *,
    limit: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Question]:
    """All questions of a task, in the order of the source; each audio file is read when its bytes are asked for.

    Args:
        task: what is asked.
        source: see `auricle.evaluate.question_sources`; of MECAT `auricle.evaluate.mecat_questions`.
        limit: sounds at most, spread evenly over all; each keeps all its questions.
        on_note: called with a sentence where a source holds sounds that do not belong to the task.

    Raises:
        DataError: the source cannot be understood, holds no sound of the task, lacks a reference, or asks the same of
            the same sound twice; the sound is named.
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, expected at least 1 sound")
    found = mecat_questions(task, source) if task.judge == "mecat" else list(_questions(task, source, on_note))
    if not found:
        raise DataError(f"{source}: holds no sound of task {task.name!r}; expected sounds that have {_wanted(task)}")
    _check_once(found, source)
    return found if limit is None else _spread(found, limit)


def _questions(task: LanguageTask, source: str | Path, on_note: Callable[[str], None]) -> Iterator[Question]:
    clips, of_several_sets = read_clips(source)
    known = []
    for clip in clips:
        if _is_of(task, clip.facts):
            absent = next((name for name in _needed(task) if clip.facts.get(name) is None), None)
            if absent is None:
                known.append(clip)
            elif not of_several_sets:
                _fault(clip, absent, None, f"what task {task.name!r} is judged by among {sorted(clip.facts)[:12]}")
    references = _references(task, known)
    for clip, own in zip(known, references, strict=True):
        if not own and not of_several_sets:
            _fault(clip, "event", None, "that, a digit as text, a gender or a kind")
    if left_out := len(clips) - sum(bool(own) for own in references):
        on_note(f"{left_out} of {len(clips)} sounds of {source} do not belong to task {task.name!r}")
    for clip, own in zip(known, references, strict=True):
        for each in own:
            yield _question(task, clip, each)


def _is_of(task: LanguageTask, facts: Mapping[str, Any]) -> bool:
    return all(facts.get(name) is None or str(facts[name]) in values for name, values in task.only.items())


def _needed(task: LanguageTask) -> tuple[str, ...]:
    if task.composed is not None:
        return {"event": ("event",), "captions": ("kind",), "questions": ()}[task.composed]
    if task.judge == "asr":
        return (task.fact or "text",)
    if task.judge == "qa":
        return "question", "choices", task.fact or "answer"
    if task.judge == "caption":
        return ("question", task.fact or "answer") if task.asks_questions else (task.fact or "text",)
    return (task.fact or "label",)


def _wanted(task: LanguageTask) -> str:
    facts = [repr(name) for name in _needed(task)] or ["an event, a digit, a gender or a kind"]
    return " and ".join([*facts, *(f"{name} in {', '.join(values)}" for name, values in task.only.items())])


def _references(task: LanguageTask, clips: Sequence[Clip]) -> list[list[dict[str, Any]]]:
    """Fields of each clip's rows by which its answers are judged; none where nothing can be asked."""
    if task.composed == "questions":
        asked = closed_questions({clip.sound.name: clip.facts for clip in clips})
        return [
            [
                {"question": each.question, "choices": list(each.choices), "answer": each.answer}
                for each in asked[clip.sound.name]
            ]
            for clip in clips
        ]
    return [[_reference(task, clip)] for clip in clips]


def _reference(task: LanguageTask, clip: Clip) -> dict[str, Any]:
    facts = clip.facts
    if task.composed == "event":
        return {"label": [event_label(facts) or _fault(clip, "event", facts.get("event"), "words")]}
    if task.composed == "captions":
        return {"text": list(caption_references(facts))}
    if task.judge == "asr":
        lang = task.lang if task.lang and facts.get("lang") is None else _text(clip, "lang")
        return {"text": _text(clip, task.fact or "text", blank=True), "lang": lang}
    if task.judge == "qa":
        return _closed(task, clip)
    if task.judge == "caption":
        if task.asks_questions:
            return {"question": _text(clip, "question"), "answer": _text(clip, task.fact or "answer")}
        texts = _texts(clip, task.fact or "text")
        return {"text": texts[0] if len(texts) == 1 else texts}
    labels = _texts(clip, task.fact or "label", separator=";" if task.judge == "multitag" else None)
    return {"label": [_gender(each) for each in labels] if task.judge == "gender" else labels}


def _closed(task: LanguageTask, clip: Clip) -> dict[str, Any]:
    choices, answer = _texts(clip, "choices"), _text(clip, task.fact or "answer")
    if len(choices) > len(LETTERS):
        _fault(clip, "choices", choices, f"at most {len(LETTERS)}")
    is_letter = len(answer.strip()) == 1 and answer.strip().upper() in LETTERS[: len(choices)]
    if not is_letter and [plain(each) for each in choices].count(plain(answer)) != 1:
        _fault(clip, "answer", answer, f"the letter or the text of one of {choices}")
    return {"question": _text(clip, "question"), "choices": choices, "answer": answer}


def _gender(label: str) -> str:
    return _INITIALS.get(label.strip().lower()) or gender_matcher().exact(label) or label


def _text(clip: Clip, name: str, *, blank: bool = False) -> str:
    value = clip.facts.get(name)
    if not isinstance(value, str) or not (blank or value.strip()):
        _fault(clip, name, value, "text")
    return value


def _texts(clip: Clip, name: str, *, separator: str | None = None) -> list[str]:
    value = clip.facts.get(name)
    found = value
    if isinstance(value, str):
        found = [value] if separator is None else [part.strip() for part in value.split(separator)]
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each.strip() for each in found):
        _fault(clip, name, value, "text or a list of texts")
    return found


def _fault(clip: Clip, name: str, value: Any, expected: str) -> NoReturn:
    raise DataError(f"{clip.where}: {name} is {ascii(value)[:80]}, expected {expected}; correct it or leave it out")


def _question(task: LanguageTask, clip: Clip, reference: Mapping[str, Any]) -> Question:
    choices = reference.get("choices", ())
    slots = {
        "lang": reference.get("lang", ""),
        "question": reference.get("question", ""),
        "choices": list_choices(choices),
    }
    prompt = task.prompts[""].format(**slots)
    dataset = clip.facts.get("dataset_name")
    row = {
        "dataset_name": dataset if isinstance(dataset, str) and dataset else task.title,
        "audio": clip.sound.name,
        **_further(clip.facts),
        **reference,
        "prompt": prompt,
    }
    if row.get(task.group_by) is None:
        _fault(clip, task.group_by, None, "what its rows are resampled by")
    return Question(sound=clip.sound, prompt=prompt, field="", row=row)


def _further(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Plain facts besides references; of those only the language."""
    left_out = {*_OF_ROWS, *_REFERENCES, *AUDIO_COLUMNS} - {"lang"}
    return {name: value for name, value in facts.items() if name not in left_out and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_once(questions: Sequence[Question], source: str | Path) -> None:
    """As files of answers are read: data set, sound and what is asked make a row."""
    seen: set[tuple[str, str, str]] = set()
    for each in questions:
        key = (each.row["dataset_name"], each.sound.name, str(each.row.get("question") or each.prompt))
        if key in seen:
            raise DataError(
                f"{source}: {key[1]!r} is asked {key[2]!r} twice; expected each question once, leave one out"
            )
        seen.add(key)


def _spread(questions: Sequence[Question], limit: int) -> list[Question]:
    names = list(dict.fromkeys(each.sound.name for each in questions))
    count = min(limit, len(names))
    chosen = {names[place * len(names) // count] for place in range(count)}
    return [each for each in questions if each.sound.name in chosen]
