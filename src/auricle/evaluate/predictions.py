"""Answers of a model to a test set, as files: one JSON object a line, reference and answer side by side.

Every row: ``dataset_name, audio, prompt, model_output, model_name``. Further, by task:

========  ==========================================================================================================
asr       ``text``, ``lang``
tagging   ``label``, a list of one; the same for gender
multitag  ``label``, a list
qa        ``answer`` (a letter, or the text of a choice), ``choices`` (texts, may be none), ``question``
caption   ``text``, one or a list; open questions: ``question``, ``answer``
========  ==========================================================================================================

Source: the files in ``evaluate/jsonl`` of github.com/xiaomi-research/dasheng-lm. A row that is damaged, stands twice or
has no answer is an error that names it: nothing is ever left out in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from auricle.data.untrusted_json import parse_json, shorten
from auricle.errors import DataError

LinesTask: TypeAlias = Literal["asr", "tagging", "gender", "multitag", "qa", "caption"]
Missing: TypeAlias = Literal["error", "worst"]

MAX_BYTES = 2**30  # of one file
_FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = {  # of each group one must be there
    "asr": (("text",), ("lang",)),
    "tagging": (("label",),),
    "gender": (("label",),),
    "multitag": (("label",),),
    "qa": (("answer",), ("choices",)),
    "caption": (("text", "answer"),),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One answer and what it should have been."""

    item: str  # names the row within its file
    audio: str
    dataset: str
    model: str
    said: str  # by the model; empty where it gave no answer
    fields: Mapping[str, Any]  # of the task, checked

    def texts(self, field: str) -> tuple[str, ...]:
        """A field that holds one text or several."""
        found = self.fields[field]
        return (found,) if isinstance(found, str) else tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """A file of them."""

    rows: tuple[Row, ...]
    sha256: str  # of the file
    unanswered: int  # rows whose answer is absent and was taken as empty

    @property
    def datasets(self) -> list[str]:
        """Names in the file, sorted."""
        return sorted({row.dataset for row in self.rows})

    @property
    def models(self) -> list[str]:
        """Names in the file, sorted."""
        return sorted({row.model for row in self.rows})


def read_predictions(path: str | Path, task: LinesTask, *, missing: Missing = "error") -> Predictions:
    """Answers and references of a file.

    Args:
        path: ``.jsonl``.
        task: decides which fields must be there.
        missing: what to do with a row whose ``model_output`` is absent or null: refuse the file, or take the answer as
            empty, which is as bad as an answer can be.

    Raises:
        DataError: the file is unreadable, has no rows, or a row is damaged, incomplete or stands twice; line named.
    """
    content = read_bounded(path)
    found: list[tuple[tuple[str, str, str], Row]] = []
    first: dict[tuple[str, str, str], int] = {}
    unanswered = 0
    for number, fields in _objects(content, path):
        where = f"{path}, line {number}"
        said = fields.get("model_output")
        if said is None and missing == "worst":
            said, unanswered = "", unanswered + 1
        if not isinstance(said, str):
            raise DataError(
                f"{where}: model_output is {shorten(said)}, expected text; answer the row, or count it as wrong with "
                "missing answers taken as worst"
            )
        _check_fields(fields, task, where)
        audio, dataset = _text(fields, "audio", where), _text(fields, "dataset_name", where)
        asked = str(fields.get("question") or fields.get("prompt") or "")
        key = (dataset, audio, asked)
        if key in first:
            raise DataError(
                f"{where}: the same data set, audio and question as line {first[key]}; expected one answer, leave one "
                "of them out"
            )
        first[key] = number
        model = str(fields.get("model_name", ""))
        row = Row(item=audio, audio=audio, dataset=dataset, model=model, said=said, fields=fields)
        found.append((key, row))
    if not found:
        raise DataError(f"{path}: has no rows; expected one JSON object a line")
    return Predictions(
        rows=tuple(_named(found)), sha256=sha256(content.encode("utf-8")).hexdigest(), unanswered=unanswered
    )


def read_bounded(path: str | Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        DataError: absent, too large or of another encoding.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}; cut the file in parts")
        # A byte-order mark, as some editors set it, is no part of the first field.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable ({error}); expected a file in UTF-8") from None


def read_line(line: str, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        DataError: it is none, or a name stands in it twice.
    """
    try:
        found = parse_json(line, allow_nan=True)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no readable JSON ({error}); correct the line") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: holds {shorten(found)}, expected a JSON object")
    return found


def _objects(content: str, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, read_line(line, f"{path}, line {number}")


def _check_fields(fields: Mapping[str, Any], task: LinesTask, where: str) -> None:
    for names in _FIELDS[task]:
        present = [name for name in names if fields.get(name) is not None]
        if not present:
            raise DataError(
                f"{where}: has no {' or '.join(names)}, which {task} needs; is it the file of another task?"
            )
        for name in present:
            _check_field(fields[name], name, task, where)


def _check_field(value: Any, name: str, task: LinesTask, where: str) -> None:
    takes_list = name in ("label", "choices") or (task == "caption" and name == "text")
    takes_text = name != "choices" and name != "label"
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not (takes_text and isinstance(value, str)) and not (takes_list and is_list):
        kinds = [kind for kind, takes in (("text", takes_text), ("a list of texts", takes_list)) if takes]
        raise DataError(f"{where}: {name} is {shorten(value)}, expected {' or '.join(kinds)}")
    if is_list and not value and name != "choices":
        raise DataError(
            f"{where}: {name} is an empty list, expected at least one text; leave the row out or correct it"
        )


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {name} is {shorten(value)}, expected text that is not empty")
    return value


def _named(found: Sequence[tuple[tuple[str, str, str], Row]]) -> Iterator[Row]:
    """Rows whose names differ: the audio alone where that is enough, and the question with it where not."""
    times: dict[str, int] = {}
    for _, row in found:
        times[row.audio] = times.get(row.audio, 0) + 1
    for (dataset, audio, asked), row in found:
        item = audio if times[audio] == 1 else f"{dataset} · {audio} · {asked}"
        yield Row(item=item, audio=audio, dataset=dataset, model=row.model, said=row.said, fields=row.fields)


LINES_TASKS: tuple[str, ...] = get_args(LinesTask)
