"""Routes about the server itself: live, health, metrics, and its models."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auricle.listen.other_models.prompted import PromptedLM
from auricle.listen.other_models.whisper import Whisper
from auricle.serve.faults import ApiError
from auricle.serve.monitoring import CONTENT_TYPE

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM
    from auricle.serve.service import Models, Service


def status_routes(service: Service) -> list[Route]:
    """The routes of a service."""

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def health(request: Request) -> Response:
        state = "ok" if service.is_ready else "loading" if service.models is None else "draining"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    async def metrics(request: Request) -> Response:
        service.monitoring.waiting_s.set(service.admission.wait_s())
        service.monitoring.real_time_factor.set(service.admission.factor)
        return Response(service.monitoring.text(), media_type=CONTENT_TYPE)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(_cards(service).values())})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        found = _cards(service).get(name)
        if found is None:
            raise unknown_model(name, service.ready)
        return JSONResponse(found)

    return [
        Route("/live", live),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def capabilities_of(model: AudioLM) -> list[str]:
    """What an audio language model can be asked for."""
    if isinstance(model, Whisper):
        return ["transcriptions"]
    return [*([] if isinstance(model, PromptedLM) else ["chat"]), "describe", "ask", "transcriptions"]


def unknown_model(name: str, models: Models) -> ApiError:
    """The error of a name that is none."""
    known = ", ".join([*models.audio_lms, *([models.aligner_name] if models.aligner else [])])
    return ApiError(404, f"there is no model {name[:80]!r}; this server has {known}", "model_not_found", param="model")


def _cards(service: Service) -> dict[str, dict[str, Any]]:
    models = service.ready
    shared = {
        "created": service.started,
        "max_seconds": service.settings.limits.max_seconds,
        "device": models.device,
    }
    cards = {}
    for name, model in models.audio_lms.items():
        identity = {} if isinstance(model, Whisper | PromptedLM) else model.loaded.identity
        own = {
            "max_audio_s": model.max_audio_s,
            "capabilities": capabilities_of(model),
            "verb_limits": model.verb_limits,
            "confidence": {**asdict(model.calibration), "unsure_below": model.unsure_below},
        }
        cards[name] = {**_card(name, identity), **shared, **own}
    if models.aligner is not None:
        able = ["embeddings", "score", "classify", *(["search"] if models.index else [])]
        identity = models.aligner.loaded.identity
        cards[models.aligner_name] = {**_card(models.aligner_name, identity), **shared, "capabilities": able}
    return cards


def _card(name: str, identity: Any) -> dict[str, Any]:
    from auricle.weights.catalog import entries

    licence = next((each.license for each in entries() if name.lower() in (each.name, (each.repo or "").lower())), None)
    owner = name.partition("/")[0] if "/" in name and not name.startswith(("/", ".")) else "auricle"
    return {"id": name, "object": "model", "owned_by": owner, "licence": licence, "sha256": identity.get("sha256")}
