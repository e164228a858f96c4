"""Each clip is one request for all its open questions, and cached answers are not generated again."""

from pathlib import Path

import pytest

from auricle.engine.request import SamplingParams
from auricle.errors import AudioError, AuricleError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.generate import Reply, generate_answers
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile

from .fake_model import FakeModel, answer_of, question, questions


def test_questions_on_one_clip_go_in_one_request_and_replies_keep_the_order() -> None:
    chosen = [question("a"), question("b"), question("a", "How loud?"), question("a"), question("b", "How loud?")]
    model = FakeModel()
    replies = generate_answers(model, chosen, batch_size=1)
    assert model.requests == [("a", ("Which sound?", "How loud?")), ("b", ("Which sound?", "How loud?"))]
    assert replies == [Reply(answer_of(each.audio.name.encode(), each.prompt), None, True) for each in chosen]


def test_no_answer_is_generated_twice_and_a_new_question_about_a_known_clip_is_sent_alone(tmp_path: Path) -> None:
    with AnswerCache(tmp_path) as cache:
        first = generate_answers(FakeModel(), questions(10), cache=cache)
    model = FakeModel()
    with AnswerCache(tmp_path) as cache:
        assert generate_answers(model, questions(10), cache=cache) == first and not model.requests
        generate_answers(model, [*questions(10), question("4.wav", "How loud?")], cache=cache)
    assert model.requests == [("4.wav", ("How loud?",))]


@pytest.mark.parametrize("change", ["fingerprint", "audio", "sampling"])
def test_changed_weights_audio_or_settings_generate_again(tmp_path: Path, change: str) -> None:
    with AnswerCache(tmp_path) as cache:
        generate_answers(FakeModel(), [question("a")], cache=cache)
        model = FakeModel(fingerprint="0" * 64) if change == "fingerprint" else FakeModel()
        content = b"other" if change == "audio" else None
        sampling = SamplingParams(max_new_tokens=3) if change == "sampling" else None
        generate_answers(model, [question("a", content=content)], cache=cache, sampling=sampling)
    assert model.generated == 1


def test_a_clip_that_fails_leaves_its_error_which_is_not_kept(tmp_path: Path) -> None:
    def gone() -> bytes:
        raise AudioError("b.wav: no such file")

    absent = Question(audio=AudioFile("b.wav", gone), prompt="p", field="", row={})
    chosen = [question("a"), absent, question("c.wav", content=b"broken"), question("d", content=b"cut"), question("e")]
    seen: list[tuple[str, Reply]] = []
    with AnswerCache(tmp_path) as cache:
        replies = generate_answers(
            FakeModel(), chosen, cache=cache, on_reply=lambda one, reply: seen.append((one.audio.name, reply))
        )
    assert [reply.error for reply in replies] == [None, "b.wav: no such file", "c.wav: no audio in it", None, None]
    assert [reply.text is None for reply in replies] == [False, True, True, False, False]
    assert [reply.complete for reply in replies] == [True, False, False, False, True]
    assert dict(seen) == dict(zip([each.audio.name for each in chosen], replies, strict=True)) and len(seen) == 5
    again = FakeModel()
    with AnswerCache(tmp_path) as cache:
        assert len(cache) == 3 and generate_answers(again, chosen, cache=cache) == replies
    assert again.requests == [("c.wav", ("Which sound?",))]


def test_audio_files_are_read_as_batches_need_them_and_once() -> None:
    read: list[str] = []

    def reading(name: str) -> AudioFile:
        return AudioFile(name, lambda: (read.append(name), name.encode())[1])  # type: ignore[func-returns-value]

    chosen = [Question(audio=reading(f"{at}"), prompt="p", field="", row={}) for at in range(9)]
    seen: list[int] = []
    generate_answers(FakeModel(), chosen, batch_size=2, on_reply=lambda one, reply: seen.append(len(read)))
    assert seen == [2, 2, 4, 4, 6, 6, 8, 8, 9] and read == [f"{at}" for at in range(9)]


def test_a_model_that_gives_too_little_is_refused() -> None:
    class Short(FakeModel):
        def ask_each(self, requests, **ways):  # type: ignore[no-untyped-def]
            return list(super().ask_each(requests, **ways))[:-1]

    with pytest.raises(AuricleError, match="gave 1 results for 2 questions"):
        generate_answers(Short(), [question("a"), question("b")])
