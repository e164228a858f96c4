"""Processor cores this process may use, and how many of them other processes leave free."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")


def granted_cores() -> int:
    """Cores that the affinity mask and the quota of the control group leave to this process, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """Cores' worth of time that a container may use (cgroup v2, then v1); infinite without a limit."""
    try:
        limit, period = (_CGROUPS / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            limit = (_CGROUPS / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (_CGROUPS / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        except OSError:
            return math.inf
    return int(limit) / int(period) if limit.strip().isdecimal() and int(period) else math.inf


class IdleCores:
    """Measures from its creation on how many of the granted cores other processes leave free."""

    def __init__(self) -> None:
        """Start measuring."""
        self._before = _seconds()

    def measure(self) -> int:
        """Whole cores that are granted and free, 1 at least; hardware threads of one core count as one.

        All granted ones where the system does not say.
        """
        granted, after = min(granted_cores(), _whole_cores()), _seconds()
        if self._before is None or after is None or after[0] <= self._before[0]:
            return granted
        passed, idle, own = (new - old for new, old in zip(after, self._before, strict=True))
        return max(1, min(granted, round((idle + own) / passed)))


def _whole_cores() -> int:
    """Cores whose hardware threads are in the affinity mask."""
    try:
        allowed = os.sched_getaffinity(0)
        return len({(_CPUS / f"cpu{number}" / "topology" / "thread_siblings_list").read_bytes() for number in allowed})
    except (OSError, AttributeError):
        return granted_cores()


def _seconds() -> tuple[float, float, float] | None:
    """Passed, idle on the allowed cores, and used by this process, each since some moment of its own; Linux only."""
    try:
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None
    idle = sum(int(row[4]) + int(row[5]) for row in rows if row[0] in allowed) / ticks  # idle, and waiting for a disk
    return time.perf_counter(), idle, time.process_time()
