from pathlib import Path

import pytest

import auricle
from auricle.errors import AudioError, DataError
from auricle.evaluate.choosing import ChoosingLM
from auricle.evaluate.generate import ask_questions
from auricle.evaluate.question import Question, SoundFile
from auricle.listen.model import AudioLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHOICES = ["music", "speech", "sound"]


@pytest.fixture(scope="module")
def ear() -> AudioLM:
    return auricle.load("auricle-tiny")


def question(name: str, *, choices: list[str] = CHOICES, answer: str = "A", content: bytes | None = None) -> Question:
    sound = SoundFile(name, (EXAMPLES / name).read_bytes if content is None else lambda: content)
    asked = "What kind of audio is it?"
    row = {"audio": name, "question": asked, "choices": choices, "answer": answer}
    return Question(sound=sound, prompt=f"{asked} {choices}", field="", row=row)


@pytest.mark.parametrize("offer", ["texts", "letters"])
def test_the_likeliest_choice_is_the_answer(ear: AudioLM, offer: str) -> None:
    questions = [question("voice.ogg"), question("piano.ogg", choices=["sound", "music"])]
    replies = ask_questions(ChoosingLM(ear, questions, offer), questions)
    assert all(reply.complete for reply in replies)
    for each, reply in zip(questions, replies, strict=True):
        own = each.row["choices"]
        chosen = ear.choose(EXAMPLES / each.sound.name, each.row["question"], own, letters=offer == "letters")
        assert reply.text == "ABC"[own.index(chosen.answer)]
    if offer == "texts":
        assert [reply.text for reply in replies] == ["B", "B"]


def test_references_that_are_texts_are_answered_with_texts(ear: AudioLM) -> None:
    asked = [question("voice.ogg", answer="speech")]
    assert [reply.text for reply in ask_questions(ChoosingLM(ear, asked, "texts"), asked)] == ["speech"]


def test_a_sound_that_fails_leaves_the_others(ear: AudioLM) -> None:
    questions = [question("broken.ogg", content=b"no sound"), question("voice.ogg")]
    broken, good = ChoosingLM(ear, questions, "texts").ask_each(
        [(each.sound.read(), [each.prompt]) for each in questions]
    )
    assert isinstance(broken, AudioError)
    assert isinstance(good, list)


def test_every_way_of_answering_has_a_fingerprint_of_its_own(ear: AudioLM) -> None:
    ways = [ChoosingLM(ear, [], "texts").fingerprint, ChoosingLM(ear, [], "letters").fingerprint]
    assert len({ear.fingerprint, *ways}) == 3


def test_open_questions_are_refused(ear: AudioLM) -> None:
    with pytest.raises(DataError, match=r"no choices.*own words"):
        ChoosingLM(ear, [question("voice.ogg", choices=[])], "texts")
