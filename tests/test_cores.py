import os
from pathlib import Path

import pytest

from auricle import cores


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight hardware threads of four cores, in a control group without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_CPUS", tmp_path)
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8)],
)
def test_a_quota_limits_the_cores(allowed: Path, limit: str, expected: int) -> None:
    (allowed / "cpu.max").write_text(limit + "\n")
    assert cores.granted_cores() == expected


@pytest.mark.parametrize(("limit", "expected"), [("-1", 8), ("300000", 3)])
def test_a_quota_of_the_older_kind(allowed: Path, limit: str, expected: int) -> None:
    (allowed / "cpu").mkdir()
    (allowed / "cpu" / "cpu.cfs_quota_us").write_text(limit + "\n")
    (allowed / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.granted_cores() == expected


@pytest.mark.parametrize(
    ("idle_s", "own_s", "expected"),
    [(79.0, 1.0, 4), (25.0, 1.0, 3), (14.0, 9.0, 2), (0.0, 2.0, 1)],
    ids=["all idle", "some", "half", "none"],
)
def test_what_others_leave_free(
    allowed: Path, monkeypatch: pytest.MonkeyPatch, idle_s: float, own_s: float, expected: int
) -> None:
    readings = iter([(5.0, 100.0, 1.0), (15.0, 100.0 + idle_s, 1.0 + own_s)])
    monkeypatch.setattr(cores, "_seconds", lambda: next(readings))
    assert cores.IdleCores().measure() == expected


def test_only_the_allowed_cores_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(
        f"cpu 0 0 0 {9 * ticks} 0\ncpu0 1 2 3 {ticks} {ticks} 0\ncpu1 0 0 0 {3 * ticks} 0\ncpu10 0 0 0 99 0\nctxt 1\n"
    )
    monkeypatch.setattr(cores, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    measured = cores._seconds()
    assert measured is not None and measured[1] == 5.0


def test_without_such_files_all_cores_are_taken(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_STAT", allowed / "none")
    assert cores.IdleCores().measure() == 4
