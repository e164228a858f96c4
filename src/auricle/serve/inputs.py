"""Requests → their fields and clips; whichever way a clip comes, the same limits hold."""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip
from auricle.audio.limits import Limits
from auricle.audio.sources import NamedBytes
from auricle.data.untrusted_json import parse_json
from auricle.errors import visible
from auricle.serve.faults import ApiError, refused
from auricle.serve.fetch import fetch

T = TypeVar("T")

_MOST_FIELDS = 256  # of a form
_MOST_NAME = 200  # characters of a file's name
_SHOWN = 60  # characters of a value in a message
_DIGITS = 20  # of a number in a form
_LITTLE = 100_000  # bytes of JSON that are parsed at once, without a thread
_MOST_SCHEMA = 16_000  # characters of a JSON schema, which is compiled


@dataclass(frozen=True, slots=True)
class Upload:
    """A clip as it came, not decoded."""

    name: str  # for messages and receipts; no path
    content: bytes

    @property
    def digest(self) -> bytes:
        """What tells it from others."""
        return sha256(b"\0".join([self.name.encode("utf-8", "backslashreplace"), self.content])).digest()

    @property
    def format(self) -> str:
        """What the end of its name says."""
        return self.name.rpartition(".")[2]

    def decode(self, limits: Limits) -> Clip:
        """Decode it within limits.

        Raises:
            AudioError: it cannot be read, or is larger, longer, faster or wider than the limits allow.
        """
        return as_clip(NamedBytes(self.name, self.content), limits=limits)


def label(name: str | None) -> str:
    """A client's name for a file, without its folders."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return visible(last)[-_MOST_NAME:] or "audio"


class Fields:
    """The fields of a request, taken one by one; what nobody takes is refused."""

    def __init__(self, values: Mapping[str, Any], *, is_form: bool = False) -> None:
        """``values``: of a JSON object, or lists of texts of a form."""
        self._left, self._is_form = dict(values), is_form

    def take(self, name: str) -> Any:
        """The value of a field, None where it is absent; of a form the only text."""
        value = self._left.pop(name, None)
        if self._is_form and isinstance(value, list):
            if len(value) > 1:
                raise refused(name, f"{name} is given {len(value)} times; expected once")
            return value[0]
        return value

    def text(self, name: str, default: str | None = None, among: Collection[str] | None = None) -> Any:
        """A text, or one among a few."""
        value = self.take(name)
        if value is None or (value == "" and self._is_form):
            return default
        if not isinstance(value, str):
            raise refused(name, f"{name} is {_shown(value)}; expected text")
        if among is not None and value not in among:
            raise refused(name, f"{name} is {_shown(value)}; expected one of {', '.join(among)}")
        return value

    def texts(self, name: str) -> list[str]:
        """Several texts: a list, or one."""
        value = self._left.pop(name, None)
        listed = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in listed):
            raise refused(name, f"{name} is {_shown(value)}; expected text, or a list of texts")
        return listed

    def number(
        self, name: str, default: Any = None, *, least: float = -math.inf, most: float = math.inf, whole: bool = False
    ) -> Any:
        """A number in a range."""
        value = self.take(name)
        if value is None or (value == "" and self._is_form):
            return default
        if self._is_form and isinstance(value, str) and len(value) <= _DIGITS:
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                pass
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            ends = [f"{word} {end:g}" for word, end in (("from", least), ("to", most)) if math.isfinite(end)]
            raise refused(name, f"{name} is {_shown(value)}; expected {' '.join([kind, *ends])}")
        return value

    def flag(self, name: str) -> bool:
        """Whether a field is true; absent is false."""
        value = self.take(name)
        if self._is_form and isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False, "": False}.get(value.lower(), value)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise refused(name, f"{name} is {_shown(value)}; expected true or false")

    def ignore(self, *names: str) -> None:
        """Leave out fields that have no bearing on the answer."""
        for name in names:
            self._left.pop(name, None)

    def refuse(self, why: str, *names: str) -> None:
        """Refuse fields, unless they are empty, null, 0 or false."""
        for name in names:
            if self._left.pop(name, None):
                raise refused(name, f"{name}: {why}", "unsupported_parameter")

    def finish(self) -> None:
        """Refuse what is left: what is not understood is not ignored."""
        for name in self._left:
            raise refused(
                visible(name)[:_SHOWN],
                f"{_shown(name)} is no parameter of this route; leave it out",
                "unknown_parameter",
            )


async def read_json(request: Request, in_pool: Callable[..., Any]) -> dict[str, Any]:
    """The JSON object of a request, parsed in a thread.

    Raises:
        ApiError: it is none.
    """
    body = await request.body()

    def parse() -> Any:
        try:
            return parse_json(body.decode())
        except ValueError as error:
            raise ApiError(400, f"the request is no JSON ({_shown(str(error))})", "invalid_json") from None

    found = parse() if len(body) < _LITTLE else await in_pool(parse)
    if not isinstance(found, dict):
        raise ApiError(400, "the request is no JSON object; expected {…}", "invalid_json")
    return found


async def read_form(request: Request, limits: Limits) -> tuple[Fields, Upload | None]:
    """The fields of a form, and its file.

    Raises:
        ApiError: no form, or more than one file; 413 where it is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise ApiError(415, "expected a form: Content-Type multipart/form-data, with the clip as file", "invalid_form")
    values: dict[str, list[str]] = {}
    upload: Upload | None = None
    try:
        async with request.form(max_files=2, max_fields=_MOST_FIELDS) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    values.setdefault(name, []).append(value)
                elif name != "file" or upload is not None:
                    raise refused("file", "expected one file, in the field file")
                else:
                    limits.check_bytes(label(value.filename), value.size or 0)
                    upload = Upload(label(value.filename), await value.read())
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read ({_shown(error.detail)})", "invalid_form") from None
    return Fields(values, is_form=True), upload


def needed(upload: Upload | None) -> Upload:
    """The file of a form that must have one."""
    if upload is None:
        raise refused("file", "there is no file; send the clip in the field file", "missing_file")
    return upload


def audio_part(part: Mapping[str, Any], param: str, limits: Limits, hosts: Collection[str]) -> Upload:
    """The clip of a content part: ``input_audio`` with base64, or ``audio_url`` with a data: or https: URL.

    Raises:
        ApiError: no such part, wrong base64, or a URL that is not allowed.
        LimitExceeded: too many bytes.
    """
    kind = part["type"]
    inner = part.get(kind)
    place = f"{param}.{kind}"
    if not isinstance(inner, Mapping):
        raise refused(place, f"{place} is {_shown(inner)}; expected an object")
    if kind == "input_audio":
        if not isinstance(inner.get("format", ""), str):
            raise refused(f"{place}.format", "expected the name of a format, as wav or mp3")
        return Upload(param, _bytes(inner.get("data"), f"{place}.data", limits))
    url = inner.get("url")
    if not isinstance(url, str):
        raise refused(f"{place}.url", f"{place}.url is {_shown(url)}; expected a URL")
    if url[:5].lower() == "data:":
        head, comma, data = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise refused(f"{place}.url", "expected data:audio/…;base64, and the audio", "invalid_base64")
        return Upload(param, _bytes(data, f"{place}.url", limits))
    return Upload(param, fetch(url, hosts, limits, f"{place}.url"))


def _bytes(data: Any, param: str, limits: Limits) -> bytes:
    """Decode base64 of a bounded size."""
    if not isinstance(data, str) or not data:
        raise refused(param, f"{param} is {_shown(data)}; expected audio in base64")
    limits.check_bytes(param, len(data) // 4 * 3 - 2)
    try:
        return b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        hint = "; leave out the prefix in front of the comma" if data[:5].lower() == "data:" else ""
        raise refused(param, f"{param} is no base64{hint}", "invalid_base64") from None


def parts_of(content: Any, param: str) -> Sequence[Mapping[str, Any]]:
    """Content as a list of parts; a text is one part.

    Raises:
        ApiError: something else.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(
        isinstance(each, dict) and isinstance(each.get("type"), str) for each in content
    ):
        return content
    raise refused(param, f"{param} is {_shown(content)}; expected text, or a list of parts with a type each")


def check_schema(schema: Any, param: str) -> dict[str, Any]:
    """A JSON schema of a bounded size.

    Raises:
        ApiError: it is none, or too large.
    """
    if not isinstance(schema, dict):
        raise refused(param, f"{param} has {_shown(schema)} for a JSON schema; expected an object")
    if len(dumps(schema)) > _MOST_SCHEMA:
        raise refused(param, f"the JSON schema has more than {_MOST_SCHEMA:,} characters; expected a smaller one")
    return schema


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
