"""Public names and command line flags change only on purpose: in the same commit as the golden lists."""

from pathlib import Path

import pytest
import typer

import auricle
import surface

HOW = "wanted? run `python tests/golden/regenerate.py` and commit the list; otherwise make the name private"


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


def test_the_package_delivers_what_it_offers() -> None:
    assert {"load", "load_encoder"} <= set(auricle.__all__)
    assert [name for name in auricle.__all__ if not hasattr(auricle, name)] == []
    assert set(auricle.__all__) <= set(dir(auricle))


def test_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        auricle.no_such_name  # noqa: B018


def test_every_kind_of_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "SOURCE", tmp_path)
    (tmp_path / "audio").mkdir()
    (tmp_path / "__init__.py").write_text("__all__ = ['load']\n_hidden = 1\n")
    (tmp_path / "audio" / "_private.py").write_text("SECRET = 1\n")
    (tmp_path / "audio" / "limits.py").write_text(
        "RATE: int = 1\nfrom os import path\nclass Limits:\n    seconds: float = 1.0\n    def check(self): ...\n"
        "    def _inner(self): ...\ndef _no(): ...\nasync def yes(): ...\n"
    )
    limits = ["Limits", "Limits.check", "Limits.seconds", "RATE", "yes"]
    assert surface.public_api() == [*(f"auricle.audio.limits.{name}" for name in limits), "auricle.load"]


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
