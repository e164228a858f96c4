"""What the metrics of enhancement give at their ends; see `cases_enhancement` for their values."""

import math
from importlib.util import find_spec

import numpy as np
import pytest

from auricle.errors import MissingExtra
from auricle.metrics import enhancement

from .cases_enhancement import SILENCE, noisy_pair, voice


def test_a_perfect_estimate() -> None:
    clean = voice(1)
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    assert enhancement.pesq_wb(clean, clean) == pytest.approx(4.644, abs=0.001)
    for extended in (False, True):
        assert enhancement.stoi(clean, clean, extended=extended) == pytest.approx(1, abs=1e-6)


def test_arguments_are_not_exchanged() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    noisy, clean = noisy_pair(4)
    for metric in (enhancement.pesq_wb, enhancement.stoi):
        assert metric(noisy, clean) != pytest.approx(metric(clean, noisy), abs=1e-6)


def test_what_has_no_value_is_nan() -> None:
    clean = voice(1)
    for module, metric in (("pesq", enhancement.pesq_wb), ("pystoi", enhancement.stoi)):
        pytest.importorskip(module)
        assert math.isnan(metric(SILENCE, SILENCE)) and math.isnan(metric(SILENCE, clean[: SILENCE.size]))
        assert math.isnan(metric(clean[:2_000], clean[:2_000]))


@pytest.mark.skipif(find_spec("resemblyzer") is None, reason="Resemblyzer is not installed")
def test_voices() -> None:
    pytest.importorskip("librosa")
    noisy, clean = noisy_pair(1)
    assert enhancement.speaker_similarity(clean, clean) == pytest.approx(1, abs=1e-5)
    assert enhancement.speaker_similarity(noisy, clean) < 1
    assert enhancement.speaker_similarity(0.1 * clean, clean) > 0.9  # raised to the same level
    assert math.isnan(enhancement.speaker_similarity(SILENCE, SILENCE))
    assert np.isfinite(enhancement.speaker_similarity(clean[:800], clean[:800]))


def test_a_voice_without_its_weights_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    enhancement._voice_encoder.cache_clear()
    monkeypatch.setattr(enhancement, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"auricle\[enhance\]"):
        enhancement.speaker_similarity(voice(0, 1.0), voice(0, 1.0))


def test_noise_is_heard() -> None:
    pytest.importorskip("speechmos")
    pytest.importorskip("librosa")
    noisy, clean = noisy_pair(2, 9.1)
    before, after = enhancement.dnsmos(noisy), enhancement.dnsmos(clean)
    assert before["background"] < after["background"] and before.keys() == {"overall", "signal", "background", "p808"}
