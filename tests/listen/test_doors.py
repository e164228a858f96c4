"""What a caller may give: numbers, texts and lengths that make no sense are refused before any work, by name."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import auricle
from auricle.encode.zero_shot import Prompts, check_labels
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ClipTooShort, ConfigError, PromptError
from auricle.listen import AudioLM

WAVE = (0.1 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
HALF = "what \ud83d?"
NO_SECONDS = [math.nan, math.inf, -math.inf, 1e308, -1e308, -1.0, True, "3", 10**400]


@pytest.fixture(scope="module")
def model() -> AudioLM:
    return auricle.load("auricle-tiny")


@pytest.mark.parametrize("value", [*NO_SECONDS, 0.1])
def test_windows_are_numbers_of_seconds(model: AudioLM, value: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: model.describe(WAVE, window_s=value),
        lambda: model.transcribe(WAVE, window_s=value),
        lambda: model.choose(WAVE, "q", ["a", "b"], window_s=value),
        lambda: model.stream(WAVE, "q", window_s=value),
        lambda: next(model.ask_many([WAVE], "q", window_s=value)),
        lambda: AudioLM(model.loaded, max_audio_s=value),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"^(window_s|max_audio_s|a window) is "):
            call()


@pytest.mark.parametrize("value", NO_SECONDS)
def test_overlaps_and_prompts_are_numbers_of_seconds(model: AudioLM, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^overlap_s is "):
        model.transcribe(WAVE, overlap_s=value)
    with pytest.raises(ConfigError, match=r"^max_prompt_s is "):
        AudioLM(model.loaded, max_prompt_s=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, 1.5, "3", True])
def test_batches_are_whole_numbers(model: AudioLM, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^batch_size is "):
        model.describe_many([WAVE], batch_size=value)


VALID = {
    "max_new_tokens": lambda n: type(n) is int and 1 <= n <= 2**31,
    "min_new_tokens": lambda n: type(n) is int and 0 <= n <= 128,
    "temperature": lambda n: type(n) in (int, float) and 1e-6 <= n <= 1e6,
    "top_p": lambda n: type(n) in (int, float) and 1e-6 <= n <= 1,
    "top_k": lambda n: type(n) is int and 0 <= n <= 2**31,
    "repetition_penalty": lambda n: type(n) in (int, float) and 1e-6 <= n <= 1e6,
    "seed": lambda n: n is None or (type(n) is int and -(2**63) <= n < 2**64),
}


@given(st.sampled_from(sorted(VALID)), st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2))
def test_sampling_parameters_are_numbers_in_range(name: str, value: Any) -> None:
    if VALID[name](value):
        assert getattr(SamplingParams(**{name: value}), name) == value
    else:
        with pytest.raises(ConfigError, match=rf"^{name} is "):
            SamplingParams(**{name: value})


def test_half_a_surrogate_pair_is_refused_by_name(model: AudioLM) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("the prompt", lambda: model.ask(WAVE, HALF)),
        ("the prompt", lambda: model.ask_all(WAVE, ["fine", HALF])),
        ("the prompt", lambda: model.stream(WAVE, HALF)),
        ("the prompt", lambda: next(model.ask_many([WAVE], HALF))),
        ("the prompt", lambda: next(model.ask_each([(WAVE, [HALF])]))),
        ("the question", lambda: model.choose(WAVE, HALF, ["a", "b"])),
        ("an option", lambda: model.choose(WAVE, "q", ["a", HALF])),
        ("an option", lambda: model.ask(WAVE, "q", choices=["a", HALF])),
        ("the schema", lambda: model.ask(WAVE, "q", schema={"enum": [HALF, "b"]})),
        ("stop", lambda: model.ask(WAVE, "q", stop=(HALF,))),
        ("a label", lambda: check_labels(["dog", HALF])),
        ("a template", lambda: Prompts(templates=("{label} \ud83d",))),
        ("a phrase of 'dog'", lambda: Prompts(phrases={"dog": (HALF,)})),
    ]
    for name, call in calls:
        with pytest.raises(ConfigError, match=rf"^{name} is .*half of a surrogate pair; expected valid characters$"):
            call()
    for content in (HALF, [{"type": "text", "text": HALF}]):
        with pytest.raises(PromptError, match="half of a surrogate pair"):
            model.chat([{"role": "user", "content": content}])


@pytest.mark.parametrize("length", [1, 160, 800, 1599])
def test_a_clip_under_a_tenth_of_a_second_is_refused_by_every_verb(model: AudioLM, length: int) -> None:
    clip = WAVE[:length]
    calls: list[Callable[[], object]] = [
        lambda: model.describe(clip),
        lambda: model.transcribe(clip),
        lambda: model.ask(clip, "q"),
        lambda: model.choose(clip, "q", ["a", "b"]),
        lambda: list(model.stream(clip, "q")),
        lambda: model.chat([{"role": "user", "content": [{"type": "audio", "audio": clip}]}]),
    ]
    for call in calls:
        with pytest.raises(ClipTooShort, match=r"lasts 0\.\d+ s, too short to describe; expected at least 0\.1 s"):
            call()


def test_a_short_clip_is_answered_and_its_padding_stated(model: AudioLM) -> None:
    found = model.describe(WAVE[:1600], max_new_tokens=2)
    assert found.receipt.padded_s == 0.1
    silence = np.concatenate([WAVE[:800], np.zeros(16_000 * 8, np.float32)])
    assert model.transcribe(silence, max_new_tokens=2).receipt.duration_s == pytest.approx(8.05)


def test_a_device_without_numbers_is_refused() -> None:
    for load in (auricle.load, auricle.load_encoder, auricle.load_aligner):
        with pytest.raises(ConfigError, match="device 'meta' cannot be used"):
            load(device="meta")
        if not torch.cuda.is_available():
            with pytest.raises(AuricleError, match=r"device 'cuda' cannot be used .* try 'cpu'"):
                load(device="cuda")
