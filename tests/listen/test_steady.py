"""Silence, tones and noise: what is measured of them, and what is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.encode.receipt import SILENT_NOTE
from auricle.listen import steady
from auricle.listen.model import AudioLM

from .test_model import answers_with, noise

RATE = 16_000


def tone(hertz: float, seconds: float = 2.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@given(hertz=st.floats(60, 7000), seconds=st.floats(1, 4), level=st.floats(0.001, 0.9))
def test_a_tone_is_constant(hertz: float, seconds: float, level: float) -> None:
    assert steady.remark(tone(hertz, seconds, level)) == steady.CONSTANT


@given(seed=st.integers(0, 999), seconds=st.floats(4, 10))
def test_white_noise_is_steady_and_not_constant(seed: int, seconds: float) -> None:
    assert steady.remark(noise(seconds, seed)) == steady.STEADY


@pytest.mark.parametrize(
    "waveform",
    [
        np.where(np.arange(2 * RATE) % RATE < RATE // 2, tone(440), 0.01 * tone(440)),
        np.concatenate([tone(300, 1.0), tone(3000, 1.0)]),
        noise(2.0) * np.linspace(0.01, 1, 2 * RATE, dtype=np.float32),
        tone(440, 0.9),
        noise(0.5),
    ],
    ids=["beeps", "two tones", "a swell", "too short", "too short noise"],
)
def test_what_changes_or_is_short_has_no_remark(waveform: np.ndarray) -> None:
    assert steady.remark(waveform.astype(np.float32)) == ""


def test_a_source_named_in_a_constant_tone_is_unsure(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = AudioLM(model.loaded, unsure_below=0.01)
    answers_with(monkeypatch, own, "A dog barks.")
    found = own.describe(tone(440))
    assert found.is_unsure and found.in_words == "Unclear sound, perhaps a dog barks." and found.text == "A dog barks."
    assert f"{steady.CONSTANT}: 0-2 s" in found.receipt.notes and found.receipt.warnings == ()
    heard = own.describe(noise(4.0))
    assert not heard.is_unsure and f"{steady.STEADY}: 0-4 s" in heard.receipt.notes
    answers_with(monkeypatch, own, "A steady tone sounds.")
    assert not own.describe(tone(440)).is_unsure
    answers_with(monkeypatch, model, "A dog barks.")
    assert not model.describe(tone(440)).is_unsure, "it declares no bound"
    partly = AudioLM(model.loaded, max_audio_s=2.0, unsure_below=0.01)
    mixed = partly.describe(np.concatenate([tone(440), noise(0.9), tone(200, 0.9)]))
    assert not mixed.is_unsure and any(note.startswith(steady.CONSTANT) for note in mixed.receipt.notes)


def test_questions_about_digital_silence_have_a_warning(model: AudioLM) -> None:
    silence = np.zeros(RATE, np.float32)
    asked = model.ask(silence, "What is it?", max_new_tokens=2)
    chosen = model.choose(silence, "What is it?", ["dog", "rain"])
    assert asked.receipt.warnings == chosen.receipt.warnings == (SILENT_NOTE,)
    assert model.describe(silence).receipt.warnings == () and model.describe(silence).text == "Silence."
    assert model.ask(noise(1.0), "What is it?", max_new_tokens=2).receipt.warnings == ()
