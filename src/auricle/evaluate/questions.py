"""The questions of a task: an audio file and a prompt each, over a manifest, a file of predictions, shards or MECAT.

References have the names of files of predictions (see `auricle.evaluate.predictions`), or the one that the task's
``fact`` gives; further facts of a clip are kept in the row.

A source of MECAT is a folder of references as the release has them (``000.jsonl`` … ``SMA.jsonl``) with the audio in
``audio/`` inside, or ``REFERENCES:AUDIO``. Audio files are named after their clip, or are in tars.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from auricle.data.manifest import AUDIO_COLUMNS
from auricle.data.untrusted_json import shorten
from auricle.errors import ConfigError, DataError
from auricle.evaluate import mecat
from auricle.evaluate.composed_questions import caption_references, closed_questions, event_label
from auricle.evaluate.official import read_official
from auricle.evaluate.sources import AudioFile, Clip, read_audio_folder, read_clips, split_source
from auricle.evaluate.task import LanguageTask
from auricle.metrics.closed_qa import LETTERS, is_answer
from auricle.metrics.languages import language_code
from auricle.metrics.tags import gender_matcher

_OF_ROWS = ("dataset_name", "audio", "prompt", "model_output", "model_name")
_REFERENCES = ("text", "lang", "label", "question", "choices", "answer")
_INITIALS = {"m": "male", "f": "female"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A prompt about an audio file, and the references of its answer."""

    audio: AudioFile
    prompt: str  # whole, as the model is given it
    field: str  # of the answer, see `auricle.evaluate.task.LanguageTask.prompts`; "": the only one
    row: Mapping[str, Any]  # of files of predictions without `model_output` and `model_name`: references, groups


def read_questions(
    task: LanguageTask,
    source: str | Path,
    *,
    limit: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Question]:
    """All questions of a task, in the order of the source; an audio file is read when its bytes are needed.

    Args:
        task: whose prompts they are.
        source: see `auricle.evaluate.sources`; of MECAT see above.
        limit: clips at most, evenly spaced over all; each keeps all its questions.
        on_note: called with a sentence where a source holds clips that do not belong to the task.

    Raises:
        DataError: the source cannot be understood, holds no clip of the task, lacks a reference, or repeats a question
            about the same clip; the clip is named.
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, expected at least 1 clip")
    found = _mecat_questions(task, source) if task.kind == "mecat" else list(_questions(task, source, on_note))
    if not found:
        raise DataError(f"{source}: holds no clip of task {task.name!r}; expected clips that have {_wanted(task)}")
    _check_once(found, source)
    return found if limit is None else _evenly_spaced(found, limit)


def _questions(task: LanguageTask, source: str | Path, on_note: Callable[[str], None]) -> Iterator[Question]:
    if task.official is None:
        clips, of_several_sets = read_clips(source)
    else:
        clips, of_several_sets = read_official(task.official, source, on_note), False
    known = []
    for clip in clips:
        if all(clip.facts.get(name) is None or str(clip.facts[name]) in values for name, values in task.only.items()):
            absent = next((name for name in _needed(task) if clip.facts.get(name) is None), None)
            if absent is None:
                known.append(clip)
            elif not of_several_sets:
                _fault(clip, absent, None, f"a reference of task {task.name!r} among {sorted(clip.facts)[:12]}")
    references = _references(task, known)
    for clip, own in zip(known, references, strict=True):
        if not own and not of_several_sets:
            _fault(clip, "event", None, "that, a digit as text, a gender or a kind")
    if left_out := len(clips) - sum(bool(own) for own in references):
        on_note(f"{left_out} of {len(clips)} clips of {source} do not belong to task {task.name!r}")
    for clip, own in zip(known, references, strict=True):
        for each in own:
            yield _question(task, clip, each)


def _needed(task: LanguageTask) -> tuple[str, ...]:
    if task.composed is not None:
        return {"event": ("event",), "captions": ("kind",), "questions": ()}[task.composed]
    if task.kind == "asr":
        return (task.fact or "text",)
    if task.kind == "qa":
        return "question", "choices", task.fact or "answer"
    if task.kind == "caption":
        return ("question", task.fact or "answer") if task.has_questions else (task.fact or "text",)
    return (task.fact or "label",)


def _wanted(task: LanguageTask) -> str:
    facts = [repr(name) for name in _needed(task)] or ["an event, a digit, a gender or a kind"]
    return " and ".join([*facts, *(f"{name} in {', '.join(values)}" for name, values in task.only.items())])


def _references(task: LanguageTask, clips: Sequence[Clip]) -> list[list[dict[str, Any]]]:
    """The references of each clip, one for each of its questions; none where its facts make no question."""
    if task.composed == "questions":
        composed = closed_questions({clip.audio.name: clip.facts for clip in clips})
        return [
            [{**each._asdict(), "choices": list(each.choices)} for each in composed[clip.audio.name]] for clip in clips
        ]
    return [[_reference(task, clip)] for clip in clips]


def _reference(task: LanguageTask, clip: Clip) -> dict[str, Any]:
    facts = clip.facts
    if task.composed == "event":
        return {"label": [event_label(facts) or _fault(clip, "event", facts.get("event"), "words")]}
    if task.composed == "captions":
        return {"text": list(caption_references(facts))}
    if task.kind == "asr":
        lang = task.lang if task.lang and facts.get("lang") is None else _text(clip, "lang")
        try:
            language_code(lang)
        except DataError as error:
            raise DataError(f"{clip.where}: {error}") from None
        return {"text": _text(clip, task.fact or "text", blank=True), "lang": lang}
    if task.kind == "qa":
        return _closed(task, clip)
    if task.kind == "caption":
        if task.has_questions:
            return {"question": _text(clip, "question"), "answer": _text(clip, task.fact or "answer")}
        texts = _texts(clip, task.fact or "text")
        return {"text": texts[0] if len(texts) == 1 else texts}
    labels = _texts(clip, task.fact or "label", separator=";" if task.kind == "multitag" else None)
    return {"label": [_gender(each) for each in labels] if task.kind == "gender" else labels}


def _closed(task: LanguageTask, clip: Clip) -> dict[str, Any]:
    choices, answer = _texts(clip, "choices"), _text(clip, task.fact or "answer")
    if len(choices) > len(LETTERS):
        _fault(clip, "choices", choices, f"at most {len(LETTERS)}")
    if not is_answer(answer, choices):
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
    raise DataError(f"{clip.where}: {name} is {shorten(value)}, expected {expected}; correct it or leave it out")


def _question(task: LanguageTask, clip: Clip, reference: Mapping[str, Any]) -> Question:
    slots = {"lang": "", "question": "", **reference, "choices": _choices(task, reference.get("choices", ()))}
    prompt = task.prompts[""].format(**slots)
    dataset = clip.facts.get("dataset_name")
    row = {
        "dataset_name": dataset if isinstance(dataset, str) and dataset else task.title,
        "audio": clip.audio.name,
        **_further(clip.facts),
        **reference,
        "prompt": prompt,
    }
    if row.get(task.group_by) is None:
        _fault(clip, task.group_by, None, "a value, as its rows are resampled by it")
    return Question(audio=clip.audio, prompt=prompt, field="", row=row)


def _choices(task: LanguageTask, choices: Sequence[str]) -> str:
    lettered = zip(LETTERS, choices, strict=False)
    return "\n".join(task.choice_form.format(letter=letter, text=text) for letter, text in lettered)


def _further(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Plain facts besides references; of those only the language."""
    left_out = {*_OF_ROWS, *_REFERENCES, *AUDIO_COLUMNS} - {"lang"}
    return {name: value for name, value in facts.items() if name not in left_out and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_once(questions: Sequence[Question], source: str | Path) -> None:
    """As files of predictions are read: data set, audio and question make a row."""
    seen: set[tuple[str, str, str, str]] = set()
    for each in questions:
        question = str(each.row.get("question") or each.prompt)
        key = (each.row["dataset_name"], each.audio.name, question, str(each.row.get("order", "")))
        if key in seen:
            raise DataError(
                f"{source}: {key[1]!r} has the question {key[2]!r} twice; expected each question once, leave one out"
            )
        seen.add(key)


def _evenly_spaced(questions: Sequence[Question], limit: int) -> list[Question]:
    names = list(dict.fromkeys(each.audio.name for each in questions))
    count = min(limit, len(names))
    chosen = {names[place * len(names) // count] for place in range(count)}
    return [each for each in questions if each.audio.name in chosen]


# --- MECAT


def mecat_folders(source: str | Path) -> tuple[Path, Path]:
    """Folders of references and of audio of a source.

    Raises:
        DataError: one of them does not exist.
    """
    references, audio = split_source(source)
    audio = audio or references / "audio"
    if not references.is_dir() or not audio.is_dir():
        raise DataError(f"{source}: expected a folder of references with audio/ inside, or REFERENCES:AUDIO")
    return references, audio


def _mecat_questions(task: LanguageTask, source: str | Path) -> list[Question]:
    """Every question of a split, in the order of its references.

    A row holds ``id``, the name by which the references know it, ``domain`` and ``field``; of captions ``text``, of
    questions ``question``, ``answer``, ``category`` and ``difficulty``.
    """
    folder, audio = mecat_folders(source)
    references = mecat.read_references(folder)
    wanted = "qa" if task.has_questions else "caption"
    if references.kind != wanted:
        raise DataError(f"{folder}: holds references of {references.kind}, expected those of {wanted}")
    files = read_audio_folder(audio)
    clips = {name: references.clip(name) for name in references.entries}
    if absent := sorted(set(clips.values()) - set(files)):
        raise DataError(
            f"{audio}: has no audio of {len(absent)} of {len(set(clips.values()))} clips, first {absent[0]!r}; fetch "
            "it, or take the clips out of the references"
        )
    texts = mecat.read_question_texts(folder) if wanted == "qa" else {}
    found = []
    for name, reference in references.entries.items():
        file = files[clips[name]]
        row = {"dataset_name": task.title, "audio": file.name, "id": name, "domain": reference.domain}
        if wanted == "qa":
            found.append(_on_question(task, file, row, reference, texts[name]))
        else:
            found += [_on_caption(task, file, row, reference, field) for field in reference.texts]
    return found


def _on_caption(
    task: LanguageTask, audio: AudioFile, row: Mapping[str, Any], reference: mecat.Reference, field: str
) -> Question:
    prompt = task.prompts[field]
    row = {**row, "field": field, "text": list(reference.texts[field]), "prompt": prompt}
    return Question(audio=audio, prompt=prompt, field=field, row=row)


def _on_question(
    task: LanguageTask, audio: AudioFile, row: Mapping[str, Any], reference: mecat.Reference, question: str
) -> Question:
    prompt = task.prompts[""].format(question=question)
    ((category, (answer,)),) = reference.texts.items()
    row = {
        **row,
        "field": category,
        "category": category,
        "difficulty": reference.difficulty,
        "question": question,
        "answer": answer,
        "prompt": prompt,
    }
    return Question(audio=audio, prompt=prompt, field="", row=row)
