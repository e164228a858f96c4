import threading
import time
from collections.abc import Callable

from auricle.engine.turn_lock import TurnLock


def work_until(turns: TurnLock, is_ready: Callable[[], bool], work: Callable[[], None]) -> None:
    while not is_ready():
        with turns.turn_unless(is_ready) as is_ours:
            if is_ours:
                work()


def test_a_thread_whose_result_is_ready_does_not_wait_for_the_others() -> None:
    turns, done = TurnLock(), {"short": 0, "long": 0}
    stop = threading.Event()

    def work() -> None:
        time.sleep(0.002)
        done["short"] += 1

    worker = threading.Thread(target=work_until, args=(turns, stop.is_set, work))
    worker.start()
    try:
        target = done["short"] + 5
        work_until(turns, lambda: done["short"] >= target, work)  # the other thread never stops by itself
        with turns.turn():
            before = done["short"]
            time.sleep(0.01)
            assert done["short"] == before
    finally:
        stop.set()
        worker.join(5)
    assert not worker.is_alive()


def test_only_one_works_at_a_time() -> None:
    turns, inside, most, count = TurnLock(), [], [], []

    def work() -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()
        count.append(1)

    threads = [threading.Thread(target=work_until, args=(turns, lambda: len(count) >= 30, work)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(most) == 1 and len(count) == 30
    assert turns.wait_for(lambda: True, 0) and not turns.wait_for(lambda: False, 0.01)
