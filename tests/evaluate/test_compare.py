"""Two models on the same items: what differs, whether chance would do it, and what cannot be compared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError
from auricle.evaluate.compare import compare_runs, compare_scored, why_not
from auricle.evaluate.results import find_results
from auricle.evaluate.scores import RULES, Rule, Scored, read_scored
from auricle.metrics.intervals import Score
from auricle.metrics.paired import sign_test

from .toy_runs import rows_of, write_run

LABELS = ["cat", "dog", "rain", "sea"] * 5


def tags(wrong: int) -> list[dict[str, Any]]:
    answers = [label if at >= wrong else "nothing" for at, label in enumerate(LABELS)]
    return rows_of("events", answers, [{"label": [label]} for label in LABELS])


def transcripts(answers: list[str], **facts: Any) -> list[dict[str, Any]]:
    texts = ["the dog barks", "rain falls", "thunder", "a cat meows again"] * 3
    return rows_of("digits", answers, [{"text": text, "lang": "en", **facts} for text in texts])


TRUE = ["the dog barks", "rain falls", "thunder", "a cat meows again"] * 3


def test_right_and_wrong_answers(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a", "events", tags(1))
    second = write_run(tmp_path, "b", "events", tags(9))
    found = compare_runs(first, second)
    (test,) = found.tests
    assert (found.first, found.second, found.left_out) == ("a", "b", ())
    assert (test.first.value, test.second.value) == (19 / 20, 11 / 20)
    assert test.difference.value == pytest.approx(8 / 20) and test.difference.n == 20
    assert (test.wins, test.losses, test.ties, test.test) == (8, 0, 12, "mcnemar")
    assert test.p == test.p_holm == sign_test(8, 0) == 2 / 2**8
    assert test.better == "first" and test.difference.low > 0
    (turned,) = compare_runs(second, first).tests
    assert turned.better == "second" and turned.difference.value == -test.difference.value
    (same,) = compare_runs(first, first).tests
    assert same.better == "none" and (same.difference.low, same.difference.high, same.p) == (0, 0, 1)


def test_fewer_errors_are_better(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a", "digits", transcripts(TRUE))
    worse = [text.split()[0] + " oh" for text in TRUE]
    second = write_run(tmp_path, "b", "digits", transcripts(worse))
    (test,) = compare_runs(first, second).tests
    # Each of the twelve loses: 2, 1, 1 and 3 of 3, 2, 1 and 4 words.
    assert test.difference.value == pytest.approx(7 / 10) == test.second.value - test.first.value
    assert (test.wins, test.losses, test.test, test.better) == (12, 0, "sign", "first")
    assert test.difference.low <= 0.7 <= test.difference.high


def test_what_is_resampled_together_is_tested_together(tmp_path: Path) -> None:
    worse = ["x y z", "rain falls", "thunder", "a cat meows again"] * 3
    rows = [transcripts(answers) for answers in (TRUE, worse)]
    for own in rows:
        for at, row in enumerate(own):
            row["speaker"] = f"s{at // 4}"
    folders = [
        write_run(tmp_path, name, "digits", own, group_by="speaker") for name, own in zip("ab", rows, strict=True)
    ]
    (test,) = compare_runs(*folders).tests
    assert (test.wins, test.losses, test.ties) == (3, 0, 0) and test.p == 2 / 2**3
    # All speakers read the same, so that drawing speakers changes nothing.
    assert test.difference.low == test.difference.high == pytest.approx(test.difference.value)
    assert test.better == "none" and test.difference.low > 0  # three speakers prove nothing


def test_map_is_paired_by_f1(tmp_path: Path) -> None:
    truth = [{"label": ["cat", "dog"]}, {"label": ["dog"]}, {"label": ["rain"]}]
    first = write_run(tmp_path, "a", "fsd50k", rows_of("fsd50k", ["cat; dog", "dog", "rain"], truth))
    second = write_run(tmp_path, "b", "fsd50k", rows_of("fsd50k", ["cat", "dog", "rain"], truth))
    (test,) = compare_runs(first, second).tests
    assert (test.metric, test.paired_metric) == ("mAP", "f1") and "F1" in test.note
    assert test.difference.value == pytest.approx((1 - 2 / 3) / 3)
    assert (test.wins, test.losses, test.ties) == (1, 0, 2)


def test_holm_is_over_the_tasks_of_a_scoring_rule(tmp_path: Path) -> None:
    for name, wrong in (("a", 0), ("b", 6)):
        write_run(tmp_path, name, "events", tags(wrong), scoring_rules=("strict", "compat"))
        write_run(tmp_path, name, "digits", transcripts(TRUE))
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    by_key = {(test.task, test.scoring_rule): test for test in found.tests}
    assert len(by_key) == 3
    assert by_key["events", "strict"].p_holm == 2 * by_key["events", "strict"].p  # beside digits
    assert by_key["events", "compat"].p_holm == by_key["events", "compat"].p  # alone
    assert by_key["events", "strict"].better == "none" != by_key["events", "compat"].better


def test_items_a_rule_leaves_out_are_counted(tmp_path: Path) -> None:
    answers = ["", *TRUE[1:]]
    first = write_run(tmp_path, "a", "digits", transcripts(TRUE), scoring_rules=("compat",))
    second = write_run(tmp_path, "b", "digits", transcripts(answers), scoring_rules=("compat",))
    (test,) = compare_runs(first, second).tests
    assert test.unpaired == 1 and test.difference.value == 0


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "events", tags(0))
    write_run(tmp_path, "a", "digits", transcripts(TRUE), scoring_rules=("strict", "compat"))
    write_run(tmp_path, "b", "digits", transcripts(TRUE))
    gender = rows_of("gender", ["male"], [{"label": ["male"]}])
    write_run(tmp_path, "b", "gender", gender)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert [test.task for test in found.tests] == ["digits"]
    assert {(left.task, left.scoring_rule, left.reason) for left in found.left_out} == {
        ("events", "strict", "only the first model has it"),
        ("digits", "compat", "only the first model has it"),
        ("gender", "strict", "only the second model has it"),
    }


def tagged(**changes: Any) -> Scored:
    made = Scored(
        kind="tagging",
        scoring_rule="strict",
        rule=RULES["tagging", "strict"],
        scores={"accuracy": Score(0.5, 0.1, 0.9, 2)},
        items={"accuracy": {"a": 1.0, "b": 0.0}},
        settings={"seed": 0, "group_by": "audio"},
        data={"references_sha256": "ab" * 32},
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": Rule("tag-whole-words", 3, "accuracy")}, "other rules: tag-whole-words version 2 and .* version 3"),
        ({"data": {"references_sha256": "cd" * 32}}, "other items or references: abababababab and cdcdcdcdcdcd"),
        ({"data": {}}, "not known to be about the same items"),
        ({"settings": {"synonyms_sha256": "x"}}, "other synonyms sha256"),
        ({"items": {}}, "no scores of single items"),
        ({"kind": "gender"}, "other kinds of task or scoring rules"),
        ({"scoring_rule": "compat"}, "other kinds of task or scoring rules"),
    ],
)
def test_what_cannot_be_compared_is_named(changes: dict[str, Any], words: str) -> None:
    other = tagged(**changes)
    reason = why_not(tagged(), other)
    assert reason is not None
    with pytest.raises(ConfigError, match=words):
        compare_scored(tagged(), other, task="t")


def test_how_intervals_were_sampled_does_not_matter() -> None:
    assert why_not(tagged(), tagged(settings={"seed": 1, "group_by": "speaker", "average_precision": {"a": 1}})) is None


def of_mecat(values: dict[str, list[float]]) -> Scored:
    return Scored(
        kind="mecat",
        scoring_rule="strict",
        rule=RULES["mecat", "strict"],
        scores={},
        parts={name: {"date": Score(sum(own) / len(own), 0.0, 1.0, len(own))} for name, own in values.items()},
        items={f"{name}.date": {f"clip{at}": value for at, value in enumerate(own)} for name, own in values.items()},
        settings={"kind": "caption"},
        data={"references_sha256": "ab" * 32},
    )


def test_mecat_is_paired_by_clip_over_its_groups() -> None:
    first = of_mecat({"content_long": [0.5, 0.7, 0.9], "environment": [0.4, 0.4, 0.4]})
    second = of_mecat({"content_long": [0.4, 0.4, 0.4], "environment": [0.5, 0.4, 0.4]})
    test = compare_scored(first, second)
    assert test.metric == "mean of date" and "other answers" in test.note
    assert test.difference.value == pytest.approx(((0.7 - 0.4) + (0.4 - 1.3 / 3)) / 2)
    assert (test.wins, test.losses, test.ties) == (2, 0, 1)  # the first clip gains and loses 0.1
    assert test.test == "sign"


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_both_sides_are_treated_alike(pairs: list[tuple[bool, bool, int]], seed: int) -> None:
    items = [{f"i{at}": float(pair[side]) for at, pair in enumerate(pairs)} for side in (0, 1)]
    groups = {f"i{at}": pair[2] for at, pair in enumerate(pairs)}
    one, two = (tagged(items={"accuracy": own}, groups=groups) for own in items)
    there, back = compare_scored(one, two, rounds=30, seed=seed), compare_scored(two, one, rounds=30, seed=seed)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.wins + there.losses + there.ties == len(set(groups.values()))
    mean = sum(a - b for a, b, _ in pairs) / len(pairs)
    assert there.difference.value == pytest.approx(mean)


# Folders


def test_two_files_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    for name, wrong in (("a", 0), ("b", 8)):
        write_run(tmp_path, name, "events", tags(wrong))
    files = [tmp_path / "x.json", tmp_path / "y.json"]
    for path, name in zip(files, "ab", strict=True):
        path.write_text((tmp_path / name / "events" / "strict.json").read_text())
    (test,) = compare_runs(*files).tests
    assert test.better == "first" and test.task == "tagging"


def test_a_folder_of_several_models_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path, name, "events", tags(0))
    with pytest.raises(DataError, match="holds results of a, b, expected those of one"):
        compare_runs(tmp_path, tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"found no strict\.json"):
        compare_runs(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(ConfigError, match="rounds is 0; expected a whole number at least 1"):
        compare_runs(tmp_path / "a", tmp_path / "b", rounds=0)


def test_results_are_found_wherever_they_lie(tmp_path: Path) -> None:
    model = write_run(tmp_path, "a", "events", tags(0), scoring_rules=("strict", "compat"))
    for place in (tmp_path, model, model / "events"):
        found = find_results(place)
        assert [(each.model, each.task, each.scoring_rule) for each in found] == [
            ("a", "events", "strict"),
            ("a", "events", "compat"),
        ]
        assert all(each.answers == each.path.parent / "answers.jsonl" for each in found)
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "tagging.strict.json").write_text(read_scored(model / "events" / "strict.json").to_json())
    (one,) = find_results(flat)
    assert (one.model, one.task, one.answers, one.fingerprint) == ("a", "tagging", None, "")
    hidden = flat / ".aside"
    hidden.mkdir()
    (hidden / "strict.json").write_text("{")
    assert len(find_results(flat)) == 1


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    model = write_run(tmp_path, "a", "events", tags(0))
    path = model / "events" / "run.json"
    path.write_text(json.dumps({"model": 3}))
    with pytest.raises(DataError, match=r"run\.json: model is 3, expected text"):
        find_results(model)
