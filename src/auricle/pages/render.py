"""Templates filled with untrusted text: all of it is escaped, and the page forbids scripts and network to the browser.

Templates are read from this package only. ``base.html`` is the frame of every page, ``parts.html`` has the macros for
tables, figures, players and provenance.
"""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **context: Any) -> str:
    """A complete HTML page that needs no other file.

    Args:
        template: name of a file in ``pages/templates``, such as ``bench.html``.
        context: all values that the template uses. Strings are shown as text; `Markup` from `svg` is inserted as it is.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _environment().get_template(template).render(context)


def visible(text: object) -> str:
    """Without characters that have an effect but no shape: controls, reversed writing, lone surrogates."""
    return "".join("\ufffd" if unicodedata.category(letter)[0] == "C" else letter for letter in str(text))


def bounded(text: str, length: int) -> str:
    """A text, cut where it is longer than this."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    return Environment(
        loader=PackageLoader("auricle.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
