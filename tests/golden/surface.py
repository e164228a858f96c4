"""Reads the public surface of the package: names off the source, verbs and flags off the command line."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent
SOURCE = GOLDEN.parents[1] / "src" / "auricle"


def public_api() -> list[str]:
    """Every public name of every room: modules' own functions, classes and constants, and classes' own members."""
    return sorted(name for path in SOURCE.rglob("*.py") if is_public(path) for name in names_of(path))


def is_public(path: Path) -> bool:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    # The verbs' functions are no library; what counts of them is in the list of flags.
    return parts[0] != "cli" and not any(part.startswith("_") and part != "__init__" for part in parts)


def names_of(path: Path) -> Iterator[str]:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    prefix = ".".join(["auricle", *(part for part in parts if part != "__init__")])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (f"{prefix}.{name}" for name in sorted(exported(tree) | set(defined(tree.body))))


def exported(tree: ast.Module) -> set[str]:
    """Names in a literal `__all__`, which also speaks for what is imported or made on demand."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return set(ast.literal_eval(node.value))
    return set()


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Public names a module or class body defines itself; `Class.member` for what a class holds."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{member}" for member in defined(node.body))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_"))


def cli_flags(app: Any) -> list[str]:
    """One line per verb and per argument or flag of a Typer application, in the order of the alphabet."""
    from typer.main import get_command

    return sorted(lines_of(get_command(app), "auricle"))


def lines_of(command: Any, verb: str) -> Iterator[str]:
    # Typer carries its own copy of click, so commands are told apart by what they have, not by their class.
    yield verb
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield f"{verb} <{parameter.name}>" + ("..." if parameter.nargs == -1 else "")
        else:
            yield f"{verb} " + " / ".join([*parameter.opts, *parameter.secondary_opts])
    for name, child in getattr(command, "commands", {}).items():
        yield from lines_of(child, f"{verb} {name}")


def write(name: str, lines: list[str]) -> None:
    (GOLDEN / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(name: str) -> list[str]:
    return (GOLDEN / name).read_text(encoding="utf-8").splitlines()
