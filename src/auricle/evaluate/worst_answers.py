"""The answers a task lost most by: what was asked, what should have been said, and what each model said instead."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple, TypeAlias

from auricle.errors import AuricleError
from auricle.evaluate import mecat
from auricle.evaluate.compare import has_items
from auricle.evaluate.headline import measure
from auricle.evaluate.predictions import read_predictions
from auricle.evaluate.questions import SoundFile, read_questions
from auricle.evaluate.results import LmResult
from auricle.evaluate.tables import TaskRow
from auricle.evaluate.task import load_language_task

FindSound: TypeAlias = Callable[[str], bytes | None]

MAX_SOUND_BYTES = 256 << 20  # of one file that an excerpt is taken from
_ENDINGS = ("", ".flac", ".wav", ".ogg", ".mp3")  # of sounds that are called after their clip
_NO_ANSWERS = "the answers do not lie beside the scores"


class Told(NamedTuple):
    """An item as it stands in a file of answers."""

    audio: str
    asked: str
    references: tuple[str, ...]
    said: str


class Verdict(NamedTuple):
    """A model's answer to an item."""

    said: str
    words: str  # how good it is
    lost: float  # how bad: errors, or what lacks to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstAnswer:
    """An item that at least one model did badly on."""

    group: str  # of MECAT; else empty
    item: str
    audio: str
    asked: str
    references: tuple[str, ...]
    answers: Mapping[str, Verdict]  # by model


class WorstAnswers(NamedTuple):
    """Of a task, with why some are not shown."""

    items: list[WorstAnswer]
    lacking: dict[str, str]  # by model


def worst_answers(row: TaskRow, count: int) -> WorstAnswers:
    """Items on which models are worst, each model's in turn.

    Args:
        row: results of one task under one protocol.
        count: items at most.

    Raises:
        DataError: a file of answers is damaged.
    """
    told: dict[str, dict[tuple[str, str], Told]] = {}
    verdicts: dict[str, dict[tuple[str, str], tuple[str, float]]] = {}
    lacking: dict[str, str] = {}
    for model, result in row.results.items():
        if not has_items(result.scored):
            lacking[model] = "no scores of single items"
            continue
        found = _answers(result)
        if isinstance(found, str):
            lacking[model] = found
            continue
        told[model], verdicts[model] = found, _verdicts(result)
    chosen: dict[tuple[str, str], None] = {}
    for key in chain.from_iterable(zip_longest(*(_worst_first(verdicts[model], told[model]) for model in told))):
        if key is not None and len(chosen) < count:
            chosen.setdefault(key)
    return WorstAnswers([_item(key, told, verdicts) for key in chosen], lacking)


def _item(
    key: tuple[str, str],
    told: Mapping[str, Mapping[tuple[str, str], Told]],
    verdicts: Mapping[str, Mapping[tuple[str, str], tuple[str, float]]],
) -> WorstAnswer:
    first = next(own[key] for own in told.values() if key in own)
    return WorstAnswer(
        group=key[0],
        item=key[1],
        audio=first.audio,
        asked=first.asked,
        references=first.references,
        answers={
            model: Verdict(own[key].said, *verdicts[model][key])
            for model, own in told.items()
            if key in own and key in verdicts[model]
        },
    )


def _worst_first(
    verdicts: Mapping[tuple[str, str], tuple[str, float]], told: Mapping[tuple[str, str], Told]
) -> list[tuple[str, str]]:
    bad = [key for key, (_, lost) in verdicts.items() if lost > 0 and key in told]
    return sorted(bad, key=lambda key: -verdicts[key][1])


def _verdicts(result: LmResult) -> dict[tuple[str, str], tuple[str, float]]:
    """By group and item how good an answer is, in words, and what it lost."""
    measured = measure(result.scored)
    found = {}
    for group, part in measured.parts.items():
        for item, (gain, size) in part.items.items():
            if measured.paired_metric == "error_rate":
                found[group, item] = f"{gain:g} error{'' if gain == 1 else 's'} in {size:g}", gain
            elif measured.paired_metric == "accuracy":
                found[group, item] = "right" if gain else "wrong", 1 - gain
            else:
                found[group, item] = f"{measured.paired_metric} {gain:.3f}", 1 - gain
    return found


def _answers(result: LmResult) -> dict[tuple[str, str], Told] | str:
    """By group and item; or why there are none."""
    path = result.answers
    if path is None:
        return _NO_ANSWERS
    hashes = result.scored.data.get("answers_sha256")
    scored = hashes.get("all") if isinstance(hashes, dict) else result.scored.data.get("predictions_sha256")
    if result.scored.task == "mecat":
        content, folder = path.read_bytes(), path.parent / "references"
        is_scored = sha256(content).hexdigest() == scored
        if not folder.is_dir():
            return _NO_ANSWERS
        return _of_mecat(path, folder) if is_scored else _other(path)
    # Any of the tasks whose files have one answer a line.
    predictions = read_predictions(path, result.scored.task, missing="worst")  # type: ignore[arg-type]
    if predictions.sha256 != scored:
        return _other(path)
    found = {}
    for row in predictions.rows:
        names = [name for name in ("text", "label", "answer") if row.fields.get(name) is not None]
        references = [text for name in names[:1] for text in row.texts(name)]
        if isinstance(choices := row.fields.get("choices"), list):
            references.append(f"of: {'; '.join(choices)}")
        asked = str(row.fields.get("question") or row.fields.get("prompt") or "")
        found["", row.item] = Told(row.audio, asked, tuple(references), row.said)
    return found


def _other(path: Path) -> str:
    return f"{path.name} is not the file that was scored"


def _of_mecat(path: Path, folder: Path) -> dict[tuple[str, str], Told]:
    truth, answers = mecat.read_references(folder), mecat.merge_answers({"": path})
    found = {}
    for group in truth.groups:
        for name, entry in truth.entries.items():
            if entry.domain in group.domains and group.field in entry.texts:
                said = answers.get(group.field, {}).get(name, answers.get("", {}).get(name, ""))
                clip = name.rpartition("_")[0] if truth.kind == "qa" else name
                found[group.name, name] = Told(clip, "", entry.texts[group.field], said)
    return found


# --- sounds


def sounds_of(result: LmResult, roots: Sequence[Path]) -> FindSound:
    """Finds the file of a sound by its name: below ``roots``, else where the run had it from.

    Args:
        result: of a task.
        roots: folders; names that lead out of them are not followed.
    """

    @cache
    def known() -> dict[str, SoundFile]:
        return dict(_of_source(result))

    def find(name: str) -> bytes | None:
        for root in roots:
            for ending in _ENDINGS:
                if (content := _inside(root, f"{name}{ending}")) is not None:
                    return content
        sound = known().get(name)
        try:
            return None if sound is None else sound.read()
        except (AuricleError, OSError):  # gone since it was asked about
            return None

    return find


def _inside(root: Path, name: str) -> bytes | None:
    """A file below a folder; None for what is none, lies elsewhere or is no name at all."""
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file() or path.stat().st_size > MAX_SOUND_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def _of_source(result: LmResult) -> Iterator[tuple[str, SoundFile]]:
    if not result.run.get("source"):
        return
    try:
        questions = read_questions(load_language_task(result.task), result.run["source"])
    except (AuricleError, OSError):  # a task of an own file, or a source that is gone
        return
    for question in questions:
        yield question.sound.name, question.sound
        if result.scored.task == "mecat":
            yield question.sound.name.rpartition(".")[0] or question.sound.name, question.sound
