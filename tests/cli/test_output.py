"""Lines, and bars on a terminal that leave them alone."""

import io
import sys

import pytest

from auricle.cli import output
from auricle.cli.output import print_json, print_line, progress


class Terminal(io.TextIOWrapper):
    """Standard error of a person; keeps what is written."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


class AtOnce:
    """A timer whose time is up."""

    daemon = False

    def __init__(self, delay: float, act: object) -> None:
        self.start = act

    def cancel(self) -> None: ...


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by the test itself: pytest changes the streams after its fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(output, "Timer", AtOnce)
    return terminal


@pytest.mark.parametrize(
    ("unit", "total", "done", "shown"),
    [
        ("items", 2000, 1500, "1,500/2,000"),
        ("items", None, 3, "3"),
        ("audio", 754.9, 61.0, "1:01/12:34 of audio"),
        ("audio", 4000, 3600.0, "1:00:00/1:06:40 of audio"),
        ("bytes", 3_000_000, 1_500_000, "1.5/3.0 MB"),
    ],
)
def test_a_bar_shows_how_much_is_done(
    monkeypatch: pytest.MonkeyPatch, unit: output.Unit, total: float | None, done: float, shown: str
) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("counting [red]\x1b[31m", total, unit=unit) as advance:
        advance(done)
        assert output._bars._shown is not None
        output._bars._shown.refresh()
        found = terminal.shown()
    assert "counting [red]\\x1b[31m" in found and shown in found
    assert output._bars._shown is None and terminal.shown().endswith("\x1b[2K\x1b[?25h\r")  # wiped away, and the cursor is back


def test_what_is_known_later_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("counting") as advance:
        advance.start(8)
        advance.at(5, "still counting\n")
        output._bars._shown.refresh()  # type: ignore[union-attr]
        assert "still counting " in terminal.shown() and "5/8" in terminal.shown()


def test_lines_are_printed_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("one", 3), progress("two", 3) as advance:
        print_line("a line", err=True)
        before, _, after = terminal.shown().partition("a line\n")
        assert before.endswith("\x1b[2K") and "one" in after and "two" in after  # wiped before, drawn again after
        advance()
        print_line("result\x07")
        print_json({"key": "ü"})
    assert "result" not in terminal.shown()
    assert not output._bars._rows


@pytest.mark.parametrize("where", ["quiet", "pipe", "soon"])
def test_no_bar_is_shown(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    stderr = io.StringIO() if where == "pipe" else Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with progress("counting", 3, quiet=where == "quiet") as advance:
        advance(2)
        advance.start(4)
        advance.at(3, "counted")
    assert (stderr.getvalue() if isinstance(stderr, io.StringIO) else stderr.shown()) == ""


def test_bars_go_with_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), progress("counting", 3):
        raise KeyboardInterrupt
    assert output._bars._shown is None and "\x1b[?25h" in terminal.shown()  # the cursor is back
