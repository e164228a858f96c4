"""Two ways of doing the same work, timed in alternation so that a busy machine slows both."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both ways, one pair a round, after one call of each; who goes first changes every round."""
    ours(), theirs()
    pairs = []
    for turn in range(rounds):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        spent = {first: seconds(first)}
        spent[second] = seconds(second)
        pairs.append((spent[ours], spent[theirs]))
    return pairs


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and extremes."""
    return {name: round(of(values), digits) for name, of in (("median", median), ("min", min), ("max", max))}


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, **facts: Any) -> Row:
    """Time a pair; ``facts`` go into the row."""
    pairs = alternate(ours, theirs, rounds)
    return {
        "name": name,
        "speedup": spread([other / own for own, other in pairs]),
        "ours_s": round(median(own for own, _ in pairs), 4),
        "reference_s": round(median(other for _, other in pairs), 4),
        "rounds": rounds,
        **facts,
    }


def processor() -> str:
    """Model name of the CPU, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]} ({len(names)} CPUs)" if names else platform.processor() or platform.machine()
