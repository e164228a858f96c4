"""A model behind `auricle serve`, asked over HTTP: the same answers as in process, through errors and kills."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import auricle
from auricle.errors import BudgetSpent, ConfigError, EndpointError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.listen import EndpointSettings
from auricle.listen.other_models.endpoint_settings import read_endpoint_settings, read_key, split_name
from auricle.listen.other_models.openai_model import EndpointLM, wav_bytes

from ..cli.conftest import auricle as command_line
from ..serve.running import httpx, noise, running, wait_until, wav

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = EndpointSettings(attempts=12)


class Proxy:
    """Passes requests on to a server; a share of them fails before it does."""

    def __init__(self, target: str, share: float = 0.0, seed: int = 0) -> None:
        self.target, self.share, self.chance = target, share, random.Random(seed)
        self.delivered: list[tuple[float, bytes]] = []  # when the whole reply to a chat request was written, its body
        self.failed = 0
        self.headers: list[dict[str, str]] = []
        self.pause_s = 0.0
        self.planned: list[tuple[int, dict[str, str], bytes]] = []  # replies instead of the server's
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.handle(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        with self.lock:
            self.headers.append(dict(request.headers))
            fails = self.chance.random() < self.share
            kind = self.chance.randrange(4)
            planned = self.planned.pop(0) if self.planned else None
            self.failed += fails
        if planned is not None:
            return self.reply(request, *planned)
        if fails and kind == 0:
            return request.connection.shutdown(socket.SHUT_RDWR)
        if fails:
            status = (429, 500, 503)[kind - 1]
            return self.reply(request, status, {"Retry-After": "0.05"}, b'{"error": {"message": "injected"}}')
        time.sleep(self.pause_s)
        kept = {name: value for name, value in request.headers.items() if name.lower() in ("content-type", "accept")}
        found = httpx.request(request.command, self.target + request.path, content=body, headers=kept, timeout=60)
        self.reply(request, found.status_code, {"Content-Type": "application/json"}, found.content)
        if request.path.endswith("completions") and found.status_code == 200:
            with self.lock:
                self.delivered.append((time.monotonic(), body))
        return None

    @staticmethod
    def reply(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        try:
            request.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(content)
        except OSError:  # the client was killed
            pass

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of a server of the embedded model."""
    from auricle.serve.service import Models

    models = Models(audio_lms={"auricle-tiny": auricle.load("auricle-tiny", device="cpu")})
    with running(models=models) as found:
        yield found.url


@pytest.fixture
def proxy(served: str) -> Iterator[Proxy]:
    found = Proxy(served)
    yield found
    found.close()


def remote(url: str, settings: EndpointSettings | None = None) -> EndpointLM:
    found = auricle.load(f"openai:auricle-tiny@{url}/v1", endpoint=settings)
    assert isinstance(found, EndpointLM)
    return found


def manifests(folder: Path, count: int = 6) -> list[str]:
    """Two tasks on short clips cut from the examples: which gender speaks, and which sound it is."""
    import soundfile

    rows: dict[str, list[dict[str, Any]]] = {"gender": [], "events": []}
    names = [("voice.ogg", "female", "speech"), ("alarm.ogg", "male", "alarm"), ("piano.ogg", "male", "piano")]
    for number in range(count):
        name, gender, event = names[number % 3]
        clip = auricle.decode(EXAMPLES / name).waveform
        start = (number * 7000) % max(1, len(clip) - 24_000)
        soundfile.write(folder / f"{number}.wav", clip[start : start + 24_000 - 10 * number], 16_000, subtype="PCM_16")
        rows["gender"].append({"audio": f"{number}.wav", "gender": gender, "speaker": name})
        rows["events"].append({"audio": f"{number}.wav", "label": event, "event": event})
    found = []
    for task, own in rows.items():
        path = folder / f"{task}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in own))
        found += ["-t", f"{task}={path}"]
    return found


def evaluate(arguments: list[str]) -> list[str]:
    code = "import sys; from auricle.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, "evaluate", "run", *arguments, "--json", "--scoring-rule", "both"]


def outputs(folder: Path) -> dict[str, Any]:
    """Answers and scores of every task, without the name of the model."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*/answers.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [{k: v for k, v in row.items() if k != "model_name"} for row in rows]
        for rule in ("strict", "compat"):
            scores = json.loads((path.parent / f"{rule}.json").read_text())
            scores["data"] = {k: v for k, v in scores["data"].items() if k == "references_sha256"}
            found[f"{path.parent.name} {rule}"] = json.dumps(scores)
    return found


def test_two_tasks_give_the_answers_of_the_model_in_process(proxy: Proxy, tmp_path: Path) -> None:
    tasks = manifests(tmp_path)
    settings = tmp_path / "endpoint.yaml"
    settings.write_text("usd_per_request: 0.001\nusd_per_audio_minute: 0.06\n")
    remotely = ["--model", f"openai:auricle-tiny@{proxy.url}/v1", "--endpoint", settings]
    printed = {}
    for name, model in {"here": ["--device", "cpu"], "there": remotely}.items():
        done = command_line(
            "evaluate", "run", *tasks, "-o", tmp_path / name, *model, "--scoring-rule", "both", "--json"
        )
        assert done.code == 0, done.err + done.out
        printed[name] = done.records
    here, there = outputs(tmp_path / "here"), outputs(tmp_path / "there")
    assert here == there and {"gender", "events strict"} <= set(here)
    assert any(row["model_output"] for row in here["events"])
    spent = printed["there"][-1]["spent"]
    assert spent["requests"] == 13 and spent["failed"] == 0  # the model's card, and six clips of each task
    assert spent["audio_s"] == pytest.approx(18.0, abs=0.03) and spent["wait_s"] > 0 and spent["output_tokens"] > 0
    assert spent["usd"] == pytest.approx(0.013 + spent["audio_s"] * 0.001, abs=1e-6)
    cached = [path.read_text() for path in (tmp_path / "there").rglob("*.json*")]
    assert "Authorization" not in "".join(cached)


@pytest.mark.slow
def test_killed_runs_with_errors_lose_nothing_and_ask_nothing_twice(served: str, tmp_path: Path) -> None:
    proxy = Proxy(served, share=0.2, seed=3)
    proxy.pause_s = 0.15
    tasks = manifests(tmp_path, count=30)
    out, chance = tmp_path / "out", random.Random(7)
    run = evaluate([*tasks, "-o", str(out), "--model", f"openai:auricle-tiny@{proxy.url}/v1", "--batch-size", "4"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    stored: set[str] = set()  # keys of the replies that are on disk
    kills = asked_again = 0
    try:
        for _ in range(12):
            before = len(proxy.delivered)
            process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
            if kills < 6:
                wait_until(lambda: len(proxy.delivered) > before or process.poll() is not None, 300)  # noqa: B023
                time.sleep(chance.uniform(0.0, 0.7))
                kills += process.poll() is None
                process.send_signal(signal.SIGKILL)
            output = process.communicate(timeout=900)
            time.sleep(0.5)  # what is in flight ends
            asked_again += sum(reply_key(proxy, body) in stored for _, body in proxy.delivered[before:])
            stored = kept_keys(out / "cache" / "requests")
            lost = {reply_key(proxy, body) for _, body in proxy.delivered} - stored
            assert len(lost) <= 4  # those that were on their way when the process was killed
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0, output[1]
                break
    finally:
        proxy.close()
    asked = Counter(body for _, body in proxy.delivered)
    assert kills == 6 and proxy.failed > 10 and asked_again == 0
    assert len(asked) == 60 and sum(asked.values()) - 60 <= 4 * kills
    spent = json.loads(output[0].splitlines()[-1])["spent"]
    assert spent["requests"] > 0 and not lost
    here = subprocess.run(evaluate([*tasks, "-o", str(tmp_path / "here")]), capture_output=True, env=environment)
    assert here.returncode == 0 and outputs(out) == outputs(tmp_path / "here")


def reply_key(proxy: Proxy, body: bytes) -> str:
    content = json.dumps(json.loads(body), sort_keys=True)
    return sha256(f"chat {proxy.url}/v1\n{content}".encode()).hexdigest()


def kept_keys(folder: Path) -> set[str]:
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    return {json.loads(line)["key"] for line in lines if line.endswith("\n")}


def test_verbs_equal_those_in_process(proxy: Proxy) -> None:
    there, here = remote(proxy.url, EndpointSettings(wav_bits=32)), auricle.load("auricle-tiny", device="cpu")
    assert there.max_audio_s == here.max_audio_s == 10.0
    clip = EXAMPLES / "voice_over_piano.ogg"
    assert there.describe(clip).text == here.describe(clip).text != ""
    assert there.ask(clip, "Is there music?").text == here.ask(clip, "Is there music?").text
    assert there.transcribe(clip).text == here.transcribe(clip).text
    turns = [{"role": "user", "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": "Is it loud?"}]}]
    assert there.chat(turns) == here.chat(turns)
    stream = there.stream(clip, "Is there music?")
    assert "".join(stream) == stream.answer.text


def test_a_long_clip_is_asked_about_in_windows(proxy: Proxy) -> None:
    there, here = remote(proxy.url, EndpointSettings(wav_bits=32)), auricle.load("auricle-tiny", device="cpu")
    long = np.tile(auricle.decode(EXAMPLES / "voice_over_piano.ogg").waveform, 12)[: 62 * 16_000]
    found, expected = there.ask(long, "Is there music?"), here.ask(long, "Is there music?")
    assert found.text == expected.text and len(found.segments) == len(expected.segments) == 7
    assert found.receipt.complete and found.receipt.read == expected.receipt.read
    assert any("processed in 7 windows" in note for note in found.receipt.notes)
    assert there.describe(long, dense=True).text == here.describe(long, dense=True).text


def test_a_refused_clip_is_an_error_and_the_others_go_on(proxy: Proxy) -> None:
    model = remote(proxy.url)
    clips = [(noise(1.0, seed), 16_000) for seed in range(3)]
    proxy.planned = [(400, {}, b'{"error": {"message": "this clip is odd"}}')]
    found = list(model.ask_many(clips, "What is it?", batch_size=1))
    assert isinstance(found[0], EndpointError) and "this clip is odd" in str(found[0])
    assert all(not isinstance(each, EndpointError) for each in found[1:])


def test_requests_are_sent_again_when_the_server_says(proxy: Proxy) -> None:
    model = remote(proxy.url, EndpointSettings(attempts=3))
    proxy.planned = [(429, {"Retry-After": "0.3"}, b"{}"), (503, {"Retry-After": "0"}, b"busy")]
    start = time.monotonic()
    assert model.ask((noise(1.0), 16_000), "What is it?").text
    assert time.monotonic() - start >= 0.3 and model.spent.failed == 2
    proxy.planned = [(500, {"Retry-After": "0"}, b"{}")] * 3
    with pytest.raises(EndpointError, match="3 attempts"):
        model.ask((noise(1.0), 16_000), "What is it?")


def test_no_server_is_one_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EndpointError, match="check that the server runs"):
        remote(url, EndpointSettings(attempts=2))


def test_an_unknown_model_is_refused_at_once(served: str) -> None:
    with pytest.raises(EndpointError, match="there is no model"):
        auricle.load(f"openai:nobody@{served}/v1")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"budget_requests": 3}, "budget_requests"),
        ({"budget_audio_s": 2.5}, "budget_audio_s"),
        ({"budget_usd": 0.0025, "usd_per_request": 0.001}, "budget_usd"),
    ],
)
def test_no_budget_is_exceeded(proxy: Proxy, settings: dict[str, float], field: str) -> None:
    model = remote(proxy.url, EndpointSettings(**settings))  # type: ignore[arg-type]
    clips = [(noise(1.0, seed), 16_000) for seed in range(9)]
    with pytest.raises(BudgetSpent, match=field):
        list(model.ask_many(clips, "What is it?", batch_size=2))
    posted = len(proxy.delivered)
    assert posted == model.spent.requests - 1 == (2 if field != "budget_usd" else 1)


def test_money_follows_the_tokens_that_the_server_states(proxy: Proxy) -> None:
    model = remote(proxy.url, EndpointSettings(usd_per_million_input_tokens=2.0, usd_per_million_output_tokens=8.0))
    model.ask((noise(1.0), 16_000), "What is it?")
    spent = model.spent
    assert spent.input_tokens > 5 and spent.output_tokens > 0
    assert spent.usd == pytest.approx((2 * spent.input_tokens + 8 * spent.output_tokens) / 1e6)
    assert f"${spent.usd:.4f}" in spent.line()


def test_equal_requests_are_sent_once_and_kept_ones_not_at_all(proxy: Proxy, tmp_path: Path) -> None:
    clips = [(noise(1.0), 16_000)] * 4
    with AnswerCache(tmp_path) as cache:
        model = remote(proxy.url)
        model.journal = cache.replies
        first = [str(each) for each in model.ask_many(clips, "What is it?")]
    with AnswerCache(tmp_path) as cache:
        again = remote(proxy.url)
        again.journal = cache.replies
        assert [str(each) for each in again.ask_many(clips, "What is it?")] == first
    assert len(proxy.delivered) == 1 and again.spent.kept == 1


def test_a_key_is_sent_and_never_shown(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_ENDPOINT_KEY", "sk-very-secret")
    model = remote(proxy.url)
    assert proxy.headers[-1]["Authorization"] == "Bearer sk-very-secret"
    proxy.planned = [(401, {}, b'{"error": {"message": "sk-very-secret is no key"}}')]
    with pytest.raises(EndpointError, match=r"\*\*\* is no key") as caught:
        model.ask((noise(1.0), 16_000), "What is it?")
    shown = [str(caught.value), repr(model.settings), model.model, model.fingerprint, repr(model.__dict__)]
    assert "very-secret" not in "".join(shown)


def test_a_redirect_is_not_followed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_ENDPOINT_KEY", "sk-very-secret")
    model, seen = remote(proxy.url), len(proxy.headers)
    proxy.planned = [(307, {"Location": f"{proxy.url}/elsewhere"}, b"")]
    with pytest.raises(EndpointError, match="307"):
        model.ask((noise(1.0), 16_000), "What is it?")
    assert len(proxy.headers) == seen + 1


def test_keys_come_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AURICLE_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    assert read_key(EndpointSettings(), "http://127.0.0.1:8000/v1") is None  # that key is for OpenAI alone
    assert read_key(EndpointSettings(), "https://api.openai.com/v1") == "openai"
    path = tmp_path / "key"
    path.write_text("from-file\n")
    assert read_key(EndpointSettings(api_key_file=str(path)), "http://h/v1") == "from-file"
    path.write_text("two\nlines\n")
    for settings in (EndpointSettings(api_key_file=str(path)), EndpointSettings(api_key_env="NO_SUCH_VARIABLE")):
        with pytest.raises(ConfigError, match="holds no API key"):
            read_key(settings, "http://h/v1")


def test_names_are_split_and_checked() -> None:
    assert split_name("openai:org/model@v2@http://h:8000/v1/") == ("org/model@v2", "http://h:8000/v1")
    for name in ("openai:model", "openai:m@ftp://h/v1", "openai:m@http://me:secret@h/v1", "openai:m@http://h/v1?key=1"):
        with pytest.raises(ConfigError) as caught:
            split_name(name)
        assert "secret" not in str(caught.value)


def test_settings_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_text("concurrency: 2\nbudget_usd: 1.5\nusd_per_request: 0.01\n")
    assert read_endpoint_settings(path).concurrency == 2
    for text in ("api_key: sk-x\n", "budget_usd: 1.0\n", "concurrency: 0\n", "[1]\n", "transcribe: maybe\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"endpoint\.yaml"):
            read_endpoint_settings(path)


def test_what_a_server_cannot_do_is_said(proxy: Proxy) -> None:
    model = remote(proxy.url)
    with pytest.raises(ConfigError, match="cannot choose"):
        model.choose((noise(1.0), 16_000), "Which?", ["a", "b"])
    with pytest.raises(ConfigError, match="choices or a schema"):
        model.ask((noise(1.0), 16_000), "Which?", choices=["a", "b"])
    with pytest.raises(ConfigError, match="leave out quantize"):
        auricle.load(f"openai:auricle-tiny@{proxy.url}/v1", quantize="int8")
    with pytest.raises(ConfigError, match="no model behind a server"):
        auricle.load("auricle-tiny", endpoint=EndpointSettings())


def test_a_reply_says_what_became_of_it(proxy: Proxy) -> None:
    model = remote(proxy.url)

    def planned(message: dict[str, Any], finish: str = "stop") -> None:
        body = {"choices": [{"message": message, "finish_reason": finish}]}
        proxy.planned = [(200, {}, json.dumps(body).encode())]

    planned({"content": "<think>\nlet me see\n</think>\n\nA dog."}, "length")
    found = model.ask((noise(1.0), 16_000), "What is it?")
    assert found.text == "A dog."
    assert any("<think>" in note and "cut at 128 tokens" in note for note in found.receipt.notes)
    planned({"content": None, "refusal": "I must not."})
    with pytest.raises(EndpointError, match="I must not"):
        model.ask((noise(1.0), 16_000), "What is it?")
    proxy.planned = [(200, {}, b'{"choices": []}')]
    with pytest.raises(EndpointError, match="expected a chat completion"):
        model.ask((noise(1.0), 16_000), "What is it?")


def test_sixteen_bits_hold_what_was_read_from_sixteen_bits() -> None:
    content = wav(noise(0.5))
    assert wav_bytes(auricle.decode(content).waveform, 16) == content
