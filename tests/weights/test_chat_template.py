"""Chat templates of others: bounded work, and faults that name the template."""

import resource
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import AuricleError, PromptError
from auricle.weights import chat_template
from auricle.weights.chat_template import compile_template
from auricle.weights.loaders import CHAT_TEMPLATE

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "audio", "audio": "clip-1"}, {"type": "text", "text": "What is it?"}]},
]
PUBLISHED = """{%- set ns = namespace(count=0) -%}
{%- macro part(content) -%}
  {%- if content is string -%}{{ content | trim }}
  {%- else -%}{%- for item in content -%}
    {%- if item.type == 'audio' -%}{%- set ns.count = ns.count + 1 -%}Audio {{ ns.count }}: <|AUDIO|>
    {%- else -%}{{ item['text'].strip() }}{%- endif -%}
  {%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}<|im_start|>{{ message.role + '\n' + part(message.content) }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
START = "{% set ns = namespace(x=1) %}"
BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops over messages": "{% for a in messages %}" * 30 + "x" + "{% endfor %}" * 30,
    "width": "{{ 'a'|center(3000000000) }}",
    "product": "{{ 'a' * 3000000000 }}",
    "list": "{{ ([0] * 3000000000)|length }}",
    "power": "{{ (9 ** 9 ** 9) % 10 }}",
    "format": "{{ '%3000000000d' % 1 }}",
    "format method": "{{ '{:>3000000000}'.format(1) }}",
    "doubling": START.replace("1", "'a'") + "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}x",
    "nesting": START + "{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "indent": "{{ {'a': [1]}|tojson(indent=2000000000) }}",
    "macro": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "two macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "batch": "{% for row in [1]|batch(300000000, 0) %}{{ row|length }}{% endfor %}",
    "filler": "{{ lipsum(n=99999999) }}",
    "long": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
}  # fmt: skip
FAULTS = {
    "division": "{{ 1/0 }}",
    "missing": "{{ nothing.at.all }}",
    "type": "{{ 'a' + 1 }}",
    "unknown filter": "{{ 'a'|no_such_filter }}",
    "syntax": "{% for %}",
    "deep": "(" * 5 + "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "huge": "x" * (2**20 + 1),
}


def render(source: str) -> str:
    return compile_template(source)(TURNS)


def test_the_published_format_is_rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template.subprocess, "run", None)
    assert render(CHAT_TEMPLATE) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>What is it?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("source", [PUBLISHED, CHAT_TEMPLATE])
def test_both_ways_give_the_same(source: str) -> None:
    here = chat_template._render_here(chat_template._environment().from_string(source).render, TURNS)
    assert chat_template._render_apart(source, TURNS) == here == render(source)


def test_a_byte_order_mark_is_no_part_of_the_prompt() -> None:
    for source in (CHAT_TEMPLATE, PUBLISHED):
        assert render("\ufeff" + source) == render(source)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon_and_small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_TIMEOUT_S", 0.7)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        text = render(BOMBS[name] + CHAT_TEMPLATE)
    except PromptError as error:
        assert "chat template" in str(error) and "\n" not in str(error)
    else:
        assert len(text) < 2**24
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_the_template(name: str) -> None:
    with pytest.raises(PromptError, match=r"chat template .* restore the model's") as caught:
        render(FAULTS[name] + CHAT_TEMPLATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["__globals__", "__code__", "__builtins__", "__closure__"])
def test_functions_show_nothing_of_themselves(name: str) -> None:
    assert render(f"{{{{ raise_exception.{name} }}}}" + CHAT_TEMPLATE) == render(CHAT_TEMPLATE)


def test_a_refusal_of_the_template_is_passed_on() -> None:
    with pytest.raises(PromptError, match="refuses these messages: no system turn"):
        render("{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}")


PARTS = [*"{}%-#'\"()[]|.~*/+ \n", "for ", "in ", "messages", "end", "if ", "x", "1"]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_any_text_is_compiled_or_refused(parts: list[str]) -> None:
    try:
        compile_template("".join(parts))
    except AuricleError as error:
        assert "\n" not in str(error)
