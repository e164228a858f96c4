"""A model answers the same in a forked process, beside other threads, and whatever precision its caller works in."""

import copy
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import auricle
from auricle.engine.turn_lock import TurnLock
from auricle.errors import ConfigError

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
CLIP = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)


def in_fork(work: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """What ``work`` returns in a forked process, or the text of its error."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send(work())
        except Exception as error:
            sender.send(f"{type(error).__name__}: {error}")

    process = context.Process(target=run)
    process.start()
    try:
        assert receiver.poll(timeout_s), "the forked process does not answer"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


@pytest.fixture
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_is_loaded_where_it_is_used(send: Callable[[Any], Any]) -> None:
    model = auricle.load("auricle-tiny")
    for sent in (model, model.engine):
        if sent is model and send is copy.copy:  # see below
            continue
        with pytest.raises(ConfigError, match=r"^auricle-tiny: .*neither pickled nor copied; .*load it by its name"):
            send(sent)


def test_a_shallow_copy_of_a_model_shares_its_engine() -> None:
    model = auricle.load("auricle-tiny")
    own = copy.copy(model)
    own.on_audio = print
    assert own.engine is model.engine and model.on_audio is None
    assert own.describe(CLIP).caption == model.describe(CLIP).caption


@pytest.mark.parametrize("send", [lambda made: pickle.loads(pickle.dumps(made)), copy.deepcopy])  # noqa: S301 - made here
def test_encoders_and_aligners_are_sent(send: Callable[[Any], Any]) -> None:
    encoder = auricle.load_encoder("auricle-tiny-encoder")
    assert torch.equal(send(encoder).embed([CLIP]), encoder.embed([CLIP]))
    aligner = auricle.load_aligner("auricle-tiny-glap")
    assert torch.equal(send(aligner).text(["a dog"]), aligner.text(["a dog"]))


def test_a_fork_answers_as_its_parent(two_threads: None) -> None:
    model = auricle.load("auricle-tiny")
    expected = model.describe(CLIP).caption
    assert in_fork(lambda: model.describe(CLIP).caption) == expected
    encoder = auricle.load_encoder("auricle-tiny-encoder")
    values = encoder.embed([CLIP])[0].tolist()
    assert in_fork(lambda: encoder.embed([CLIP])[0].tolist()) == values


def test_a_fork_beside_a_thread_that_answers(two_threads: None) -> None:
    model = auricle.load("auricle-tiny")
    expected, stop = model.describe(CLIP).caption, threading.Event()

    def work() -> None:
        for seed in range(10_000):
            if stop.is_set():
                return
            model.describe(0.1 * np.random.default_rng(seed).standard_normal(16_000).astype(np.float32))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert [in_fork(lambda: model.describe(CLIP).caption) for _ in range(3)] == [expected] * 3
    finally:
        stop.set()
        thread.join(60)


def test_a_fork_within_a_turn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.engine.turn_lock._FORK_WAIT_S", 0.01)
    turns = TurnLock()

    def take() -> str:
        with turns.turn():
            return "free"

    with turns.turn():
        assert in_fork(take).startswith("ConfigError: this process was forked")
    assert in_fork(take) == take() == "free"


def odds(model: Any) -> Sequence[float]:
    return [option.logprob for option in model.choose(CLIP, "Which sound is this?", ["rain", "music"]).odds]


def test_autocast_changes_nothing() -> None:
    expected = odds(auricle.load("auricle-tiny"))
    model, encoder = auricle.load("auricle-tiny"), auricle.load_encoder("auricle-tiny-encoder")
    aligner = auricle.load_aligner("auricle-tiny-glap")
    with torch.autocast("cpu", torch.bfloat16):
        assert odds(model) == expected
        caption, values = model.describe(CLIP).caption, encoder.embed([CLIP])[0]
        audio, text = aligner.audio([CLIP]), aligner.text("rain")
    assert odds(model) == expected
    assert model.describe(CLIP).caption == caption
    assert torch.equal(encoder.embed([CLIP])[0], values)
    assert torch.equal(aligner.audio([CLIP]), audio) and torch.equal(aligner.text("rain"), text)


def test_the_caller_keeps_its_autocast() -> None:
    model = auricle.load("auricle-tiny")
    with torch.autocast("cpu", torch.bfloat16):
        odds(model)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
