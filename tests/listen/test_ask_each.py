from dataclasses import replace
from pathlib import Path

import pytest

from auricle.engine.engine import Engine
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError, UnsupportedFormat
from auricle.listen.model import AudioLM

SAMPLING = SamplingParams(max_new_tokens=4)
QUESTIONS = (["What is it?"], ["Who speaks?", "How many?", "Why?"], ["What is it?", "Where?"])


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_each_source_has_its_own_questions_and_is_encoded_once(
    model: AudioLM, wavs: list[Path], batch_size: int
) -> None:
    fresh = AudioLM(model.loaded, engine=Engine(model.loaded))
    requests = list(zip(wavs[:3], QUESTIONS, strict=True))
    found = list(fresh.ask_each(requests, batch_size=batch_size, sampling=SAMPLING))
    assert fresh.engine.encoded_clips == 3
    for (wav, questions), answers in zip(requests, found, strict=True):
        assert isinstance(answers, list)
        assert [answer.text for answer in answers] == [
            model.ask(wav, each, max_new_tokens=4).text for each in questions
        ]
        assert all(answer.receipt.file == str(wav) for answer in answers)


def test_a_source_that_fails_leaves_the_others(model: AudioLM, wavs: list[Path]) -> None:
    broken, good = model.ask_each([(b"no audio", ["What?"]), (wavs[0], ["What?"])], sampling=SAMPLING)
    assert isinstance(broken, UnsupportedFormat)
    assert isinstance(good, list) and len(good) == 1


@pytest.mark.parametrize("questions", ["What?", []])
def test_questions_are_a_list(model: AudioLM, wavs: list[Path], questions: list[str]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        list(model.ask_each([(wavs[0], questions)], sampling=SAMPLING))


def test_a_fingerprint_changes_with_what_decides_answers(model: AudioLM) -> None:
    def of(**changed: object) -> str:
        return AudioLM(replace(model.loaded, **changed)).fingerprint

    assert of() == AudioLM(model.loaded).fingerprint
    elsewhere = {**model.loaded.identity, "path": "/elsewhere", "name": "another", "sha256": "0" * 64}
    assert of(identity=elsewhere) == of(identity={**elsewhere, "name": "third"})
    others = [of(identity=elsewhere), of(chat_template=model.loaded.chat_template + " "), of(eos_token_ids=(3,))]
    others.append(AudioLM(model.loaded, max_audio_s=7).fingerprint)
    assert len({of(), *others}) == 5
