"""The confidence that a model's files declare, and what is said where it is low."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError
from auricle.listen.confidence import Calibration, ConfidenceRule, doubtful
from auricle.listen.loading import load
from auricle.listen.model import AudioLM
from auricle.metrics.calibration import LogisticMap
from auricle.weights import Card
from auricle.weights.cards import render_card

from ..conftest import FOLDER
from .test_model import answers_with, noise

TOKENS: dict[str, Any] = {"max_new_tokens": 3}


def declaring(folder: Path, settings: dict[str, Any], **card: Any) -> Path:
    """A copy of the tiny model whose files declare more."""
    shutil.copytree(FOLDER / "model", folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    if card:
        (folder / "README.md").write_text(render_card(Card(name="own", **card)), encoding="utf-8")
    return folder


def test_declared_maps_make_the_confidence(model: AudioLM, tmp_path: Path) -> None:
    stated = {
        "auricle_caption_confidence_slope": 0.5,
        "auricle_caption_confidence_offset": -2.0,
        "auricle_answer_confidence_offset": 3.0,
        "auricle_transcript_confidence_slope": 2.0,
        "auricle_label_confidence_slope": 0.25,
        "auricle_unsure_below": 0.5,
    }
    own = load(str(declaring(tmp_path / "own", stated)), device="cpu")
    clip = noise(1.0)
    for verb, question, change in (
        ("describe", (), LogisticMap(0.5, -2.0)),
        ("ask", ("What is it?",), LogisticMap(1.0, 3.0)),
        ("transcribe", (), LogisticMap(2.0, 0.0)),
    ):
        plain, found = (getattr(each, verb)(clip, *question, **TOKENS) for each in (model, own))
        assert found.text == plain.text and found.segments == plain.segments
        assert found.confidence == pytest.approx(change(math.exp(plain.segments[0].mean_logprob)), abs=1e-4)
        assert found.is_unsure is (found.confidence < 0.5) and not plain.is_unsure
    plain, found = (each.choose(clip, "What is it?", ["dog", "rain", "sea"]) for each in (model, own))
    assert found.text == plain.text and found.odds == plain.odds
    assert found.confidence == round(LogisticMap(0.25)(plain.confidence), 6) != plain.confidence
    assert found.is_unsure is (found.confidence < 0.5)


def test_without_declarations_all_is_as_it_was(model: AudioLM) -> None:
    assert model.calibration == Calibration() and model.unsure_below is None
    assert ConfidenceRule().of(math.log(0.3)) == 0.3 and not ConfidenceRule().is_unsure(0.0)
    assert not ConfidenceRule(unsure_below=1.0).is_unsure(None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auricle_caption_confidence_slope", 0),
        ("auricle_answer_confidence_slope", 1e9),
        ("auricle_transcript_confidence_offset", -11),
        ("auricle_label_confidence_slope", 0.0),
        ("auricle_label_confidence_slope", float("nan")),
        ("auricle_caption_confidence_offset", "1"),
        ("auricle_caption_confidence_offset", True),
        ("auricle_unsure_below", 1.5),
        ("auricle_open_speech_below", -0.1),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_file(tmp_path: Path, key: str, value: Any) -> None:
    folder = declaring(tmp_path / "own", {key: value})
    with pytest.raises(ConfigError, match=r"generation_config\.json.*expected"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog barks.", "Unclear sound, perhaps a dog barks."),
        ("English speech over music.", "Unclear sound, perhaps English speech over music."),
        ("I hear rain.", "Unclear sound, perhaps I hear rain."),
        ("TV noise.", "Unclear sound, perhaps TV noise."),
        ("狗叫", "Unclear sound, perhaps 狗叫"),
    ],
)
def test_doubt_is_said_in_words(caption: str, words: str) -> None:
    assert doubtful(caption) == words


def test_the_caption_itself_is_unchanged(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, model, "A dog barks.")
    unsure = AudioLM(model.loaded, unsure_below=1.0).describe(noise(1))
    assert (unsure.text, unsure.caption, str(unsure), unsure.is_unsure) == (*["A dog barks."] * 3, True)
    assert unsure.in_words == "Unclear sound, perhaps a dog barks."
    sure = AudioLM(model.loaded, unsure_below=0.0).describe(noise(1))
    assert sure.in_words == sure.text and not sure.is_unsure
    silent = AudioLM(model.loaded, unsure_below=1.0).describe(np.zeros(16_000, np.float32))
    assert (silent.in_words, silent.is_unsure, silent.confidence) == ("Silence.", False, None)


def test_the_same_question_has_the_same_confidence_whoever_asks(model: AudioLM) -> None:
    own = AudioLM(model.loaded)
    own.calibration = Calibration(caption=LogisticMap(0.5, -1.0), transcript=LogisticMap(0.7, 2.0))
    clip = noise(1.0)
    for prompt, verb in ((CAPTION_PROMPT, own.describe), (TRANSCRIBE_PROMPT, own.transcribe)):
        said = verb(clip, **TOKENS)
        assert own.ask(clip, prompt, **TOKENS).confidence == said.confidence
        assert own.ask_all(clip, ["What?", prompt], sampling=SamplingParams(**TOKENS))[1].confidence == said.confidence
    assert own.ask(clip, "What?", **TOKENS).confidence == model.ask(clip, "What?", **TOKENS).confidence


# --- open speech


def test_the_embedded_model_invents_no_sentence() -> None:
    tiny = load("auricle-tiny", device="cpu")
    found = tiny.transcribe(FOLDER.parents[2] / "examples" / "two_voices.ogg")
    assert found.text == "" and found.open_speech and found.raw_text
    assert found.in_words.startswith(f"speech; {tiny.verb_limits['transcribe']}") and "whisper:base" in found.in_words
    assert all(not segment.text for segment in found.segments)


def test_a_language_that_the_model_names_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"transcribe": "this model transcribes only digits and short commands"}
    own = load(str(declaring(tmp_path / "own", {}, verb_limits=limits)), device="cpu")
    answers_with(monkeypatch, own, "speech in German")
    found = own.transcribe(noise(1.0))
    assert found.text == str(found) == "" and found.open_speech and found.language == "de"
    assert (
        found.in_words
        == found.notice
        == ("speech in German; this model transcribes only digits and short commands (try --model whisper:base)")
    )
    assert found.raw_text == "speech in German" and found.suggested_model == "whisper:base"
    assert not found.is_unsure, "it declares no bound"
    assert "speech in German, which the model was not trained to write down: 0-1 s" in found.receipt.notes
    answers_with(monkeypatch, own, "seven two")
    words = own.transcribe(noise(1.0))
    assert (words.text, words.in_words, words.open_speech, words.raw_text, words.notice) == (
        *["seven two"] * 2, False, None, "",
    )  # fmt: skip


def test_a_model_that_declares_no_limit_writes_all(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, model, "speech in German")
    assert model.transcribe(noise(1.0)).text == "speech in German"


def test_windows_of_open_speech_alone_are_left_out(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from auricle.engine.engine import Engine
    from auricle.engine.request import Generation

    own = AudioLM(model.loaded, max_audio_s=1.0, verb_limits={"transcribe": "digits only"})
    own.open_speech_below = 0.5
    spoken: list[tuple[str, float]] = [("seven", -0.1), ("a long story", -2.0), ("two", -0.1)]
    waiting = iter(spoken)

    def generate(self: Engine, prompts: list[Any], *_: Any, **__: Any) -> list[Generation]:
        return [Generation([5], "eos", mean, (mean,), text) for text, mean in (next(waiting) for _ in prompts)]

    monkeypatch.setattr(Engine, "generate", generate)
    given: list[str] = []
    own.on_segment = lambda name, segment: given.append(segment.text)
    found = own.transcribe(noise(3.0), overlap_s=0.0)
    assert found.text == "seven two" and found.open_speech and given == ["seven", "", "two"]
    assert [(each.text, each.open_speech) for each in found.segments] == [("seven", ""), ("", "speech"), ("two", "")]
    assert found.raw_text == "seven a long story two"
    assert found.in_words == "seven two  (speech; digits only (try --model whisper:base))"
    assert any(
        note.startswith("speech, which the model was not trained to write down: 1") for note in found.receipt.notes
    )
