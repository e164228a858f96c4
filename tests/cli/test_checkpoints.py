from pathlib import Path

from auricle.weights.catalog import entries

from .conftest import MODEL, auricle, with_tiny


def test_models_lists_the_catalogue() -> None:
    names = [entry.name for entry in entries()]
    shown = auricle("models")
    listed = [line.split()[0] for line in shown.out.splitlines()]
    assert shown.code == 0 and [name for name in listed if name != "note:"] == names
    assert listed.count("note:") == sum(bool(entry.caution) for entry in entries())
    records = auricle("models", "--json").records
    assert [record["name"] for record in records] == names and all("license" in record for record in records)


def test_convert_keeps_what_the_model_says(folder: Path) -> None:
    target = folder / "converted"
    assert auricle("convert", MODEL, target).code == 0
    sound = folder / "a.wav"
    assert auricle("describe", sound, "--model", target, "--max-new-tokens", 4).out == with_tiny("describe", sound).out
    again = auricle("convert", MODEL, target)
    assert again.code == 2 and "not an empty folder" in again.err
    assert auricle("convert", "no-such-model", folder / "x").code == 2


def test_converting_reports_as_json_and_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (record,) = auricle("convert", "auricle-tiny-encoder", tmp_path / "out", "--json").records
    assert record["folder"] == str(tmp_path / "out") and (tmp_path / "out" / "config.json").is_file()
