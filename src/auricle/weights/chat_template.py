"""Chat templates of others: rendered in a sandbox, with bounded work.

A template that only goes through the messages and their parts is rendered here. Any other may loop, multiply texts and
call filters, which no sandbox of Jinja bounds: another process renders it (``python -m`` this module), with limits on
its memory and time.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from auricle.errors import PromptError

if TYPE_CHECKING:
    from jinja2.environment import Environment
    from jinja2.nodes import Template

MAX_TEMPLATE_BYTES = 2**20
_MAX_LOOPS = 2  # inside each other: messages, their parts
_MAX_RENDERED = 2**24  # characters
_MEMORY_BYTES = 2**30  # of the other process
_TIMEOUT_S = 20.0

Turns = Sequence[Mapping[str, Any]]


def compile_template(source: str) -> Callable[[Turns], str]:
    """A function from messages, as the template expects them, to the prompt, to which the answer is added.

    The function raises `PromptError` where the template fails, refuses the messages or works too long on them.

    Raises:
        PromptError: the source is no Jinja.
    """
    source = source.removeprefix("\ufeff")  # a byte order mark is no text
    if len(source.encode("utf-8", "replace")) > MAX_TEMPLATE_BYTES:
        raise PromptError(f"the chat template has more than {MAX_TEMPLATE_BYTES} bytes; restore the model's file")
    environment = _environment()
    try:
        tree = environment.parse(source)
        # To compile a template evaluates what is constant in it.
        if not _is_plain(tree):
            return partial(_render_apart, source)
        return partial(_render_here, environment.from_string(tree).render)
    except Exception as error:  # deep nesting and odd numbers raise other than Jinja's own
        raise PromptError(
            f"the chat template is no valid Jinja ({_line(error)}); restore the model's chat_template.jinja"
        ) from None


def _environment() -> Environment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Block trimming and loop controls are what published chat templates are written for.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _raise_exception(message: str) -> None:
    raise PromptError(f"the chat template refuses these messages: {message!s:.500}")


def _is_plain(tree: Template) -> bool:
    """Whether a template only chooses among texts of its own and of the messages, in few loops."""
    from jinja2 import nodes

    plain = (
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Name, nodes.Const),
        *(nodes.Getattr, nodes.Getitem, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test),
        *(nodes.Continue, nodes.Break),
    )

    def loops(node: nodes.Node) -> int:
        if not isinstance(node, plain):
            return _MAX_LOOPS + 1
        inner = max((loops(child) for child in node.iter_child_nodes()), default=0)
        return inner + isinstance(node, nodes.For)

    return loops(tree) <= _MAX_LOOPS


def _render_here(render: Callable[..., str], turns: Turns) -> str:
    try:
        return render(messages=turns, add_generation_prompt=True)
    except PromptError:
        raise
    except Exception as error:  # templates compute: division by zero, missing keys, …
        raise _failure(_line(error)) from None


def _render_apart(source: str, turns: Turns) -> str:
    task = json.dumps({"source": source, "turns": list(turns)})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=task.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failure(f"it works for more than {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise PromptError(f"the chat template needs a process of its own, which cannot be started ({error})") from error
    try:
        answer = json.loads(done.stdout)
        text, fault = answer["text"], answer["fault"]
    except (ValueError, KeyError, TypeError):
        raise _failure(f"it needs more than {_MEMORY_BYTES >> 20} MiB of memory, or crashes") from None
    if fault is not None:
        raise PromptError(str(fault))
    return str(text)


def _failure(reason: str) -> PromptError:
    return PromptError(
        f"the chat template cannot render these messages: {reason}; restore the model's chat_template.jinja"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__


def _main() -> None:
    """Render the task on the standard input; the limits end this process where it works too long."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(_TIMEOUT_S), int(_TIMEOUT_S) + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    task = json.load(sys.stdin.buffer)
    answer: dict[str, str | None] = {"text": None, "fault": None}
    try:
        render = _environment().from_string(task["source"]).render
        text = _render_here(render, task["turns"])
        if len(text) > _MAX_RENDERED:
            raise _failure(f"a prompt of more than {_MAX_RENDERED:,} characters")
        answer["text"] = text
    except PromptError as error:
        answer["fault"] = str(error)
    except MemoryError:
        answer["fault"] = str(_failure(f"it needs more than {_MEMORY_BYTES >> 20} MiB of memory"))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()
