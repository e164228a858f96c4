"""The questions of MECAT: six captions of a clip, or what is asked about it.

Source: a folder of references as the release has them (``000.jsonl`` … ``SMA.jsonl``) with the sounds in ``audio/``
inside, or ``REFERENCES:AUDIO``. Sounds are files called after their clip, or tars in which they are.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from auricle.data.shard_index import AUDIO_SUFFIXES
from auricle.data.shards import ShardSet
from auricle.errors import DataError
from auricle.evaluate import mecat
from auricle.evaluate.predictions import read_bounded, read_line
from auricle.evaluate.question import Question, SoundFile, sound_at
from auricle.evaluate.question_sources import split_source
from auricle.evaluate.task import LanguageTask


def mecat_folders(source: str | Path) -> tuple[Path, Path]:
    """Folders of references and of audio of a source.

    Raises:
        DataError: one of them is not there.
    """
    references, audio = split_source(source)
    audio = audio or references / "audio"
    if not references.is_dir() or not audio.is_dir():
        raise DataError(f"{source}: expected a folder of references with audio/ inside, or REFERENCES:AUDIO")
    return references, audio


def mecat_questions(task: LanguageTask, source: str | Path) -> list[Question]:
    """Every question of a split, in the order of its references.

    A row holds ``id``, the name by which the references know it, ``domain`` and ``field``; of captions ``text``, of
    questions ``question``, ``answer``, ``category`` and ``difficulty``.

    Args:
        task: its prompts are those of the six captions, or a single one that brings the clip's question.
        source: see above.

    Raises:
        DataError: references that cannot be read or are of the other kind, or clips without audio.
    """
    references, audio = mecat_folders(source)
    truth = mecat.read_references(references)
    wanted = "qa" if task.asks_questions else "caption"
    if truth.kind != wanted:
        raise DataError(f"{references}: holds references of {truth.kind}, expected those of {wanted}")
    sounds = _sounds(audio)
    clips = {name: name.rpartition("_")[0] if wanted == "qa" else name for name in truth.entries}
    if absent := sorted(set(clips.values()) - set(sounds)):
        raise DataError(
            f"{audio}: has no audio of {len(absent)} of {len(set(clips.values()))} clips, first {absent[0]!r}; fetch "
            "it, or take the clips out of the references"
        )
    asked = _asked(references) if wanted == "qa" else {}
    found = []
    for name, reference in truth.entries.items():
        sound = sounds[clips[name]]
        if wanted == "qa":
            found.append(_on_question(task, sound, name, reference, asked[name]))
        else:
            found += [_on_caption(task, sound, name, reference, field) for field in reference.texts]
    return found


def _on_caption(task: LanguageTask, sound: SoundFile, name: str, reference: mecat.Reference, field: str) -> Question:
    prompt = task.prompts[field]
    row = {**_row(task, sound, name, reference), "field": field, "text": list(reference.texts[field]), "prompt": prompt}
    return Question(sound=sound, prompt=prompt, field=field, row=row)


def _on_question(task: LanguageTask, sound: SoundFile, name: str, reference: mecat.Reference, asked: str) -> Question:
    prompt = task.prompts[""].format(question=asked)
    ((category, (answer,)),) = reference.texts.items()
    row = {
        **_row(task, sound, name, reference),
        "field": category,
        "category": category,
        "difficulty": reference.difficulty,
        "question": asked,
        "answer": answer,
        "prompt": prompt,
    }
    return Question(sound=sound, prompt=prompt, field="", row=row)


def _row(task: LanguageTask, sound: SoundFile, name: str, reference: mecat.Reference) -> dict[str, Any]:
    return {"dataset_name": task.title, "audio": sound.name, "id": name, "domain": reference.domain}


def _sounds(folder: Path) -> Mapping[str, SoundFile]:
    """Sounds of a folder by clip."""
    if any(folder.glob("*.tar")):
        shards = ShardSet(folder)
        return {key: SoundFile(key, partial(shards.read_audio, at)) for at, key in enumerate(shards.keys())}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in AUDIO_SUFFIXES)
    return {path.stem: sound_at(path, path.name) for path in reversed(paths)}


def _asked(references: Path) -> dict[str, str]:
    """What is asked, which scoring has no need of, by name."""
    found: dict[str, str] = {}
    for path in (references / f"{domain}.jsonl" for domain in mecat.DOMAINS):
        for number, line in enumerate(read_bounded(path).split("\n") if path.is_file() else (), 1):
            where = f"{path}, line {number}"
            for name, value in read_line(line, where).items() if line.strip() else ():
                if not isinstance(value.get("question"), str) or not value["question"].strip():
                    raise DataError(f"{where}: {name} has no question; expected text in 'question'")
                found[name] = value["question"]
    return found
