"""Public names and command line flags change only on purpose: in the same commit as the golden lists."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import typer

import surface

MOST_NAMES = 200
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
    offered = [re.split(r"[(:]", name)[0].rpartition(".")[2] for name in names if name.count(".") > 1]
    assert sorted(offered) == sorted(set(offered))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_delivers_what_it_offers(room: str) -> None:
    module = import_module(room)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_every_kind_of_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SOURCE", tmp_path)
    (tmp_path / "audio").mkdir()
    (tmp_path / "__init__.pyi").write_text("from .audio import yes as yes\n__version__: str\n")
    (tmp_path / "audio" / "__init__.pyi").write_text("from .limits import RATE as RATE, Limits as Limits, yes as yes\n")
    (tmp_path / "audio" / "limits.py").write_text(
        "RATE: int = 1\nclass Limits(Base):\n    seconds: float = 1.0\n    def check(self, at=1): ...\n"
        "    def _inner(self): ...\ndef _no(): ...\nasync def yes(a: int, *, b=2) -> str: ...\n"
    )
    (tmp_path / "errors.py").write_text("class Bad(Exception): ...\ndef hint(): ...\n")
    assert surface.public_api() == [
        "auricle.yes = auricle.audio.yes",
        "auricle.__version__: str",
        "auricle.audio.RATE: int",
        "auricle.audio.Limits(Base)",
        "    seconds: float = 1.0",
        "    check(self, at=1)",
        "auricle.audio.yes(a: int, *, b=2) -> str",
        "auricle.errors.Bad(Exception)",
    ]


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
