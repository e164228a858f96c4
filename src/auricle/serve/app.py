"""The application: all routes behind the guard."""

from __future__ import annotations

from importlib import import_module, resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from auricle.errors import MissingExtra

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from auricle.serve.service import Service
    from auricle.serve.settings import Settings


def create_app(settings: Settings | None = None, models: Any = None) -> ASGIApp:
    """Make an ASGI application.

    Args:
        settings: limits and budgets; None: those of a server for this machine alone.
        models: what it serves, an `auricle.serve.service.Models`; None: they come later, by the `serve` of its
            ``service``, and until then it answers that it is loading.

    Returns:
        The application; its attribute ``service`` is its state.

    Raises:
        MissingExtra: the packages of the extra ``serve`` are not installed.
    """
    check_extra()
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException

    from auricle.errors import AuricleError
    from auricle.serve.faults import ApiError, fault_of
    from auricle.serve.guard import Guard
    from auricle.serve.service import Service
    from auricle.serve.settings import Settings

    service = Service(settings or Settings())
    if models is not None:
        service.serve(models)

    async def failed(request: Any, error: Exception) -> Any:
        return fault_of(error).response()

    async def of_http(request: Any, error: Any) -> Any:
        what = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        message = f"{request.method} {request.url.path[:100]}: {error.detail}"
        return ApiError(error.status_code, message, what, headers=error.headers).response()

    handlers: dict[Any, Any] = {ApiError: failed, AuricleError: failed, HTTPException: of_http, Exception: failed}
    return Guard(Starlette(routes=_routes(service), exception_handlers=handlers), service)


def check_extra() -> None:
    """Raise `MissingExtra` where the packages of the extra ``serve`` are not installed."""
    if any(find_spec(name) is None for name in ("prometheus_client", "python_multipart", "starlette", "uvicorn")):
        raise MissingExtra("a server", "serve")


def _routes(service: Service) -> list[BaseRoute]:
    from auricle.serve.chat import chat_routes
    from auricle.serve.embeddings import embedding_routes
    from auricle.serve.native import native_routes
    from auricle.serve.status_routes import status_routes
    from auricle.serve.transcriptions import transcription_routes

    routes: list[BaseRoute] = [
        *status_routes(service),
        *chat_routes(service),
        *transcription_routes(service),
        *embedding_routes(service),
        *native_routes(service),
    ]
    if resources.files("auricle.serve").joinpath("page").is_dir():
        routes += import_module("auricle.serve.page").page_routes()
    return routes
