"""The engine under many requests at once: streams, ends, cancelling, errors of one of them, scores, limits."""

import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from auricle.engine.engine import Engine
from auricle.engine.request import EngineBusy, SamplingOptions, SamplingParams
from auricle.errors import AuricleError, ConfigError, PromptError
from auricle.listen.model import AudioLM
from auricle.weights import LoadedLM, load_midashenglm
from auricle.weights.processor import Prompt

from ..conftest import FOLDER, PROMPTS

NEW = 8


@pytest.fixture(scope="module")
def loaded() -> LoadedLM:
    return load_midashenglm(FOLDER / "model")


@pytest.fixture
def engine(loaded: LoadedLM) -> Engine:
    return Engine(loaded, max_batch=4)


@pytest.fixture(scope="module")
def batch(prompts: dict[str, Prompt]) -> list[Prompt]:
    return [prompts[name] for name in PROMPTS]


@pytest.fixture(scope="module")
def alone(loaded: LoadedLM, batch: list[Prompt]) -> list[list[int]]:
    return [Engine(loaded).generate([prompt], SamplingParams(max_new_tokens=NEW))[0].ids for prompt in batch]


class Only:
    """Allows the tokens of one answer, in turn, then the end."""

    def __init__(self, answer: Sequence[int], end: int, *, as_mask: int = 0) -> None:
        self.answer, self.end, self.as_mask = list(answer), end, as_mask

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | Tensor | None:
        token = self.answer[len(ids)] if len(ids) < len(self.answer) else self.end
        assert list(ids) == self.answer[: len(ids)]
        if self.as_mask:
            return torch.arange(self.as_mask) == token
        return [token]


class Refusing:
    def allowed(self, ids: Sequence[int]) -> Sequence[int]:
        return []


def test_every_request_has_its_own_settings(engine: Engine, batch: list[Prompt]) -> None:
    each = [
        SamplingParams(max_new_tokens=3),
        SamplingParams(max_new_tokens=NEW, repetition_penalty=1e6),
        SamplingParams(max_new_tokens=NEW, do_sample=True, seed=5, temperature=1.5, top_k=30),
        SamplingParams(max_new_tokens=NEW, do_sample=True, seed=5, top_p=0.7),
        SamplingParams(max_new_tokens=NEW, min_new_tokens=NEW),
        SamplingParams(max_new_tokens=NEW, do_sample=True, seed=7),
        SamplingParams(max_new_tokens=NEW),
    ]
    together = engine.generate(batch, each)
    for prompt, sampling, found in zip(batch, each, together, strict=True):
        assert found.ids == engine.generate([prompt], sampling)[0].ids
    assert len(together[0].ids) == 3 and len(set(together[1].ids)) == NEW


def test_an_answer_ends_before_a_stop_string(engine: Engine, batch: list[Prompt], alone: list[list[int]]) -> None:
    tokenizer, tried = engine.loaded.tokenizer, 0
    for prompt, ids in zip(batch, alone, strict=True):
        text = tokenizer.decode(ids)
        whole = text.rstrip("\ufffd")  # behind it a character is not finished
        for stop in filter(None, (whole[2:4], whole[-2:])):
            tried += 1
            sampling = SamplingParams(max_new_tokens=NEW, stop=(stop, "never written"))
            (found,) = engine.generate([prompt], sampling)
            assert (found.text, found.stopped) == (text[: text.index(stop)], "stop")
            assert found.ids == ids[: len(found.ids)] and len(found.logprobs) == len(found.ids)
            assert tokenizer.decode(found.ids).startswith(found.text)
            assert "".join(token.text for token in engine.stream(prompt, sampling)) == found.text
    assert tried > 10


def test_text_is_that_of_the_ids(engine: Engine, batch: list[Prompt], alone: list[list[int]]) -> None:
    found = engine.generate(batch, SamplingParams(max_new_tokens=NEW))
    assert [each.ids for each in found] == alone
    assert [each.text for each in found] == [engine.loaded.tokenizer.decode(ids) for ids in alone]
    for each in found:
        assert len(each.logprobs) == len(each.ids)
        assert each.mean_logprob == pytest.approx(sum(each.logprobs) / len(each.logprobs))


def test_the_end_token_has_a_logprob_too(loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]]) -> None:
    lm = load_midashenglm(FOLDER / "model")
    object.__setattr__(lm, "eos_token_ids", (alone[0][2],))
    (found,) = Engine(lm).generate(batch[:1], SamplingParams(max_new_tokens=NEW))
    assert (found.ids, found.stopped) == (alone[0][: alone[0].index(alone[0][2])], "eos")
    assert len(found.logprobs) == len(found.ids) + 1


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_constraint_decides(engine: Engine, batch: list[Prompt], alone: list[list[int]], as_mask: bool) -> None:
    end = engine.loaded.eos_token_ids[0]
    size = engine.loaded.model.decoder.config.vocab_size if as_mask else 0
    bounds = [Only([7, 8, index], end, as_mask=size) if index % 2 else None for index in range(len(batch))]
    found = engine.generate(batch, SamplingParams(max_new_tokens=NEW), constraints=bounds)
    for index, each in enumerate(found):
        if index % 2:
            assert (each.ids, each.stopped) == ([7, 8, index], "eos")
            scores = engine.score(batch[index], [[7, 8, index, end]])[0]
            assert each.logprobs == pytest.approx(scores, abs=1e-4)
        else:
            assert each.ids == alone[index]


def test_a_constraint_outranks_min_new_tokens(engine: Engine, batch: list[Prompt]) -> None:
    bound = Only([7], engine.loaded.eos_token_ids[0])
    (found,) = engine.generate(batch[:1], SamplingParams(max_new_tokens=NEW, min_new_tokens=5), constraints=[bound])
    assert (found.ids, found.stopped) == ([7], "eos")


def test_a_request_that_fails_fails_alone(engine: Engine, batch: list[Prompt], alone: list[list[int]]) -> None:
    sampling = SamplingParams(max_new_tokens=NEW)
    requests = [engine.submit(batch[0], sampling, constraint=Refusing()), engine.submit(batch[1], sampling)]
    assert engine.result(requests[1]).ids == alone[1]
    with pytest.raises(ConfigError, match="allows nothing"):
        engine.result(requests[0])
    with pytest.raises(ConfigError, match="allows nothing"):
        list(engine.stream(batch[0], sampling, constraint=Refusing()))


def test_what_breaks_a_step_fails_all_in_it(
    loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(loaded)
    request = engine.submit(batch[0], SamplingParams(max_new_tokens=NEW))
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler._decoder, "read", lambda segments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.result(request)
    assert engine.generate(batch, SamplingParams(max_new_tokens=NEW))[0].ids == alone[0]


def test_a_clip_that_cannot_be_encoded_fails_alone(
    loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, encode = Engine(loaded), loaded.model.audio_tokens
    bad = next(index for index, prompt in enumerate(batch) if len(prompt.clips) == 1)
    length = len(batch[bad].clips[0])

    def failing(clips: Sequence[Tensor]) -> list[Tensor]:
        if any(len(clip) == length for clip in clips):
            raise RuntimeError("out of memory")
        return encode(clips)

    monkeypatch.setattr(loaded.model, "audio_tokens", failing)
    requests = [engine.submit(prompt, SamplingParams(max_new_tokens=NEW)) for prompt in batch]
    for prompt, request, ids in zip(batch, requests, alone, strict=True):
        if any(len(clip) == length for clip in prompt.clips):
            with pytest.raises(RuntimeError, match="out of memory"):
                engine.result(request)
        else:
            assert engine.result(request).ids == ids
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.score(batch[bad], [[1]])


def test_a_checked_prompt_is_not_checked_again(
    engine: Engine, batch: list[Prompt], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = SamplingParams(max_new_tokens=NEW)
    checked = [engine.check(prompt, NEW) for prompt in batch]
    scores = engine.score(batch[0], [[7, 8]])
    monkeypatch.setattr("auricle.engine.engine.check_prompt", lambda *_, **__: pytest.fail("checked twice"))
    assert [found.ids for found in engine.generate(checked, sampling)] == alone
    assert [token.id for token in engine.stream(checked[1], sampling)] == alone[1]
    assert engine.score(checked[0], [[7, 8]]) == [pytest.approx(scores[0], abs=1e-5)]


def test_a_cancelled_request_keeps_what_it_has(engine: Engine, batch: list[Prompt], alone: list[list[int]]) -> None:
    sampling = SamplingParams(max_new_tokens=NEW)
    requests = [engine.submit(prompt, sampling) for prompt in batch]  # more than fit at once
    for _ in range(3):
        engine.step()
    engine.cancel(requests[0])
    engine.cancel(requests[-1])
    found = [engine.result(request) for request in requests]
    assert (found[0].ids, found[0].stopped) == (alone[0][:3], "cancelled")
    assert (found[-1].ids, found[-1].stopped) == ([], "cancelled")
    assert [each.ids for each in found[1:-1]] == alone[1:-1]


def test_leaving_a_stream_cancels_it(engine: Engine, batch: list[Prompt]) -> None:
    stream: Any = engine.stream(batch[0], SamplingParams(max_new_tokens=1000))
    next(stream)
    stream.close()
    assert not engine.step()


def test_waiting_requests_are_bounded(loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]]) -> None:
    engine = Engine(loaded, max_batch=1, max_waiting=2)
    sampling = SamplingParams(max_new_tokens=NEW)
    requests = [engine.submit(batch[index], sampling, wait=False) for index in range(2)]
    with pytest.raises(EngineBusy, match="2 requests wait"):
        engine.submit(batch[2], sampling, wait=False)
    requests.append(engine.submit(batch[2], sampling))  # works until one of the others is done
    assert [engine.result(request).ids for request in requests] == alone[:3]


def test_a_thread_of_its_own_does_all_the_work(engine: Engine, batch: list[Prompt], alone: list[list[int]]) -> None:
    workers: set[str] = set()
    whole, is_over = engine._scheduler.advance, threading.Event()

    def advance() -> None:
        workers.add(threading.current_thread().name)
        whole()

    engine._scheduler.advance = advance  # type: ignore[method-assign]

    def work() -> None:
        while not is_over.is_set():
            engine.wait_for_work(0.01)
            engine.step()

    thread = threading.Thread(target=work, name="own")
    with engine.own_thread():
        thread.start()
        found = engine.generate(batch, SamplingParams(max_new_tokens=NEW))
        assert [token.id for token in engine.stream(batch[0], SamplingParams(max_new_tokens=NEW))] == alone[0]
        is_over.set()
        thread.join()
    assert [each.ids for each in found] == alone and workers == {"own"}
    # Without it, those that wait work again.
    assert engine.generate(batch[:1], SamplingParams(max_new_tokens=NEW))[0].ids == alone[0] and len(workers) == 2


def test_a_stream_states_the_likeliest_tokens(engine: Engine, batch: list[Prompt]) -> None:
    request = engine.submit(batch[0], SamplingParams(max_new_tokens=NEW, top_logprobs=3), is_streamed=True)
    tokens = list(engine.follow(request))
    assert engine.result(request).ids == [token.id for token in tokens]
    for token in tokens:
        ids, logprobs = zip(*token.top, strict=True)
        assert ids[0] == token.id and len(set(ids)) == 3 and list(logprobs) == sorted(logprobs, reverse=True)
        assert logprobs[0] == pytest.approx(token.logprob, abs=1e-5)
    assert all(token.top == () for token in engine.stream(batch[0], SamplingParams(max_new_tokens=2)))
    sampled = SamplingParams(max_new_tokens=NEW, do_sample=True, temperature=3.0, seed=1, top_logprobs=2)
    assert [len(token.top) for token in engine.stream(batch[0], sampled)] == [2] * NEW


@pytest.mark.parametrize("top", [-1, 21, 1.5])
def test_likeliest_tokens_are_few(top: Any) -> None:
    with pytest.raises(ConfigError, match="top_logprobs"):
        SamplingParams(top_logprobs=top)


def test_requests_know_when_they_were_worked_on(engine: Engine, batch: list[Prompt]) -> None:
    request = engine.submit(batch[0], SamplingParams(max_new_tokens=2))
    assert request.admitted_at is None and request.first_token_at is None
    engine.result(request)
    assert request.admitted_at is not None and request.first_token_at is not None
    assert request.submitted_at <= request.admitted_at <= request.first_token_at


def test_threads_share_an_engine(loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]]) -> None:
    engine = Engine(loaded, max_batch=3, max_waiting=2)
    found: dict[int, list[int]] = {}

    def work(index: int) -> None:
        if index % 2:
            found[index] = [token.id for token in engine.stream(batch[index], SamplingParams(max_new_tokens=NEW))]
        else:
            found[index] = engine.generate([batch[index]], SamplingParams(max_new_tokens=NEW))[0].ids

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batch))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(batch))] == alone


def test_a_server_may_call_step(loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]]) -> None:
    engine, stop = Engine(loaded), threading.Event()
    assert not engine.wait_for_work(0)

    def work() -> None:
        while not stop.is_set():
            if engine.wait_for_work(0.05):
                engine.step()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        request = engine.submit(batch[0], SamplingParams(max_new_tokens=NEW))
        while not request.is_done:
            stop.wait(0.01)
        assert engine.result(request).ids == alone[0]
    finally:
        stop.set()
        thread.join()


def test_questions_on_one_clip_share_it(loaded: LoadedLM, prompts: dict[str, Prompt]) -> None:
    prompt = prompts["p_12s"]  # audio first
    audio = loaded.model.config.audio_token_id
    end_of_audio = len(prompt.input_ids) - prompt.input_ids[::-1].index(audio)
    questions = [Prompt([*prompt.input_ids[:end_of_audio], 5, 6, *range(20, 23 + i)], prompt.clips) for i in range(6)]
    sampling = SamplingParams(max_new_tokens=4)
    plain = [Engine(loaded, prefix_cache_mb=0).generate([each], sampling)[0].ids for each in questions]
    engine = Engine(loaded)
    assert [each.ids for each in engine.generate(questions, sampling)] == plain
    assert engine.encoded_clips == 1
    total = sum(len(each.input_ids) for each in questions)
    assert engine.counts.read_tokens + engine.counts.reused_tokens == total
    assert engine.counts.reused_tokens >= 5 * (end_of_audio // 16 * 16)
    other = Prompt(prompt.input_ids, [prompt.clips[0].flip(0)])  # the same ids, another clip
    (found,) = engine.generate([other], sampling)
    assert found.ids == Engine(loaded).generate([other], sampling)[0].ids and engine.encoded_clips == 2
    engine.forget()
    assert engine.generate([questions[0]], sampling)[0].ids == plain[0] and engine.encoded_clips == 3


def test_a_long_prompt_does_not_stall_the_others(loaded: LoadedLM, batch: list[Prompt]) -> None:
    engine = Engine(loaded, prefill_tokens=8, prefix_cache_mb=0)
    short = engine.submit(Prompt([1, 2, 3], []), SamplingParams(max_new_tokens=NEW))
    engine.step()
    long = engine.submit(Prompt(list(range(300)), []), SamplingParams(max_new_tokens=1))
    for _ in range(NEW - 1):
        engine.step()
    assert short.is_done and not long.is_done
    assert engine.result(long).ids == Engine(loaded).generate([Prompt(list(range(300)), [])])[0].ids[:1]


def test_memory_of_rows_is_bounded(loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]]) -> None:
    engine = Engine(loaded, memory_mb=1.1)  # 2 rows of 256 places, 2 layers, 2 x 2 x 32 float32
    found = engine.generate(batch, SamplingParams(max_new_tokens=NEW))
    assert [each.ids for each in found] == alone
    assert engine._scheduler._rows.cache.nbytes <= 1.1e6


def test_prompts_that_cannot_be_answered_are_refused_at_once(engine: Engine, batch: list[Prompt]) -> None:
    audio = engine.loaded.model.config.audio_token_id
    context = engine.loaded.model.decoder.config.max_position_embeddings
    for prompt, words in ((Prompt([], []), "empty"), (Prompt([1, audio], []), "1 audio placeholders")):
        for submit in (engine.submit, engine.stream, lambda p: engine.score(p, [[1]])):
            with pytest.raises(PromptError, match=words):
                submit(prompt)
    with pytest.raises(PromptError, match="context"):
        engine.submit(Prompt([1] * context, []))
    with pytest.raises(PromptError, match="empty"):
        engine.generate([batch[0], Prompt([], [])])
    with pytest.raises(ConfigError, match="7 prompts have 1 samplings"):
        engine.generate(batch, [SamplingParams()])
    assert not engine.step()
    with pytest.raises(ConfigError, match="another engine"):
        engine.result(Engine(engine.loaded).submit(batch[0]))


@pytest.mark.parametrize(
    "setting", [{"max_batch": 0}, {"max_waiting": 0}, {"prefill_tokens": 0}, {"audio_cache_mb": -1}]
)
def test_engine_settings_out_of_range_are_refused(loaded: LoadedLM, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Engine(loaded, **setting)


def test_a_lone_stop_string_is_one(model: AudioLM) -> None:
    assert SamplingParams(stop="ab").stop == ("ab",)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stop"):
        SamplingParams(stop=("",))


def test_sampling_options_are_the_sampling_parameters() -> None:
    assert set(SamplingOptions.__annotations__) == {each.name for each in fields(SamplingParams)}
    assert SamplingParams.of({"top_k": 3, "seed": 1}) == SamplingParams(top_k=3, seed=1)
    with pytest.raises(ConfigError, match=r"unknown option 'temprature'\. Did you mean 'temperature'"):
        SamplingParams.of({"temprature": 2.0})


def test_an_interrupt_while_clips_are_encoded_reaches_their_requests(
    loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(loaded)
    request = engine.submit(batch[1], SamplingParams(max_new_tokens=NEW))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loaded.model, "audio_tokens", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.result(request)
    with pytest.raises(AuricleError, match="interrupted"):
        engine.result(request)
    assert engine.generate(batch[1:2], SamplingParams(max_new_tokens=NEW))[0].ids == alone[1]


def test_an_interrupt_leaves_the_engine_usable(
    loaded: LoadedLM, batch: list[Prompt], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(loaded, max_batch=2)
    request = engine.submit(batch[0], SamplingParams(max_new_tokens=NEW))
    engine.step()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler, "_choose", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(batch, SamplingParams(max_new_tokens=NEW))
    with pytest.raises(AuricleError, match="interrupted"):
        engine.result(request)
    assert [each.ids for each in engine.generate(batch, SamplingParams(max_new_tokens=NEW))] == alone
