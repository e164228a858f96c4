"""Python files of a user, run from the very bytes that were hashed, never from bytecode that lies beside them.

A file may import others of its folder. Which ones is found in the source before anything runs; all of them are read
once, hashed together, and compiled from memory. Their modules have names of their own, so that two encoders may each
have a ``layers.py``.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import Any

from auricle.errors import AuricleError, ConfigError
from auricle.files import read_regular

_MAX_BYTES = 2**24  # of a source file
_MAX_FILES = 500
_START = "auricle_user_code_"


@dataclass(frozen=True, slots=True)
class UserCode:
    """A file and those of its folder that it imports, read but not run."""

    path: Path
    sources: Mapping[str, tuple[Path, bytes]]  # by dotted name from the folder; "" is the file itself

    @property
    def digest(self) -> str:
        """SHA-256 of the file; where it imports others of its folder, of the names and hashes of all."""
        hashes = {name: hashlib.sha256(content).hexdigest() for name, (_, content) in self.sources.items()}
        if len(hashes) == 1:
            return hashes[""]
        return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()

    def outline(self) -> str:
        """What would be run: names that the file defines, and the files it imports."""
        tree = _parse(self.sources[""][1])
        if tree is None:
            return "it is not valid Python"
        names = [
            f"{'class' if isinstance(node, ast.ClassDef) else 'function'} {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        found = _listed(names) or "statements without a class or function"
        others = sorted(str(path.relative_to(self.path.parent)) for name, (path, _) in self.sources.items() if name)
        return f"{found}; and {_listed(others)}" if others else found


def read_user_code(path: Path) -> UserCode:
    """Read a file and those of its folder that it imports, whatever they import in turn included.

    Raises:
        ConfigError: a file is absent, too large or no regular file; or there are too many.
    """
    sources: dict[str, tuple[Path, bytes]] = {}
    waiting: list[tuple[str, Path]] = [("", path)]
    while waiting:
        name, file = waiting.pop()
        if name in sources:
            continue
        if len(sources) == _MAX_FILES:
            raise ConfigError(f"{path}: imports more than {_MAX_FILES} files of its folder; make a package of them")
        try:
            sources[name] = file, read_regular(file, _MAX_BYTES)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); give the path of a .py file") from error
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for wanted in _imports(sources[name][1], package):
            waiting += _files_of(wanted, path.parent)
    return UserCode(path, sources)


def run(code: UserCode) -> ModuleType:
    """Run what was read; calls of functions may import more of it later.

    Raises:
        AuricleError: running it failed; its error is attached.
    """
    root = f"{_START}{code.digest[:16]}"
    for name in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
        del sys.modules[name]
    _finder.files.update({f"{root}.{name}" if name else root: file for name, file in code.sources.items()})
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    try:
        return importlib.import_module(root)
    except Exception as error:
        files = {str(path) for path, _ in code.sources.values()}
        frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in files]
        where = f", line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
        raise AuricleError(f"{code.path}: running it failed ({type(error).__name__}: {error}){where}") from error


class _Source(SourceLoader):
    """Compiles and runs bytes that are in memory."""

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        self.name, self.path, self.content = name, path, content

    def get_filename(self, fullname: str) -> str:
        """The file's path, which tracebacks name."""
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        """The content as it was hashed; nothing else is given out."""
        if str(path) != str(self.path):
            raise OSError(f"{path!r} is not read from here")
        return self.content

    def get_code(self, fullname: str) -> CodeType:
        """Compiled from the content: the base class would look for bytecode first."""
        found: CodeType = compile(self.content, str(self.path), "exec", dont_inherit=True)
        return found

    def exec_module(self, module: ModuleType) -> None:
        """Run it, with an ``import`` that finds the other files."""
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(self.name.partition(".")[0])}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds modules of user code by the names they were given."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[Path, bytes]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for modules of others."""
        if fullname not in self.files:
            return None
        file, content = self.files[fullname]
        # The file itself is a package, for it holds the others.
        is_package = file.name == "__init__.py" or "." not in fullname
        spec = spec_from_loader(fullname, _Source(fullname, file, content), is_package=is_package)
        if spec is not None and is_package:
            spec.submodule_search_locations = []  # no other finder searches the folder
        return spec


_finder = _Finder()


def _importer(root: str) -> Any:
    """``import`` inside the modules of one encoder."""

    def import_module(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or f"{root}.{top}" not in _finder.files:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f"{root}.{name}")
        for part in fromlist or ():
            if f"{root}.{name}.{part}" in _finder.files:
                importlib.import_module(f"{root}.{name}.{part}")
        return module if fromlist else sys.modules[f"{root}.{top}"]

    return import_module


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest


def _parse(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Dotted names that a source may import; relative ones from the folder on."""
    for node in ast.walk(_parse(content) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level and package else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            if base:
                yield base


def _files_of(wanted: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a dotted name in a folder: packages on the way and the module itself."""
    parts = wanted.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == "auricle":
        return
    for count in range(1, len(parts) + 1):
        name, place = ".".join(parts[:count]), folder.joinpath(*parts[:count])
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                yield name, file
                break
        else:
            return
