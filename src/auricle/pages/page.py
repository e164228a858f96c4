"""Pieces of an HTML page that needs nothing else: escaped text, tables, and the frame that forbids scripts and network.

What stands in results was written by strangers: every text goes through `shown` on its way into a page.
"""

import html
import unicodedata
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top }
td.n { text-align: right } thead th { border-bottom: 2px solid #888; vertical-align: bottom }
td small { display: block; color: #666 } td.best { font-weight: 700; background: #e6f1f8 }
td.best::before { content: "★ "; color: #0072B2 } .random { color: #757575; font-style: italic }
.tag { font: 12px/1 system-ui; background: #eee; border-radius: 3px; padding: .15rem .4rem; white-space: nowrap }
.warn { background: #fdf0e2; border-left: 4px solid #D55E00; padding: .5rem 1rem }
tfoot td { border-top: 2px solid #888 }
code { font-size: 12px; overflow-wrap: anywhere } figure { margin: 1rem 0 } figure svg { max-width: 100%; height: auto }
figcaption { color: #555 }
"""


def visible(text: object) -> str:
    """Without characters that are not seen but act: controls, reversed writing, halves of a pair."""
    return "".join("\ufffd" if unicodedata.category(letter)[0] == "C" else letter for letter in str(text))


def shown(text: object) -> str:
    """As a page may hold it: visible and escaped."""
    return html.escape(visible(text), quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], foot: str = "") -> str:
    """Of finished cells: ``<td>…</td>`` for rows, escaped text for the head."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    header = "".join(f"<th>{each}</th>" for each in head)
    return (
        f'<div class="wide"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody>'
        f"<tfoot>{foot}</tfoot></table></div>"
    )


def cell(text: object, style: str = "") -> str:
    """A cell of a table with a text that is escaped."""
    return f'<td class="{style}">{shown(text)}</td>' if style else f"<td>{shown(text)}</td>"


def document(title: str, parts: Iterable[str], *, style: str = "", with_sounds: bool = False) -> str:
    """The whole page.

    Args:
        title: of the window.
        parts: finished HTML.
        style: rules beside those every page has.
        with_sounds: whether sounds that stand in the page itself may be played.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'" + ("; media-src data:" if with_sounds else "")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{shown(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{STYLE}{style}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
