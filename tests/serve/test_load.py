"""Many requests at once: the same bytes, refusals before the queue grows, equal requests, lost clients, the end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from auricle.errors import ConfigError, WeightsError
from auricle.listen import AudioLM
from auricle.listen.other_models.whisper import Whisper
from auricle.serve.run import draining_server, run
from auricle.serve.settings import Settings

from ..listen.test_whisper import Counter, numbered
from .conftest import ALIGNER, own_engine
from .running import (
    Models,
    Running,
    audio_part,
    error_of,
    events_of,
    httpx,
    noise,
    running,
    user,
    wait_until,
    wav,
    write,
)


class Held(Counter):
    """Answers once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.let_go = threading.Event(), threading.Event()

    def transcribe(self, audio: Any, **options: Any) -> Any:
        self.started.set()
        assert self.let_go.wait(20)
        return super().transcribe(audio, **options)


@pytest.fixture
def held() -> Iterator[tuple[Running, Held]]:
    network = Held()
    models = Models(audio_lms={"held": Whisper(network, "held", fingerprint="f")})
    with running(models=models) as found, ThreadPoolExecutor(8) as pool:
        found.pool = pool  # type: ignore[attr-defined]
        yield found, network
        network.let_go.set()


def later(server: Any, *arguments: Any, **fields: Any) -> Any:
    return server.pool.submit(server.post, *arguments, **fields)


SPOKEN = wav(numbered(12, first=20), subtype="FLOAT")
PATH = "/v1/audio/transcriptions"


def test_a_full_queue_refuses_at_once(held: tuple[Any, Held]) -> None:
    server, network = held
    first = later(server, PATH, SPOKEN)
    assert network.started.wait(5)
    server.service.admission.factor = 3.0
    start = time.monotonic()
    for _ in range(20):
        found = server.post(PATH, SPOKEN, name="other.wav")
        assert found.status_code == 429 and error_of(found)["type"] == "rate_limit_error"
        assert found.headers["retry-after"] == "26"
    assert (time.monotonic() - start) / 20 < 0.05
    assert server.http.get("/health").status_code == 200
    server.service.admission.factor = 0.01
    network.let_go.set()
    assert first.result().status_code == server.post(PATH, SPOKEN, name="other.wav").status_code == 200


def test_equal_requests_are_answered_once(held: tuple[Any, Held]) -> None:
    server, network = held
    same = [later(server, PATH, SPOKEN) for _ in range(3)]
    other = later(server, PATH, SPOKEN, name="other.wav")
    wait_until(lambda: server.service.admission.seconds["short"] == 24)
    network.let_go.set()
    assert len({each.result().content for each in same}) == 1 and other.result().status_code == 200
    assert len(network.calls) == 2
    again = server.post(PATH, SPOKEN)
    assert again.content == same[0].result().content and len(network.calls) == 2
    assert server.post(PATH, SPOKEN, response_format="text").text and len(network.calls) == 2


def test_a_request_like_one_that_was_left_is_answered(held: tuple[Any, Held]) -> None:
    server, network = held
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(PATH, files={"file": ("clip.wav", SPOKEN)}, timeout=0.2)
    again = later(server, PATH, SPOKEN)
    wait_until(lambda: server.service.admission.seconds["short"] == 24)
    network.let_go.set()
    assert again.result().status_code == 200 and again.result().json()["text"]


def test_clients_with_keys_share_no_answers(tmp_path: Path) -> None:
    from auricle.serve.keys import read_keys

    network = Held()
    network.let_go.set()
    keys = read_keys(write(tmp_path, "keys", b"one-key-of-these-tests\nanother-key-of-these\n"))
    models = Models(audio_lms={"held": Whisper(network, "held", fingerprint="f")})
    with running(Settings(keys=keys), models) as server:
        for key in ("one-key-of-these-tests", "another-key-of-these", "one-key-of-these-tests"):
            headers = {"Authorization": f"Bearer {key}"}
            found = server.http.post(PATH, files={"file": ("a.wav", SPOKEN)}, headers=headers)
            assert found.status_code == 200
    assert len(network.calls) == 2


def test_a_failure_is_not_kept(held: tuple[Any, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    server, network = held
    network.let_go.set()
    monkeypatch.setattr(Held, "pieces", lambda self, audio: 1 / 0)
    assert server.post(PATH, SPOKEN).status_code == 500
    monkeypatch.undo()
    assert server.post(PATH, SPOKEN).status_code == 200


@pytest.fixture
def talking(model: AudioLM) -> Iterator[Running]:
    """A model that goes on talking, and is slow."""
    talker = own_engine(model)
    with running(models=Models(audio_lms={"talker": talker})) as found:
        yield found


def tokens_of(server: Running) -> int:
    assert server.service.models is not None
    return next(iter(server.service.models.audio_lms.values())).engine.counts.answer_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_work(talking: Running, stream: bool) -> None:
    body = {"messages": user("Go on.", audio_part(wav(noise(1.0)))), "max_tokens": 1500, "stream": stream}
    if stream:
        with talking.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout):
            talking.http.post("/v1/chat/completions", json=body, timeout=0.15)
    wait_until(lambda: talking.service.admission.seconds["short"] == 0)
    assert tokens_of(talking) < 1000
    before = tokens_of(talking)
    time.sleep(0.05)
    assert tokens_of(talking) == before


def test_short_clips_pass_long_ones(talking: Running) -> None:
    ended: list[str] = []

    def describe(name: str, seconds: float) -> None:
        found = talking.post("/v1/audio/describe", wav(noise(seconds, seed=len(name))), name, max_new_tokens="60")
        assert found.status_code == 200 and found.json()["receipt"]["complete"]
        ended.append(name)

    with ThreadPoolExecutor(4) as pool:
        long = pool.submit(describe, "long", 400.0)
        wait_until(lambda: tokens_of(talking) > 0)
        for name in ("one", "other", "another"):
            pool.submit(describe, name, 2.0).result()
        long.result()
    assert ended[-1] == "long"


def test_answers_under_load_are_those_of_requests_alone(models: Any) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    for seed, seconds in enumerate([0.4, 1.1, 2.5, 4.0, 7.7, 9.9, 12.3, 31.0, 65.0]):
        files = {"file": (f"{seed}.wav", wav(noise(seconds, seed, 0.02 + 0.03 * seed)))}
        asked.append(("/v1/audio/describe", {"files": files, "data": {"model": "auricle-tiny"}}))
        asked.append(("/v1/audio/describe", {"files": files, "data": {"model": "talker", "max_new_tokens": "20"}}))
        asked.append(("/v1/audio/ask", {"files": files, "data": {"prompt": "Is it loud?", "choices": "yes,no"}}))
        asked.append(("/v1/audio/transcriptions", {"files": files, "data": {"response_format": "verbose_json"}}))
        asked.append(("/v1/audio/score", {"files": files, "data": {"text": ["rain", "a dog"]}}))
        part = audio_part(files["file"][1])
        asked.append(("/v1/embeddings", {"json": {"model": ALIGNER, "input": ["rain", part]}}))
    with running(models=models) as server:
        alone = [server.http.post(path, **request) for path, request in asked]
        assert {each.status_code for each in alone} == {200}
        server.service._kept.clear()
        for model in server.service.models.audio_lms.values():
            if "engine" in model.__dict__:
                model.engine.forget()
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda each: server.http.post(each[0], **each[1]), reversed(asked)))
        for before, after in zip(alone, reversed(together), strict=True):
            assert after.content == before.content


def test_a_server_says_that_it_is_loading() -> None:
    with running() as server:
        assert server.http.get("/live").status_code == 200
        health = server.http.get("/health")
        assert health.status_code == 503 and health.json() == {"status": "loading"}
        for found in (server.http.get("/v1/models"), server.post("/v1/audio/describe", SPOKEN)):
            assert found.status_code == 503 and error_of(found)["code"] == "loading"
            assert found.headers["x-should-retry"] == "true" and found.headers["retry-after"] == "2"


def test_a_signal_ends_a_server_behind_its_answers(model: AudioLM, free_port: int) -> None:
    ready, servers = threading.Event(), []

    def load() -> Models:
        return Models(audio_lms={"talker": own_engine(model)})

    def make(*arguments: Any) -> Any:
        servers.append(draining_server(*arguments))
        return servers[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auricle.serve.run.draining_server", make)
        arguments = {"host": "127.0.0.1", "port": free_port, "drain_s": 0.3, "on_ready": lambda url: ready.set()}
        thread = threading.Thread(target=run, args=(Settings(), load), kwargs=arguments)
        thread.start()
        assert ready.wait(10)
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=20) as http:
        assert http.get("/health").json() == {"status": "ok"}
        body = {"messages": user("Go on.", audio_part(wav(noise(1.0)))), "max_tokens": 700, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            servers[0].handle_exit(signal.SIGTERM, None)
            assert http.get("/health").json() == {"status": "draining"}
            assert http.post("/v1/embeddings", json={}).status_code == 400  # requests are still taken
            text += "".join(pieces)
        *_, last, done = events_of(text)
        assert done == "[DONE]" and '"finish_reason":"length"' in last
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{free_port}/live")


def test_models_that_cannot_be_loaded_end_the_server(free_port: int) -> None:
    def load() -> Models:
        raise WeightsError("there are none")

    with pytest.raises(WeightsError, match="there are none"):
        run(Settings(), load, host="127.0.0.1", port=free_port)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.mark.parametrize(
    "arguments", [["--host", "0.0.0.0"], ["--api-key-file", "absent"], ["--align-model", "none", "--index", "x"]]
)
def test_the_command_line_refuses_before_it_serves(arguments: list[str], free_port: int) -> None:
    from ..cli.conftest import auricle

    done = auricle("serve", *arguments, "--port", free_port)
    assert done.code == 2 and done.err.count("\n") == 1


def test_small_answers_are_sent_at_once() -> None:
    """Without waiting for more, which a socket does by default."""
    import socket

    from auricle.serve.run import _listen

    with _listen("localhost", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP and opened.getsockname()[0] in ("127.0.0.1", "::1")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ..cli.conftest import auricle

    monkeypatch.setattr("auricle.serve.app.find_spec", lambda name: None)
    done = auricle("serve")
    assert done.code == 1 and "auricle[serve]" in done.err


def test_a_port_that_is_taken(free_port: int) -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(ConfigError, match="--port"):
        run(Settings(), lambda: pytest.fail("models are loaded"), host="127.0.0.1", port=free_port)
    with pytest.raises(ConfigError, match="cannot listen"):
        run(Settings(), lambda: pytest.fail("models are loaded"), host="203.0.113.1", port=free_port)


def test_the_command_line_starts_and_ends_a_server() -> None:
    command = [
        sys.executable,  # a signal is for the process itself
        "-m",
        "auricle.cli.main",
        "serve",
        "--port",
        "0",
        "--align-model",
        "none",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen([*command, "--drain-seconds", "0.1"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = ""
        while not url and (line := process.stderr.readline()):
            url = line.split()[-1] if "ready at" in line else ""
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        described = httpx.post(f"{url}/v1/audio/describe", files={"file": ("a.wav", wav(noise(1.0)))}).json()
        assert described["caption"] and described["model"] == "auricle-tiny" and described["error"] is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and "POST /v1/audio/describe 200" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("more", "isolate"),
    [({}, False), ({"isolate": True}, True), ({"host": "0.0.0.0"}, True), ({"host": "::", "isolate": False}, False)],
)
def test_clips_from_a_network_are_decoded_apart(tmp_path: Path, more: dict[str, Any], isolate: bool) -> None:
    from auricle.cli.serve import NetworkOptions

    keys = write(tmp_path, "keys", b"a-key-of-these-tests\n")
    settings = NetworkOptions(api_key_file=keys, url_hosts=["Sounds.example.org"], max_seconds=5, **more).settings()
    assert settings.limits.isolate is isolate and settings.limits.max_seconds == 5
    assert settings.url_hosts == {"sounds.example.org"} and list(settings.keys) == ["key1"]


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError):
        Settings(queue_s=0)
