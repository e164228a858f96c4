"""What a server says of speech that its model was not trained to write down, and of what it is unsure of."""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from .running import Running, events_of, noise, running, wav

CLIP = wav(noise(2.0))
NOTICE = "speech; digits only (try --model whisper:base)"


@pytest.fixture(scope="module")
def modest(models: Any) -> Iterator[Running]:
    """A server of a model that takes all for open speech, and is never sure."""
    talker = copy(models.audio_lms["talker"])
    talker.verb_limits, talker.open_speech_below, talker.unsure_below = {"transcribe": "digits only"}, 1.0, 1.0
    with running(models=replace(models, audio_lms={"talker": talker})) as found:
        yield found


def test_no_format_has_an_invented_sentence(modest: Running) -> None:
    for form in ("json", "verbose_json"):
        found = modest.post("/v1/audio/transcriptions", CLIP, response_format=form).json()
        stated = found["auricle"]
        assert found["text"] == "" and stated["open_speech"] and stated["notice"] == NOTICE and stated["raw_text"]
        assert stated["is_unsure"] and stated["suggested_model"] == "whisper:base"
        assert [each["text"] for each in found.get("segments", [])] == [""] * (form == "verbose_json")
    assert modest.post("/v1/audio/transcriptions", CLIP, response_format="text").text == "\n"
    assert modest.post("/v1/audio/transcriptions", CLIP, response_format="srt").text == ""
    assert modest.post("/v1/audio/transcriptions", CLIP, response_format="vtt").text.strip() == "WEBVTT"
    receipt = json.loads(
        modest.post("/v1/audio/transcriptions", CLIP, response_format="text").headers["X-Auricle-Receipt"]
    )
    assert any("not trained to write down" in note for note in receipt["notes"])


def test_a_stream_has_none_either(modest: Running) -> None:
    last, end = events_of(modest.post("/v1/audio/transcriptions", CLIP, stream="true").text)
    done = json.loads(last)
    assert end == "[DONE]"
    assert (done["type"], done["text"], done["auricle"]["notice"]) == ("transcript.text.done", "", NOTICE)


def test_records_of_verbs_state_it(modest: Running) -> None:
    written = modest.post("/v1/audio/transcribe", CLIP).json()
    assert (written["text"], written["open_speech"], written["notice"]) == ("", True, NOTICE)
    described = modest.post("/v1/audio/describe", CLIP).json()
    assert described["is_unsure"] and described["caption"] and "Unclear" not in described["caption"]


def test_a_model_without_declarations_is_unchanged(server: Running) -> None:
    found = server.post("/v1/audio/transcriptions", CLIP, model="talker").json()
    assert found["text"] and not found["auricle"]["is_unsure"] and "open_speech" not in found["auricle"]
