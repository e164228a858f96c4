"""Lists the fields of a class with the comments behind them, which is where this code base says what a field is."""

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
