"""What a server allows, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from auricle.audio.limits import Limits
from auricle.errors import ConfigError, check_number

_MB = 1_000_000
# Of one clip that comes over a network: 25 MB is what clients know from others, and ten minutes are a long clip.
NETWORK_LIMITS = Limits(
    max_bytes=25 * _MB,
    max_seconds=600.0,
    max_channels=8,
    min_sample_rate=4_000,
    max_sample_rate=384_000,
    max_decoded_bytes=256 << 20,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Limits and budgets of a server."""

    limits: Limits = NETWORK_LIMITS  # of every clip, by whichever way it comes
    queue_s: float = 20.0  # a request that would wait longer is refused
    body_s: float = 60.0  # in which a request must have arrived
    long_s: float = 60.0  # longer clips wait in a queue of their own
    max_clips: int = 16  # of one request
    max_requests: int = 64  # of one client at once
    seconds_per_minute: float | None = None  # of audio, of one client; None: no such budget
    max_prompt_chars: int = 8_000
    max_new_tokens: int = 2048
    url_hosts: frozenset[str] = frozenset()  # from which audio may be fetched; none: URLs are refused
    keys: dict[str, bytes] = field(default_factory=dict)  # SHA-256 of each API key by its name; none: no key is needed
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})  # names of the server, where no key is

    def __post_init__(self) -> None:
        """Refuse settings that no request could meet."""
        for name in ("queue_s", "body_s", "long_s", "max_clips", "max_requests"):
            check_number(name, getattr(self, name), least=0.01)
        if self.seconds_per_minute is not None:
            check_number("seconds_per_minute", self.seconds_per_minute, least=1)

    @property
    def max_body_bytes(self) -> int:
        """Of a request: one clip in base64, and text."""
        return self.limits.max_bytes * 4 // 3 + 2 * _MB


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposed(host: str, keys: dict[str, bytes]) -> None:
    """Refuse to offer a server without keys to a network.

    Raises:
        ConfigError: the address can be reached from other machines, and there is no key.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and no API key is set; name a file of keys with "
            "--api-key-file, or use --host 127.0.0.1"
        )
