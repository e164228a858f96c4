import json
from pathlib import Path

import pytest

from auricle.data.shards import ShardSet

from ..curate.factory.signals import write_tones
from .conftest import auricle

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "captions"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the example clips and a file that is none, captioned."""
    folder = tmp_path_factory.mktemp("curate")
    (folder / "in").mkdir()
    for name in ("alarm", "piano", "voice"):
        (folder / "in" / f"{name}.ogg").write_bytes((EXAMPLES / f"{name}.ogg").read_bytes())
    (folder / "in" / "broken.wav").write_bytes(b"RIFF and nothing else")
    found = auricle("curate", "run", folder / "in", "-o", folder / "out", "--workers", 0, "--device", "cpu", "--json")
    assert found.code == 1
    (record,) = found.records
    assert record["clips"] == 4 and record["packed"] == 3 and record["failed"] == {"segment": 1}
    assert "broken.wav" in found.err
    return folder / "out"


def test_a_run_ends_with_a_table(run: Path) -> None:
    found = auricle("curate", "run", run.parent / "in", "-o", run, "--workers", 0, "--device", "cpu")
    assert found.code == 1
    assert "3 of 4 clips captioned" in found.out and str(run / "shards") in found.out
    assert ShardSet(run / "shards").keys() == ["alarm_ogg-7620f143", "piano_ogg-693eb06e", "voice_ogg-ea218bfe"]


def test_the_pages_of_a_run(run: Path) -> None:
    for verb in ("report", "review"):
        found = auricle("curate", verb, run, "--json")
        assert found.records[0]["file"] == str(run / f"{verb}.html")
        assert (run / f"{verb}.html").read_text().startswith("<!doctype html>")
    found = auricle("curate", "review", run, "-o", run / "other.html", "--clips", 1)
    assert found.out.strip() == str(run / "other.html")


def test_verdicts_give_the_agreement(run: Path, tmp_path: Path) -> None:
    manifest, keys = json.loads((run / "summary.json").read_text())["manifest"], ShardSet(run / "shards").keys()
    for name in ("a", "b"):
        verdicts = {key: "reject" if (key, name) == (keys[0], "a") else "accept" for key in keys}
        content = {"format": "auricle-verdicts-1", "manifest": manifest, "reviewer": name, "verdicts": verdicts}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    given = [part for name in ("a", "b") for part in ("--verdicts", tmp_path / f"{name}.json")]
    found = auricle("curate", "review", run, "-o", tmp_path / "r.html", *given)
    assert "83.3% accepted, by 2 reviewers" in found.out
    assert "3 clips judged by two or more: 66.7% equal, kappa 0.00" in found.out


def test_a_plan_is_a_table_or_json(run: Path) -> None:
    found = auricle("curate", "plan", run, "--hours", 263_000, "--cores", 64, "--core-hour", 0.04)
    assert "tags@" in found.out and found.out.splitlines()[-1].startswith("all")
    (record,) = auricle("curate", "plan", run, "--hours", 1, "--json").records
    assert {each["stage"] for each in record["stages"]} >= {"segment", "tag", "acoustics", "caption", "pack"}


def test_manifests_and_shards_are_inputs(tmp_path: Path) -> None:
    sources = write_tones(tmp_path / "in", 3)
    rows = [{"id": each.id, "audio": each.audio, "license": "CC0-1.0"} for each in sources]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--workers", 0, "--device", "cpu", "--experts", "tags,level", "--json")
    one = auricle("curate", "run", tmp_path / "m.jsonl", "-o", tmp_path / "one", *options)
    assert one.code == 0 and one.records[0]["packed"] == 3
    two = auricle("curate", "run", tmp_path / "one" / "shards", "-o", tmp_path / "two", *options)
    assert two.code == 0 and ShardSet(tmp_path / "two" / "shards").keys() == [each.id for each in sources]
    first = ShardSet(tmp_path / "two" / "shards").read_meta(0)
    assert first["source"]["facts"]["source"]["license"] == "CC0-1.0"


def test_a_file_of_settings_stands_alone(tmp_path: Path) -> None:
    write_tones(tmp_path / "in", 2)
    config = tmp_path / "c.yaml"
    config.write_text("input: [in]\nexperts: [tags, level]\ndevice: cpu\nworkers: 0\n")
    found = auricle("curate", "run", config, "-o", tmp_path / "out", "--json")
    assert found.code == 0 and found.records[0]["packed"] == 2
    assert auricle("curate", "run", config, "-o", tmp_path / "out", "--experts", "tags").code == 2
    for wrong in ("input: []", "input: [in]\nunknown: 1", "input: [in\n", "!!python/object/apply:os.system [ls]", "3"):
        config.write_text(wrong)
        assert auricle("curate", "run", config, "-o", tmp_path / "other").code in (1, 2)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_settings_of_the_recipes_are_read(path: Path) -> None:
    from auricle.curate.factory.config import read_config
    from auricle.curate.factory.experts import PHASES

    config = read_config(path)
    assert config.input and config.settings().workers >= 1 and PHASES


@pytest.mark.parametrize(
    "arguments",
    [
        ("--experts", "tags,nobody"),
        ("--experts", "level"),
        ("--llm-url", "http://a/v1"),
        ("--llm-url", "file:///x", "--llm-model", "m"),
        ("--clip-s", "0.1"),
        ("--p", "2"),
    ],
)
def test_wrong_options_are_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_tones(tmp_path / "in", 1)
    aligner = ("--filter", "auricle-tiny-glap") if "--p" in arguments else ()
    found = auricle("curate", "run", tmp_path / "in", "-o", tmp_path / "out", "--workers", 0, *arguments, *aligner)
    assert found.code == 2


def test_missing_runs_are_named(tmp_path: Path) -> None:
    for verb in (("report",), ("review",), ("plan", "--hours", "1")):
        found = auricle("curate", verb[0], tmp_path, *verb[1:])
        assert found.code == 1 and "no finished run" in found.err
