"""Requests to an OpenAI-compatible server: sent again where that helps, counted, and never more than allowed.

A request is sent again after a lost connection and the status codes 408, 409, 425, 429 and from 500 on, with growing
pauses or the pause that the server asks for; any other refusal is final. 429 also halves the number of requests at
once, which grows again with each success. Redirects are not followed, for they would carry the key to another server.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NoReturn
from uuid import uuid4

from auricle import __version__
from auricle.data.untrusted_json import parse_object
from auricle.errors import BudgetSpent, DataError, EndpointError, visible
from auricle.listen.other_models.endpoint_settings import KEY_VARIABLE, EndpointSettings, read_key

_AGAIN = frozenset({408, 409, 425, 429})  # status codes of a passing trouble, besides those from 500 on
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0  # doubled with each attempt
_MOST_ASKED_S = 120.0  # longest pause that a server may ask for
_MOST_REPLY = 2**24  # bytes
_SHOWN = 300  # characters of a server's message
_LIMITED, _FORBIDDEN = 429, (401, 403)


class Refused(EndpointError):
    """A server refused one request for good; others may be answered."""

    def __init__(self, message: str, status: int = 0, *, said: str = "", code: str = "") -> None:
        """State the HTTP status, and what the server said, in words and as a code, where these are known."""
        super().__init__(message)
        self.status, self.said, self.code = status, said, code


@dataclass(kw_only=True)
class Spent:
    """What a server was asked for by this process."""

    requests: int = 0  # with those that failed
    failed: int = 0  # of them, which were sent again or given up
    kept: int = 0  # replies of earlier requests that were used again
    audio_s: float = 0.0  # seconds of audio sent
    wait_s: float = 0.0  # seconds between requests and their replies, summed
    input_tokens: int = 0  # as the server states them
    output_tokens: int = 0
    usd: float = 0.0  # by the prices given

    def line(self) -> str:
        """In words."""
        failed = f", {self.failed} of them failed" if self.failed else ""
        kept = f", {self.kept} replies kept from before" if self.kept else ""
        money = f", ${self.usd:.4f}" if self.usd else ""
        tokens = f"{self.input_tokens} tokens in and {self.output_tokens} out"
        return (
            f"{self.requests} requests{failed}{kept}: {self.audio_s:.1f} s of audio, {tokens}, {self.wait_s:.1f} s of "
            f"waiting{money}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


class Endpoint:
    """A server at a base URL; any number of threads may use it."""

    def __init__(self, url: str, settings: EndpointSettings) -> None:
        """Nothing is sent yet.

        Raises:
            ConfigError: the key cannot be read.
        """
        self.url, self.settings, self.spent = url, settings, Spent()
        self._key = read_key(settings, url)
        self._gate, self._lock = _Gate(settings.concurrency), threading.Lock()
        self._open = urllib.request.build_opener(_NoRedirect).open

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path; free of charge, but for the request."""
        return self._exchange(path, None, {}, 0.0)

    def chat(self, body: Mapping[str, Any], audio_s: float) -> dict[str, Any]:
        """The reply of ``/chat/completions``.

        Args:
            body: of the request.
            audio_s: seconds of audio in it.

        Raises:
            Refused: this request is refused, and others may not be.
            BudgetSpent: it would be more than is allowed.
            EndpointError: no server answers, or it takes no requests at all.
        """
        content = json.dumps(body, ensure_ascii=False).encode()
        return self._exchange("/chat/completions", content, {"Content-Type": "application/json"}, audio_s)

    def transcribe(self, fields: Mapping[str, str], wav: bytes, audio_s: float) -> dict[str, Any]:
        """The reply of ``/audio/transcriptions``; arguments and errors as `chat`, and the clip as a file."""
        return self.upload("/audio/transcriptions", fields, "clip.wav", wav, audio_s)

    def upload(
        self, path: str, fields: Mapping[str, Any], name: str, data: bytes, audio_s: float = 0.0
    ) -> dict[str, Any]:
        """The reply to a form with a file; lists are repeated fields, and fields of None or False are left out."""
        boundary = uuid4().hex
        flat = [
            (key, each) for key, value in fields.items() for each in (value if isinstance(value, list) else [value])
        ]
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{_written(value)}\r\n'.encode()
            for key, value in flat
            if value is not None and value is not False
        ]
        shown = name.encode(errors="replace").decode().translate({ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"})
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n'
        kind = "audio/wav" if name.endswith(".wav") else "application/octet-stream"
        parts += [head.encode(), f"Content-Type: {kind}\r\n\r\n".encode(), data, f"\r\n--{boundary}--\r\n".encode()]
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._exchange(path, b"".join(parts), headers, audio_s)

    def _exchange(self, path: str, content: bytes | None, headers: Mapping[str, str], audio_s: float) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, data=content, method="GET" if content is None else "POST")
        own = {"User-Agent": f"auricle/{__version__}", "Accept": "application/json", **headers}
        if self._key is not None:
            own["Authorization"] = f"Bearer {self._key}"
        for name, value in own.items():
            request.add_header(name, value)
        for attempt in range(self.settings.attempts):
            try:
                with self._gate.place():
                    found = self._send(request, audio_s)
            except _Passing as trouble:
                self._gate.note(limited=trouble.status == _LIMITED)
                if attempt == self.settings.attempts - 1:
                    self._give_up(path, trouble)
                time.sleep(_pause(attempt, trouble.retry_after_s))
                continue
            self._gate.note(limited=False)
            return found
        raise AssertionError("there is at least one attempt")

    def _send(self, request: urllib.request.Request, audio_s: float) -> dict[str, Any]:
        self._take(audio_s)
        start = time.monotonic()
        try:
            with self._open(request, timeout=self.settings.timeout_s) as reply:
                raw = reply.read(_MOST_REPLY + 1)
        except urllib.error.HTTPError as error:
            with error:
                self._count_failed()
                self._refuse(request.full_url, error)
        except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
            self._count_failed()
            raise _Passing(self._shown(f"{type(error).__name__}: {getattr(error, 'reason', error)}")) from None
        finally:
            with self._lock:
                self.spent.wait_s += time.monotonic() - start
        try:
            if len(raw) > _MOST_REPLY:
                raise DataError("too long")
            found = parse_object(raw.decode(), "the reply")
        except (DataError, UnicodeDecodeError) as error:  # what a proxy says, or a reply cut short
            self._count_failed()
            raise _Passing(f"no readable reply ({str(error)[:_SHOWN]})") from None
        self._count(found)
        return found

    def _take(self, audio_s: float) -> None:
        """Count a request before it is sent.

        Raises:
            BudgetSpent: it would be more than is allowed.
        """
        allowed, spent = self.settings, self.spent
        with self._lock:
            after_s, usd = (
                spent.audio_s + audio_s,
                allowed.usd_per_request + allowed.usd_per_audio_minute * audio_s / 60,
            )
            limits = (
                ("budget_requests", allowed.budget_requests, spent.requests + 1),
                ("budget_audio_s", allowed.budget_audio_s, after_s),
                ("budget_usd", allowed.budget_usd, spent.usd + usd),
            )
            for name, most, wanted in limits:
                if most is not None and wanted > most:
                    raise BudgetSpent(
                        f"{self.url}: the next request would make {wanted:g} of {name} {most:g}; raise it to go on, "
                        "answers so far are kept where there is a cache"
                    )
            spent.requests, spent.audio_s, spent.usd = spent.requests + 1, after_s, spent.usd + usd

    def _count_failed(self) -> None:
        with self._lock:
            self.spent.failed += 1

    def _count(self, found: Mapping[str, Any]) -> None:
        usage = found.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        taken = _tokens(usage, "prompt_tokens", "input_tokens"), _tokens(usage, "completion_tokens", "output_tokens")
        with self._lock:
            self.spent.input_tokens += taken[0]
            self.spent.output_tokens += taken[1]
            self.spent.usd += self.settings.token_usd(*taken)
        is_free = "choices" not in found and "text" not in found
        if self.settings.budget_usd is not None and self.settings.has_token_prices and not any(taken) and not is_free:
            raise EndpointError(
                f"{self.url}: the server states no tokens, so that budget_usd cannot be kept; give usd_per_request or "
                "usd_per_audio_minute instead of prices of tokens"
            )

    def _refuse(self, url: str, error: urllib.error.HTTPError) -> NoReturn:
        said, code = self._said(error)
        text = f"{url}: {error.code} {said}"
        if error.code in _AGAIN or error.code >= 500:
            raise _Passing(
                f"{error.code} {said}", status=error.code, retry_after_s=_retry_after(error.headers)
            ) from None
        if error.code in _FORBIDDEN:
            raise EndpointError(f"{text}; give the key in {KEY_VARIABLE}, or in a file named by api_key_file") from None
        raise Refused(text, error.code, said=said, code=code) from None

    def _said(self, error: urllib.error.HTTPError) -> tuple[str, str]:
        """The message of a server on one line, without the key, which it may repeat; and its code."""
        code = ""
        try:
            raw = error.read(2**16).decode(errors="replace")
        except (OSError, HTTPException):
            return self._shown(str(error.reason or "")), code
        try:
            inner = json.loads(raw)
            inner = inner.get("error", inner) if isinstance(inner, dict) else inner
            code = str(inner.get("code", "")) if isinstance(inner, dict) else ""
            raw = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        except (ValueError, RecursionError):
            pass
        return self._shown(raw), code

    def _shown(self, text: str) -> str:
        """What a server sent, on one line and without the key."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        return re.sub(r"\s+", " ", visible(text)).strip()[:_SHOWN] or "no message"

    def _give_up(self, path: str, trouble: _Passing) -> NoReturn:
        text = f"{self.url}{path}: {trouble} ({self.settings.attempts} attempts)"
        if trouble.status:
            raise Refused(text, trouble.status)
        raise EndpointError(f"{text}; check that the server runs at this URL")


class _Passing(Exception):
    """A request failed in a way that may pass."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class _Gate:
    """Lets a number of requests through at once, which a busy server lowers."""

    def __init__(self, most: int) -> None:
        self._most, self._allowed, self._running = most, float(most), 0
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._running < int(self._allowed))
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def note(self, *, limited: bool) -> None:
        with self._changed:
            grown = min(float(self._most), self._allowed + 1 / self._allowed)
            self._allowed = max(1.0, self._allowed / 2) if limited else grown
            self._changed.notify_all()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes an error of a redirect."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _pause(attempt: int, asked_s: float | None) -> float:
    """Seconds before the next attempt: what the server asks for, else growing, and at random a quarter shorter."""
    if asked_s is not None:
        return asked_s
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * (1 - random.random() / 4)


def _retry_after(headers: Any) -> float | None:
    """Seconds of the headers ``Retry-After-Ms`` or ``Retry-After``, which is a number or a date; at most 120."""
    for name, factor in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = (headers.get(name) or "").strip() if headers else ""
        try:
            asked_s = float(text) * factor
        except ValueError:
            pass
        else:
            return None if math.isnan(asked_s) else min(max(asked_s, 0.0), _MOST_ASKED_S)
        try:
            return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), _MOST_ASKED_S)
        except (TypeError, ValueError, IndexError):
            pass
    return None


def _written(value: Any) -> str:
    """A value of a form."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tokens(usage: Mapping[str, Any], *names: str) -> int:
    found = next((usage[name] for name in names if type(usage.get(name)) is int), 0)
    return max(0, found)
