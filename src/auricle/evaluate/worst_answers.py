"""The worst answers of a task: question, references, and the prediction of each model."""

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
from auricle.evaluate.predictions import REFERENCES, read_predictions
from auricle.evaluate.questions import read_questions
from auricle.evaluate.results import LmResult
from auricle.evaluate.scores import measure
from auricle.evaluate.sources import AudioFile, split_source
from auricle.evaluate.tables import TaskRow
from auricle.evaluate.task import load_language_task

FindAudio: TypeAlias = Callable[[str], bytes | None]

MAX_AUDIO_BYTES = 256 << 20  # of one file that an excerpt is taken from
_ENDINGS = ("", ".flac", ".wav", ".ogg", ".mp3")  # of audio files that are named after their clip
_NO_ANSWERS = "the file of predictions is not beside the scores"


class Answered(NamedTuple):
    """An item of a file of predictions."""

    audio: str
    question: str
    references: tuple[str, ...]
    prediction: str


class Grade(NamedTuple):
    """How good a prediction is."""

    text: str
    loss: float  # errors, or the difference to 1


class GradedAnswer(NamedTuple):
    """A model's prediction for an item."""

    prediction: str
    grade: Grade


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstAnswer:
    """An item on which at least one model is bad."""

    group: str  # of MECAT; else empty
    item: str
    audio: str
    question: str
    references: tuple[str, ...]
    answers: Mapping[str, GradedAnswer]  # by model


class WorstAnswers(NamedTuple):
    """Of a task, with the reason where those of a model are not known."""

    items: list[WorstAnswer]
    unknown: dict[str, str]  # by model


def worst_answers(row: TaskRow, count: int) -> WorstAnswers:
    """Items on which models are worst, each model's in turn.

    Raises:
        DataError: a file of predictions is damaged.
    """
    answered: dict[str, dict[_Key, Answered]] = {}
    grades: dict[str, dict[_Key, Grade]] = {}
    unknown: dict[str, str] = {}
    for model, result in row.results.items():
        if not has_items(result.scored):
            unknown[model] = "no scores of single items"
            continue
        found = _answers(result)
        if isinstance(found, str):
            unknown[model] = found
            continue
        answered[model], grades[model] = found, _grades(result)
    chosen: dict[_Key, None] = {}
    for key in chain.from_iterable(zip_longest(*(_worst_first(grades[name], answered[name]) for name in answered))):
        if key is not None and len(chosen) < count:
            chosen.setdefault(key)
    return WorstAnswers([_item(key, answered, grades) for key in chosen], unknown)


_Key: TypeAlias = tuple[str, str]  # group of MECAT and item


def _item(
    key: _Key, answered: Mapping[str, Mapping[_Key, Answered]], grades: Mapping[str, Mapping[_Key, Grade]]
) -> WorstAnswer:
    first = next(own[key] for own in answered.values() if key in own)
    return WorstAnswer(
        group=key[0],
        item=key[1],
        audio=first.audio,
        question=first.question,
        references=first.references,
        answers={
            model: GradedAnswer(own[key].prediction, grades[model][key])
            for model, own in answered.items()
            if key in own and key in grades[model]
        },
    )


def _worst_first(grades: Mapping[_Key, Grade], answered: Mapping[_Key, Answered]) -> list[_Key]:
    bad = [key for key, grade in grades.items() if grade.loss > 0 and key in answered]
    return sorted(bad, key=lambda key: -grades[key].loss)


def _grades(result: LmResult) -> dict[_Key, Grade]:
    measured = measure(result.scored)
    found = {}
    for group, part in measured.parts.items():
        for item, (gain, size) in part.items.items():
            if measured.paired_metric == "error_rate":
                found[group, item] = Grade(f"{gain:g} error{'' if gain == 1 else 's'} in {size:g}", gain)
            elif measured.paired_metric == "accuracy":
                found[group, item] = Grade("right" if gain else "wrong", 1 - gain)
            else:
                found[group, item] = Grade(f"{measured.paired_metric} {gain:.3f}", 1 - gain)
    return found


def _answers(result: LmResult) -> dict[_Key, Answered] | str:
    """By group and item; or why there are none."""
    path, scored = result.answers, result.scored
    if path is None:
        return _NO_ANSWERS
    if scored.kind == "mecat":
        folder = path.parent / REFERENCES
        if not folder.is_dir():
            return _NO_ANSWERS
        if scored.data.get("answers_sha256") != {"all": sha256(path.read_bytes()).hexdigest()}:
            return _other(path)
        return _of_mecat(mecat.read_mecat_predictions({"": path}, folder))
    predictions = read_predictions(path, scored.kind)
    if predictions.sha256 != scored.data.get("predictions_sha256"):
        return _other(path)
    found = {}
    for row in predictions.rows:
        names = [name for name in ("text", "label", "answer") if row.fields.get(name) is not None]
        references = [text for name in names[:1] for text in row.texts(name)]
        if isinstance(choices := row.fields.get("choices"), list):
            references.append(f"of: {'; '.join(choices)}")
        found["", row.item] = Answered(row.audio, row.question, tuple(references), row.answer)
    return found


def _other(path: Path) -> str:
    return f"{path.name} is not the file that was scored"


def _of_mecat(predictions: mecat.MecatPredictions) -> dict[_Key, Answered]:
    split = predictions.references
    return {
        (group.name, name): Answered(
            split.clip(name), "", entry.texts[group.field], predictions.text(name, group.field) or ""
        )
        for group in split.groups
        for name, entry in split.entries.items()
        if entry.domain in group.domains and group.field in entry.texts
    }


# --- audio


def audio_of(result: LmResult, roots: Sequence[Path]) -> FindAudio:
    """Finds the bytes of a clip by its name: in one of ``roots``, never outside, else in the source of the run.

    Results come from anywhere and name their source: it is read only below ``roots``, the folder of the results or the
    current one, and no file outside them and the source's own folder, whatever links lead there.
    """

    @cache
    def known() -> dict[str, AudioFile]:
        return dict(_of_source(result, roots))

    def find(name: str) -> bytes | None:
        for root in roots:
            for ending in _ENDINGS:
                if (content := _inside(root, f"{name}{ending}")) is not None:
                    return content
        audio = known().get(name)
        try:
            return None if audio is None else audio.read()
        except (AuricleError, OSError):  # removed since the run
            return None

    return find


def _inside(root: Path, name: str) -> bytes | None:
    """A file below a folder; None where there is none, or the name is that of a file elsewhere, or not a name."""
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file() or path.stat().st_size > MAX_AUDIO_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _of_source(result: LmResult, roots: Sequence[Path]) -> Iterator[tuple[str, AudioFile]]:
    if not result.run.get("source"):
        return
    trusted = [*roots, Path.cwd(), result.path.parent]
    try:
        place, folder = split_source(result.run["source"])
        if not _is_below(place, trusted) or (folder is not None and not _is_below(folder, trusted)):
            return
        questions = read_questions(load_language_task(result.task), result.run["source"])
    except (AuricleError, OSError):  # a task that is not declared, or a source that was removed
        return
    trusted.append(folder or (place if place.is_dir() else place.parent))
    for question in questions:
        audio = question.audio
        if audio.path is not None and not _is_below(audio.path, trusted):
            continue
        yield audio.name, audio
        if result.scored.kind == "mecat":
            yield audio.name.rpartition(".")[0] or audio.name, audio
