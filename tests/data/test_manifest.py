import csv
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.data.manifest import Entry, read_manifest, resolve_audio, write_manifest
from auricle.errors import DataError


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl(tmp_path):
    path = written(
        tmp_path, "a.jsonl", '{"id": "x", "audio": "s/x.wav", "text": "hé", "age": 6}\n\n{"path": "/d/y.wav"}\n'
    )
    assert list(read_manifest(path)) == [
        Entry("x", tmp_path / "s" / "x.wav", {"text": "hé", "age": 6}),
        Entry("/d/y", type(path)("/d/y.wav"), {}),
    ]


def test_csv_quotes_and_empty_cells(tmp_path):
    path = written(tmp_path, "a.csv", '\ufefffilename,caption,age,speaker\na.wav,"one, ""two""",7,0003\nb.wav,,,\n')
    assert list(read_manifest(path)) == [
        Entry("a", tmp_path / "a.wav", {"caption": 'one, "two"', "age": 7, "speaker": "0003"}),
        Entry("b", tmp_path / "b.wav", {}),
    ]


def test_tsv_takes_quotes_as_they_are(tmp_path):
    path = written(tmp_path, "a.tsv", 'path\tsentence\na.mp3\t"Never closed\nb.mp3\tfine\n')
    assert [entry.meta["sentence"] for entry in read_manifest(path)] == ['"Never closed', "fine"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"audio": "a.wav"}\n{"audio": \n', "line 2: not valid JSON"),
        ("a.jsonl", '{"audio": "a.wav"}\n["a.wav"]\n', "line 2: a JSON list"),
        ("a.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        ("a.jsonl", '"' + "x" * (1 << 20) + '"', "line 1: longer than"),
        ("a.jsonl", '{"text": "a"}\n', "line 1: found columns \\['text'\\]"),
        ("a.jsonl", '{"audio": 5}\n', "line 1: audio is 5"),
        ("a.jsonl", '{"audio": ""}\n', "line 1: audio is ''"),
        ("a.jsonl", '{"audio": "a\\u0000.wav"}\n', "line 1: audio is"),
        ("a.jsonl", '{"audio": "http://h/a.wav"}\n', "local file"),
        ("a.jsonl", '{"audio": "b/../../a.wav"}\n', "is outside"),
        ("a.jsonl", '{"audio": "a.wav", "id": []}\n', "line 1: id is"),
        ("a.jsonl", '{"audio": "a.wav"}\n{"audio": "a.wav"}\n', "line 2: 'a' is repeated"),
        ("a.csv", "audio,text\na.wav\n", "line 2: 1 cells under 2"),
        ("a.csv", "audio,text\na.wav,b,c,d\n", "line 2: 4 cells under 2"),
        ("a.csv", "audio,audio\na.wav,b.wav\n", "line 1: column names repeat"),
        ("a.csv", 'audio,text\na.wav,"open\n', "line 2: unexpected end"),
        ("a.csv", '"audio', "line 1: unexpected end"),
        ("a.csv", "audio,age\na.wav,six\n", "line 2: age is 'six'"),
        ("a.csv", "text\na\n", "line 2: found columns"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        list(read_manifest(written(tmp_path, name, text)))


def test_what_is_no_manifest_is_refused_at_once(tmp_path):
    with pytest.raises(DataError, match=r"one of \.jsonl, \.csv, \.tsv"):
        read_manifest(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no manifest at"):
        read_manifest(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b'{"audio": "\xff.wav"}\n')
    with pytest.raises(DataError, match="UTF-8"):
        list(read_manifest(tmp_path / "b.jsonl"))


def test_an_empty_manifest_has_no_entries(tmp_path):
    for name in ("a.jsonl", "a.csv", "a.tsv"):
        assert list(read_manifest(written(tmp_path, name, ""))) == []


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@given(facts=st.lists(texts, max_size=5))
def test_written_manifests_read_back(tmp_path_factory, suffix, facts):
    folder = tmp_path_factory.mktemp("manifest")
    entries = [Entry(f"e{i}", folder / "audio" / f"{i}.wav", {"text": text, "age": i}) for i, text in enumerate(facts)]
    assert write_manifest(folder / f"m{suffix}", entries) == len(entries)
    assert list(read_manifest(folder / f"m{suffix}")) == entries
    assert [path.name for path in folder.iterdir()] == [f"m{suffix}"]


def test_paths_are_relative_inside_the_folder_only(tmp_path):
    path = tmp_path / "in" / "m.jsonl"
    path.parent.mkdir()
    entries = [Entry("a", path.parent / "x" / "a.wav"), Entry("b", tmp_path / "b.wav")]
    write_manifest(path, entries)
    names = [json.loads(line)["audio"] for line in path.read_text().splitlines()]
    assert names == ["x/a.wav", str(tmp_path / "b.wav")]
    assert list(read_manifest(path)) == entries


def test_facts_a_format_cannot_hold_are_refused_and_leave_no_file(tmp_path):
    cases = [
        ("m.csv", {"parts": [1, 2]}),
        ("m.csv", {"text": ""}),
        ("m.tsv", {"text": "a\tb"}),
        ("m.jsonl", {"x": float("nan")}),
        ("m.jsonl", {"x": object()}),
        ("m.jsonl", {"path": "taken"}),
        ("m.parquet", {}),
    ]
    for name, meta in cases:
        with pytest.raises(DataError):
            write_manifest(tmp_path / name, [Entry("a", tmp_path / "a.wav", meta)])
    assert list(tmp_path.iterdir()) == []


def test_csv_is_readable_by_the_standard_library(tmp_path):
    write_manifest(tmp_path / "m.csv", [Entry("a", tmp_path / "a.wav", {"text": 'x, "y"\nz'})])
    with (tmp_path / "m.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"id": "a", "audio": "a.wav", "text": 'x, "y"\nz'}]


def test_empty_rows_of_a_table_are_skipped_with_a_word(tmp_path):
    (tmp_path / "m.csv").write_text("path,text\nx.wav,dog\n,\n , \n\n,,,\ny.wav,cat\n")
    with pytest.warns(UserWarning, match="skipped 3 rows of empty cells, the first in line 3"):
        assert [entry.id for entry in read_manifest(tmp_path / "m.csv")] == ["x", "y"]


def test_spaces_around_names_of_columns_do_not_count(tmp_path):
    (tmp_path / "m.csv").write_text("path, text ,note\nx.wav, dog, loud\n")
    (entry,) = read_manifest(tmp_path / "m.csv")
    assert entry.meta == {"text": "dog", "note": " loud"}
    (tmp_path / "m.csv").write_text("path, text,text\nx.wav, dog,b\n")
    with pytest.raises(DataError, match="line 1: column names repeat"):
        list(read_manifest(tmp_path / "m.csv"))


def test_audio_is_not_taken_from_another_column_where_its_cell_is_empty(tmp_path):
    (tmp_path / "m.csv").write_text("audio,file,text\ny.wav,x.wav,cat\n,x.wav,dog\n")
    with pytest.raises(DataError, match="line 3: audio is ''"):
        list(read_manifest(tmp_path / "m.csv"))


@pytest.mark.parametrize("name", ["می\u200cخواهم", "10.04\u202fAM", "日本\u3000語", "👩\u200d🚒", "\u200ea\u200f"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_names_of_all_languages_are_files(tmp_path, name, suffix):
    written = [Entry(name, tmp_path / f"{name}.wav", {"text": name})]
    write_manifest(tmp_path / f"m{suffix}", written)
    assert list(read_manifest(tmp_path / f"m{suffix}")) == written


@given(st.characters(categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from("\u202d\u202e"))
def test_control_characters_and_turned_directions_are_no_names(character):
    with pytest.raises(ValueError, match="expected the path of a local file"):
        resolve_audio(1, f"a{character}b.wav", Path("/data"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_form_of_its_accents(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    names = [unicodedata.normalize(each, "été/café ガ.wav") for each in (form, other)]
    path = tmp_path / names[0]
    path.parent.mkdir()
    path.touch()
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": names[1]}) + "\n")
    (entry,) = read_manifest(tmp_path / "m.jsonl")
    assert entry.audio == path and resolve_audio(1, str(tmp_path / names[1]), tmp_path) == path
    (tmp_path / names[1]).parent.mkdir()
    (tmp_path / names[1]).touch()  # both are there: the one that is named
    assert next(read_manifest(tmp_path / "m.jsonl")).audio == tmp_path / names[1]


@pytest.mark.parametrize("row", [{"audio": "x.wav", "text": "\ud83d"}, {"audio": "x.wav", "t": {"a": ["\udfff"]}}])
def test_half_a_surrogate_pair_is_no_text(tmp_path, row):
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "y.wav"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"line 2: '{list(row)[1]}' holds half of a surrogate pair"):
        list(read_manifest(tmp_path / "m.jsonl"))


def test_a_name_given_twice_in_a_row_is_refused(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "x.wav", "text": "dog", "text": "cat"}\n')
    with pytest.raises(DataError, match=r"line 1: not valid JSON .*given twice"):
        list(read_manifest(tmp_path / "m.jsonl"))
