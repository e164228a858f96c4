"""Audio behind a URL: only from hosts that are allowed, and never from within a private network.

A name is looked up once, all its addresses must be public, and the connection goes to the address that was checked, so
that a second look-up cannot lead elsewhere. Redirects are not followed.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Collection
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import monotonic
from urllib.parse import urlsplit

from auricle.audio.limits import Limits
from auricle.serve.faults import ApiError, refused

_TIMEOUT_S = 10.0
_CHUNK = 1 << 16
_TUNNELS = [ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]

Resolve = Callable[[str, int], list[str]]
Connect = Callable[[str, int, str, float], socket.socket]


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host."""
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def connect(address: str, port: int, host: str, timeout_s: float) -> socket.socket:
    """A connection to an address, whose certificate must be that of ``host``."""
    plain = socket.create_connection((address, port), timeout=timeout_s)
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def fetch(
    url: str,
    hosts: Collection[str],
    limits: Limits,
    param: str,
    *,
    resolve: Resolve = resolve,
    connect: Connect = connect,
) -> bytes:
    """Fetch what is behind a URL.

    Args:
        url: of scheme https.
        hosts: that are allowed; none: no URL is.
        limits: of its size.
        param: field of the request, for messages.
        resolve: gives all addresses of a host.
        connect: opens a connection to one of them.

    Raises:
        ApiError: it is not allowed, or cannot be fetched.
    """
    host, port, path = _parts(url, hosts, param)
    try:
        addresses = resolve(host, port)
    except OSError:
        raise refused(param, f"{host} has no address; check the URL", "url_not_reachable") from None
    for address in addresses:
        if not is_public(address):
            raise refused(
                param, f"{host} is at an address that is not public; audio is not fetched from there", "url_not_allowed"
            )
    deadline = monotonic() + _TIMEOUT_S
    last: Exception | None = None
    for address in addresses[:2]:  # one more try
        try:
            return _download(connect(address, port, host, _TIMEOUT_S), host, path, limits, deadline)
        except (OSError, HTTPException, ValueError) as error:
            last = error
    reason = type(last).__name__ if last else "it has no address"
    raise refused(param, f"{host} did not give the audio ({reason}); send it with input_audio", "url_not_reachable")


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and no way around to another."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in net for net in _TUNNELS):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _parts(url: str, hosts: Collection[str], param: str) -> tuple[str, int, str]:
    if not hosts:
        raise refused(
            param,
            "this server fetches no URLs; send the audio itself with input_audio, or as a data: URL",
            "url_not_allowed",
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or 443
    except ValueError:
        raise refused(param, "the URL cannot be read; expected https://HOST/PATH", "url_not_allowed") from None
    if parts.scheme != "https" or parts.username is not None or parts.password is not None or port != 443:
        raise refused(param, "expected a URL of the form https://HOST/PATH", "url_not_allowed")
    if host.lower() not in hosts:
        raise refused(param, f"{host or 'the host'} is not among the hosts this server fetches from", "url_not_allowed")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " for character in path):
        raise refused(param, "the URL has characters that must be escaped", "url_not_allowed")
    return host, port, path


def _download(opened: socket.socket, host: str, path: str, limits: Limits, deadline: float) -> bytes:
    connection = HTTPSConnection(host, timeout=_TIMEOUT_S)
    connection.sock = opened
    try:
        connection.request("GET", path, headers={"Accept": "audio/*", "Accept-Encoding": "identity"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            return _read(response, opened, limits, deadline)
    finally:
        connection.close()


def _read(response: HTTPResponse, opened: socket.socket, limits: Limits, deadline: float) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        opened.settimeout(left)
        part = response.read1(_CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
        if total > limits.max_bytes:
            raise ApiError(413, f"the audio behind the URL has more than {limits.max_bytes:,} bytes", "limit_exceeded")
