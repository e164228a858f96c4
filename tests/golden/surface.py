"""Reads the public surface of the package: names off the rooms' stubs, verbs and flags off the command line."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent
SOURCE = GOLDEN.parents[1] / "src" / "auricle"


def public_api() -> list[str]:
    """What the package and each room offer, with signatures: a line a name, and a line a member of a class below it."""
    stubs = sorted(SOURCE.rglob("__init__.pyi"), key=lambda path: path.parent)
    return [line for stub in stubs for line in room_api(stub)] + list(module_api(SOURCE / "errors.py"))


def room_api(stub: Path) -> Iterator[str]:
    """Lines of one room, off its stub, which is also what is imported at run time."""
    room = ".".join(["auricle", *stub.parent.relative_to(SOURCE).parts])
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            path = stub.parent.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                if path.is_dir():  # of another room, whose own lines have the signature
                    yield f"{room}.{alias.name} = {room}.{node.module}.{alias.name}"
                else:
                    yield from definition(room, alias.name, path.with_suffix(".py"))
        elif isinstance(node, ast.AnnAssign):
            yield f"{room}.{ast.unparse(node)}"


def module_api(path: Path) -> Iterator[str]:
    """Lines of a module that is public as a whole."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from definition(f"auricle.{path.stem}", node.name, path)


def definition(room: str, name: str, path: Path) -> Iterator[str]:
    """How a module defines a name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            yield f"{room}.{signature(node)}"
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield f"{room}.{name}({', '.join(map(ast.unparse, node.bases))})"
            yield from (f"    {member}" for member in members(node.body))
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.ImportFrom) and name in bound(node):
            is_constant = isinstance(node, ast.AnnAssign) and name.isupper()
            yield f"{room}.{name}" + (f": {ast.unparse(node.annotation)}" if is_constant else "")


def members(body: list[ast.stmt]) -> Iterator[str]:
    """Public members of a class, its constructor among them."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                yield " ".join([*(f"@{mark}" for mark in marks), signature(node)])
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not node.target.id.startswith("_"):
                yield ast.unparse(node)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def bound(node: ast.Assign | ast.AnnAssign | ast.ImportFrom) -> set[str]:
    """Names that a statement binds."""
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


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
