"""Verbs with ``--server``: the bytes that the same verb prints on this machine, and the errors of a server in words."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle import errors
from auricle.listen import AudioLM
from auricle.listen.other_models.endpoint_settings import KEY_VARIABLE, EndpointSettings
from auricle.listen.other_models.served import ServedModel
from auricle.serve.settings import Settings

from ..cli.conftest import auricle, write_noise
from .running import Running, running

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ONCE = EndpointSettings(attempts=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sounds of several lengths, one behind the other's window, and files that are none."""
    for number, seconds in enumerate((0.05, 0.5, 12.0)):
        write_noise(tmp_path / f"{number}.wav", seconds, number)
    (tmp_path / 'odd "name"\n.wav').write_bytes((EXAMPLES / "alarm.ogg").read_bytes())
    (tmp_path / "broken.ogg").write_bytes((EXAMPLES / "voice.ogg").read_bytes()[:300])
    (tmp_path / "empty.wav").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    [
        ["describe"],
        ["describe", "--dense"],
        ["describe", "--json", "--strict"],
        ["ask", "-p", "Who speaks?", "-p", "Is there any music?", "--json"],
        ["ask", "-p", "Which sound is this?", "--choices", "dog,clock"],
        ["transcribe", "--window", "1.2", "--segments"],
        ["transcribe", "--json"],
    ],
    ids=" ".join,
)
def test_a_server_gives_what_this_machine_gives(server: Running, folder: Path, verb: list[str]) -> None:
    files = [EXAMPLES / "two_voices.ogg", EXAMPLES / "alarm.ogg", *sorted(folder.iterdir())]
    here = auricle(*verb, *files)
    there = auricle(*verb, *files, "--server", server.url)
    assert (there.out, there.err, there.code) == (here.out, here.err, here.code) and here.code == 1


def test_subtitles_and_waveforms(server: Running, tiny: AudioLM, tmp_path: Path) -> None:
    for place, more in ((tmp_path / "a.srt", []), (tmp_path / "b.srt", ["--server", server.url])):
        auricle("transcribe", EXAMPLES / "two_voices.ogg", "--window", 1.2, "-o", place, *more)
    assert (tmp_path / "a.srt").read_bytes() == (tmp_path / "b.srt").read_bytes()
    noise = (np.random.default_rng(0).standard_normal(16_000) / 10).astype(np.float32)
    (there,) = ServedModel(server.url).describe_many([noise])
    (here,) = tiny.describe_many([noise])
    assert not isinstance(here, errors.AuricleError) and not isinstance(there, errors.AuricleError)
    assert (there.text, there.confidence, there.is_unsure) == (here.text, here.confidence, here.is_unsure)


def test_what_goes_with_models_of_this_machine_is_named(server: Running) -> None:
    file = EXAMPLES / "alarm.ogg"
    done = auricle("describe", file, "--server", server.url, "--device", "cpu", "--isolate")
    assert done.code == 2 and "--device, --isolate cannot be combined with --server" in done.err
    done = auricle("ask", file, "-p", "Who?", "--stream", "--server", server.url)
    assert done.code == 2 and "whose answers come whole" in done.err
    done = auricle("describe", file, "--server", server.url, "--model", "other")
    assert done.code == 2 and "has no model 'other'; it has auricle-tiny, talker" in done.err


@pytest.mark.parametrize(
    "url",
    [
        *("gpu-box:8000", "ftp://gpu-box", "http://", "http://user:word@gpu-box", ""),
        *("http://[::1", "http://gpu-box:ab", "http://gpu-box:99999"),
    ],
)
def test_urls_of_no_server(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="is no URL of a server"):
        ServedModel(url)


def test_nobody_answers() -> None:
    with pytest.raises(errors.EndpointError, match="check that the server runs at this URL"):
        ServedModel("http://127.0.0.1:9", settings=ONCE)


def test_keys_are_needed_and_never_shown(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EXAMPLES / "alarm.ogg"
    with running(Settings(keys={"ours": sha256(b"the-key").digest()}), models) as found:
        monkeypatch.setenv(KEY_VARIABLE, "a-wrong-key")
        done = auricle("describe", file, "--server", found.url)
        monkeypatch.setenv(KEY_VARIABLE, "the-key")
        with_key = auricle("describe", file, "--server", found.url)
    assert with_key.out == "A clock is ticking.\n", with_key.err
    assert done.code == 1 and f"give the key in {KEY_VARIABLE}" in done.err and "a-wrong-key" not in done.err


@pytest.fixture
def strange() -> Iterator[Callable[[str], str]]:
    """A server that lists a model and answers any form with a given text."""
    said = [""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(json.dumps({"data": [{"id": "m", "capabilities": ["describe"]}]}))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send(said[0])

        def _send(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()

    def url(text: str) -> str:
        said[0] = text
        return f"http://127.0.0.1:{found.server_port}"

    yield url
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"caption": "x", "segments": [], "confidence": null, "is_unsure": false, "receipt": {}}',
        '{"caption": "x", "segments": [{"evil": 1}], "confidence": null, "is_unsure": false, "receipt": {}}',
        '{"caption": "x", "segments": 3, "confidence": "a", "is_unsure": false, "receipt": []}',
    ],
)
def test_replies_of_something_else(strange: Callable[[str], str], text: str) -> None:
    done = auricle("describe", EXAMPLES / "alarm.ogg", "--server", strange(text))
    assert done.code == 1 and "the reply is no result of Auricle" in done.err and "Traceback" not in done.err


def test_the_server_is_asked_by_a_process_of_its_own(server: Running, warm_python: str) -> None:
    command = [warm_python, "-m", "auricle.cli.main", "describe", str(EXAMPLES / "alarm.ogg"), "--server", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "A clock is ticking.\n", done.stderr


@pytest.mark.parametrize(
    "card",
    [
        {"capabilities": 5},
        {"capabilities": [["describe"]]},
        {"capabilities": ["describe"]},
        {"id": "m", "capabilities": ["describe"], "verb_limits": [1]},
        {"id": "m", "capabilities": ["describe"], "confidence": "x"},
        {"id": "m", "capabilities": ["describe"], "confidence": {"caption": {"evil": 1}}},
        {"id": "m", "capabilities": ["describe"], "confidence": {"unsure_below": "x"}},
    ],
    ids=str,
)
def test_models_of_something_else(card: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.listen.other_models.served.Endpoint.get", lambda *_: {"data": [card]})
    with pytest.raises(errors.EndpointError, match="no list of Auricle's models"):
        ServedModel("http://127.0.0.1:9")


@pytest.mark.parametrize(
    "sent",
    [
        "HTTP/1.1 KEY oops\r\n\r\n",
        "KEY\r\n\r\n",
        "HTTP/1.1 400 KEY\r\nContent-Length: 99\r\n\r\n{",
        "HTTP/1.1 503 x\r\nRetry-After: nan\r\nContent-Length: 3\r\n\r\nKEY",
    ],
)
def test_a_key_is_in_no_message(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server makes of it."""
    monkeypatch.setenv(KEY_VARIABLE, "secret-key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                with listener.accept()[0] as connection:
                    connection.recv(65_536)
                    connection.sendall(sent.replace("KEY", "secret-key").encode())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(errors.EndpointError) as found:
            ServedModel(f"http://127.0.0.1:{listener.getsockname()[1]}", settings=EndpointSettings(attempts=2))
        if "400" not in sent:  # which is final
            thread.join(5)
        else:
            socket.create_connection(listener.getsockname()).close()
            thread.join(5)
    assert "secret-key" not in str(found.value)
