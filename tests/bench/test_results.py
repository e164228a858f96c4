import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.bench.results import (
    MAX_BYTES,
    Cost,
    DataFacts,
    EncoderFacts,
    HeadScore,
    Leaks,
    Result,
    TaskFacts,
    by_encoder,
    parse_result,
    read_result,
    read_results,
    write_result,
)
from auricle.errors import DataError, OutputError

RESULT = Result(
    task=TaskFacts(
        name="esc50",
        title="ESC-50",
        suite="xares",
        domain="sound",
        kind="clip",
        metric="accuracy",
        higher_is_better=True,
        weight=400.0,
    ),
    encoder=EncoderFacts(
        name="tiny", fingerprint="f00d" * 16, output_dim=192, hop_ms=40.0, parameters=5_000_000, random=False
    ),
    scoring_rule="strict",
    seed=42,
    data=DataFacts(manifest="ab" * 32, clips=2000, pieces=2000, seconds=10_000.0, splits={"1": 400, "2": 400}),
    scores={
        "mlp": HeadScore(
            value=0.75,
            low=0.7,
            high=0.8,
            n=400,
            folds={"1": 0.75},
            classes={"dog": 1.0},
            settings={"lr": 0.001, "grid": [1, 2], "note": None},
        )
    },
    items={"mlp": {"a.wav": 1.0, "b.wav": 0.0}},
    leaks=Leaks(exact=(("a", "1", "b", "2"),), near=(("c", "1", "d", "2", 0.99),)),
    cost=Cost(encode_s=12.5, audio_s=10_000.0, encoded=2000, reused=0, heads_s=3.0, peak_rss_mb=812.5, threads=2),
    version="0.1.0",
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
floats = st.floats(-1e15, 1e15)
amounts = st.floats(0, 1e15)
counts = st.integers(0, 2**62)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def head_scores(draw: st.DrawFn) -> HeadScore:
    interval = draw(st.none() | st.tuples(floats, floats).map(sorted))
    return HeadScore(
        value=draw(floats),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        n=draw(counts),
        folds=draw(st.dictionaries(names, floats, max_size=3)),
        classes=draw(st.dictionaries(names, floats, max_size=3)),
        settings=draw(st.dictionaries(names, json_values, max_size=3)),
    )


@st.composite
def results(draw: st.DrawFn) -> Result:
    scores = draw(st.dictionaries(names, head_scores(), min_size=1, max_size=3))
    items = st.dictionaries(st.sampled_from(sorted(scores)), st.dictionaries(names, floats, max_size=4))
    pairs = st.tuples(names, names, names, names)
    return Result(
        task=draw(
            st.builds(
                TaskFacts,
                name=names,
                title=names,
                suite=names,
                domain=st.sampled_from(["speech", "sound", "music", "private"]),
                kind=st.sampled_from(["clip", "frame", "asr", "retrieval", "regression"]),
                metric=names.map("own ".__add__),  # scores of the known ones have their ranges
                higher_is_better=st.booleans(),
                weight=amounts,
            )
        ),
        encoder=draw(
            st.builds(
                EncoderFacts,
                name=names,
                fingerprint=names,
                output_dim=counts,
                hop_ms=amounts,
                parameters=st.none() | counts,
                random=st.booleans(),
            )
        ),
        scoring_rule=draw(st.sampled_from(["compat", "strict"])),
        seed=draw(counts),
        data=draw(
            st.builds(
                DataFacts,
                manifest=st.text("0123456789abcdef", min_size=64, max_size=64),
                clips=counts,
                pieces=counts,
                seconds=amounts,
                splits=st.dictionaries(names, counts, max_size=3),
            )
        ),
        scores=scores,
        items=draw(items),
        leaks=draw(
            st.builds(
                Leaks,
                exact=st.lists(pairs, max_size=2).map(tuple),
                near=st.lists(st.tuples(names, names, names, names, floats), max_size=2).map(tuple),
            )
        ),
        cost=draw(
            st.builds(
                Cost,
                encode_s=amounts,
                audio_s=amounts,
                encoded=counts,
                reused=counts,
                heads_s=amounts,
                peak_rss_mb=amounts,
                threads=counts,
            )
        ),
        version=draw(names),
    )


@given(results())
def test_any_valid_result_comes_back(result: Result) -> None:
    text = result.to_json()
    assert parse_result(text) == result
    assert parse_result(text).to_json() == text


@given(results())
@settings(max_examples=25)
def test_any_name_gives_a_safe_file_name(tmp_path_factory: pytest.TempPathFactory, result: Result) -> None:
    folder = tmp_path_factory.mktemp("results")
    path = write_result(folder, result)
    assert path.parent == folder and path.name.endswith(f".{result.scoring_rule}.json") and path.name.isascii()
    assert path.name.count(".") == 3 and not set(path.name) & set(' /\\:*?"<>|$')
    assert read_results(folder) == [result]
    assert list(folder.iterdir()) == [path]


def test_the_layout_of_the_file() -> None:
    content = json.loads(RESULT.to_json())
    assert list(content) == [
        *("format", "task", "encoder", "protocol", "seed", "data", "scores", "items", "leaks", "cost", "version"),
        "contamination",
    ]
    assert content["format"] == "auricle-bench/1"
    assert content["scores"]["mlp"]["settings"] == {"grid": [1, 2], "lr": 0.001, "note": None}
    assert content["leaks"] == {"exact": [["a", "1", "b", "2"]], "near": [["c", "1", "d", "2", 0.99]]}


def test_the_order_of_insertion_does_not_reach_the_file() -> None:
    score = RESULT.scores["mlp"]
    turned = replace(score, settings=dict(reversed(score.settings.items())), folds={"b": 1.0, "a": 0.0})
    one = replace(RESULT, scores={"mlp": turned, "knn": score})
    two = replace(RESULT, scores={"knn": score, "mlp": replace(score, folds={"a": 0.0, "b": 1.0})})
    assert one.to_json() == two.to_json()


def test_file_names_are_plain_and_never_shared(tmp_path: Path) -> None:
    assert write_result(tmp_path, RESULT).name == "tiny.esc50.strict.json"
    paths = [
        write_result(tmp_path, replace(RESULT, encoder=replace(RESULT.encoder, name=name)))
        for name in ("a.b", "a/b", "a b", "../a", "a-b", "a" * 90, "a" * 91)
    ]
    assert len(set(paths)) == 7 and all(path.parent == tmp_path for path in paths)


def edited(**changes: Any) -> str:
    """The file with some values replaced; `a__b` is b within a."""
    content = json.loads(RESULT.to_json())
    for way, value in changes.items():
        *steps, last = way.split("__")
        inner = content
        for step in steps:
            inner = inner[step]
        inner[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "auricle-bench/2"}, "expected 'auricle-bench/1'"),
        ({"extra": 1}, "unknown field extra"),
        ({"protocol": "loose"}, "expected 'compat' or 'strict'"),
        ({"protocol": ["strict"]}, "expected 'compat' or 'strict'"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": True}, "whole number"),
        ({"seed": -1}, "seed is -1, expected greater than or equal to 0"),
        ({"seed": 2**70}, "less than 9223372036854775808"),
        ({"task": []}, "an object"),
        ({"task__domain": "smell"}, "expected 'speech', 'sound', 'music' or 'private'"),
        ({"task__name": ""}, "at least 1 character"),
        ({"task__name": "x" * 501}, "at most 500 characters"),
        ({"task__name": "\ud800"}, "valid characters"),
        ({"task__higher_is_better": 1}, "true or false"),
        ({"task__weight": -1}, "greater than or equal to 0"),
        ({"task__weight": 1e16}, "less than or equal to 1000000000000000"),
        ({"task__weight": 10**400}, "expected a"),
        ({"encoder__parameters": "many"}, "whole number"),
        ({"data__manifest": "AB" * 32}, r"match pattern '\^\[0-9a-f\]\{64\}\$'"),
        ({"data__splits": {"train": -1}}, "data.splits.train is -1"),
        ({"scores": {}}, "at least 1 item"),
        ({"scores__mlp__value": None}, "a number"),
        ({"scores__mlp__value": 1.5}, r"accuracy is 1.5, expected 0 to 1 \(head 'mlp'\)"),
        ({"scores__mlp__folds": {"1": -0.5}}, "accuracy is -0.5, expected 0 to 1"),
        ({"scores__mlp__low": None}, "both or none"),
        ({"scores__mlp__low": 0.9}, "low before high"),
        ({"scores__mlp__folds": [0.5]}, "an object"),
        ({"scores__mlp__settings": {"a": [[[[[[[[[[1]]]]]]]]]]}}, "levels"),
        ({"scores__mlp__settings": {"a": 10**400}}, "numbers of at most"),
        ({"scores__mlp__settings": {"a": ["\ud800"]}}, "valid characters"),
        ({"items": {"svm": {}}}, "gave no score"),
        ({"items": {"mlp": {"a": "1"}}}, "a number"),
        ({"leaks__exact": [["a", "b"]]}, r"has no leaks.exact\[0\]\[2\]"),
        ({"leaks__near": "none"}, "a list"),
        ({"cost__encode_s": -0.1}, "greater than or equal to 0"),
    ],
)
def test_an_untrusted_file_is_read_strictly(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_result(edited(**changes), "theirs.json")
    assert str(caught.value).startswith("theirs.json") and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "1" * 5000, "[" * 100_000, '{"format": "auricle-bench/1"}', '{"a": 1, "a": 2}'],
)
def test_what_is_no_result(text: str) -> None:
    with pytest.raises(DataError, match=r"expected|has no"):
        parse_result(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(number: str) -> None:
    with pytest.raises(DataError):
        parse_result(RESULT.to_json().replace("0.75", number))


def test_every_field_is_needed() -> None:
    whole = json.loads(RESULT.to_json())
    for name in whole.keys() - {"contamination"}:
        with pytest.raises(DataError, match=name):
            parse_result(json.dumps({key: value for key, value in whole.items() if key != name}))
    for name in ("task", "encoder", "data", "leaks", "cost", "contamination"):
        for own in whole[name]:
            part = {key: value for key, value in whole[name].items() if key != own}
            with pytest.raises(DataError, match=own):
                parse_result(json.dumps({**whole, name: part}))


def test_a_result_of_before_contamination_was_stated_is_read() -> None:
    content = json.loads(RESULT.to_json())
    del content["contamination"]
    found = parse_result(json.dumps(content)).contamination
    assert (found.known, found.clips) == (False, 0)


def test_names_of_python_are_not_those_of_the_file() -> None:
    for name, python in (("protocol", "scoring_rule"), ("sounds", "clips")):
        text = RESULT.to_json()
        assert f'"{python}"' not in text
        with pytest.raises(DataError, match=rf"{name}|{python}"):
            parse_result(text.replace(f'"{name}"', f'"{python}"'))


def test_nothing_invalid_is_written(tmp_path: Path) -> None:
    for broken in (
        replace(RESULT, seed=-1),
        replace(RESULT, items={"mlp": {"a": math.nan}}),
        replace(RESULT, scores={"mlp": replace(RESULT.scores["mlp"], settings={"path": Path("x")})}),
    ):
        with pytest.raises(DataError):
            write_result(tmp_path, broken)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_result(tmp_path, RESULT)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written \(no space left,"):
        write_result(tmp_path, replace(RESULT, seed=7))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name in ("latin.json", "huge.json", "absent.json", "."):
        with pytest.raises(DataError, match=name):
            read_result(tmp_path / name)


def test_folders_and_files_are_read_once(tmp_path: Path) -> None:
    path = write_result(tmp_path / "a", RESULT)
    other = write_result(tmp_path / "a", replace(RESULT, scoring_rule="compat"))
    (tmp_path / "a" / "note.json").write_text("{}")
    assert [result.scoring_rule for result in read_results(tmp_path / "a")] == ["compat", "strict"]
    assert [result.scoring_rule for result in read_results([path, tmp_path / "a", other])] == ["strict", "compat"]
    write_result(tmp_path / "b", RESULT)
    with pytest.raises(DataError, match="second result of tiny · esc50 · strict"):
        read_results([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(DataError, match="found no"):
        read_results(tmp_path)


def test_encoders_of_one_name_are_kept_apart() -> None:
    other = replace(RESULT, encoder=replace(RESULT.encoder, fingerprint="beef" * 16))
    third = replace(RESULT, encoder=replace(RESULT.encoder, name="tiny (f00df00d)"))
    grouped = by_encoder([RESULT, other, replace(RESULT, scoring_rule="compat"), third])
    assert {name: len(own) for name, own in grouped.items()} == {
        "tiny (f00df00d)": 2,
        "tiny (beefbeef)": 1,
        "tiny (f00df00d)'": 1,
    }
    assert list(by_encoder([RESULT])) == ["tiny"]
