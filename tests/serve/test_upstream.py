"""A server in front of another: the answers of that one, with the page, the receipts and the limits of this one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auricle.listen.other_models.endpoint_settings import EndpointSettings
from auricle.listen.other_models.openai_model import EndpointLM

from ..cli.conftest import auricle, write_noise
from .running import Running, running

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAME = "auricle-tiny"


@pytest.fixture(scope="module")
def front(server: Running) -> Iterator[Running]:
    from auricle.serve.service import Models

    exact = EndpointSettings(wav_bits=32, attempts=2)
    model = EndpointLM(f"openai:{NAME}@{server.url}/v1", exact, shown=NAME)
    with running(models=Models(audio_lms={NAME: model})) as found:
        yield found


def record(done: Any) -> dict[str, Any]:
    """What has nothing to do with probabilities and tokens, which the API does not give."""
    found: dict[str, Any] = json.loads(done.out)
    found["receipt"] = {name: found["receipt"][name] for name in ("duration_s", "channels", "skipped", "complete")}
    for part in (found, *found["segments"]):
        for name in ("confidence", "is_unsure", "mean_logprob"):
            part.pop(name, None)
    return found


@pytest.mark.parametrize(
    "verb",
    [["describe", "--dense"], ["ask", "-p", "Is there any music?"], ["describe", "--window", "1.5"]],
    ids=" ".join,
)
def test_answers_and_receipts_are_those_of_the_model(front: Running, tmp_path: Path, verb: list[str]) -> None:
    write_noise(tmp_path / "long.wav", 23.4, 5)
    for file in (EXAMPLES / "two_voices.ogg", tmp_path / "long.wav"):
        here, there = (auricle(*verb, file, "--json", *more) for more in ([], ["--server", front.url]))
        assert here.code == there.code == 0, there.err
        assert record(there) == record(here) and record(there)["receipt"]["complete"]


def test_transcripts_and_streams(front: Running, server: Running) -> None:
    clip = (EXAMPLES / "two_voices.ogg").read_bytes()
    answers = [
        each.http.post("/v1/audio/transcriptions", files={"file": clip}, data={"model": NAME, "response_format": "srt"})
        for each in (front, server)
    ]
    assert [answer.status_code for answer in answers] == [200, 200] and answers[0].text == answers[1].text
    done = front.http.post("/v1/audio/describe", files={"file": clip}, data={"stream": "true"})
    events = [json.loads(line[6:]) for line in done.text.splitlines() if line.startswith("data: {")]
    assert [event["type"] for event in events] == ["text.delta", "text.done"]
    assert events[0]["delta"] == events[1]["caption"] and events[1]["receipt"]["complete"]


def test_what_it_does_not_offer(front: Running) -> None:
    (card,) = front.http.get("/v1/models").json()["data"]
    assert card["id"] == NAME and card["capabilities"] == ["describe", "ask", "transcriptions"]
    said = front.http.post("/v1/chat/completions", json={"model": NAME, "messages": [{"role": "user", "content": "x"}]})
    assert said.status_code == 400 and "cannot do this: chat" in said.text
    clip = (EXAMPLES / "alarm.ogg").read_bytes()
    said = front.http.post("/v1/audio/ask", files={"file": clip}, data={"prompt": "Which?", "choices": "dog,clock"})
    assert said.status_code == 400 and "Traceback" not in said.text


def test_the_other_server_is_gone(models: Any) -> None:
    from auricle.serve.service import Models

    with running(models=models) as behind:
        model = EndpointLM(f"openai:{NAME}@{behind.url}/v1", EndpointSettings(attempts=1), shown=NAME)
    with running(models=Models(audio_lms={NAME: model})) as front:
        said = front.http.post("/v1/audio/describe", files={"file": (EXAMPLES / "alarm.ogg").read_bytes()})
    assert said.status_code == 502 and said.json()["error"]["code"] == "upstream_failed"
    assert "127.0.0.1" not in said.text  # where it is, is nobody's business


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "openai"], "--backend openai and --upstream URL go together"),
        (["--upstream", "http://127.0.0.1:9/v1"], "--backend openai and --upstream URL go together"),
        (["--backend", "openai", "--upstream", "http://127.0.0.1:9/v1"], "give --model NAME"),
        (["--backend", "other"], "expected one of auricle, openai"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str) -> None:
    done = auricle("serve", "--align-model", "none", "--port", 0, *options)
    assert done.code == 2 and message in " ".join(done.err.split())
