"""Which requests are taken: the estimate of the wait, lanes, and budgets of clients."""

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from auricle.serve.admission import Admission
from auricle.serve.faults import ApiError
from auricle.serve.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(admission: Admission, client: str = "a", seconds: float = 1.0, lane: str = "short") -> ApiError:
    with pytest.raises(ApiError) as caught, admission.working(client, seconds, lane):
        pass
    return caught.value


def test_the_factor_is_learnt_from_the_time_that_audio_takes(clock: Clock) -> None:
    admission = Admission(Settings(), clock)
    for _ in range(200):
        with admission.working("a", 10.0, "short"):
            clock.now += 5.0
        clock.now += 100.0  # idle time is no work
    assert admission.factor == pytest.approx(0.5, rel=1e-3) and admission.wait_s() == 0


def test_overlapping_requests_share_the_time(clock: Clock) -> None:
    admission = Admission(Settings(), clock)
    for _ in range(200):
        with admission.working("a", 10.0, "short"):
            with admission.working("b", 10.0, "short"):
                clock.now += 3.0
            clock.now += 1.0
    assert admission.factor == pytest.approx(0.2, rel=0.1)  # 4 s for 20 s of audio


def test_a_request_that_would_wait_too_long_is_refused_with_the_time(clock: Clock) -> None:
    admission = Admission(Settings(queue_s=20), clock)
    admission.factor = 0.5
    with admission.working("a", 30.0, "short"):
        with admission.working("a", 30.0, "short"):
            admission.check("long")  # a lane without work takes one
            error = refusal(admission)
            assert (error.status, error.code, error.headers["Retry-After"]) == (429, "overloaded", "20")
        admission.check()
    admission.factor = 100.0
    with admission.working("a", 600.0, "short"):  # the first is always taken
        assert refusal(admission).headers["Retry-After"] == "60"  # clients do not wait for more than 120


def test_short_clips_do_not_wait_for_long_ones(clock: Clock) -> None:
    admission = Admission(Settings(queue_s=20), clock)
    admission.factor = 0.1
    with admission.working("a", 500.0, "long"), admission.working("a", 5.0, "short"):
        assert admission.wait_s("short") == pytest.approx(1.0) and admission.wait_s("long") == pytest.approx(50.5)
        admission.check("short")
        assert refusal(admission, lane="long").code == "overloaded"


def test_what_fails_leaves_nothing_behind(clock: Clock) -> None:
    admission = Admission(Settings(), clock)
    with pytest.raises(ZeroDivisionError), admission.reading("a", 10), admission.working("a", 3.0, "short"):
        raise ZeroDivisionError
    assert admission.wait_s() == 0 and admission.seconds == {"short": 0, "long": 0}


def test_a_client_has_so_many_requests_and_bytes_at_once() -> None:
    admission = Admission(Settings(max_requests=2))
    with admission.reading("a", 10), admission.reading("a", 10), admission.reading("b", 10):
        with pytest.raises(ApiError) as caught, admission.reading("a", 10):
            pass
        assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
    with admission.reading("a", 400_000_000):
        with pytest.raises(ApiError, match="uploaded"), admission.reading("b", 200_000_000):
            pass
    with admission.reading("a", 400_000_000):
        pass


def test_a_client_has_so_much_audio_a_minute(clock: Clock) -> None:
    admission = Admission(Settings(seconds_per_minute=60), clock)
    for _ in range(2):
        with admission.working("a", 25.0, "short"):
            pass
        clock.now += 10
    error = refusal(admission, seconds=25.0)
    assert (error.status, error.code, error.headers["Retry-After"]) == (429, "budget_exceeded", "40")
    with admission.working("b", 25.0, "short"):
        pass
    clock.now += 40
    with admission.working("a", 25.0, "short"):
        pass


def test_a_server_that_ends_takes_nothing() -> None:
    admission = Admission(Settings())
    admission.is_closed = True
    error = refusal(admission)
    assert (error.status, error.headers["x-should-retry"], error.headers["Retry-After"]) == (503, "true", "2")


def test_clips_that_wait_for_their_decoding_count(clock: Clock) -> None:
    admission = Admission(Settings(queue_s=2), clock)
    for _ in range(100):
        admission.note_decoding(0.5)
    with admission.decoding(), admission.decoding(), admission.decoding():
        admission.check()
        with admission.decoding(), admission.decoding():
            assert admission.wait_s() == pytest.approx(2.5, rel=1e-3) and refusal(admission).code == "overloaded"
    admission.check()
