"""Where a server of models is, how it may be asked, and what that may cost."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from auricle.data.untrusted_json import StrictFields, validate
from auricle.errors import ConfigError, check_number
from auricle.files import read_regular_text

PREFIX = "openai:"
KEY_VARIABLE = "AURICLE_ENDPOINT_KEY"  # holds the key for any server
_OPENAI_HOST, _OPENAI_VARIABLE = "api.openai.com", "OPENAI_API_KEY"  # holds the key for this server alone
_NAME = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)", re.DOTALL)
_MOST_BYTES = 2**16  # of a file with settings, or a key
_USD_PER = 1e6  # prices of tokens are for a million


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings(StrictFields):
    """How a server may be asked; all have a default, and money is counted where prices are given."""

    api_key_env: str | None = None  # environment variable with the key; None: see `read_key`
    api_key_file: str | None = None  # file with the key, instead
    concurrency: int = 8  # requests at once; of those in one batch
    attempts: int = 8  # requests for one reply, the first included
    timeout_s: float = 600.0  # for one request
    max_audio_s: float | None = None  # longest clip in one request; None: what the server states, else 30
    wav_bits: int = 16  # of the audio sent: 16, or 32 for floats, which lose nothing
    transcribe: str = "transcriptions"  # transcripts come from this route, or from "chat" by a prompt
    max_tokens_field: str | None = None  # name of the longest answer in a request; None: by the server
    extra_body: dict[str, Any] | None = None  # further fields of chat requests, as the server takes them
    budget_requests: int | None = None  # of one process, with those that failed
    budget_audio_s: float | None = None  # seconds of audio sent by one process
    budget_usd: float | None = None  # of one process; needs a price
    usd_per_request: float = 0.0
    usd_per_audio_minute: float = 0.0
    usd_per_million_input_tokens: float = 0.0
    usd_per_million_output_tokens: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name, least, whole in (("concurrency", 1, True), ("attempts", 1, True), ("timeout_s", 0.1, False)):
            check_number(name, getattr(self, name), least=least, whole=whole)
        for name in ("max_audio_s", "budget_requests", "budget_audio_s", "budget_usd"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, least=0.4 if name == "max_audio_s" else 0)
        for name in self._prices:
            check_number(name, getattr(self, name), least=0)
        for name, known in (("wav_bits", (16, 32)), ("transcribe", ("transcriptions", "chat"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(map(str, known))}")
        if self.budget_usd is not None and not self.has_prices:
            raise ConfigError(
                f"budget_usd is {self.budget_usd:g} without a price; give one of {', '.join(self._prices)}"
            )

    @property
    def _prices(self) -> tuple[str, ...]:
        tokens = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
        return ("usd_per_request", "usd_per_audio_minute", *tokens)

    @property
    def has_prices(self) -> bool:
        """Whether money can be counted."""
        return any(getattr(self, name) for name in self._prices)

    @property
    def has_token_prices(self) -> bool:
        """Whether money depends on the tokens that the server states."""
        return bool(self.usd_per_million_input_tokens or self.usd_per_million_output_tokens)

    def token_usd(self, input_tokens: int, output_tokens: int) -> float:
        """The price of tokens."""
        parts = (
            input_tokens * self.usd_per_million_input_tokens,
            output_tokens * self.usd_per_million_output_tokens,
        )
        return sum(parts) / _USD_PER


def read_endpoint_settings(path: str | Path) -> EndpointSettings:
    """Settings from a file of YAML or JSON with the fields of `EndpointSettings`.

    Raises:
        ConfigError: it cannot be read, or has an unknown field or a value out of range.
    """
    try:
        text = read_regular_text(path, _MOST_BYTES)
        found = json.loads(text) if str(path).endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{path}: cannot be read as settings ({reason}); write one line NAME: VALUE for each"
        ) from None
    return validate(EndpointSettings, found or {}, str(path), error=ConfigError)


def split_name(name: str) -> tuple[str, str]:
    """The model and the base URL of ``openai:MODEL@URL``.

    Raises:
        ConfigError: another form, or a URL with more than a scheme, a host, a port and a path.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise ConfigError(
            f"{name!r} names no server; expected openai:MODEL@URL, as openai:voxtral@http://127.0.0.1:8000/v1"
        )
    url = found["url"].rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"the URL of {found['model']} cannot be read ({error})") from None
    if parts.username or parts.password or "@" in parts.netloc:
        raise ConfigError(
            f"the URL of {found['model']} holds a user name or password, which results would state; give the key in "
            f"{KEY_VARIABLE}, or in a file named by api_key_file"
        )
    if not parts.hostname or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r} is no base URL; expected http(s)://HOST[:PORT]/PATH, as http://127.0.0.1:8000/v1")
    return found["model"], url


def read_key(settings: EndpointSettings, url: str) -> str | None:
    """The API key for a server; None: it gets none.

    It is in the file or variable that the settings name, else in ``AURICLE_ENDPOINT_KEY``, or for OpenAI itself in
    ``OPENAI_API_KEY``. A key is never part of a name, a result or a message.

    Raises:
        ConfigError: the settings name a variable or a file that has none.
    """
    if settings.api_key_file is not None:
        try:
            key = read_regular_text(Path(settings.api_key_file).expanduser(), _MOST_BYTES).strip()
        except (OSError, ValueError):
            raise ConfigError(
                f"api_key_file: {settings.api_key_file} cannot be read; name a file with the key"
            ) from None
        return _checked(key, settings.api_key_file)
    if settings.api_key_env is not None:
        return _checked(os.environ.get(settings.api_key_env, "").strip(), f"the variable {settings.api_key_env}")
    names = [KEY_VARIABLE]
    if urlsplit(url).hostname == _OPENAI_HOST:
        names.append(_OPENAI_VARIABLE)
    for name in names:
        if key := os.environ.get(name, "").strip():
            return _checked(key, f"the variable {name}")
    return None


def tokens_field(settings: EndpointSettings, url: str) -> str:
    """The field of the longest answer: OpenAI's own server knows it by a newer name than most others."""
    is_openai = urlsplit(url).hostname == _OPENAI_HOST
    return settings.max_tokens_field or ("max_completion_tokens" if is_openai else "max_tokens")


def _checked(key: str, where: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where} holds no API key; expected one line of letters, digits and signs")
    return key
