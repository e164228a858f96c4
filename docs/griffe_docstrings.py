"""Reads docstrings as this code base writes them: comments explain fields, examples are paragraphs."""

import re
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Turns ``width: int  # of a frame`` in the body of a class into an entry of the class's list of attributes."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called when the body of a class has been read."""
        fields = [each for each in cls.attributes.values() if each.annotation and not each.name.startswith("_")]
        fields = [each for each in fields if not each.docstring and "property" not in each.labels]
        if not fields or (cls.docstring and "Attributes:" in cls.docstring.value):
            return
        summary = cls.docstring.value if cls.docstring else ""
        lines = [f"    {each.name}: {comment(each) or default(each)}" for each in fields]
        cls.docstring = griffe.Docstring("\n".join([summary, "", "Attributes:", *lines]), parent=cls, lineno=cls.lineno)


class Examples(griffe.Extension):
    """Shows paragraphs that start with ``>>>`` as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that is read."""
        if obj.docstring and ">>>" in obj.docstring.value:
            parts = re.split(r"\n\s*\n", obj.docstring.value)
            fenced = [f"```pycon\n{part}\n```" if part.startswith(">>> ") else part for part in parts]
            obj.docstring.value = "\n\n".join(fenced)


def comment(attribute: griffe.Attribute) -> str:
    """What stands behind the code of the last line, or in the lines above the first."""
    lines = attribute.lines_collection[attribute.filepath]
    first, last = attribute.lineno or 1, attribute.endlineno or attribute.lineno or 1
    code, mark, behind = lines[last - 1].partition("  # ")
    if mark and code.strip():
        return behind.strip()
    above: list[str] = []
    while first > 1 and lines[first - 2].strip().startswith("# "):
        above.insert(0, lines[first - 2].strip()[2:])
        first -= 1
    return " ".join(above)


def default(attribute: griffe.Attribute) -> str:
    """A stand-in where nothing is said of a field."""
    return f"by default `{attribute.value}`" if attribute.value is not None else "required"
