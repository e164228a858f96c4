"""Shapes that several routes give: streams, records as the command line prints them, receipts in headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import StreamingResponse

from auricle.errors import AuricleError
from auricle.listen.outputs import record_of
from auricle.serve.faults import refused
from auricle.serve.status_routes import capabilities_of, unknown_model

if TYPE_CHECKING:
    from auricle.encode.aligner import Aligner
    from auricle.encode.receipt import Receipt
    from auricle.listen.model import AudioLM
    from auricle.listen.outputs import Output
    from auricle.serve.service import Models

T = TypeVar("T")

_MOST_HEADER = 4096  # bytes of a receipt in a header


def pick_audio_lm(models: Models, name: str | None, use: str) -> AudioLM:
    """The audio language model of a name, or where there is none the first that can do it.

    Raises:
        ApiError: unknown, or it cannot do this.
    """
    if name is None:
        able = [each for each in models.audio_lms.values() if use in capabilities_of(each)]
        if not able:
            raise refused("model", f"no model of this server can do this: {use}", "model_cannot")
        return able[0]
    if name not in models.audio_lms:
        if models.aligner is not None and name == models.aligner_name:
            raise refused("model", f"{name} compares audio with words; it cannot do this: {use}", "model_cannot")
        raise unknown_model(name, models)
    model = models.audio_lms[name]
    if use not in capabilities_of(model):
        raise refused("model", f"{name} cannot do this: {use}", "model_cannot")
    return model


def pick_aligner(models: Models, name: str | None) -> Aligner:
    """The model that compares audio with words.

    Raises:
        ApiError: unknown, or it cannot do this.
    """
    if models.aligner is not None and name in (None, models.aligner_name):
        return models.aligner
    if name is not None and name not in models.audio_lms:
        raise unknown_model(name, models)
    raise refused("model", "this needs a model that compares audio with words, see --align-model", "model_cannot")


def only(found: Iterable[T | AuricleError]) -> T:
    """The one result, or its error."""
    (result,) = found
    if isinstance(result, AuricleError):
        raise result
    return result


def record(key: str, name: str, result: Output, model: AudioLM, device: str) -> dict[str, Any]:
    """A result as ``auricle VERB --json`` prints it."""
    return file_record(name, record_of(key, result), result.receipt, model.model, device)


def file_record(name: str, entries: dict[str, Any], receipt: Receipt, model: str, device: str) -> dict[str, Any]:
    """A record of one file."""
    stated = {"receipt": receipt.as_dict(), "model": model, "device": device}
    return {"file": name, **entries, **stated, "error": None}


def receipt_header(receipt: dict[str, Any]) -> dict[str, str]:
    """The receipt for answers that have no room for it; without its lists where it is too long."""
    text = json.dumps(receipt)
    if len(text) > _MOST_HEADER:
        text = json.dumps({key: value for key, value in receipt.items() if not isinstance(value, list)})
    return {"X-Auricle-Receipt": text}


def event_stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """Server-sent events, which no proxy should hold back."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text without white space around the whole: what is streamed is what is given at once."""
    held, has_begun = "", False
    for piece in pieces:
        held += piece
        if not has_begun:
            held = held.lstrip()
        body = held.rstrip()
        if body:
            has_begun = True
            yield body
            held = held[len(body) :]
