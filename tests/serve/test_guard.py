"""What a server refuses: strangers, other sites, bombs by every way in, and requests that are slow or too large."""

import base64
import json
import logging
import re
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.errors import ConfigError
from auricle.serve.keys import find_key, read_keys
from auricle.serve.settings import NETWORK_LIMITS, Settings, check_exposed, is_loopback

from .conftest import ALIGNER
from .running import Running, audio_part, error_of, noise, running, user, wait_until, wav, write

KEY = "correct-horse-battery"
SMALL = replace(NETWORK_LIMITS, max_bytes=300_000, max_seconds=60.0)
CLIP = wav(noise(1.0))


@pytest.fixture(scope="module")
def locked(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = write(tmp_path_factory.mktemp("keys"), "keys.txt", f"# of tests\nada {KEY}\n".encode())
    with running(Settings(keys=read_keys(path), body_s=0.6, limits=SMALL), models) as found:
        yield found


def with_key(server: Running, method: str, path: str, key: str = KEY, **more: Any) -> Any:
    return server.http.request(method, path, headers={"Authorization": f"Bearer {key}"}, **more)


def test_every_route_needs_the_key(locked: Running) -> None:
    from auricle.serve.app import _routes

    for route in _routes(locked.service):
        path: Any = getattr(route, "path", "")
        method = "POST" if "POST" in (getattr(route, "methods", None) or ()) else "GET"
        path = path.replace("{name:path}", "auricle-tiny")
        is_open = path in ("/live", "/health", "/") or path.startswith("/page/")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            found = locked.http.request(method, path, headers=headers)
            if is_open:
                assert found.status_code == 200
            else:
                assert found.status_code == 401 and error_of(found)["code"] == "invalid_api_key"
                assert found.headers["www-authenticate"] == "Bearer"
    assert locked.http.get("/anything").status_code == 401
    assert with_key(locked, "GET", "/v1/models").status_code == 200
    assert with_key(locked, "GET", "/metrics").status_code == 200


def test_keys_are_kept_as_hashes(tmp_path: Path) -> None:
    import hashlib

    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys = read_keys(write(tmp_path, "a", f"{KEY}x\n\nbob sha256:{digest}\n".encode()))
    assert list(keys) == ["key1", "bob"] and KEY.encode() not in b"".join(keys.values())
    assert find_key(keys, f"Bearer {KEY}") == "bob" and find_key(keys, f"bearer  {KEY}x") == "key1"
    assert all(find_key(keys, each) is None for each in (None, "", "Bearer", "Bearer \udcff", KEY, f"Basic {KEY}"))


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", f"{KEY}\n{KEY}\n", f"a {KEY}\na {KEY}2\n", f"a b {KEY}\n"])
def test_files_without_usable_keys_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read_keys(write(tmp_path, "keys", text.encode()))
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "absent")


def test_a_network_is_served_with_keys_alone() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "")))
    check_exposed("127.0.0.1", {})
    check_exposed("0.0.0.0", {"a": b"x"})
    with pytest.raises(ConfigError, match="api-key-file"):
        check_exposed("0.0.0.0", {})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example.org"},
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.example.org"},
    ],
)
def test_pages_of_other_sites_are_refused(server: Running, headers: dict[str, str]) -> None:
    found = server.http.post("/v1/audio/describe", files={"file": ("a.wav", CLIP)}, headers=headers)
    assert found.status_code == 403 and error_of(found)["code"] == "foreign_site"


def test_the_page_of_the_server_itself_is_not(server: Running) -> None:
    headers = {"Origin": server.url}
    assert server.http.post("/v1/audio/describe", files={"file": ("a.wav", CLIP)}, headers=headers).status_code == 200
    preflight = server.http.options("/v1/audio/describe", headers=headers)
    assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


def test_answers_have_the_headers_of_security(locked: Running) -> None:
    for found in (locked.http.get("/health"), locked.http.get("/v1/models"), with_key(locked, "GET", "/v1/models")):
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "default-src" in found.headers["content-security-policy"]
        assert "access-control-allow-origin" not in found.headers


def _data_url(content: bytes) -> dict[str, Any]:
    return {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{base64.b64encode(content).decode()}"}}


def _form(path: str) -> Callable[[Running, bytes], Any]:
    return lambda server, content: with_key(server, "POST", path, files={"file": ("a.wav", content)})


def _json(path: str, body: Callable[[bytes], Any]) -> Callable[[Running, bytes], Any]:
    return lambda server, content: with_key(server, "POST", path, json=body(content))


ENTRIES: dict[str, Callable[[Running, bytes], Any]] = {
    "describe": _form("/v1/audio/describe"),
    "transcriptions": _form("/v1/audio/transcriptions"),
    "mel": _form("/v1/audio/mel"),
    "chat": _json("/v1/chat/completions", lambda content: {"messages": user("What?", audio_part(content))}),
    "chat, data URL": _json("/v1/chat/completions", lambda content: {"messages": user("What?", _data_url(content))}),
    "chat, stream": _json(
        "/v1/chat/completions", lambda content: {"messages": user("What?", audio_part(content)), "stream": True}
    ),
    "embeddings": _json("/v1/embeddings", lambda content: {"model": ALIGNER, "input": [audio_part(content)]}),
    "embeddings, data URL": _json("/v1/embeddings", lambda content: {"model": ALIGNER, "input": [_data_url(content)]}),
}


def _forged(rate: int = 16_000, channels: int = 1, frames: int = 16_000) -> bytes:
    """A wav file whose header may lie."""
    size = min(frames * channels * 2, 0xFFFFFF00)
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, min(rate * channels * 2, 2**32 - 1), channels * 2, 16
    )
    return struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + form + struct.pack("<4sI", b"data", size) + CLIP[44:]


# What is small and claims, or becomes, something large; and what is no audio whatever its name says.
ATTACKS: dict[str, tuple[Callable[[], bytes], int]] = {
    "silence of hours": (lambda: wav(np.zeros(8_000 * 600, "i2"), 8_000, "FLAC"), 413),
    "silence of hours without a header": (lambda: wav(np.zeros(8_000 * 90, "i2"), 8_000, "OGG", "OPUS"), 413),
    "joined mp3": (lambda: 3 * wav(np.zeros(8_000 * 30, "i2"), 8_000, "MP3", "MPEG_LAYER_III"), 413),
    "too many bytes": (lambda: wav(noise(10.0)), 413),
    "declared rate of a radio": (lambda: _forged(rate=2_000_000_000), 413),
    "declared rate of a clock": (lambda: _forged(rate=1), 413),
    "channels": (lambda: _forged(channels=60), 413),
    "picture": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 400),
    "page": (lambda: b"<!doctype html><html><body>" + b"x" * 5000, 400),
    "nothing": (lambda: b"RIFF\xff\xff\xff\xffWAVE", 400),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_hostile_clips_are_refused_by_every_way_in(locked: Running, entry: str, attack: str) -> None:
    make, status = ATTACKS[attack]
    content = make()
    tracemalloc.start()
    try:
        found = ENTRIES[entry](locked, content)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert found.status_code == status, found.text
    error_of(found)


@pytest.mark.parametrize("entry", ENTRIES)
def test_honest_clips_pass_by_every_way_in(locked: Running, entry: str) -> None:
    assert ENTRIES[entry](locked, CLIP).status_code == 200


def test_a_clip_whose_header_promises_more_is_read_as_far_as_it_goes(locked: Running) -> None:
    receipt = ENTRIES["describe"](locked, _forged(frames=40 * 16_000)).json()["receipt"]
    assert receipt["truncated"] and not receipt["complete"]


def test_clips_are_decoded_in_a_process_of_their_own(models: Any) -> None:
    with running(Settings(limits=replace(NETWORK_LIMITS, isolate=True)), models) as own:
        found = own.post("/v1/audio/describe", CLIP)
        assert found.status_code == 200 and found.json()["receipt"]["duration_s"] == 1
        assert error_of(own.post("/v1/audio/describe", b"<svg/>" * 99))["code"] == "unsupported_format"


@pytest.mark.parametrize("name", ["../../../etc/passwd", "..\\..\\passwd", "/etc/passwd", "a\nb/passwd"])
def test_names_are_no_paths(server: Running, name: str) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.replace("\n", "%0A").replace("\\", "\\\\").encode()
        + b'"\r\n\r\n'
        + CLIP
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    found = server.http.post("/v1/audio/describe", content=body, headers=headers)
    assert found.json()["receipt"]["file"] == "passwd"


def _raw(server: Running, head: str) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    opened.sendall(f"POST /v1/audio/describe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{head}\r\n".encode())
    return opened


def _answer(opened: socket.socket) -> tuple[int, dict[str, Any]]:
    text = b""
    while part := opened.recv(65_536):
        text += part
        if b"\r\n\r\n{" in text and text.endswith(b"}"):
            break
    status = int(text.split()[1])
    return status, json.loads(text.partition(b"\r\n\r\n")[2])


def test_a_slow_request_ends(locked: Running) -> None:
    start = time.monotonic()
    with _raw(locked, "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n") as opened:
        opened.sendall(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
        opened.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - start < 5:
            opened.sendall(b"-")
            try:
                answer = opened.recv(65_536)
            except TimeoutError:
                continue
        opened.settimeout(5)
        while not answer.endswith(b"}") and (more := opened.recv(65_536)):
            answer += more
        assert answer.startswith(b"HTTP/1.1 408") and b'"code":"timeout"' in answer
    assert 0.5 < time.monotonic() - start < 3


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_large_request_is_refused_before_it_is_there(locked: Running, is_declared: bool) -> None:
    length = "Content-Length: 50000000" if is_declared else "Transfer-Encoding: chunked"
    with _raw(locked, f"Content-Type: multipart/form-data; boundary=x\r\n{length}\r\n") as opened:
        if not is_declared:
            chunk = b"%x\r\n" % 65_536 + b"a" * 65_536 + b"\r\n"
            head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            opened.sendall(b"%x\r\n" % len(head) + head + b"\r\n")
            try:
                for _ in range(100):
                    opened.sendall(chunk)
            except OSError:
                return  # it closed the connection
        status, body = _answer(opened)
        assert status == 413 and body["error"]["code"] == "limit_exceeded"


def test_many_fields_and_files_are_refused(server: Running) -> None:
    assert (
        error_of(server.post("/v1/audio/describe", CLIP, **{f"x{i}": "1" for i in range(300)}))["code"]
        == "invalid_form"
    )
    several = [("file", ("a.wav", CLIP)), ("file", ("b.wav", CLIP))]
    assert error_of(server.http.post("/v1/audio/describe", files=several))["param"] == "file"
    broken = server.http.post(
        "/v1/audio/describe", content=b"--y\r\nx", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert error_of(broken)["code"] in ("invalid_form", "missing_file")
    nested = json.dumps({"messages": user("x"), "metadata": 1})[:-1] + ', "a":' + "[" * 5000 + "]" * 5000 + "}"
    assert server.http.post("/v1/chat/completions", content=nested.encode()).status_code == 400


def test_nothing_personal_is_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sent = [
        server.post("/v1/audio/ask", CLIP, name="my diary.wav", prompt="What does Ada say?"),
        server.http.post("/v1/chat/completions", json={"messages": user("Ada's secret"), "model": "my model"}),
        server.http.get("/v1/Ada/secret"),
    ]
    ids = [each.headers["x-request-id"] for each in sent]

    def own() -> list[str]:
        lines = [each.getMessage() for each in caplog.records if each.name == "auricle.serve"]
        return [line for line in lines if line.split()[0] in ids]

    wait_until(lambda: len(own()) == 3)
    lines = own()
    assert not re.search("ada|diary|secret|my model|127.0.0.1", " ".join(lines), re.IGNORECASE)
    assert re.fullmatch(r"req_\w+ POST /v1/audio/ask 200 \d+ ms, 1.0 s of audio, retry 0", lines[0])


def test_an_unforeseen_error_says_nothing_of_its_cause(
    server: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("the diary of Ada")

    monkeypatch.setattr("auricle.serve.native.record", fail)
    found = server.post("/v1/audio/describe", CLIP)
    wait_until(lambda: "RuntimeError" in caplog.text)
    assert found.status_code == 500 and error_of(found)["type"] == "server_error"
    assert "Ada" not in found.text + caplog.text and "RuntimeError at test_guard.py" in caplog.text


def test_figures_are_those_of_the_requests(server: Running) -> None:
    def figure(name: str) -> float:
        text = server.http.get("/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"auricle_{name}"))

    names = ("audio_seconds_total", "generation_tokens_total", "time_to_first_token_seconds_count")
    before = [figure(name) for name in names]
    assert server.post("/v1/audio/describe", wav(noise(4.0, seed=9))).status_code == 200
    seconds, tokens, first = (figure(name) - old for name, old in zip(names, before, strict=True))
    assert seconds == 4 and tokens > 2 and first >= 1
    assert figure("num_requests_running") == figure("num_requests_waiting") == 0
    text = server.http.get("/metrics").text
    wanted = ["e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds"]
    wanted += ["request_decode_time_seconds", "inter_token_latency_seconds", "prompt_tokens_total"]
    wanted += ["prefix_cache_hits_total", "request_success_total", "audio_decode_seconds", "real_time_factor"]
    assert all(f"auricle_{name}" in text for name in wanted)
