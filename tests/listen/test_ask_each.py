from dataclasses import replace
from pathlib import Path

import pytest

from auricle.engine.engine import Engine
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError, UnsupportedFormat
from auricle.listen.model import AudioLM

DECODING = SamplingParams(max_new_tokens=4)
QUESTIONS = (["What is it?"], ["Who speaks?", "How many?", "Why?"], ["What is it?", "Where?"])


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_each_sound_has_its_own_questions_and_is_encoded_once(ear: AudioLM, wavs: list[Path], batch_size: int) -> None:
    fresh = AudioLM(ear.loaded, engine=Engine(ear.loaded))
    requests = list(zip(wavs[:3], QUESTIONS, strict=True))
    found = list(fresh.ask_each(requests, batch_size=batch_size, sampling=DECODING))
    assert fresh.engine.encoded_clips == 3
    for (wav, questions), answers in zip(requests, found, strict=True):
        assert isinstance(answers, list)
        assert [answer.text for answer in answers] == [ear.ask(wav, each, max_new_tokens=4) for each in questions]
        assert all(answer.receipt.file == str(wav) for answer in answers)


def test_a_sound_that_fails_leaves_the_others(ear: AudioLM, wavs: list[Path]) -> None:
    broken, good = ear.ask_each([(b"no sound", ["What?"]), (wavs[0], ["What?"])], sampling=DECODING)
    assert isinstance(broken, UnsupportedFormat)
    assert isinstance(good, list) and len(good) == 1


@pytest.mark.parametrize("questions", ["What?", []])
def test_questions_are_a_list(ear: AudioLM, wavs: list[Path], questions: list[str]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        list(ear.ask_each([(wavs[0], questions)], sampling=DECODING))


def test_a_fingerprint_changes_with_what_decides_answers(ear: AudioLM) -> None:
    def of(**changed: object) -> str:
        return AudioLM(replace(ear.loaded, **changed)).fingerprint

    assert of() == AudioLM(ear.loaded).fingerprint
    elsewhere = {**ear.loaded.identity, "path": "/elsewhere", "name": "another", "sha256": "0" * 64}
    assert of(identity=elsewhere) == of(identity={**elsewhere, "name": "third"})
    others = [of(identity=elsewhere), of(chat_template=ear.loaded.chat_template + " "), of(eos_token_ids=(3,))]
    others.append(AudioLM(ear.loaded, max_audio_s=7).fingerprint)
    assert len({of(), *others}) == 5
