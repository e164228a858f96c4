"""Errors in the shape of the OpenAI API: what a client's own classes are made from."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse

from auricle.engine.request import EngineBusy
from auricle.errors import (
    AudioError,
    AuricleError,
    BrokenAudio,
    ClipTooShort,
    ConfigError,
    DataError,
    EndpointError,
    LimitExceeded,
    MissingExtra,
    PromptError,
    UnsupportedFormat,
    visible,
)

_MOST_WAIT_S = 60  # clients stop trying again where they are asked to wait for more than 120 s
_CODES: dict[type[AuricleError], tuple[int, str]] = {  # the first that fits
    LimitExceeded: (413, "limit_exceeded"),
    UnsupportedFormat: (400, "unsupported_format"),
    BrokenAudio: (400, "broken_audio"),
    ClipTooShort: (400, "clip_too_short"),
    AudioError: (400, "audio_error"),
    PromptError: (400, "invalid_prompt"),
    MissingExtra: (400, "not_installed"),
    ConfigError: (400, "invalid_value"),
    DataError: (400, "invalid_data"),
}


class ApiError(Exception):
    """A refusal or failure that is reported to the client."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """State what happened.

        Args:
            status: of HTTP.
            message: what was found, what was expected and how to fix it.
            code: for programs.
            param: the field it is about.
            retry_after_s: after which to try again.
            headers: of the response.
        """
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(min(_MOST_WAIT_S, max(1, math.ceil(retry_after_s))))

    def body(self) -> dict[str, Any]:
        """The object that clients read."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        error = {"message": visible(str(self)), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def refused(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A field that cannot be honoured."""
    return ApiError(400, message, code, param=param)


def fault_of(error: BaseException, param: str | None = None) -> ApiError:
    """Any error as one that the client may see; of one that is not for users it states nothing."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineBusy):
        return ApiError(429, str(error), "overloaded", retry_after_s=1)
    if isinstance(error, EndpointError):
        return _of_upstream(error)
    for kind, (status, code) in _CODES.items():
        if isinstance(error, kind):
            return ApiError(status, str(error), code, param=param)
    if isinstance(error, AuricleError):
        return ApiError(500, str(error), "model_error")
    return ApiError(500, "the server failed on this request; its log says where", "internal_error")


def _of_upstream(error: EndpointError) -> ApiError:
    """An error of the server behind this one, without the place where that is."""
    status, said = getattr(error, "status", 0), getattr(error, "said", "")
    if status == 429:
        return ApiError(429, "the server behind this one has too much to do", "overloaded", retry_after_s=5)
    if said and 400 <= status < 500:
        return ApiError(400, said, "upstream_refused")
    return ApiError(502, "the server behind this one does not answer; try again later", "upstream_failed")
