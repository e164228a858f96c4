"""Around every request: who may ask, how large and how slow it may be, and what is written of it.

Denied by default: a route is open only where it is named here.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders

from auricle.errors import AuricleError
from auricle.serve.faults import ApiError, fault_of
from auricle.serve.jobs import Cancelled
from auricle.serve.keys import find_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from auricle.serve.service import Service

OPEN = frozenset({"/live", "/health", "/"})  # and the files of the page
_PAGE = "/page/"
_CLOSED = 499  # in the log, where the client left before the answer
_POLICY = "default-src 'none'; frame-ancestors 'none'"
log = logging.getLogger("auricle.serve")


class Guard:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send, self.service)
        try:
            with exchange.admitted():
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            await exchange.fail(error)
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
        self._scope, self._receive, self._send, self._service = scope, receive, send, service
        self._headers = Headers(scope=scope)
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._id = self._state["request_id"] = f"req_{uuid4().hex}"
        self._start, self._status, self._has_begun = monotonic(), 0, False
        self._left_bytes, self._is_read = service.settings.max_body_bytes, False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a request in, or raise why not."""
        path, admission = self._scope["path"], self._service.admission
        client = self._state["client"] = self._client(path)
        if not path.startswith("/v1/") or self._scope["method"] != "POST":
            yield
            return
        admission.check()
        _ = self._service.ready  # refused before it is read, where there are no models yet
        size = self._declared_size()
        with admission.reading(client, size) if size else nullcontext():
            yield

    def _client(self, path: str) -> str:
        """The name of the client's key, or its address.

        Raises:
            ApiError: it may not ask.
        """
        settings = self._service.settings
        address = str((self._scope.get("client") or ["unknown"])[0])
        if not settings.keys:
            self._check_origin()
            return address
        if path in OPEN or path.startswith(_PAGE):
            return address
        name = find_key(settings.keys, self._headers.get("authorization"))
        if name is None:
            raise ApiError(
                401,
                "this server needs an API key: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key {name}"

    def _check_origin(self) -> None:
        """Refuse pages of other sites, which reach a server without keys through the browser of its user."""
        host = urlsplit(f"//{self._headers.get('host', '')}").hostname or ""
        known = {each.strip("[]") for each in self._service.settings.hosts}
        origin = self._headers.get("origin")
        from_here = origin is None or urlsplit(origin).netloc == self._headers.get("host")
        if host not in known or not from_here:
            raise ApiError(
                403, "requests of other sites are refused; open this server by its own address", "foreign_site"
            )

    def _declared_size(self) -> int:
        """Bytes of the request, or the most there may be."""
        text = self._headers.get("content-length", "")
        size = int(text) if text.isdecimal() and len(text) < 20 else self._left_bytes
        if size > self._left_bytes:
            raise self._too_large()
        return size

    def _too_large(self) -> ApiError:
        most = self._service.settings.max_body_bytes
        return ApiError(413, f"the request has more than {most:,} bytes; send a shorter clip", "limit_exceeded")

    async def receive(self) -> Message:
        """The next part of the request, which must be small, and come in time."""
        if self._is_read:
            return await self._receive()
        left = self._service.settings.body_s - (monotonic() - self._start)
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except asyncio.TimeoutError:
            self._is_read = True
            raise ApiError(
                408,
                f"the request did not arrive within {self._service.settings.body_s:g} s; send it again",
                "timeout",
                headers={"Connection": "close"},
            ) from None
        if message["type"] == "http.request":
            self._left_bytes -= len(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
            if self._left_bytes < 0:
                error = self._too_large()
                error.headers["Connection"] = "close"
                raise error
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer, with the headers that all have."""
        if message["type"] == "http.response.start":
            self._has_begun, self._status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Content-Security-Policy", _POLICY)
            headers.setdefault("Referrer-Policy", "no-referrer")
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Answer with an error; of what was not foreseen, the log has the place and nothing of the request."""
        if isinstance(error, Cancelled):
            self._status = _CLOSED
            return
        if not isinstance(error, ApiError | AuricleError):
            places = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(f"{each.filename.rpartition('/')[2]}:{each.lineno}" for each in reversed(places))
            log.error("%s %s at %s", self._id, type(error).__name__, where)
        if self._has_begun:
            return
        fault = fault_of(error)
        if fault.status in (408, 413, 429):
            self._service.monitoring.rejected.labels(fault.code).inc()
        await fault.response()(self._scope, self._receive, self.send)

    def end(self) -> None:
        """End the work of a stream, which has nobody to read it any more, and log the request."""
        if (job := self._state.get("job")) is not None:
            job.cancel()
        self._write_log()

    def _write_log(self) -> None:
        """One line about the request: no name, no text, no audio, no address."""
        route = self._scope.get("route")
        place = str(getattr(route, "path", "")) or "unknown"
        taken = monotonic() - self._start
        monitoring = self._service.monitoring
        monitoring.http_requests.labels(place, str(self._status)).inc()
        if self._scope["method"] == "POST":
            monitoring.latency.labels(place).observe(taken)
        retry = self._headers.get("x-stainless-retry-count", "0")
        log.info(
            "%s %s %s %d %.0f ms, %.1f s of audio, retry %s",
            self._id,
            self._scope["method"],
            place,
            self._status,
            1000 * taken,
            self._state.get("audio_s", 0.0),
            retry if retry.isdecimal() and len(retry) < 4 else "0",
        )
