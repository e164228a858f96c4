import re

import pytest

from auricle.pages.render import _environment, render, visible

from .reading import HOSTILE, Page

PARTS = '{% from "parts.html" import table %}'


def of(source: str, **context: object) -> str:
    return _environment().from_string(source).render(context)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_value_is_escaped_and_visible(text: str) -> None:
    page = Page(of("<p title=\"{{ text }}\">{{ text }}</p>{% if text %}{{ [text] | join(' ') }}{% endif %}", text=text))
    assert page.tags == {"p"} and page.open == []
    seen = re.sub(r"[\n\u202e\x1b]", "\ufffd", text)
    assert page.words[0] == seen and page.attributes == [("p", "title", seen)]


def test_a_value_that_is_not_given_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="encoders"):
        render("bench.html", title="x")
    with pytest.raises(UndefinedError, match="missing"):
        of("{{ missing }}")


def test_templates_come_from_the_package_only() -> None:
    from jinja2 import TemplateNotFound

    for name in ("../render.py", "/etc/passwd", "nothing.html"):
        with pytest.raises(TemplateNotFound):
            render(name, title="x")


def test_the_frame_forbids_scripts_and_network() -> None:
    text = of('{% extends "base.html" %}{% block content %}<p>x</p>{% endblock %}', title="a & b")
    page = Page(text)
    policies = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"] and page.open == []
    assert page.tags == {"html", "head", "meta", "title", "style", "body", "main", "h1", "p"}
    assert "a &amp; b</h1>" in text and "url(" not in text and "@import" not in text


def test_controls_become_visible() -> None:
    assert visible("a\nb\x1b\u202e\ud800 é 耳 \u00a0") == "a\ufffdb\ufffd\ufffd\ufffd é 耳 \u00a0"
