"""Each sound is asked once for all its open questions, and what is known is not asked."""

from pathlib import Path

import pytest

from auricle.engine.request import SamplingParams
from auricle.errors import AudioError, AuricleError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.generate import Reply, ask_questions
from auricle.evaluate.question import Question, SoundFile

from .fake_listener import FakeListener, question, questions, said


def test_questions_on_one_clip_go_in_one_request_and_replies_keep_the_order() -> None:
    asked = [question("a"), question("b"), question("a", "How loud?"), question("a"), question("b", "How loud?")]
    model = FakeListener()
    replies = ask_questions(model, asked, batch_size=1)
    assert model.requests == [("a", ("Which sound?", "How loud?")), ("b", ("Which sound?", "How loud?"))]
    assert replies == [Reply(said(each.sound.name.encode(), each.prompt), None, True) for each in asked]


def test_nothing_is_asked_twice_and_a_new_question_on_a_known_sound_is_asked_alone(tmp_path: Path) -> None:
    with AnswerCache(tmp_path) as cache:
        first = ask_questions(FakeListener(), questions(10), cache=cache)
    model = FakeListener()
    with AnswerCache(tmp_path) as cache:
        assert ask_questions(model, questions(10), cache=cache) == first and not model.requests
        ask_questions(model, [*questions(10), question("4.wav", "How loud?")], cache=cache)
    assert model.requests == [("4.wav", ("How loud?",))]


@pytest.mark.parametrize("change", ["fingerprint", "sound", "sampling", "reduce", "window_s"])
def test_a_changed_weight_sound_or_setting_asks_again(tmp_path: Path, change: str) -> None:
    with AnswerCache(tmp_path) as cache:
        ask_questions(FakeListener(), [question("a")], cache=cache)
        model = FakeListener(fingerprint="0" * 64) if change == "fingerprint" else FakeListener()
        content = b"other" if change == "sound" else None
        settings = {"sampling": SamplingParams(max_new_tokens=3), "reduce": "any", "window_s": 3.0}
        more = {change: settings[change]} if change in settings else {}
        ask_questions(model, [question("a", content=content)], cache=cache, **more)  # type: ignore[arg-type]
    assert model.asked == 1


def test_a_clip_that_fails_leaves_its_error_which_is_not_kept(tmp_path: Path) -> None:
    def gone() -> bytes:
        raise AudioError("b.wav: no such file")

    absent = Question(sound=SoundFile("b.wav", gone), prompt="p", field="", row={})
    asked = [question("a"), absent, question("c.wav", content=b"broken"), question("d", content=b"cut"), question("e")]
    told: list[tuple[str, Reply]] = []
    with AnswerCache(tmp_path) as cache:
        replies = ask_questions(
            FakeListener(), asked, cache=cache, on_answer=lambda one, reply: told.append((one.sound.name, reply))
        )
    assert [reply.error for reply in replies] == [None, "b.wav: no such file", "c.wav: no audio in it", None, None]
    assert [reply.text is None for reply in replies] == [False, True, True, False, False]
    assert [reply.complete for reply in replies] == [True, False, False, False, True]
    assert dict(told) == dict(zip([each.sound.name for each in asked], replies, strict=True)) and len(told) == 5
    again = FakeListener()
    with AnswerCache(tmp_path) as cache:
        assert len(cache) == 3 and ask_questions(again, asked, cache=cache) == replies
    assert again.requests == [("c.wav", ("Which sound?",))]


def test_sounds_are_read_as_batches_need_them_and_once() -> None:
    read: list[str] = []

    def reading(name: str) -> SoundFile:
        return SoundFile(name, lambda: (read.append(name), name.encode())[1])  # type: ignore[func-returns-value]

    asked = [Question(sound=reading(f"{at}"), prompt="p", field="", row={}) for at in range(9)]
    seen: list[int] = []
    ask_questions(FakeListener(), asked, batch_size=2, on_answer=lambda one, reply: seen.append(len(read)))
    assert seen == [2, 2, 4, 4, 6, 6, 8, 8, 9] and read == [f"{at}" for at in range(9)]


def test_a_model_that_gives_too_little_is_told() -> None:
    class Short(FakeListener):
        def ask_each(self, requests, **ways):  # type: ignore[no-untyped-def]
            return list(super().ask_each(requests, **ways))[:-1]

    with pytest.raises(AuricleError, match="gave 1 results for 2 questions"):
        ask_questions(Short(), [question("a"), question("b")])
