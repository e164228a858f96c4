"""``/v1/embeddings``: texts and clips as vectors in one space."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auricle.serve.faults import refused
from auricle.serve.inputs import Fields, Upload, audio_part, read_json
from auricle.serve.replies import only, pick_aligner

if TYPE_CHECKING:
    from auricle.audio.facts import Clip
    from auricle.encode.aligner import Aligner
    from auricle.serve.jobs import Job
    from auricle.serve.service import Models, Service
    from auricle.serve.settings import Settings

_MOST_INPUTS, _MOST_KEPT = 256, 16


def embedding_routes(service: Service) -> list[Route]:
    """The route of a service."""

    async def embeddings(request: Request) -> Response:
        fields = await read_json(request, service.in_pool)
        found = await service.in_pool(_read, Fields(fields), service.ready, service.settings)
        aligner, inputs, uploads, as_floats = found
        work = partial(embed, aligner, inputs)
        # Many vectors are not kept, for want of memory.
        decided = ["embed", service.ready.aligner_name, inputs] if len(inputs) <= _MOST_KEPT else None
        vectors, usage, stated = await service.answer(request, uploads, work, decided)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, as_floats)}
            for index, vector in enumerate(vectors)
        ]
        name = service.ready.aligner_name
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage, "auricle": stated})

    return [Route("/v1/embeddings", embeddings, methods=["POST"])]


def _read(fields: Fields, models: Models, settings: Settings) -> tuple[Aligner, list[str | int], list[Upload], bool]:
    """The model, the texts and numbers of clips, the clips, and whether vectors are wanted as lists.

    Raises:
        ApiError: a field cannot be honoured.
    """
    aligner = pick_aligner(models, fields.text("model"))
    given = fields.take("input")
    listed = given if isinstance(given, list) else [given]
    if not listed or len(listed) > _MOST_INPUTS:
        raise refused("input", f"there are {len(listed)} inputs; expected 1 to {_MOST_INPUTS}")
    inputs: list[str | int] = []
    uploads: list[Upload] = []
    for number, each in enumerate(listed):
        inputs.append(_input(each, f"input[{number}]", uploads, settings))
    if len(uploads) > settings.max_clips:
        raise refused("input", f"there are {len(uploads)} clips; the limit is {settings.max_clips}")
    if sum(len(each) for each in inputs if isinstance(each, str)) > settings.max_prompt_chars:
        raise refused("input", f"the texts have more than {settings.max_prompt_chars:,} characters")
    as_floats = fields.text("encoding_format", "float", ("float", "base64")) == "float"
    if fields.number("dimensions", None, least=1, whole=True) not in (None, aligner.embedding_dim):
        raise refused(
            "dimensions", f"vectors of this model have {aligner.embedding_dim} dimensions, and cannot be cut shorter"
        )
    fields.ignore("user")
    fields.finish()
    return aligner, inputs, uploads, as_floats


def _input(value: Any, place: str, uploads: list[Upload], settings: Settings) -> str | int:
    if isinstance(value, str):
        return value
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind in ("input_audio", "audio_url"):
        uploads.append(audio_part(value, place, settings.limits, settings.url_hosts))
        return len(uploads) - 1
    if kind == "text" and isinstance(value.get("text"), str):
        return str(value["text"])
    raise refused(place, "expected a text, or a part of type text, input_audio or audio_url; token ids are not taken")


def embed(
    aligner: Aligner, inputs: list[str | int], job: Job, clips: list[Clip]
) -> tuple[list[Any], dict[str, int], dict[str, Any]]:
    """Embed texts and clips, each alone, so that no other changes a bit of its vector.

    Returns:
        A vector (D,) float32 for each input, the tokens, and the receipts of the clips.
    """
    noted: list[str] = []
    words = [job.call(partial(_embed_text, aligner, each, noted)) for each in inputs if isinstance(each, str)]
    found = [job.call(partial(_embed_clip, aligner, clip)) for clip in clips]
    num_tokens = sum(count for _, count in words)
    audio_tokens = sum(each.receipt.audio_tokens for each in found)
    usage = {"prompt_tokens": num_tokens + audio_tokens, "total_tokens": num_tokens + audio_tokens}
    vectors = iter([vector for vector, _ in words])
    ordered = [next(vectors) if isinstance(each, str) else found[each].values.numpy() for each in inputs]
    return ordered, usage, {"receipts": [each.receipt.as_dict() for each in found], "warnings": noted}


def _embed_text(aligner: Aligner, text: str, noted: list[str]) -> tuple[Any, int]:
    with warnings.catch_warnings(record=True) as caught:  # a text that is cut
        warnings.simplefilter("always")
        vector = aligner.text([text])[0].numpy()
        count = 0 if aligner.tokenizer is None else len(aligner.tokenizer.encode([text])[0])
    noted += dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning)
    return vector, count


def _embed_clip(aligner: Aligner, clip: Clip) -> Any:
    return only(aligner.audio_many([clip]))


def _written(vector: Any, as_floats: bool) -> Any:
    """A vector as a list, or as base64 of little-endian float32."""
    values = np.asarray(vector, dtype="<f4")
    return values.tolist() if as_floats else base64.b64encode(values.tobytes()).decode()
