"""Lines, and bars on a terminal that leave them alone."""

import io
import re
import sys
from typing import Any

import pytest

from auricle.cli import output
from auricle.cli.output import print_json, print_line, progress
from auricle.errors import visible


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
        assert output._bars.shown is not None
        output._bars.shown.refresh()
        found = terminal.shown()
    assert "counting [red]\\x1b[31m" in found and shown in found
    assert output._bars.shown is None and terminal.shown().endswith(
        "\x1b[2K\x1b[?25h\r"
    )  # wiped away, and the cursor is back


def test_what_is_known_later_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("counting") as advance:
        advance.start(8)
        advance.at(5, "still counting\n")
        output._bars.shown.refresh()  # type: ignore[union-attr]
        assert "still counting " in terminal.shown() and "5/8" in terminal.shown()


def screen(written: str) -> list[str]:
    """What a terminal shows in the end: lines, of which a bar may have wiped some."""
    rows, at = [""], 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            at += 1
            rows += [""] * (at == len(rows))
        elif part.endswith("A") and part[0] == "\x1b":
            at -= int(part[2:-1])
        elif part == "\x1b[2K":
            rows[at] = ""
        elif part[0] not in "\x1b\r":
            rows[at] += part
    return [row for row in rows if row]


def test_lines_are_printed_above_the_bars(monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> None:
    terminal = on_terminal(monkeypatch)
    with progress("one", 3), progress("two", 3) as advance:
        for number in range(3):
            print_line(f"line {number}", err=True)
            advance()
            assert output._bars.shown is not None
            output._bars.shown.refresh()
        found = screen(terminal.shown())
        assert found[:3] == ["line 0", "line 1", "line 2"] and [row[:3] for row in found[3:]] == ["one", "two"]
    assert screen(terminal.shown()) == ["line 0", "line 1", "line 2"]
    print_json({"key": "ü"})
    print_line("a\x07b\nc")
    assert capsysbinary.readouterr().out.decode() == '{"key": "ü"}\na\\x07b c\n'


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
    assert output._bars.shown is None and "\x1b[?25h" in terminal.shown()  # the cursor is back


def test_letters_of_all_languages_reach_the_terminal_and_what_hides_does_not() -> None:
    shown = "می\u200cخواهم 日本\u3000語 10\u202fAM 👩\u200d🚒 e\u0301"
    assert visible(shown) == shown
    assert visible("a\u202eb\u200ec\x1bd\udcffe") == "a\\u202eb\\u200ec\\x1bd\\udcffe"
