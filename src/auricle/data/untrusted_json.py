"""Untrusted JSON: bounded in size, no name twice in an object, no NaN; checked against classes by pydantic.

A class that is read from untrusted JSON derives from `StrictFields`: a frozen dataclass whose annotations are the
format. `validate` refuses unknown and missing fields and values of another type, and names the place of the first.
"""

import errno
import io
import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from auricle.errors import AuricleError, ConfigError, DataError
from auricle.files import read_regular

if TYPE_CHECKING:  # pydantic takes 60 ms to import
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")

MAX_BYTES = 2**30  # of one file
_MAX_LEVELS = 8  # of lists and objects in each other
_MAX_CHARACTERS = 10_000  # of a name or text
_EXPECTED: Mapping[str, str] = {  # by pydantic's type of error; others have it in their message
    "string_type": "text",
    "string_unicode": "valid characters",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "dataclass_type", "model_type", "model_attributes_type"), "an object"
    ),
}


class StrictFields:
    """Base of a dataclass that `validate` reads: exact types, no unknown fields, finite numbers.

    A field that is a tuple needs ``Annotated[tuple[…], pydantic.Strict(False)]``, as JSON has lists alone.
    """

    __slots__ = ()
    __pydantic_config__: ClassVar["ConfigDict"] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let an object of JSON become an instance, which pydantic's strict mode would refuse."""
        schema = handler(source)
        handler.resolve_ref_schema(schema)["strict"] = False
        return schema


def read_text(path: str | Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark; line ends become ``\\n``.

    Raises:
        DataError: absent, larger than ``max_bytes``, or of another encoding.
    """
    try:
        content = read_regular(path, max_bytes)
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(
                f"{path}: more than {max_bytes} bytes, expected at most that; cut the file in parts"
            ) from None
        raise DataError(f"{path}: not readable ({error.strerror or error}); check its name and permissions") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not readable ({error}), expected UTF-8; save it in UTF-8") from None


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """The value of a text.

    Args:
        text: of a file or a line.
        allow_nan: take NaN and infinities, which are not JSON, as numbers.

    Raises:
        ValueError: not JSON, nested too deeply, a name that is given twice in one object, or a constant that is not
            allowed.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=None if allow_nan else _no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_object(text: str, where: str, *, allow_nan: bool = True) -> dict[str, Any]:
    """The JSON object of a line or file; ``where`` names it in messages.

    Raises:
        DataError: it is not one, or a name is given twice in it.
    """
    try:
        found = parse_json(text, allow_nan=allow_nan)
    except ValueError as error:
        raise DataError(f"{where}: no readable JSON ({error}); expected a JSON object, correct it") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: holds {shorten(found)}, expected a JSON object")
    return found


def validate(
    kind: type[T], content: Any, origin: str, *, error: type[AuricleError] = DataError, fix: str = "correct it"
) -> T:
    """An instance of ``kind`` from what `parse_json` gives; ``error`` is raised with ``fix``, what to do about a fault.

    Raises:
        AuricleError: ``error``, with the place, what was found and what was expected. Errors of Auricle that a class
            raises for itself are raised again as ``error``, with the origin.
    """
    from pydantic import ValidationError

    described: Any = kind
    try:
        found: T = _adapter(described).validate_python(content)
        return found
    except ValidationError as fault:
        details = fault.errors(include_url=False)
    except AuricleError as fault:
        raise error(f"{origin}: {fault}") from None
    more = f" ({len(details) - 1} more)" if len(details) > 1 else ""
    raise error(f"{origin}: {_fault(details[0])}{more}; {fix}")


def shorten(value: Any) -> str:
    """Any value for a message, on one line and of bounded length."""
    text = ascii(value[:60]) if isinstance(value, str) else ascii(reprlib.repr(value))[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."


def has_half_pair(value: Any) -> bool:
    """Whether a text, or one anywhere in lists and objects of JSON, holds half of a surrogate pair: no character."""
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, Mapping):
        return any(has_half_pair(name) or has_half_pair(own) for name, own in value.items())
    return isinstance(value, list | tuple) and any(map(has_half_pair, value))


def check_characters(value: Any, name: str, error: type[AuricleError] = ConfigError) -> None:
    """Refuse what is no text, and text that no tokenizer can read; of JSON that is no text, all texts are checked.

    Raises:
        AuricleError: ``error``, with the name of the setting.
    """
    if not isinstance(value, str | Mapping):
        raise error(f"{name} is {shorten(value)}; expected text")
    if has_half_pair(value):
        raise error(f"{name} is {shorten(value)}, which holds half of a surrogate pair; expected valid characters")


def check_plain(max_number: float = 1e15) -> Callable[[Any], Any]:
    """A check of JSON without a format of its own, as settings, for ``pydantic.AfterValidator``: passes a value on.

    ``max_number`` is the largest absolute number. The check raises ValueError.
    """

    def check(value: Any, level: int = 0) -> Any:
        if level > _MAX_LEVELS:
            raise ValueError(f"at most {_MAX_LEVELS} levels")
        if isinstance(value, Mapping):
            for name, own in value.items():
                check(name, level)
                check(own, level + 1)
        elif isinstance(value, list):
            for own in value:
                check(own, level + 1)
        elif isinstance(value, str):
            if len(value) > _MAX_CHARACTERS:
                raise ValueError(f"names and texts of at most {_MAX_CHARACTERS} characters")
            if has_half_pair(value):
                raise ValueError("valid characters")
        elif isinstance(value, int | float):
            if not abs(value) <= max_number:
                raise ValueError(f"numbers of at most {max_number:g}")
        elif value is not None:
            raise ValueError("plain JSON")
        return value

    return check


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _fault(details: "ErrorDetails") -> str:
    where, kind = _place(details["loc"]), details["type"]
    if kind in ("missing", "missing_argument"):
        return f"has no {where}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown field {where}"
    context = details.get("ctx", {})
    expected = str(context["error"]) if "error" in context else _EXPECTED.get(kind) or context.get("expected")
    if expected is None:
        rest = details["msg"].partition(" should ")[2]
        expected = rest.removeprefix("be ") if rest.startswith("be ") else f"to {rest}" if rest else details["msg"]
    return f"{where}{' ' if where else ''}is {shorten(details['input'])}, expected {expected}"


def _place(parts: Sequence[int | str]) -> str:
    found = ""
    for part in parts:
        if isinstance(part, int):
            found += f"[{part}]"
        else:
            plain = part if part.isidentifier() and part.isascii() and len(part) < 60 else shorten(part)
            found += f".{plain}" if found else plain
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")
