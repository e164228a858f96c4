"""Files of published benchmarks of closed questions, read as they are released: JSON, JSON Lines or Parquet.

==============  =======================================================================================================
mmar            ``MMAR-meta.jsonl``: audio_path, question, choices, answer
mmau_pro        ``test.parquet``: audio_path (a list), question, choices, answer, category; open questions,
                instructions, and questions about several clips are left out
mmsu            Parquet with the audio inside, or JSON Lines with audio_path: choice_a … choice_d, answer_gt
air_bench       ``Foundation_meta.json`` beside the folders TASK_SET: path, choice_a … choice_d, answer_gt
star_bench      ``foundation_perception*.json`` and ``holistic_reasoning_spatial.json``: audio_paths, options, answer;
                asked in every rotation of the options, of reasoning in three
voicebench      Parquet with the spoken question inside, or JSON Lines with audio: reference, a letter, yes or no
==============  =======================================================================================================

Source of the fields: the release code of each (MMAR, MMAUPro, MMSU, AIR-Bench, StarBench, VoiceBench).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from auricle.data.manifest import resolve_audio
from auricle.data.untrusted_json import parse_json, parse_object, read_text, shorten
from auricle.errors import DataError, MissingExtra
from auricle.evaluate.sources import AudioFile, Clip, audio_file, split_source
from auricle.metrics.closed_qa import LETTERS

OfficialFormat: TypeAlias = Literal["mmar", "mmau_pro", "mmsu", "air_bench", "star_bench", "voicebench"]

_REASONING_RUNS = 3  # rotations of STAR-Bench's questions of reasoning, `run.py` of its release
_OPEN = ("open", "instruction following")  # categories of MMAU-Pro that no rule without a judge scores
_KEPT = ("id", "modality", "category", "sub-category", "language", "task", "task_name", "length_type")

Facts: TypeAlias = dict[str, Any]
Found: TypeAlias = tuple[Any, list[Facts]]  # the audio's name or content, and the questions about it


class _LeftOut(Exception):
    """A record that is no closed question about one clip."""


def read_official(form: OfficialFormat, source: str | Path, on_note: Callable[[str], None]) -> list[Clip]:
    """The clips of an official file with question, choices, answer and, where the order is rotated, ``order``.

    Args:
        form: of the file.
        source: the file, or ``FILE:FOLDER`` with the folder that its audio paths are relative to.
        on_note: called with how many records were left out, and why.

    Raises:
        DataError: the file cannot be read, or a record lacks a field.
        MissingExtra: Parquet without pyarrow.
    """
    place, audio = split_source(source)
    folder, read, found = audio or place.parent, _READERS[form], []
    left_out: Counter[str] = Counter()
    for number, record in enumerate(_records(place), 1):
        where = f"{place}, record {number}"
        try:
            name, questions = read(record, place)
            file = _audio(name, folder, number, where)
        except _LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{where}: {error!r} while it was read as {form}; is it the official file?") from None
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        kept = {key: record[key] for key in _KEPT if isinstance(record.get(key), str | int)}
        found += [Clip(where, file, {**kept, **facts}) for facts in questions]
    for reason_text, count in left_out.items():
        on_note(f"{count} records of {place} are left out: {reason_text}")
    return found


def _records(place: Path) -> Iterator[Mapping[str, Any]]:
    if place.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingExtra(str(place), "parquet") from None
        try:
            with parquet.ParquetFile(place) as file:
                for batch in file.iter_batches(batch_size=64):
                    yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: cannot be read as Parquet ({error}); fetch it again") from None
    elif place.suffix == ".jsonl":
        for number, line in enumerate(read_text(place).split("\n"), 1):
            if line.strip():
                yield parse_object(line, f"{place}, line {number}")
    else:
        try:
            rows = parse_json(read_text(place))
        except ValueError as error:
            raise DataError(f"{place}: no readable JSON ({error}); fetch it again") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{place}: holds {shorten(rows)}, expected a list of objects")
        yield from rows


def _audio(name: Any, folder: Path, number: int, where: str) -> AudioFile:
    """A file below the folder, or the content that the record itself holds."""
    if isinstance(name, Mapping):
        content, label = name.get("bytes"), str(name.get("path") or f"record-{number}.wav")
        if isinstance(content, bytes):
            return AudioFile(label, lambda: content)
        name = label
    if not isinstance(name, str):
        raise DataError(f"{where}: audio is {shorten(name)}, expected a path")
    return audio_file(resolve_audio(number, name, folder), name)


def _question(record: Mapping[str, Any], choices: Sequence[Any], answer: Any) -> Facts:
    texts = [str(each) for each in choices if each not in (None, "", "None")]
    return {"question": record["question"], "choices": texts, "answer": str(answer)}


def _mmar(record: Mapping[str, Any], place: Path) -> Found:
    return record["audio_path"], [_question(record, record["choices"], record["answer"])]


def _mmau_pro(record: Mapping[str, Any], place: Path) -> Found:
    if record["category"] in _OPEN or not record.get("choices"):
        raise _LeftOut("open questions and instructions need a judge")
    paths = record["audio_path"]
    return _only([paths] if isinstance(paths, str) else paths), [_question(record, record["choices"], record["answer"])]


def _lettered(record: Mapping[str, Any]) -> list[Facts]:
    choices = [record.get(f"choice_{letter}") for letter in "abcd"]
    return [_question(record, choices, record["answer_gt"])]


def _mmsu(record: Mapping[str, Any], place: Path) -> Found:
    return record.get("audio") or record["audio_path"], _lettered(record)


def _air_bench(record: Mapping[str, Any], place: Path) -> Found:
    path, task = record["path"], record["task_name"]
    if task == "Audio_Grounding":  # its files were released as FLAC, its names end in wav
        path = f"{Path(path).with_suffix('.flac')}"
    facts = [{**each, "id": str(record["uniq_id"])} for each in _lettered(record)]
    return f"{task}_{record['dataset_name']}/{path}", facts


def _star_bench(record: Mapping[str, Any], place: Path) -> Found:
    options, path = list(record["options"]), _only(record["audio_paths"])
    runs = len(options) if place.stem.startswith("foundation_perception") else _REASONING_RUNS
    starts = [-turn % len(options) for turn in range(runs)]
    rotated = [options[start:] + options[:start] for start in starts]
    return path, [{**_question(record, each, record["answer"]), "order": turn} for turn, each in enumerate(rotated)]


def _voicebench(record: Mapping[str, Any], place: Path) -> Found:
    reference = str(record["reference"]).strip().strip("()").casefold()
    if reference in ("yes", "no"):
        choices, answer = ["yes", "no"], reference
    elif len(reference) == 1 and reference.upper() in LETTERS[:4]:
        choices, answer = list(LETTERS[:4]), reference.upper()
    else:
        raise _LeftOut("the reference is neither a letter nor yes or no")
    return record["audio"], [{"question": str(record["prompt"]), "choices": choices, "answer": answer}]


def _only(paths: Sequence[Any]) -> Any:
    if len(paths) != 1:
        raise _LeftOut("they are about several clips")
    return paths[0]


_READERS: Mapping[str, Callable[[Mapping[str, Any], Path], Found]] = {
    "mmar": _mmar,
    "mmau_pro": _mmau_pro,
    "mmsu": _mmsu,
    "air_bench": _air_bench,
    "star_bench": _star_bench,
    "voicebench": _voicebench,
}
