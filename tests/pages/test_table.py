import math

import pytest

from auricle.pages.render import _environment
from auricle.pages.table import Cell, Column, Entry, Number, Table, Text

from .reading import Page


def table(rows: list[list[Entry]], *columns: Column, foot: list[Entry] | None = None) -> Table:
    return Table(label="some", columns=[Column(title="Row"), *columns], rows=rows, foot=foot or [])


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        (Column(title="", decimals=3), 0.5, "0.500"),
        (Column(title="", decimals=0), 12, "12"),
        (Column(title="", decimals=1, is_percent=True), 0.1234, "12.3"),
        (Column(title="", decimals=3), -1e15, "-1e+15"),
        (Column(title="", decimals=3), None, "–"),
        (Column(title="", decimals=3), math.nan, "–"),
    ],
)
def test_numbers_of_a_column_have_equally_many_decimals(column: Column, value: float | None, shown: str) -> None:
    assert column.format(value) == shown


def test_an_interval_has_cells_beside_its_number() -> None:
    rows: list[list[Entry]] = [
        ["a", Number(value=0.5, low=0.4, high=0.625, is_best=True), 7],
        ["b", Number(value=1), 8],
    ]
    it = table(rows, Column(title="Score", decimals=2), Column(title="Count", decimals=0), foot=["all", 0.75, None])
    assert [(head.text, head.style, head.span) for head in it.head] == [
        ("Row", "text", 1),
        ("Score", "n", 2),
        ("Count", "n", 1),
    ]
    assert it.body == [
        [Cell("text", "a"), Cell("n best", "0.50"), Cell("interval best", "0.40 to 0.62"), Cell("n", "7")],
        [Cell("text", "b"), Cell("n", "1.00"), Cell("interval", ""), Cell("n", "8")],
    ]
    assert it.last == [Cell("text", "all"), Cell("n", "0.75"), Cell("interval", ""), Cell("n", "–")]
    assert table(rows[1:], *it.columns[1:]).head[1].span == 1


def test_the_number_of_items_is_shown_once_where_all_agree() -> None:
    columns = [Column(title=title, decimals=1) for title in "xy"]
    same = table([[Text(text="a", note="b"), Number(value=1, n=5), Number(value=2, n=5)]], *columns)
    assert same.body == [[Cell("text", "a", "b · n\u00a0=\u00a05"), Cell("n", "1.0"), Cell("n", "2.0")]]
    other = table([["a", Number(value=1, low=0, high=2, n=5), Number(value=2, n=6)]], *columns)
    assert [cell.text for cell in other.body[0]] == [
        "a",
        "1.0",
        "0.0 to 2.0, n\u00a0=\u00a05",
        "2.0",
        "n\u00a0=\u00a06",
    ]


def test_a_table_as_html() -> None:
    it = table([[Text(text="a", note="n", tags=["t"]), "<b>"], ["b", "c"]], Column(title="Word", is_quoted=True))
    source = '{% from "parts.html" import table %}{{ table(it) }}'
    html = _environment().from_string(source).render(it=it)
    page = Page(html)
    assert page.open == [] and page.text == "Row Word a t n <b> b c"
    assert '<th scope="row" class="text">a <span class="tag">t</span><small>n</small></th>' in html
    assert '<td class="text quoted">&lt;b&gt;</td>' in html and "tfoot" not in page.tags
    assert ("div", "tabindex", "0") in page.attributes  # so that a keyboard can scroll it


def test_a_row_must_have_an_entry_for_each_column() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = table([["a"]], Column(title="x", decimals=1)).body
