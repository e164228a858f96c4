"""The project's own routes: the JSON of the command line, streams, spectrograms and search."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auricle.audio.logmel import LogMel
from auricle.encode.aligner import Aligner
from auricle.encode.zero_shot import TEMPLATES, Prompts, classify, score_many
from auricle.listen import AudioLM
from auricle.search import Index, build_index

from ..cli.conftest import auricle
from .conftest import ALIGNER
from .running import Running, error_of, events_of, noise, running, wav, write

LONG = wav(noise(25.0, seed=2))


@pytest.mark.parametrize(
    ("verb", "arguments", "fields"),
    [
        ("describe", [], {}),
        ("describe", ["--dense", "--window", 5], {"dense": "true", "window_s": "5"}),
        ("ask", ["-p", "Is it loud?"], {"prompt": "Is it loud?"}),
        (
            "ask",
            ["-p", "Which?", "--choices", "dog,rain", "--letters"],
            {"prompt": "Which?", "choices": "dog,rain", "letters": "1"},
        ),
        ("transcribe", ["--overlap", 1], {"overlap_s": "1"}),
    ],
)
def test_a_route_gives_what_its_verb_prints(
    server: Running, tmp_path: Path, verb: str, arguments: list[Any], fields: dict[str, str]
) -> None:
    path = write(tmp_path, "long.wav", LONG)
    (wanted,) = auricle(verb, path, *arguments, "--json", "--device", "cpu").records
    found = server.post(f"/v1/audio/{verb}", LONG, "long.wav", **fields)
    assert found.status_code == 200, found.text
    wanted["file"] = wanted["receipt"]["file"] = "long.wav"
    assert found.json() == wanted


def test_answers_of_a_schema(server: Running) -> None:
    pytest.importorskip("llguidance", reason="needs the extra schema")
    found = server.post("/v1/audio/ask", LONG, prompt="Loud?", schema='{"enum": ["yes", "no"]}').json()
    assert found["value"] in ("yes", "no") and json.loads(found["answer"]) == found["value"]
    assert error_of(server.post("/v1/audio/ask", LONG, prompt="Loud?", schema="[]"))["param"] == "schema"


@pytest.mark.parametrize(("verb", "key"), [("describe", "caption"), ("ask", "answer")])
def test_a_stream_ends_with_the_record(server: Running, verb: str, key: str) -> None:
    fields = {"prompt": "What is it?"} if verb == "ask" else {}
    wanted = server.post(f"/v1/audio/{verb}", LONG, model="auricle-tiny", **fields).json()
    *events, end = events_of(server.post(f"/v1/audio/{verb}", LONG, stream="true", **fields).text)
    *deltas, done = [json.loads(each) for each in events]
    assert end == "[DONE]" and done == {"type": "text.done", **wanted}
    texts = "".join(each["delta"] for each in deltas).split("\n")
    assert texts == [segment["text"] for segment in done["segments"]] and len(texts) > 1
    assert done[key]


def test_silence_is_streamed_too(server: Running) -> None:
    found = events_of(server.post("/v1/audio/describe", wav(np.zeros(16_000)), stream="true").text)
    assert [json.loads(each)["type"] for each in found[:-1]] == ["text.delta", "text.done"]


def test_scores_and_labels(server: Running, aligner: Aligner) -> None:
    clip = wav(noise(2.0))
    found = server.post("/v1/audio/score", clip, text=["a dog", "rain"]).json()
    (wanted,) = score_many(aligner, [io.BytesIO(clip)], ["a dog", "rain"])
    assert found["scores"] == wanted.scores and found["probabilities"] == wanted.probabilities
    assert (found["model"], found["file"], found["receipt"]["file"]) == (ALIGNER, "clip.wav", "clip.wav")
    found = server.post("/v1/audio/classify", clip, labels='dog, "rain, heavy"').json()
    wanted = classify(aligner, io.BytesIO(clip), ["dog", "rain, heavy"], prompts=Prompts(templates=TEMPLATES["sound"]))
    assert found["scores"] == wanted.scores and found["labels"] == list(wanted.labels)
    assert error_of(server.post("/v1/audio/classify", clip, labels="dog"))["message"].startswith("'dog' is the only")
    assert error_of(server.post("/v1/audio/classify", clip, labels="a,b", threshold="3"))["param"] == "threshold"
    assert error_of(server.post("/v1/audio/score", clip))["param"] == "text"
    assert error_of(server.post("/v1/audio/score", clip, text="x", loudness="1"))["param"] == "loudness"


def test_search_in_an_index(models: Any, aligner: Aligner, tmp_path: Path, server: Running) -> None:
    for seed, level in enumerate([0.01, 0.1, 0.4]):
        write(tmp_path, f"{seed}.wav", wav(noise(2.0, seed, level)))
    names = sorted(str(each) for each in tmp_path.iterdir())
    build_index(aligner, names, tmp_path / "x.auricle", model=ALIGNER, window_s=10.0, hop_s=5.0)
    assert error_of(server.post("/v1/audio/search", query="rain"))["code"] == "no_index"
    index = Index.open(tmp_path / "x.auricle")
    from dataclasses import replace

    with running(models=replace(models, index=index)) as own:
        found = own.http.post("/v1/audio/search", data={"query": "rain", "k": "2"}).json()
        wanted = index.search(aligner.text(["rain"]), 2)
        assert [(each["file"], each["score"]) for each in found["data"]] == [(h.path, h.score) for h in wanted]
        like = own.post("/v1/audio/search", Path(names[1]).read_bytes()).json()["data"]
        assert like[0]["file"] == names[1] and like[0]["score"] > 99
        assert error_of(own.http.post("/v1/audio/search", data={"k": "3"}))["code"] == "invalid_prompt"


@pytest.mark.parametrize("seconds", [0.01, 5.0, 130.0])
def test_the_spectrogram_is_the_one_of_the_whole_clip(server: Running, seconds: float) -> None:
    samples = noise(seconds, level=0.3) * np.linspace(0.001, 1, round(16_000 * seconds), dtype="f4") ** 4
    header, _, values = server.post("/v1/audio/mel", wav(samples, subtype="FLOAT")).content.partition(b"\n")
    shape = json.loads(header)
    wave = torch.nn.functional.pad(torch.from_numpy(samples), (0, max(0, 257 - len(samples))))
    mel = LogMel().eval()(wave)[0]
    assert (shape["num_mels"], shape["frames"], shape["frame_hz"]) == (64, mel.shape[1], 100)
    wanted = (mel - mel.min()) / (mel.max() - mel.min()) * 255
    found = np.frombuffer(values, np.uint8).reshape(wanted.shape).astype(float)
    assert np.abs(found - wanted.numpy()).max() <= 0.51
    picture = server.post("/v1/audio/mel", wav(samples, subtype="FLOAT"), format="png")
    assert picture.headers["content-type"] == "image/png" and picture.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture.content[16:24]) == (mel.shape[1], 64)
    data = picture.content[picture.content.index(b"IDAT") + 4 : picture.content.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(64, -1)
    assert not rows[:, 0].any() and (rows[::-1, 1:] == found).all()


def test_models_are_chosen_by_what_they_can(server: Running, model: AudioLM) -> None:
    found = server.post("/v1/audio/describe", LONG, model="talker").json()
    assert found["model"] == "talker" and found["caption"] == model.describe(io.BytesIO(LONG)).caption
    assert error_of(server.post("/v1/audio/describe", LONG, model="whisper:toy"))["code"] == "model_cannot"
    assert error_of(server.post("/v1/audio/describe", LONG, model="other"))["code"] == "model_not_found"
    assert error_of(server.post("/v1/audio/ask", LONG, prompt=" "))["code"] == "invalid_value"
    assert error_of(server.post("/v1/audio/ask", LONG, prompt="x", letters="true"))["param"] == "choices"
    assert error_of(server.post("/v1/audio/describe", wav(noise(0.05))))["code"] == "clip_too_short"


@pytest.mark.parametrize(
    ("verb", "param", "fields"),
    [
        ("describe", "window_s", {"window_s": "0.5"}),
        ("describe", "max_new_tokens", {"max_new_tokens": "5000"}),
        ("ask", "prompt", {"prompt": "x" * 9000}),
        ("ask", "schema", {"prompt": "x", "schema": json.dumps({"enum": ["x" * 20_000]})}),
        ("classify", "template", {"labels": "a,b", "template": ["{label}"] * 20}),
        ("classify", "labels", {"labels": [f"label {number}" for number in range(255)] + ["x" * 9000]}),
    ],
)
def test_much_work_for_little_is_refused(server: Running, verb: str, param: str, fields: dict[str, Any]) -> None:
    found = server.post(f"/v1/audio/{verb}", LONG, **fields)
    assert found.status_code == 400 and error_of(found)["param"] == param
