import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.limits import Limits
from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.engine.engine import Engine
from auricle.engine.prompt import check_prompt
from auricle.engine.request import Generation, SamplingParams
from auricle.errors import AudioError, ConfigError, LimitExceeded, PromptError, UnsupportedFormat
from auricle.listen.loading import load
from auricle.listen.model import AudioLM
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.outputs import Description

from ..conftest import FACTS, FOLDER, messages_of

NEW = 5


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))).astype(np.float32)


def answered(model: AudioLM, question: str, wav: Path) -> str:
    content = [{"type": "audio", "audio": str(wav)}, {"type": "text", "text": question}]
    return model.chat([{"role": "user", "content": content}], max_new_tokens=NEW)


def test_the_verbs_are_their_prompts(model: AudioLM, wavs: list[Path]) -> None:
    wav = wavs[4]
    assert model.describe(wav, max_new_tokens=NEW).caption == answered(model, CAPTION_PROMPT, wav)
    assert model.transcribe(wav, max_new_tokens=NEW).text == answered(model, TRANSCRIBE_PROMPT, wav)
    assert model.ask(wav, "What is it?", max_new_tokens=NEW).text == answered(model, "What is it?", wav)


def test_chat_gives_the_references_text(model: AudioLM) -> None:
    for name in ("p_text", "p_two", "p_1s_nosys_textfirst"):
        # The stored text ran on behind end tokens, and keeps the white space around it.
        assert FACTS["special_ids"]["<|im_end|>"] not in FACTS["prompts"][name]["generated_ids"]
        assert model.chat(messages_of(name), max_new_tokens=16) == FACTS["prompts"][name]["generated_text"].strip()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_many_are_each_as_if_alone(model: AudioLM, wavs: list[Path], batch_size: int) -> None:
    alone = [model.describe(wav, max_new_tokens=NEW) for wav in wavs]
    together = list(model.describe_many(wavs, batch_size=batch_size, max_new_tokens=NEW))
    assert [(d.caption, d.receipt) for d in together] == [(d.caption, d.receipt) for d in alone]


@pytest.mark.parametrize("threads", [1, 2])
@given(seconds=st.lists(st.floats(0.1, 40), min_size=2, max_size=3), batch_size=st.integers(2, 5))
@settings(max_examples=4, derandomize=True)
def test_words_depend_on_the_clip_alone(model: AudioLM, threads: int, seconds: list[float], batch_size: int) -> None:
    clips = [noise(s, seed) for seed, s in enumerate(seconds)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = list(
            model.ask_many(clips, "What?", batch_size=batch_size, sampling=SamplingParams(max_new_tokens=NEW))
        )
        alone = [model.ask(clip, "What?", max_new_tokens=NEW).text for clip in clips]
    finally:
        torch.set_num_threads(before)
    assert [answer.text for answer in together] == alone


def test_one_that_fails_leaves_the_others(model: AudioLM, wavs: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("no audio")
    sources: list[Any] = [wavs[0], "missing.wav", wavs[1], text, np.zeros((2, 2, 2)), object(), wavs[2].read_bytes()]
    results = list(model.describe_many(sources, batch_size=2, max_new_tokens=NEW))
    kinds = [type(result) for result in results]
    assert kinds[:4] == [Description, AudioError, Description, UnsupportedFormat]
    assert issubclass(kinds[4], AudioError) and issubclass(kinds[5], AudioError) and kinds[6] is Description
    assert "missing.wav" in str(results[1])
    with pytest.raises(AudioError, match=r"missing\.wav"):
        model.describe("missing.wav")


def test_sources_are_taken_as_they_are_needed(model: AudioLM) -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(len(taken))
            yield noise(0.3, len(taken))

    results = model.describe_many(endless(), batch_size=2, max_new_tokens=1)
    assert isinstance(next(results), Description)
    results.close()
    assert len(taken) <= 10


def test_long_sources_are_processed_whole_in_windows(model: AudioLM) -> None:
    short = AudioLM(model.loaded, max_audio_s=2.0)
    waveform = noise(7.13)
    found = short.describe(waveform, max_new_tokens=NEW)
    assert len(found.segments) == 4 == len(found.receipt.read) and found.receipt.complete
    spans = [(span.start_s, span.stop_s) for span in [*found.receipt.read, *found.receipt.dropped]]
    assert spans[0][0] == 0 and spans[-1][1] == 7.13
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
    for segment in found.segments:
        piece = waveform[round(segment.start_s * 16_000) : round(segment.stop_s * 16_000)]
        assert model.describe(piece, max_new_tokens=NEW).caption == segment.text
    assert found.caption == " ".join(dict.fromkeys(s.text for s in found.segments if s.text))


def answers_with(monkeypatch: pytest.MonkeyPatch, model: AudioLM, text: str) -> None:
    """Let the engine give one answer to every prompt."""
    ids = model.loaded.tokenizer.encode(text, add_special_tokens=False).ids
    same = Generation(ids, "eos", -1.0, (-1.0,) * (len(ids) + 1), text)
    monkeypatch.setattr(Engine, "generate", lambda self, prompts, *_, **__: [same] * len(prompts))


def test_equal_answers_are_given_once_and_words_as_often_as_spoken(
    model: AudioLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = AudioLM(model.loaded, max_audio_s=1.0)
    answers_with(monkeypatch, model, "no")
    assert short.ask(noise(3), "Is it loud?").text == "no"
    assert short.transcribe(noise(3), overlap_s=0.0).text == "no no no"
    answers_with(monkeypatch, model, "No speech.")
    assert short.transcribe(noise(3)).text == ""
    assert model.ask(noise(1), "Who speaks?").text == "No speech."


def test_digital_silence_is_answered_by_rule(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "generate", lambda *_, **__: pytest.fail("silence went to the model"))
    silence = np.zeros(16_000, np.float32)
    described = model.describe(silence)
    assert described.caption == "Silence." and described.segments[0].mean_logprob is None
    assert "by rule" in described.receipt.notes[-1] and "0-1 s" in described.receipt.notes[-1]
    assert model.transcribe(silence).text == ""


def test_faint_sound_and_questions_about_silence_go_to_the_model(model: AudioLM) -> None:
    faint = model.describe(noise(1) * 1e-3, max_new_tokens=NEW)
    assert faint.caption != "Silence." and faint.segments[0].mean_logprob is not None
    assert model.ask(np.zeros(16_000, np.float32), "Is it quiet?", max_new_tokens=NEW).text != "Silence."


def test_a_tenth_of_a_second_is_enough(model: AudioLM) -> None:
    found = model.describe(noise(0.1), max_new_tokens=NEW)
    assert found.receipt.padded_s == 0.1 and found.receipt.audio_tokens == 1


def test_any_source(model: AudioLM, wavs: list[Path]) -> None:
    waveform, rate = soundfile.read(wavs[1], dtype="float32")
    expected = model.ask(wavs[1], "?", max_new_tokens=NEW).text
    with wavs[1].open("rb") as file:
        for source in (str(wavs[1]), wavs[1].read_bytes(), file, waveform, (waveform, rate)):
            assert model.ask(source, "?", max_new_tokens=NEW).text == expected


def test_sampling_is_seeded(model: AudioLM, wavs: list[Path]) -> None:
    answers = [
        model.ask(wavs[1], "?", do_sample=True, temperature=2.0, seed=seed, max_new_tokens=NEW).text
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_unknown_options_are_refused_with_near_matches(model: AudioLM) -> None:
    options: dict[str, Any] = {"max_new_token": 3}
    for ask in (lambda: model.ask(noise(1), "?", **options).text, lambda: model.chat([], **options)):
        with pytest.raises(ConfigError, match="Did you mean 'max_new_tokens'"):
            ask()


def test_an_answer_ends_before_a_stop_string(model: AudioLM, wavs: list[Path]) -> None:
    whole = model.ask(wavs[2], "?", max_new_tokens=8).text
    stop = whole[len(whole) // 2 :][:2]
    expected = whole[: whole.index(stop)].strip()
    assert model.ask(wavs[2], "?", max_new_tokens=8, stop=(stop,)).text == expected
    sampling = SamplingParams(max_new_tokens=8, stop=(stop,))
    with model.stream(wavs[2], "?", sampling=sampling) as pieces:
        assert "".join(pieces).strip() == expected
    assert pieces.answer is not None and pieces.answer.text == expected


def test_a_prompt_is_checked_once(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, checked = AudioLM(model.loaded, no_speech=NoSpeechRule(-1e9)), []

    def counting(*given: Any, **settings: Any) -> Any:
        checked.append(given)
        return check_prompt(*given, **settings)

    monkeypatch.setattr("auricle.engine.engine.check_prompt", counting)
    verbs: list[Callable[[], Any]] = [
        lambda: fresh.describe(noise(1), max_new_tokens=NEW),
        lambda: fresh.transcribe(noise(1), max_new_tokens=NEW),  # generated and scored
        lambda: fresh.ask(noise(1), "?", max_new_tokens=NEW).text,
        lambda: fresh.choose(noise(1), "?", ["a", "b"]),
        lambda: list(fresh.stream(noise(1), "?", sampling=SamplingParams(max_new_tokens=NEW))),
    ]
    for count, verb in enumerate(verbs, start=1):
        verb()
        assert len(checked) == count


def test_limits_and_context_are_kept(model: AudioLM, wavs: list[Path]) -> None:
    with pytest.raises(LimitExceeded):
        AudioLM(model.loaded, limits=Limits(max_seconds=5.0)).describe(wavs[-1])
    with pytest.raises(PromptError, match=r"31000ms.*context"):
        model.describe(wavs[-1], max_new_tokens=32_768)
    with pytest.raises(ConfigError, match="batch_size"):
        list(model.describe_many(wavs, batch_size=0))
    with pytest.raises(ConfigError, match="max_audio_s"):
        AudioLM(model.loaded, max_audio_s=0.3)


def test_a_model_states_its_longest_window(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "model", folder)
    assert load(str(folder)).max_audio_s == 30.0
    file = folder / "generation_config.json"
    stated = file.read_text()
    file.write_text(stated.replace("{", '{"auricle_max_audio_s": 10.0,', 1))
    assert load(str(folder)).max_audio_s == 10.0
    file.write_text(stated.replace("{", '{"auricle_max_audio_s": "long",', 1))
    with pytest.raises(ConfigError, match="auricle_max_audio_s"):
        load(str(folder))
