"""Audio behind URLs: from hosts that are allowed, at public addresses, without redirects."""

import socket
import threading
from typing import Any

import pytest

from auricle.audio.limits import Limits

pytest.importorskip("starlette", reason="needs the extra serve")

from auricle.serve.faults import ApiError
from auricle.serve.fetch import fetch, is_public

HOSTS = {"sounds.example.org"}
URL = "https://sounds.example.org/a.wav"
PUBLIC = "93.184.216.34"


class Network:
    """Answers every connection with the same bytes, and remembers what was looked up and connected to."""

    def __init__(self, *answers: bytes, addresses: tuple[list[str], ...] = ([PUBLIC],)) -> None:
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, str]] = []
        self.requests: list[bytes] = []
        self._answers, self._addresses = list(answers), addresses

    def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        return self._addresses[min(len(self.looked_up), len(self._addresses)) - 1]

    def connect(self, address: str, port: int, host: str, timeout_s: float) -> socket.socket:
        self.connected.append((address, host))
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs, self._answers.pop(0)), daemon=True).start()
        return ours

    def _serve(self, opened: socket.socket, answer: bytes) -> None:
        with opened:
            self.requests.append(opened.recv(65_536))
            try:
                opened.sendall(answer)
            except OSError:
                pass

    def fetch(self, url: str = URL, hosts: Any = HOSTS, limits: Limits = Limits(max_bytes=1000)) -> bytes:  # noqa: B008
        return fetch(url, hosts, limits, "audio_url", resolve=self.resolve, connect=self.connect)


def answer(body: bytes = b"sound", status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def refusal(network: Network, **arguments: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        network.fetch(**arguments)
    return caught.value


def test_a_url_of_an_allowed_host_is_fetched_from_the_address_that_was_checked() -> None:
    network = Network(answer(), addresses=([PUBLIC], ["127.0.0.1"]))
    assert network.fetch(f"{URL}?part=1") == b"sound"
    assert network.looked_up == ["sounds.example.org"] and network.connected == [(PUBLIC, "sounds.example.org")]
    assert network.requests[0].startswith(b"GET /a.wav?part=1 HTTP/1.1\r\nHost: sounds.example.org\r\n")


@pytest.mark.parametrize(
    "url",
    [
        "http://sounds.example.org/a.wav",
        "file:///etc/passwd",
        "https://other.example.org/a.wav",
        "https://sounds.example.org.evil.org/a.wav",
        "https://sounds.example.org@evil.org/a.wav",
        "https://user:pass@sounds.example.org/a.wav",
        "https://sounds.example.org:22/a.wav",
        "https://127.0.0.1/a.wav",
        "https://sounds.example.org/a b",
        "https://sounds.example.org/a\r\nHost: evil",
        "https://[::1",
        "https://",
    ],
)
def test_any_other_url_is_refused_without_a_look_up(url: str) -> None:
    network = Network()
    assert refusal(network, url=url).code == "url_not_allowed" and network.looked_up == []
    assert refusal(Network(), hosts=frozenset()).code == "url_not_allowed"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_public(address)
    network = Network(addresses=([PUBLIC, address],))  # one of several is enough
    assert refusal(network).code == "url_not_allowed" and network.connected == []


def test_public_addresses() -> None:
    assert is_public(PUBLIC) and is_public("2606:2800:220:1:248:1893:25c8:1946") and is_public(f"::ffff:{PUBLIC}")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "404 Not Found", "206 Partial"])
def test_redirects_are_not_followed(status: str) -> None:
    network = Network(*2 * [answer(status=status, Location="https://127.0.0.1/x")])
    assert refusal(network).code == "url_not_reachable"
    assert {address for address, _ in network.connected} == {PUBLIC}


def test_what_is_too_large_is_not_read_to_its_end() -> None:
    assert refusal(Network(answer(b"x" * 100_000))).status == 413
    assert refusal(Network(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)).status == 413
    assert refusal(Network(b"no HTTP\r\n\r\n", b"")).code == "url_not_reachable"


def test_a_second_address_is_tried() -> None:
    network = Network(b"", answer(), addresses=([PUBLIC, "1.1.1.1"],))
    assert network.fetch() == b"sound" and [each for each, _ in network.connected] == [PUBLIC, "1.1.1.1"]
