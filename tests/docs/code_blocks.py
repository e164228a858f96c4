"""Code blocks of Markdown pages: found, run as a reader would run them, and compared with the output shown below them.

- ``python`` blocks of a page share their names; ``bash`` blocks must end with exit code 0.
- ``console`` blocks hold commands behind ``$`` and what they print.
- A ``text`` block directly below one that runs is its output. ``…`` stands for any text; the last digit of a decimal
  fraction may differ by one.
- ``<!-- not run: REASON -->`` above a block keeps it from being run; ``<!-- needs: EXTRA -->`` runs it where the extra
  is installed.
"""

import contextlib
import io
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = ("python", "bash", "sh", "console")
FORBIDDEN = ("pip", "git", "apt", "pre-commit", "torchrun", "pytest", "ruff", "mypy")  # of no page's own folder
DATA = ("json", "yaml", "text", "csv", "")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)(?P<info>.*)$")
_MARK = re.compile(r"<!-- (?P<kind>not run|needs): (?P<value>.+?) -->")
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+")


@dataclass
class Block:
    """A fenced block, and what is said of it."""

    path: Path
    line: int
    language: str
    code: str
    not_run: str = ""  # the reason
    needs: str = ""  # an extra
    output: str | None = None  # shown below it

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def read_blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page in their order, outputs attached to what prints them."""
    blocks: list[Block] = []
    marks: dict[str, str] = {}
    last_end, lines = -1, path.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if opened := _FENCE.match(lines[at]):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == opened["fence"])
            code = textwrap.dedent("\n".join(lines[at + 1 : end]))
            language = opened["language"]
            follows = blocks and not any(line.strip() for line in lines[last_end + 1 : at])
            if language == "text" and follows and blocks[-1].language in RUN:
                blocks[-1].output = code
            else:
                kinds = {kind.replace(" ", "_"): value for kind, value in marks.items()}
                blocks.append(Block(path, at + 1, language, code, **kinds))
            marks, last_end, at = {}, end, end
        elif marked := _MARK.search(lines[at]):
            marks[marked["kind"]] = marked["value"]
        elif lines[at].strip():
            marks = {}
        at += 1
    return blocks


@dataclass
class Session:
    """Runs the blocks of one page, in a folder, with an interpreter for its commands."""

    folder: Path
    python: str
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def __post_init__(self) -> None:
        """Put the command line and the interpreter before all others."""
        self.programs = self.folder.parent / f"{self.folder.name}-bin"
        self.programs.mkdir()
        scripts = {"auricle": f'exec {self.python} -m auricle.cli.main "$@"', "python": f'exec {self.python} "$@"'}
        scripts |= dict.fromkeys(FORBIDDEN, 'echo "$0 changes more than this folder: mark the block"; exit 1')
        for name, script in scripts.items():
            (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.programs / name).chmod(0o755)

    def run(self, block: Block) -> None:
        """Run a block; what it prints must be what is shown."""
        if block.language == "console":
            for command, expected in commands(block.code):
                self._compare(block, self._shell(command, checked=False), expected)
            return
        printed = self._exec(block) if block.language == "python" else self._shell(block.code, checked=True)
        if block.output is not None:
            self._compare(block, printed, block.output)

    def _exec(self, block: Block) -> str:
        code = compile("\n" * block.line + block.code, str(block.path), "exec")
        with contextlib.chdir(self.folder) if hasattr(contextlib, "chdir") else _chdir(self.folder):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, self.names)  # noqa: S102 - that is what the block is for
        return printed.getvalue()

    def _shell(self, code: str, *, checked: bool) -> str:
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        environment |= {"COLUMNS": "100", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if checked and done.returncode:
            raise AssertionError(f"exit code {done.returncode} of\n{code}\n{done.stdout[-2000:]}")
        return done.stdout

    @staticmethod
    def _compare(block: Block, printed: str, expected: str) -> None:
        assert agrees(expected, printed), f"{block} shows\n{expected}\nbut it prints\n{printed}"


def commands(code: str) -> Iterator[tuple[str, str]]:
    """Each command of a ``console`` block with the output below it."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = next(i for i, line in enumerate(lines) if not line.endswith("\\")) + 1
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


def agrees(expected: str, printed: str) -> bool:
    """Whether what is printed is what is shown."""
    shown, found = (_trimmed(text) for text in (expected, printed))
    pattern = re.escape(_NUMBER.sub("<number>", shown)).replace("…", r"[\s\S]*?")
    if re.fullmatch(pattern, _NUMBER.sub("<number>", found)) is None:
        return False
    numbers = zip(_NUMBER.findall(shown), _NUMBER.findall(found), strict=False)
    return "…" in shown or all(_near(*pair) for pair in numbers)


def _near(shown: str, found: str) -> bool:
    unit = 10.0 ** -len(shown.partition(".")[2])
    return abs(float(shown) - float(found)) < 1.5 * unit


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
