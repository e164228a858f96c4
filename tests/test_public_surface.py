"""Public names and command line flags change only on purpose: in the same commit as the golden lists."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import typer

import surface

MOST_NAMES = 220
ROOMS = [
    ".".join(["auricle", *path.parent.relative_to(surface.SOURCE).parts])
    for path in sorted(surface.SOURCE.rglob("__init__.pyi"))
]
HOW = "wanted? run `python tests/golden/regenerate.py` and commit the list; otherwise leave it out of `__init__.pyi`"


def difference(golden: list[str], actual: list[str]) -> str:
    gone, new = sorted(set(golden) - set(actual)), sorted(set(actual) - set(golden))
    return "\n".join([*(f"- {line}" for line in gone), *(f"+ {line}" for line in new), HOW])


def test_public_names_are_the_golden_ones() -> None:
    golden, actual = surface.read("public_api.txt"), surface.public_api()
    assert actual == golden, difference(golden, actual)


def test_command_line_is_the_golden_one() -> None:
    from auricle.cli.main import app

    golden, actual = surface.read("cli_flags.txt"), surface.cli_flags(app)
    assert actual == golden, difference(golden, actual)


def test_the_public_surface_is_small() -> None:
    names = [line for line in surface.public_api() if not line.startswith(" ")]
    assert 100 <= len(names) <= MOST_NAMES


def test_a_public_name_has_one_home() -> None:
    """Under one room, and defined by one module: a name that two rooms offer would mean two things."""
    names = [line.partition(" = ")[0] for line in surface.public_api() if not line.startswith(" ")]
    offered = [re.split(r"[(: ]", name)[0].rpartition(".")[2] for name in names if name.count(".") > 1]
    assert sorted(offered) == sorted(set(offered))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_delivers_what_it_offers(room: str) -> None:
    module = import_module(room)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_every_kind_of_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SOURCE", tmp_path / "auricle")
    write_package(
        tmp_path / "auricle",
        {
            "__init__.pyi": "from .audio import yes as yes\n__version__: str\n",
            "audio/__init__.pyi": "from .limits import RATE as RATE, Rule as Rule, Limits as Limits, yes as yes\n",
            "audio/limits.py": "from .base import Base\nRATE: int = 1\nRule: TypeAlias = Literal['a', 'b']\n"
            "@dataclass(frozen=True)\nclass Limits(Base):\n    seconds: float = 1.0\n"
            "    def check(self, at=1): ...\n    def __iter__(self): ...\n    def _inner(self): ...\n"
            "def _no(): ...\n@overload\ndef yes(a: int) -> int: ...\nasync def yes(a: int, *, b=2) -> str: ...\n",
            "audio/base.py": "class Base(Protocol):\n    KIND = 'b'\n    def check(self): ...\n"
            "    def far(self): ...\n",
            "errors.py": "class Bad(Exception): ...\ndef hint(): ...\n",
        },
    )
    assert surface.public_api() == [
        "auricle.yes = auricle.audio.yes",
        "auricle.__version__: str",
        "auricle.audio.RATE: int",
        "auricle.audio.Rule = Literal['a', 'b']",
        "auricle.audio.Limits(Base) @dataclass(frozen=True)",
        "    seconds: float = 1.0",
        "    check(self, at=1)",
        "    __iter__(self)",
        "    KIND = 'b'",  # of a base that is not public itself
        "    far(self)",
        "auricle.audio.yes(a: int) -> int",
        "auricle.audio.yes(a: int, *, b=2) -> str",
        "auricle.errors.Bad(Exception)",
    ]


def test_a_public_base_has_its_own_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SOURCE", tmp_path / "auricle")
    stub = "from .parts import Base as Base\nfrom .whole import Whole as Whole\n"
    parts = "class Base:\n    def far(self): ...\n"
    whole = "from auricle.audio.parts import Base\nclass Whole(Base):\n    def near(self): ...\n"
    files = {"audio/__init__.pyi": stub, "audio/parts.py": parts, "audio/whole.py": whole, "errors.py": ""}
    write_package(tmp_path / "auricle", files)
    expected = ["auricle.audio.Base()", "    far(self)", "auricle.audio.Whole(Base)", "    near(self)"]
    assert surface.public_api() == expected


def test_a_name_that_no_module_defines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SOURCE", tmp_path / "auricle")
    write_package(tmp_path / "auricle", {"audio/__init__.pyi": "from .limits import gone\n", "audio/limits.py": ""})
    with pytest.raises(LookupError, match="gone"):
        surface.public_api()


def write_package(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_every_kind_of_flag_is_read() -> None:
    app, data = typer.Typer(add_completion=False), typer.Typer()
    app.add_typer(data, name="data")

    @app.command()
    def describe(files: list[str], as_json: bool = typer.Option(False, "--json", "-j")) -> None: ...

    @data.command()
    def pack(source: str, *, gzip: bool = True) -> None: ...

    assert surface.cli_flags(app) == [
        "auricle",
        "auricle data",
        "auricle data pack",
        "auricle data pack --gzip / --no-gzip",
        "auricle data pack <source>",
        "auricle describe",
        "auricle describe --json / -j",
        "auricle describe <files>...",
    ]
