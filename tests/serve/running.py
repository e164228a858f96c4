"""A server in a thread on a free port of this machine, and clips made for it."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

for needed in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(needed, reason="needs the extra serve")
httpx = pytest.importorskip("httpx", reason="asks the servers of these tests")

import uvicorn  # noqa: E402

from auricle.serve.app import create_app  # noqa: E402
from auricle.serve.service import Models, Service  # noqa: E402
from auricle.serve.settings import Settings  # noqa: E402

RATE = 16_000


class Running:
    """A server that answers."""

    def __init__(self, service: Service, server: Any, port: int) -> None:
        self.service, self.server, self.port = service, server, port
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def post(self, path: str, content: bytes | None = None, name: str = "clip.wav", **fields: Any) -> Any:
        files = None if content is None else {"file": (name, content)}
        return self.http.post(path, data=fields, files=files)


@contextmanager
def running(settings: Settings | None = None, models: Models | None = None, **config: Any) -> Iterator[Running]:
    app: Any = create_app(settings, models)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="none", **config))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    found = Running(app.service, server, server.servers[0].sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        found.http.close()
        server.should_exit = True
        thread.join(10)
        app.service.close()
        assert not thread.is_alive()


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Any:
    return (level * np.random.default_rng(seed).standard_normal(round(RATE * seconds))).astype(np.float32)


def wav(samples: Any, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def audio_part(content: bytes, form: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": form}}


def user(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": each} if isinstance(each, str) else each for each in parts]
    return [{"role": "user", "content": content}]


def error_of(response: Any) -> dict[str, Any]:
    """The error of an answer, whose shape is that of the OpenAI API."""
    body = response.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and body["error"]["code"] and body["error"]["type"]
    assert response.headers["x-request-id"].startswith("req_")
    return dict(body["error"])


def events_of(text: str) -> list[str]:
    """The data of server-sent events."""
    return [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def wait_until(is_true: Any, seconds: float = 5.0) -> None:
    last = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < last
        time.sleep(0.005)
