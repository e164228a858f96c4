"""The page at `/`: files of this package only, with their types, a content security policy and entity tags."""

from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "ogg": "audio/ogg",
    "svg": "image/svg+xml",
}
# What no directive names falls back to default-src; base-uri, form-action and frame-ancestors do not.
_POLICY = (
    "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # kept by the browser, compared by its tag: never an old script beside a new server
}


def page_routes() -> "list[Route]":
    """Routes of the page: `/`, and each of its files as `/page/NAME`; open, for they hold no secrets.

    Paths within the page are relative, so that it also works below a prefix of a proxy.
    """
    from starlette.routing import Route

    files = {each.name: each.read_bytes() for each in resources.files(__package__).joinpath("page").iterdir()}
    index = files.pop("index.html")
    routes = [Route(f"/page/{name}", _file(content, name.rpartition(".")[2])) for name, content in files.items()]
    return [Route("/", _file(index, "html")), *routes]


def _file(content: bytes, ending: str) -> "Callable[[Request], Awaitable[Response]]":
    from starlette.responses import Response

    headers = {**_HEADERS, "ETag": f'"{sha256(content).hexdigest()[:32]}"'}

    async def send(request: "Request") -> Response:
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if headers["ETag"] in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[ending])

    return send
