"""A language model behind an OpenAI-compatible server: bounded replies, retries, limits of rate and cost.

Nothing a server sends is trusted: a reply is read up to a limit of bytes, redirects are not followed, its JSON is
checked against the schema, and what it states is checked against the facts.
"""

import http.client
import json
import os
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from auricle.data.untrusted_json import parse_json, shorten
from auricle.errors import AuricleError, ConfigError, DataError, check_number

_MAX_BYTES = 2 << 20  # of a reply with its envelope
_MAX_WAIT_S = 60.0  # between two attempts, whatever a server asks for
_AGAIN = (408, 409, 425, 429)  # and 5xx: worth another attempt
_FATAL = (401, 403, 404, 405)  # no other request would do better


class EndpointError(AuricleError):
    """A request that failed for good."""


class RunStopped(AuricleError):
    """No further requests are made: a limit is reached, or the server does not work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings:
    """A server, and what it may cost."""

    url: str  # up to and with /v1
    model: str
    key_variable: str = ""  # environment variable that has the API key; empty: none is sent
    concurrency: int = 4  # requests at once
    attempts: int = 5  # of each request
    backoff_s: float = 0.5  # before the second attempt; doubled each time
    timeout_s: float = 120.0
    max_tokens: int = 3600  # of an answer; with fewer than about 3,500 its texts are shorter
    per_minute: float | None = None  # requests
    prices: tuple[float, float] = (0.0, 0.0)  # of a million tokens of prompts and of answers
    max_cost: float | None = None  # in the unit of the prices

    def __post_init__(self) -> None:
        """Refuse what no request could use."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"url is {self.url!r}; expected an address as http://localhost:8000/v1")
        if not self.model:
            raise ConfigError("no model is named; expected the name that the server knows it by")
        for name, least, most in (("concurrency", 1, 1024), ("attempts", 1, 100), ("max_tokens", 800, 1 << 17)):
            check_number(name, getattr(self, name), least=least, most=most, whole=True)
        check_number("backoff_s", self.backoff_s, least=0, most=60)
        check_number("timeout_s", self.timeout_s, least=0.1, most=3600)
        if self.per_minute is not None:
            check_number("per_minute", self.per_minute, least=0.01)
        if self.max_cost is not None:
            check_number("max_cost", self.max_cost, least=0)
            if not any(self.prices):
                raise ConfigError("a limit of cost needs prices of a million tokens of prompts and of answers")


@dataclass
class Endpoint:
    """Requests to a server, from several threads."""

    settings: EndpointSettings
    requests: int = 0  # made, retries among them
    retries: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])  # of prompts and of answers, as the server counts them
    _next: float = 0.0  # time of the next request
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def cost(self) -> float:
        """What the answered requests cost."""
        return sum(count * price / 1e6 for count, price in zip(self.tokens, self.settings.prices, strict=True))

    def ask(self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], check: Any) -> Any:
        """The answer to one conversation.

        Args:
            messages: of the conversation.
            schema: JSON Schema of the answer.
            check: makes a result of the answer's text; its DataError counts as a failed attempt.

        Raises:
            EndpointError: all attempts failed; the last reason.
            RunStopped: no request is allowed any more.
        """
        body = json.dumps(
            {
                "model": self.settings.model,
                "messages": list(messages),
                "temperature": 0,
                "max_tokens": self.settings.max_tokens,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "captions", "strict": True, "schema": schema},
                },
            },
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        wait_s, reason = self.settings.backoff_s, ""
        for attempt in range(self.settings.attempts):
            if attempt:
                time.sleep(min(wait_s, _MAX_WAIT_S))
                wait_s *= 2
            self._take_turn(is_retry=attempt > 0)
            try:
                status, asked_s, content = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                reason = f"no answer ({type(error).__name__}: {error})"
                continue
            if status in _FATAL:
                raise RunStopped(f"{self.settings.url} answers {status}: {_message(content)}; check address and key")
            if status != 200:
                reason = f"status {status}: {_message(content)}"
                if status not in _AGAIN and status < 500:
                    break
                wait_s = max(wait_s, asked_s)
                continue
            try:
                text, is_cut = self._text(content)
                if is_cut:  # the same question would be cut again
                    reason = f"an answer cut short at {self.settings.max_tokens} tokens; allow more"
                    break
                return check(text)
            except DataError as error:
                reason = str(error)
        raise EndpointError(f"{self.settings.model} after {attempt + 1} attempts: {reason}")

    def _take_turn(self, *, is_retry: bool) -> None:
        """Wait until a request is allowed."""
        settings = self.settings
        with self._lock:
            if settings.max_cost is not None and self.cost >= settings.max_cost:
                raise RunStopped(f"the limit of cost is reached: {self.cost:.4f} of {settings.max_cost:g}")
            self.requests += 1
            self.retries += is_retry
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + (60 / settings.per_minute if settings.per_minute else 0.0)
        if at > now:
            time.sleep(at - now)

    def _post(self, body: bytes) -> tuple[int, float, bytes]:
        """Status, seconds to wait that the server asks for, and content.

        Raises:
            OSError, http.client.HTTPException: no answer, or one that is too large.
        """
        settings, parts = self.settings, urlsplit(self.settings.url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=settings.timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=settings.timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if settings.key_variable:
            headers["Authorization"] = f"Bearer {_key(settings.key_variable)}"
        try:
            connection.request("POST", f"{parts.path.rstrip('/')}/chat/completions", body, headers)
            response = connection.getresponse()
            content = _read(response, time.monotonic() + settings.timeout_s)
            return response.status, _seconds(response.getheader("Retry-After")), content
        finally:
            connection.close()

    def _text(self, content: bytes) -> tuple[str, bool]:
        """The answer in the envelope of a chat completion, and whether it was cut short.

        Raises:
            DataError: it has none.
        """
        try:
            found = parse_json(content.decode())
            choice = found["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise DataError("a reply that is no chat completion") from None
        usage = found.get("usage")
        if isinstance(usage, dict):
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            with self._lock:
                for place, count in enumerate(counts):
                    if isinstance(count, int) and 0 <= count < 1 << 31:
                        self.tokens[place] += count
        if not isinstance(text, str):
            raise DataError("a reply without a text")
        return text, choice.get("finish_reason") == "length"


def _key(variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        raise ConfigError(f"the environment variable {variable} has no API key; set it")
    return found


def _read(response: http.client.HTTPResponse, until: float) -> bytes:
    """The content of a bounded reply that arrives in time."""
    parts: list[bytes] = []
    size = 0
    while block := response.read1(1 << 16):
        parts.append(block)
        size += len(block)
        if size > _MAX_BYTES:
            raise OSError(f"a reply of more than {_MAX_BYTES:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("a reply that does not end")
    return b"".join(parts)


def _seconds(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), _MAX_WAIT_S)
    except ValueError:
        return 0.0


def _message(content: bytes) -> str:
    return shorten(content[:200].decode("utf-8", "replace"))
