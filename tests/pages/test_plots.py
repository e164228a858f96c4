import errno
import os
import re
import sys
from pathlib import Path

import pytest

from auricle.errors import MissingExtra, OutputError
from auricle.files import locked
from auricle.pages.plots import Line, draw_lines, drawable, look_of, new_figure, svg, write_page

from .reading import HOSTILE, Page


def radar(title: str = "Some title", **look: object) -> str:
    pytest.importorskip("matplotlib")
    figure = new_figure(5, 5, "A page", "bench")
    figure.suptitle(drawable(title))
    lines = [Line([0.1, 0.5, 0.9], {**look_of(name, number), **look}) for number, name in enumerate("abcdefgh")]
    return svg(draw_lines(figure, ["x", "y", "z"], lines), "one")


def test_a_figure_has_no_colour_of_a_page() -> None:
    drawn = radar()
    assert "currentColor" in drawn and not re.search(r"#(000000|ffffff|fff)\b", drawn, re.IGNORECASE)
    page = Page(drawn)
    (label,) = [value for _, name, value in page.attributes if name == "aria-label"]
    assert label == "Some title" and page.open == []
    assert not re.findall(r'(?:\bid="|href="#|url\(#)(?!one-)', drawn)


def test_the_same_figure_is_the_same_element() -> None:
    assert radar() == radar() and radar() != radar(marker="x")


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_figure_do_not_act(text: str) -> None:
    page = Page(radar(text))
    assert page.open == [] and not page.tags & {"script", "img", "iframe", "a", "audio"}


def test_one_or_two_axes_are_bars_and_none_is_words() -> None:
    pytest.importorskip("matplotlib")
    for titles in ([], ["x"], ["x", "y"]):
        figure = draw_lines(
            new_figure(4, 3, "A page", "bench"), titles, [Line([0.5] * len(titles), look_of("a", 0))], nothing="nothing"
        )
        assert figure.axes[0].name == "rectilinear"
        assert [text.get_text() for text in figure.axes[0].texts] == ["nothing"] * (not titles)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"Some page.*auricle\[bench\]"):
        new_figure(1, 1, "Some page", "bench")


def test_names_are_cut_in_the_middle_and_hold_no_formulas() -> None:
    pytest.importorskip("matplotlib")
    assert drawable("/home/me/models/encoder.safetensors", 21) == "/home/me/m…afetensors"
    assert drawable("a\n$b$ \u202e") == "a\ufffd\\$b\\$ \ufffd" and drawable(" ") == "…"


def test_a_page_comes_as_a_whole_and_one_process_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    figure = new_figure(1, 1, "A page", "bench")
    write_page(tmp_path / "report", "old", {"scores": figure})
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with locked(tmp_path / "report"), pytest.raises(OutputError, match="another run is writing here"):
        write_page(tmp_path / "report", "new", {"scores": figure})

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_page(tmp_path / "report", "new", {"scores": figure})
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before
