"""Predictions of a model for a test set, beside the references: files, and what a run would write into them.

A file holds one JSON object a line. Every row: ``dataset_name, audio, prompt, model_output, model_name``. Further, by
kind of task:

========  ==========================================================================================================
asr       ``text``, ``lang``
tagging   ``label``, a list of one; the same for gender
multitag  ``label``, a list
qa        ``answer`` (a letter, or the text of a choice), ``choices`` (texts, may be none), ``question``
caption   ``text``, one or a list; open questions: ``question``, ``answer``
========  ==========================================================================================================

A damaged or duplicated row is an error that names it: no row is ever skipped. Files of MECAT are in
`auricle.evaluate.mecat`.

Source: the files in ``evaluate/jsonl`` of github.com/xiaomi-research/dasheng-lm.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from auricle.data.untrusted_json import has_half_pair, parse_object, read_text, shorten
from auricle.errors import DataError
from auricle.evaluate.generate import Reply
from auricle.evaluate.mecat import MecatPredictions, Value, merge_texts, parse_references
from auricle.evaluate.questions import Question
from auricle.evaluate.scores import TaskKind
from auricle.evaluate.task import LanguageTask
from auricle.metrics.languages import language_code

ANSWERS, REFERENCES = "answers.jsonl", "references"  # names in the folder of a run
_FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = {  # one of each group is needed
    "asr": (("text",), ("lang",)),
    "tagging": (("label",),),
    "gender": (("label",),),
    "multitag": (("label",),),
    "qa": (("answer",), ("choices",)),
    "caption": (("text", "answer"),),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A prediction and its references."""

    item: str  # names the row within its file
    audio: str
    dataset: str
    model: str
    prediction: str | None  # None: the model gave no answer
    fields: Mapping[str, Any]  # of the task, checked
    where: str  # for messages

    @property
    def answer(self) -> str:
        """The prediction, empty where the model gave none."""
        return self.prediction or ""

    @property
    def question(self) -> str:
        """The question, or the prompt where that is all."""
        return str(self.fields.get("question") or self.fields.get("prompt") or "")

    def texts(self, field: str) -> tuple[str, ...]:
        """A field that holds one text or several."""
        found = self.fields[field]
        return (found,) if isinstance(found, str) else tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """The rows of a file."""

    kind: TaskKind
    rows: tuple[Row, ...]
    sha256: str  # of the file
    origin: str  # for messages

    @property
    def datasets(self) -> list[str]:
        """Names in the file, sorted."""
        return sorted({row.dataset for row in self.rows})

    @property
    def models(self) -> list[str]:
        """Names in the file, sorted."""
        return sorted({row.model for row in self.rows})


def read_predictions(path: str | Path, kind: TaskKind) -> Predictions:
    """Predictions and references of a file.

    Args:
        path: ``.jsonl``.
        kind: of the task, any but ``mecat``; decides which fields are needed.

    Raises:
        DataError: the file is unreadable, has no rows, or a row is damaged, incomplete or duplicated; line named.
    """
    content = read_text(path)
    lines = ((f"{path}, line {number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip())
    rows = ((where, parse_object(line, where)) for where, line in lines)
    return parse_predictions(rows, kind, digest=sha256(content.encode()).hexdigest(), origin=str(path))


def parse_predictions(
    rows: Iterable[tuple[str, Mapping[str, Any]]], kind: TaskKind, *, digest: str, origin: str
) -> Predictions:
    """Predictions and references from the rows of a file, each with its place; otherwise as `read_predictions`."""
    found: list[Row] = []
    first: dict[tuple[str, str, str, str], str] = {}
    for where, fields in rows:
        row = _row(fields, kind, where)
        key = (row.dataset, row.audio, row.question, str(fields.get("order", "")))
        if key in first:
            raise DataError(
                f"{where}: the same data set, audio and question as {first[key]}; expected one answer, leave one of "
                "them out"
            )
        first[key] = where.rpartition(", ")[2]
        found.append(row)
    if not found:
        raise DataError(f"{origin}: has no rows; expected one JSON object a line")
    return Predictions(kind=kind, rows=tuple(_named(found)), sha256=digest, origin=origin)


def _row(fields: Mapping[str, Any], kind: TaskKind, where: str) -> Row:
    prediction = fields.get("model_output")
    if prediction is not None and not isinstance(prediction, str):
        raise DataError(f"{where}: model_output is {shorten(prediction)}, expected text; correct the row")
    for name in ("model_output", "prompt", "text", "label", "question", "choices", "answer"):
        if has_half_pair(fields.get(name)):
            raise DataError(
                f"{where}: {name} is {shorten(fields[name])}, which holds half of a surrogate pair; expected valid "
                "characters, correct the row"
            )
    for names in _FIELDS[kind]:
        present = [name for name in names if fields.get(name) is not None]
        if not present:
            raise DataError(
                f"{where}: has no {' or '.join(names)}, which {kind} needs; is it the file of another task?"
            )
        for name in present:
            _check_field(fields[name], name, kind, where)
    audio, dataset = _text(fields, "audio", where), _text(fields, "dataset_name", where)
    return Row(
        item=audio,
        audio=audio,
        dataset=dataset,
        model=str(fields.get("model_name", "")),
        prediction=prediction,
        fields=fields,
        where=where,
    )


def _check_field(value: Any, name: str, kind: TaskKind, where: str) -> None:
    takes_list = name in ("label", "choices") or (kind == "caption" and name == "text")
    takes_text = name != "choices" and name != "label"
    is_list = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if not (takes_text and isinstance(value, str)) and not (takes_list and is_list):
        kinds = [kind for kind, takes in (("text", takes_text), ("a list of texts", takes_list)) if takes]
        raise DataError(f"{where}: {name} is {shorten(value)}, expected {' or '.join(kinds)}")
    if name == "lang":
        try:
            language_code(value)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    if is_list and not value and name != "choices":
        raise DataError(
            f"{where}: {name} is an empty list, expected at least one text; leave the row out or correct it"
        )


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {name} is {shorten(value)}, expected text that is not empty")
    return value


def _named(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows with different names: the audio alone where that is enough, and the question with it where not."""
    times: dict[str, int] = {}
    for row in rows:
        times[row.audio] = times.get(row.audio, 0) + 1
    for row in rows:
        is_only = times[row.audio] == 1
        order = "" if (turn := row.fields.get("order")) is None else f" · order {turn}"
        yield row if is_only else replace(row, item=f"{row.dataset} · {row.audio} · {row.question}{order}")


# --- of a run


class RunPredictions(NamedTuple):
    """The predictions of a run."""

    files: Mapping[str, bytes]  # contents by name, relative to the folder of the run
    # What reading these files gives, and their place for messages.
    parse: Callable[[str], Predictions | MecatPredictions]


def run_predictions(
    task: LanguageTask, questions: Sequence[Question], replies: Sequence[Reply], *, model_name: str
) -> RunPredictions:
    """The predictions of a model that was given questions.

    Of MECAT the files are those of `auricle.evaluate.mecat.read_mecat_predictions`, and a question without an answer
    has no line; of other tasks they are those of `read_predictions`, and its ``model_output`` is null.
    """
    pairs = list(zip(questions, replies, strict=True))
    if task.kind == "mecat":
        return _mecat_predictions(pairs)
    rows = [_row_of(question, reply, model_name) for question, reply in pairs]
    content = _lines(rows)

    def parse(origin: str) -> Predictions:
        named = ((f"{origin}, line {number}", row) for number, row in enumerate(rows, 1))
        return parse_predictions(named, task.kind, digest=sha256(content).hexdigest(), origin=origin)

    return RunPredictions({ANSWERS: content}, parse)


def _row_of(question: Question, reply: Reply, model_name: str) -> dict[str, Any]:
    first = ("dataset_name", "audio", "prompt")
    return {
        **{name: question.row[name] for name in first},
        "model_output": reply.text,
        "model_name": model_name,
        **{name: value for name, value in question.row.items() if name not in (*first, "model_output", "model_name")},
    }


def _mecat_predictions(pairs: Sequence[tuple[Question, Reply]]) -> RunPredictions:
    texts: dict[str, Any] = {}
    domains: dict[str, dict[str, dict[str, Any]]] = {}
    for question, reply in pairs:
        row = question.row
        entry = domains.setdefault(row["domain"], {}).setdefault(row["id"], {"domain": row["domain"]})
        if question.field:
            entry[question.field] = row["text"]
            if reply.text is not None:
                texts.setdefault(row["id"], {})[question.field] = reply.text
        else:
            entry |= {name: row[name] for name in ("category", "difficulty", "question", "answer")}
            if reply.text is not None:
                texts[row["id"]] = reply.text
    content = _lines({name: text} for name, text in texts.items())

    def parse(origin: str) -> MecatPredictions:
        entries = {domain: (Value(origin, *pair) for pair in own.items()) for domain, own in domains.items()}
        return MecatPredictions(
            references=parse_references(entries, origin),
            texts=merge_texts({"": (Value(origin, *pair) for pair in texts.items())}, {"": origin}),
            sha256={"all": sha256(content).hexdigest()},
            origin=origin,
        )

    references = {domain: _lines({name: entry} for name, entry in own.items()) for domain, own in domains.items()}
    return RunPredictions(
        {ANSWERS: content, **{f"{REFERENCES}/{domain}.jsonl": lines for domain, lines in references.items()}}, parse
    )


def utf8(text: str) -> bytes:
    """Bytes of a text with JSON in it; what UTF-8 cannot hold, as parts of odd file names, becomes JSON's escape."""
    return text.encode("utf-8", "backslashreplace")


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return utf8("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
