"""Reads the public surface of the package: names off the rooms' stubs, verbs and flags off the command line."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).resolve().parent
SOURCE = GOLDEN.parents[1] / "src" / "auricle"
# Special methods that a user calls without naming them: `model(x)`, `with stream`, `for block in stream`.
SPECIAL = {"__init__", "__call__", "__iter__", "__next__", "__len__", "__getitem__", "__contains__"}
SPECIAL |= {"__enter__", "__exit__", "__aenter__", "__aexit__", "__aiter__", "__anext__"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Offer(NamedTuple):
    """A name that a room's stub offers, and the module it takes it from."""

    room: str
    name: str
    module: Path

    @property
    def public_name(self) -> str:
        return f"{self.room}.{self.name}"

    @property
    def identifier(self) -> str:
        """Where the name is defined, as `auricle.audio.decode.decode`."""
        return f"auricle.{'.'.join(self.module.relative_to(SOURCE).with_suffix('').parts)}.{self.name}"


def stubs() -> list[Path]:
    """The stubs of the package and its rooms, which are also what is imported at run time."""
    return sorted(SOURCE.rglob("__init__.pyi"), key=lambda path: path.parent)


def offers(stub: Path) -> Iterator[Offer]:
    """What a stub imports, in its order."""
    room = ".".join(["auricle", *stub.parent.relative_to(SOURCE).parts])
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            target = stub.parent.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                yield Offer(room, alias.name, target if target.is_dir() else target.with_suffix(".py"))


def public_api() -> list[str]:
    """What the package and each room offer, with signatures: a line a name, and a line a member of a class below it."""
    return [line for stub in stubs() for line in room_api(stub)] + list(module_api(SOURCE / "errors.py"))


def room_api(stub: Path) -> Iterator[str]:
    """Lines of one room."""
    for offer in offers(stub):
        if offer.module.is_dir():  # of another room, whose own lines have the signature
            yield f"{offer.public_name} = auricle.{offer.module.name}.{offer.name}"
        else:
            yield from definition(offer.room, offer.name, offer.module)
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign):
            yield f"{'.'.join(['auricle', *stub.parent.relative_to(SOURCE).parts])}.{ast.unparse(node)}"


def module_api(path: Path) -> Iterator[str]:
    """Lines of a module that is public as a whole."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from definition(f"auricle.{path.stem}", node.name, path)


def definition(room: str, name: str, path: Path) -> Iterator[str]:
    """How a module defines a name; every overload of a function."""
    lines: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function) and node.name == name:
            lines += [f"{room}.{signature(node)}"]
        elif isinstance(node, ast.ClassDef) and node.name == name:
            marks = "".join(f" @{ast.unparse(mark)}" for mark in node.decorator_list)
            lines += [f"{room}.{name}({', '.join(map(ast.unparse, node.bases))}){marks}"]
            lines += [f"    {member}" for member in members(node, path)]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and name in bound(node):
            lines += [f"{room}.{name}{value_of(node)}"]
    if not lines:
        raise LookupError(f"{room} offers {name}, which {path} does not define")
    yield from lines


def value_of(node: ast.Assign | ast.AnnAssign) -> str:
    """The declared type of a constant, or what a short one, such as the alias `Literal["a", "b"]`, is."""
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "TypeAlias":
        return f": {ast.unparse(node.annotation)}"
    value = ast.unparse(node.value) if node.value else ""
    return f" = {value}" if len(value) <= 100 else ""


def members(node: ast.ClassDef, path: Path) -> Iterator[str]:
    """Public members of a class: its own, and those of bases that are not public themselves."""
    seen: set[str] = set()
    for owner in [node, *private_bases(node, path)]:
        for name, line in own_members(owner.body):
            if name not in seen:
                yield line
        seen |= {name for name, _ in own_members(owner.body)}


def own_members(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, Function):
            if not node.name.startswith("_") or node.name in SPECIAL:
                marks = [f"@{ast.unparse(mark)}" for mark in node.decorator_list]
                yield node.name, " ".join([*marks, signature(node)])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for name in sorted(bound(node)):
                if not name.startswith("_"):
                    yield name, ast.unparse(node)


def private_bases(node: ast.ClassDef, path: Path) -> Iterator[ast.ClassDef]:
    """Base classes defined in the package and offered by no room, nearest first."""
    for base in (base for base in node.bases if isinstance(base, ast.Name)):
        module = home(base.id, path)
        if module and not any(offer[1:] == (base.id, module) for stub in stubs() for offer in offers(stub)):
            tree = ast.parse(module.read_text(encoding="utf-8"))
            for found in (each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == base.id):
                yield found
                yield from private_bases(found, module)


def home(name: str, path: Path) -> Path | None:
    """The module of the package that a module has a name from; None where it is of another package."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return path
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            folder = path.parents[node.level - 1] if node.level else SOURCE.parent
            module = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            return module if module.is_file() else None
    return None


def signature(node: Function) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def bound(node: ast.Assign | ast.AnnAssign) -> set[str]:
    """Names that a statement binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def cli_flags(app: Any) -> list[str]:
    """One line per verb and per argument or flag of a Typer application, in the order of the alphabet."""
    from typer.main import get_command

    return sorted(lines_of(get_command(app), "auricle"))


def lines_of(command: Any, verb: str) -> Iterator[str]:
    # Typer carries its own copy of click, so commands are distinguished by what they have, not by their class.
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
