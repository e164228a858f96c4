from pathlib import Path

import pytest

import auricle
from auricle.errors import AudioError, DataError
from auricle.evaluate.generate import ChoosingLM, generate_answers
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile
from auricle.listen.model import AudioLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHOICES = ["music", "speech", "sound"]


@pytest.fixture(scope="module")
def model() -> AudioLM:
    return auricle.load("auricle-tiny")


def question(name: str, *, choices: list[str] = CHOICES, answer: str = "A", content: bytes | None = None) -> Question:
    audio = AudioFile(name, (EXAMPLES / name).read_bytes if content is None else lambda: content)
    text = "What kind of audio is it?"
    row = {"audio": name, "question": text, "choices": choices, "answer": answer}
    return Question(audio=audio, prompt=f"{text} {choices}", field="", row=row)


@pytest.mark.parametrize("offer", ["texts", "letters"])
def test_the_likeliest_choice_is_the_answer(model: AudioLM, offer: str) -> None:
    questions = [question("voice.ogg"), question("piano.ogg", choices=["sound", "music"])]
    replies = generate_answers(ChoosingLM(model, questions, offer), questions)
    assert all(reply.complete for reply in replies)
    for each, reply in zip(questions, replies, strict=True):
        own = each.row["choices"]
        chosen = model.choose(EXAMPLES / each.audio.name, each.row["question"], own, letters=offer == "letters")
        assert reply.text == "ABC"[own.index(chosen.answer)]
    if offer == "texts":
        assert [reply.text for reply in replies] == ["B", "B"]


def test_references_that_are_texts_are_answered_with_texts(model: AudioLM) -> None:
    chosen = [question("voice.ogg", answer="speech")]
    assert [reply.text for reply in generate_answers(ChoosingLM(model, chosen, "texts"), chosen)] == ["speech"]


def test_a_clip_that_fails_leaves_the_others(model: AudioLM) -> None:
    questions = [question("broken.ogg", content=b"no audio"), question("voice.ogg")]
    broken, good = ChoosingLM(model, questions, "texts").ask_each(
        [(each.audio.read(), [each.prompt]) for each in questions]
    )
    assert isinstance(broken, AudioError)
    assert isinstance(good, list)


def test_every_way_of_answering_has_a_fingerprint_of_its_own(model: AudioLM) -> None:
    ways = [ChoosingLM(model, [], "texts").fingerprint, ChoosingLM(model, [], "letters").fingerprint]
    assert len({model.fingerprint, *ways}) == 3


def test_open_questions_are_refused(model: AudioLM) -> None:
    with pytest.raises(DataError, match=r"no choices.*own words"):
        ChoosingLM(model, [question("voice.ogg", choices=[])], "texts")
