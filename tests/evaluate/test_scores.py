"""Scores that were written to a file come back as they were, and untrusted files are read strictly."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.evaluate.scores import (
    RULES,
    Rule,
    Scored,
    group_numbers,
    parse_scored,
    read_scored,
    references_digest,
)
from auricle.metrics.intervals import Score

from .toy_runs import score_file

names = st.text(st.characters(codec="utf-8"), max_size=8)  # what a file in UTF-8 can hold
numbers = st.floats(-1e12, 1e12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def scores(draw: st.DrawFn) -> Score:
    ends = draw(st.none() | st.tuples(numbers, numbers))
    low, high = (math.nan, math.nan) if ends is None else sorted(ends)
    return Score(draw(numbers | st.just(math.nan)), low, high, draw(st.integers(0, 10**9)))


@st.composite
def results(draw: st.DrawFn) -> Scored:
    kind, scoring_rule = draw(st.sampled_from(sorted(RULES)))
    return Scored(
        kind=kind,
        scoring_rule=scoring_rule,
        rule=draw(st.just(RULES[kind, scoring_rule]) | st.builds(Rule, names, st.integers(0, 99), names)),
        scores=draw(st.dictionaries(names, scores(), max_size=3)),
        parts=draw(st.dictionaries(names, st.dictionaries(names, scores(), max_size=2), max_size=2)),
        counts=draw(st.dictionaries(names, st.integers(0, 10**9) | numbers, max_size=3)),
        items=draw(st.dictionaries(names, st.dictionaries(names, numbers, max_size=3), max_size=2)),
        groups=draw(st.dictionaries(names, st.integers(0, 10**6), max_size=3)),
        settings=draw(st.dictionaries(names, plain, max_size=3)),
        data=draw(st.dictionaries(names, plain, max_size=3)),
        version=draw(names),
    )


@given(results())
def test_what_was_written_comes_back(scored: Scored) -> None:
    found = parse_scored(scored.to_json())
    assert found.to_json() == scored.to_json()
    assert repr(found) == repr(scored)  # nan differs from itself


@given(results())
def test_half_a_surrogate_pair_is_refused(scored: Scored) -> None:
    """No file in UTF-8 can hold it, so it can only come from an escape in untrusted JSON."""
    text = replace(scored, data={"model": "x"}).to_json().replace('"model": "x"', '"model": "\\ud800"')
    with pytest.raises(DataError, match="valid characters"):
        parse_scored(text)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    named = [{"dataset_name": "Set", "audio": f"{at}.wav", "model_name": "M"} | row for at, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    return path


def scored_of(path: Path, *rows: dict[str, Any], **config: Any) -> Scored:
    return score_file(write(path, *rows), "tagging", rounds=20, **config)


ROWS = [{"label": ["cat"], "model_output": "a cat", "who": "x"}, {"label": ["dog"], "model_output": "cat", "who": "x"}]


def test_a_file_of_scores(tmp_path: Path) -> None:
    scored = scored_of(tmp_path / "a.jsonl", *ROWS)
    (tmp_path / "a.json").write_text(scored.to_json(), encoding="utf-8")
    assert read_scored(tmp_path / "a.json") == scored


def test_scores_state_their_items(tmp_path: Path) -> None:
    first = scored_of(tmp_path / "a.jsonl", *ROWS)
    audios = [{**row, "audio": f"{at}.wav"} for at, row in enumerate(ROWS)]
    other_answers = scored_of(tmp_path / "b.jsonl", *[{**row, "model_output": "?"} for row in reversed(audios)])
    other_reference = scored_of(tmp_path / "c.jsonl", ROWS[0], {**ROWS[1], "label": ["cow"]})
    fewer = scored_of(tmp_path / "d.jsonl", ROWS[0])
    digests = [each.data["references_sha256"] for each in (first, other_answers, other_reference, fewer)]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert first.groups == {} and scored_of(tmp_path / "a.jsonl", *ROWS, group_by="who").groups == {
        "0.wav": 0,
        "1.wav": 0,
    }


def test_synonyms_are_part_of_what_decides(tmp_path: Path) -> None:
    found = [
        scored_of(tmp_path / "a.jsonl", *ROWS, synonyms=own).settings.get("synonyms_sha256")
        for own in ({}, {"cat": ["kitty"]}, {"cat": ["tom"]})
    ]
    assert found[0] is None and len(set(found)) == 3


def test_groups_and_digests() -> None:
    assert group_numbers(["a", "b", "c"], ["x", "y", "x"]) == {"a": 0, "b": 1, "c": 0}
    assert group_numbers(["a", "b"], ["x", "y"]) == {}
    assert references_digest({"a": 1, "b": 2}) == references_digest({"b": 2, "a": 1}) != references_digest({"a": 1})


def altered(**changes: Any) -> str:
    scored = Scored(
        kind="asr",
        scoring_rule="strict",
        rule=RULES["asr", "strict"],
        scores={"error_rate": Score(0.5, 0.25, 0.75, 4)},
        items={"errors": {"a": 1.0}},
        groups={"a": 0},
    )
    content = {**scored.content(), **changes}
    return json.dumps({name: value for name, value in content.items() if value is not ...})


SCORE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "auricle-score/2"}, "found format 'auricle-score/2', expected 'auricle-score/1'"),
        ({"task": "chess"}, "task is 'chess', expected 'asr', 'tagging'"),
        ({"task": ["asr"]}, "task is .* expected 'asr'"),
        ({"protocol": "lax"}, "protocol is 'lax', expected 'compat' or 'strict'"),
        ({"version": 1}, "version is 1, expected text"),
        ({"counts": ...}, "has no counts"),
        ({"extra": 1}, "unknown field extra"),
        ({"rule": {"id": "x", "version": True, "metric": "m"}}, "rule.version is True, expected a whole number"),
        ({"rule": {"id": "x", "version": 1}}, "has no rule.metric"),
        ({"scores": {"accuracy": {**SCORE, "value": 1.5}}}, "accuracy is 1.5, expected 0 to 1"),
        ({"scores": {"error_rate": {**SCORE, "low": -0.1}}}, "error_rate is -0.1, expected at least 0"),
        ({"parts": {"cat": {"recall": {**SCORE, "high": 2}}}}, "recall is 2, expected 0 to 1"),
        ({"items": {"pure_music.date": {"a": -3}}}, "date is -3, expected -1 to 1"),
        ({"scores": []}, "scores is .*, expected an object"),
        ({"scores": {"wer": {**SCORE, "value": "0.5"}}}, "scores.wer.value is '0.5', expected a number"),
        ({"scores": {"wer": {**SCORE, "low": 0.9}}}, "expected low before high"),
        ({"scores": {"wer": {**SCORE, "low": None}}}, "expected low before high, or neither"),
        ({"scores": {"wer": {**SCORE, "n": -1}}}, "scores.wer.n is -1, expected greater than or equal to 0"),
        ({"parts": {"en": {"wer": 1}}}, "parts.en.wer is 1, expected an object"),
        ({"parts": {"en": {"wer": [1, 0, 2, 4]}}}, "parts.en.wer is .*, expected an object"),
        ({"scores": {"wer": {**SCORE, "odd": 1}}}, "unknown field scores.wer.odd"),
        ({"counts": {"rows": True}}, "counts.rows is True, expected a number"),
        (
            {"items": {"errors": {"a": 1e300}}},
            "items.errors.a is 1e.300, expected less than or equal to 10{15}",
        ),
        ({"items": {"errors": {"a": None}}}, "items.errors.a is None, expected a number"),
        ({"groups": {"a": 0.5}}, "groups.a is 0.5, expected a whole number"),
        ({"settings": {"a": [[[[[[[[[1]]]]]]]]]}}, "settings is .*, expected at most 8 levels"),
        ({"data": {"a": 10**400}}, "data is .*, expected numbers of at most"),
        ({"data": {"a" * 20_000: 1}}, "data is .*, expected names and texts of at most 10000 characters"),
        ({"data": {"a": "b" * 20_000}}, "data is .*, expected names and texts of at most 10000 characters"),
    ],
)
def test_a_file_that_is_no_result_says_where(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_scored(altered(**changes), "x.json")
    assert str(caught.value).startswith("x.json") and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": "auricle-score/1", "format": "auricle-score/1"}',
        altered().replace("0.25", "NaN"),
        "[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected"):
        parse_scored(text)


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none\.json: not readable"):
        read_scored(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(DataError, match=r"latin\.json: not readable"):
        read_scored(tmp_path / "latin.json")
    monkeypatch.setattr("auricle.evaluate.scores.MAX_BYTES", 10)
    (tmp_path / "big.json").write_text(altered())
    with pytest.raises(DataError, match=r"big\.json: more than 10 bytes"):
        read_scored(tmp_path / "big.json")
