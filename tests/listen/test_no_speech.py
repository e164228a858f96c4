import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.listen.model import AudioLM
from auricle.listen.no_speech import NoSpeechRule, calibrate, is_no_speech

from .test_model import answers_with, noise


def test_the_bound_lies_between_the_sets() -> None:
    assert calibrate([-8.0, -9.0], [-0.1, -2.0]) == -5.0
    assert calibrate([-8.0, -1.0, -9.0], [-0.1, -2.0, -0.2, -0.3]) in (-5.0, -0.65)
    with pytest.raises(ConfigError, match="0 without"):
        calibrate([-1.0], [])


@given(speech=st.lists(st.floats(-50, -1e-6), min_size=1), other=st.lists(st.floats(-50, -1e-6), min_size=1))
def test_no_bound_has_fewer_errors(speech: list[float], other: list[float]) -> None:
    def errors(bound: float) -> float:
        return sum(v >= bound for v in speech) / len(speech) + sum(v < bound for v in other) / len(other)

    assert errors(calibrate(speech, other)) <= min(map(errors, [*speech, *other])) + 1e-9


@given(transcript=st.floats(-30, -1e-9), bound=st.floats(-20, 0))
def test_a_likely_transcript_settles_it(transcript: float, bound: float) -> None:
    rule = NoSpeechRule(bound)
    most = math.log(max(1 - math.exp(transcript), 1e-300))  # "no speech" has at most what the transcript leaves
    assert rule.can_deny(transcript) or not rule.denies(most - 1e-6)


def test_without_a_bound_only_the_text_counts() -> None:
    assert not NoSpeechRule().can_deny(-99.0) and not NoSpeechRule().denies(0.0)
    assert is_no_speech("No speech.") and not is_no_speech("no")
    with pytest.raises(ConfigError, match="no speech"):
        NoSpeechRule(0.5)


def test_words_are_withheld_where_no_speech_is_likely(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, model, "hello there")
    sure = AudioLM(model.loaded, no_speech=NoSpeechRule(-1e9)).transcribe(noise(1))
    (segment,) = sure.segments
    assert sure.text == "" and segment.no_speech_logprob is not None and segment.no_speech_logprob < 0
    assert "words were withheld" in sure.receipt.notes[-1] and "0-1 s" in sure.receipt.notes[-1]
    doubtful = AudioLM(model.loaded, no_speech=NoSpeechRule(-1e-9)).transcribe(noise(1))
    assert doubtful.text == "hello there" and "withheld" not in " ".join(doubtful.receipt.notes)
