"""One family of results, and what a model's card says of them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.sources import AudioSource
from auricle.errors import AuricleError, ConfigError
from auricle.listen import Answer, Choice, Description, Output, Transcript
from auricle.listen.loading import load
from auricle.listen.model import AudioLM
from auricle.listen.outputs import Segment
from auricle.weights import Card, read_card
from auricle.weights.cards import render_card

from ..conftest import FOLDER
from .test_model import noise

VERBS: dict[str, tuple[type[Output], dict[str, Any]]] = {
    "describe": (Description, {}),
    "transcribe": (Transcript, {}),
    "ask": (Answer, {"prompt": "What is it?"}),
    "choose": (Choice, {"question": "What is it?", "options": ["dog", "rain"]}),
}
SETTINGS = {"max_new_tokens": 3}


def settings_of(verb: str) -> dict[str, Any]:
    return {**VERBS[verb][1], **({} if verb == "choose" else SETTINGS)}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_its_text_segments_receipt_and_confidence(model: AudioLM, verb: str) -> None:
    found = getattr(model, verb)(noise(1.0), **settings_of(verb))
    assert isinstance(found, VERBS[verb][0])
    assert str(found) == found.text and found.receipt.complete and len(found.segments) == 1
    if isinstance(found, Choice):
        assert found.answer == found.text
        assert found.confidence == max(each.probability for each in found.odds)
    else:
        assert found.confidence == pytest.approx(math.exp(found.segments[0].mean_logprob), abs=1e-4)
    if isinstance(found, Description):
        assert found.caption == found.text


@given(parts=st.lists(st.tuples(st.floats(0.1, 60), st.none() | st.floats(-9, 0)), max_size=5))
def test_confidence_is_the_mean_over_the_time_of_what_the_model_said(parts: list[tuple[float, float | None]]) -> None:
    segments = tuple(Segment(start_s=0.0, stop_s=seconds, text="a", mean_logprob=mean) for seconds, mean in parts)
    found = Transcript(text="a", segments=segments, receipt=None)  # type: ignore[arg-type]
    said = [(seconds, mean) for seconds, mean in parts if mean is not None]
    if not said:
        assert found.confidence is None
        return
    mean = sum(seconds * value for seconds, value in said) / sum(seconds for seconds, _ in said)
    assert found.confidence == pytest.approx(math.exp(mean), abs=1e-4)


@pytest.mark.parametrize("verb", VERBS)
def test_several_sources_are_for_the_other_method(model: AudioLM, verb: str) -> None:
    one, many = getattr(model, verb), getattr(model, f"{verb}_many")
    more = VERBS[verb][1]
    clips = (noise(0.5), noise(0.5))
    for several in (["a.wav", "b.wav"], ("a.wav", "b.wav"), {"a.wav"}, list(clips), clips, (clip for clip in clips)):
        with pytest.raises(ConfigError, match=f"{verb}_many takes several"):
            one(several, **more)
    for single in ("a.wav", Path("a.wav"), b"RIFF", None, 3):
        with pytest.raises(ConfigError, match=f"{verb} takes one"):
            many(single, **more)
    assert isinstance(next(iter(many(["missing.wav"], **more))), AuricleError)
    assert one((noise(0.5), np.int64(16_000)), **more).receipt.complete


@pytest.mark.parametrize("wrong", [None, 3, {"a": 1, "b": 2}, np.zeros(2)])
def test_questions_are_a_list(model: AudioLM, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected a list of at least one"):
        model.ask_all(noise(0.5), wrong)


def test_options_are_any_collection_of_texts(model: AudioLM) -> None:
    found = model.ask(noise(0.5), "Which?", choices=(option for option in ("dog", "rain")))  # type: ignore[arg-type]
    assert found.text in ("dog", "rain")
    for wrong in (None, 3):
        with pytest.raises(ConfigError, match="expected a list of texts"):
            model.choose(noise(0.5), "Which?", wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", VERBS)
def test_sources_have_a_type(verb: str) -> None:
    assert getattr(AudioLM, verb).__annotations__["source"] == "AudioSource"
    assert {str, bytes} < set(get_args(AudioSource)) and not {Any, object, int} & set(get_args(AudioSource))


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose card declares limits by verb, and who is never sure."""
    folder = tmp_path_factory.mktemp("declared") / "model"
    shutil.copytree(FOLDER / "model", folder)
    limits = {"transcribe": "birds only", "schema": "no JSON"}
    (folder / "README.md").write_text(render_card(Card(name="modest", verb_limits=limits)), encoding="utf-8")
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "auricle_unsure_below": 1.0, "auricle_max_audio_s": 30.0}))
    return folder


def test_limits_of_the_card_are_noted_in_receipts_of_their_verb(declared: Path) -> None:
    assert read_card(declared).verb_limits == {"transcribe": "birds only", "schema": "no JSON"}
    assert "- `transcribe`: birds only" in (declared / "README.md").read_text()
    modest = load(str(declared), device="cpu")
    assert modest.unsure_below == 1.0
    *_, note = modest.transcribe(noise(0.5), **SETTINGS).receipt.notes
    assert note.endswith(": birds only")
    assert modest.describe(noise(0.5), **SETTINGS).receipt.notes == ()
    assert modest.ask(noise(0.5), "?", **SETTINGS).receipt.notes == ()
    pytest.importorskip("llguidance")
    (note,) = modest.ask(noise(0.5), "?", schema={"enum": ["dog", "rain"]}).receipt.notes
    assert note.endswith(": no JSON")


def test_the_language_is_named_where_the_prompt_can(
    model: AudioLM, declared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = load(str(FOLDER / "model"), device="cpu")
    asked: list[str] = []
    write = published.prompt_writer.write

    def note(messages: Any, **settings: Any) -> Any:
        asked.append(messages[0]["content"][-1]["text"])
        return write(messages, **settings)

    monkeypatch.setattr(published.prompt_writer, "write", note)
    published.transcribe(noise(0.5), language="zh", **SETTINGS)
    assert asked == ["Transcribe the speech into text <|zh|>"]
    with pytest.raises(ConfigError, match="two or three letters"):
        published.transcribe(noise(0.5), language="<|x|>")
    with pytest.raises(ConfigError, match="names no language"):
        load(str(declared), device="cpu").transcribe(noise(0.5), language="en")


@settings(max_examples=20, deadline=None)
@given(pauses=st.lists(st.booleans(), min_size=1, max_size=6), batch_size=st.integers(1, 4), overlap=st.booleans())
def test_segments_are_given_once_they_are_final(
    model: AudioLM, pauses: list[bool], batch_size: int, overlap: bool
) -> None:
    parts = [np.zeros(16_000, np.float32) if pause else noise(1.3, seed) for seed, pause in enumerate(pauses)]
    sources = [np.concatenate(parts), noise(0.7)]
    given_out: list[Segment] = []
    model.on_segment = lambda name, segment: given_out.append(segment)
    try:
        wanted = {"window_s": 1.0, "batch_size": batch_size, **SETTINGS}
        for results in (
            model.transcribe_many(sources, overlap_s=0.3 if overlap else 0.0, **wanted),
            model.describe_many(sources, dense=True, **wanted),
        ):
            given_out.clear()
            for found in results:
                assert isinstance(found, Output)
                assert given_out[: len(found.segments)] == list(found.segments)
                del given_out[: len(found.segments)]
            assert given_out == []
    finally:
        model.on_segment = None
