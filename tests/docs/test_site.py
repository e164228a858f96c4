"""The documentation has every public name, verb, model and task, builds without warnings, and fetches nothing."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import surface
from auricle.bench import tasks
from auricle.evaluate import language_tasks
from auricle.weights import entries

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("docs", "examples", "recipes", "tests/golden", "benchmarks", "mkdocs.yml", "CHANGELOG.md")
SOURCES += ("CONTRIBUTING.md", "SECURITY.md")
MOVED = ROOT / "docs" / "where-things-moved.md"


class Ignored(yaml.SafeLoader):
    """Reads the settings; what is no plain data is of no interest here."""


Ignored.add_multi_constructor("", lambda *_: None)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generate: ModuleType) -> dict[str, str]:
    return generate.all_pages()


def test_every_public_name_has_an_entry(pages: dict[str, str]) -> None:
    public = {re.split(r"[(:=@ ]", line)[0] for line in surface.public_api() if not line.startswith(" ")}
    text = "\n".join(text for name, text in pages.items() if name.startswith("reference/api/auricle"))
    shown = set(re.findall(r"^ +heading: (\S+)$|^## (auricle\S*)$", text, flags=re.MULTILINE))
    assert {"".join(pair) for pair in shown} == public - {"auricle.__version__"}


def test_every_verb_has_its_help(pages: dict[str, str]) -> None:
    flags = surface.read("cli_flags.txt")
    page = pages["reference/cli.md"]
    headings = set(re.findall(r"^## (auricle.*)$", page, flags=re.MULTILINE))
    assert headings == {line for line in flags if " -" not in line and "<" not in line}
    assert [flag for line in flags for flag in re.findall(r"--[\w-]+", line) if flag not in page] == []


def test_every_model_and_task_is_listed(pages: dict[str, str]) -> None:
    models, listed = pages["reference/models.md"], pages["reference/tasks.md"]
    assert [entry.name for entry in entries() if f"| `{entry.name}` |" not in models] == []
    names = [*(task.name for task in tasks()), *(task.name for task in language_tasks())]
    assert [name for name in names if f"| `{name}` |" not in listed] == []


def test_every_page_is_in_the_navigation(pages: dict[str, str]) -> None:
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from leaves(child)

    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=Ignored)
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    written = {name for name in written if name.partition("/")[0] not in ("reference", "examples", "project")}
    assert sorted(leaves(settings["nav"])) == sorted(written | set(pages))


def test_modules_are_where_the_table_says() -> None:
    rows = re.findall(r"^\| `([a-z_0-9.]+)` \| `([a-z_0-9.]+)` \|$", MOVED.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 100
    assert [new for _, new in rows if not (surface.SOURCE / f"{new.replace('.', '/')}.py").is_file()] == []
    assert [old for old, new in rows if old == new] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    for name in SOURCES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "src").symlink_to(ROOT / "src")
    for command in ("docs/generate.py", "-m zensical build --strict"):
        done = subprocess.run([sys.executable, *command.split()], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    for offer in (each for stub in surface.stubs() for each in surface.offers(stub) if not each.module.is_dir()):
        assert f'id="{offer.identifier}"' in (site / "reference" / "api" / f"{offer.room}.html").read_text(), offer
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # which has absolute links
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|audio|source|iframe)[^>]* src="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]* rel="(?:stylesheet|icon|preload)"[^>]* href="([^"]+)"', text)
        for link in (each for each in fetched if not each.startswith("data:")):
            assert ":" not in link and (page.parent / link).resolve().is_file(), f"{page.name}: {link}"
