import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.bench.task import SUITES, LabelRule, Source, Task, load_task, read_tasks, tasks
from auricle.data.upstream import LAYOUTS
from auricle.errors import ConfigError, DataError
from auricle.metrics.events import Event


def made(**changes):
    given = {
        "name": "x",
        "title": "X",
        "suite": "auricle",
        "domain": "sound",
        "kind": "clip",
        "label": LabelRule(field="label"),
        "metric": "accuracy",
        "source": Source(),
        "folds": ("1", "2"),
    }
    return Task(**{**given, **changes})


def declaration(**changes):
    row = {"name": "toy", "title": "Toy", "domain": "sound", "kind": "clip", "label": {"field": "label"}}
    more = {"metric": "accuracy", "source": {}, "folds": ["1", "2"]}
    return json.dumps({"suite": "auricle", "tasks": [{**row, **more, **changes}]})


def test_every_suite_is_declared():
    counts = {suite: len(tasks(suite)) for suite in SUITES}
    assert counts == {"xares": 22, "hear": 19, "challenge": 2, "private": 5, "auricle": 6}
    assert len(tasks()) == len({task.name for task in tasks()}) == 54
    # The published averages divide by these sums.
    assert sum(task.weight for task in tasks("xares")) == 38_752
    assert sum(task.weight for task in tasks("private")) == 25_000
    assert {task.layout for task in tasks() if task.layout} <= set(LAYOUTS)
    assert all(task.source.zenodo for task in tasks("xares"))
    assert all(set(task.tars) == set(task.splits) for task in tasks("xares"))
    assert all(task.hear is not None for task in tasks("hear"))


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("esc50", {"num_classes": 50, "folds": ("1", "2", "3", "4", "5"), "weight": 400, "knn": True}),
        ("asvspoof2015", {"epochs": 5, "batch_size": 64, "classes": ("human", "spoof"), "test": "asvspoof_eval"}),
        ("maestro", {"num_classes": 87, "batch_size": 1, "pos_weight": 10.0, "segment_s": 0.1, "knn": False}),
        ("desed", {"metric": "segmentf1_macro", "segment_s": 1.0, "frames_s": 10.0, "valid": "wds-audio-eval"}),
        ("voxceleb1", {"crop_s": 6.0, "num_classes": 1251}),
        ("clotho", {"test": "clotho_validation", "kind": "retrieval", "crop_s": 30.0, "batch_size": 128}),
        ("librispeech", {"weight": 10_000, "metric": "WER_inv", "batch_size": 4}),
        ("liveenv", {"num_classes": 28, "enabled": False, "is_private": True}),
        ("speechocean762", {"kind": "regression", "metric": "MSE", "loss": "mse", "num_classes": 1, "epochs": 25}),
        ("nsynth_pitch", {"num_classes": 128}),
        ("fsdd_digits", {"folds": ("george", "jackson", "lucas", "nicolas", "theo"), "split_field": "speaker"}),
    ],
)
def test_declared_facts(name, facts):
    task = load_task(name)
    assert {fact: getattr(task, fact) for fact in facts} == facts


def test_hear_facts():
    facts = load_task("hear_maestro_5h").hear
    assert (facts.tolerance_ms, facts.median_filter_ms, facts.min_duration_ms) == (50.0, 150.0, (50.0,))
    assert (facts.check_every, facts.select_by, load_task("hear_esc50").hear.check_every) == (1, "loss", 3)
    assert load_task("hear_fsd50k").is_multilabel
    assert not load_task("hear_esc50").is_multilabel


def test_tasks_that_choose_on_their_test():
    named = {task.name for task in tasks("xares") if task.selects_on_test}
    assert named >= {"esc50", "gtzan_genre", "desed", "fsdkaggle2018", "voxlingua33"}
    assert "cremad" not in named
    assert all(task.selects_on_test for task in tasks("private"))
    assert not any(task.selects_on_test for task in [*tasks("hear"), *tasks("auricle")])
    assert load_task("subway_broadcast").splits == ("subway_broadcast",)


def test_an_unknown_name_has_suggestions():
    with pytest.raises(ConfigError, match=r"no task 'esc-50'\. Did you mean 'esc50' or"):
        load_task("esc-50")
    with pytest.raises(ConfigError, match="no suite 'superb'; expected one of xares"):
        tasks("superb")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": ()}, "expected folds, or all of train, valid and test"),
        ({"train": "a"}, "expected folds, or"),
        ({"folds": (), "train": "a", "valid": "b"}, "expected folds, or"),
        ({"folds": ("1",)}, "two or more"),
        ({"folds": ("1", "1")}, "two or more"),
        ({"tars": {"3": "*.tar"}}, "no splits of it"),
        ({"metric": "F1"}, "metric is 'F1', expected one of accuracy"),
        ({"suite": "mine"}, "suite is"),
        ({"loss": "mse"}, "fits no clip task"),
        ({"kind": "frame", "loss": "bce"}, "events belong to frame tasks"),
        ({"classes": ("a", "a")}, "repeat"),
        ({"crop_s": 0.0}, "crop_s must be above 0"),
        ({"epochs": 0}, "epochs must be above 0"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_split_of():
    task = load_task("desed")
    assert task.split_of("train") == "wds-audio-train"
    assert task.split_of("test") == task.split_of("validation") == task.split_of("wds-audio-eval") == "wds-audio-eval"
    assert made().split_of("2") == "2"
    for role in ("test", "3"):
        with pytest.raises(DataError, match="expected one of 1, 2"):
            made().split_of(role)


def test_labels_of_clips():
    assert load_task("esc50").label.values({"label": 7}) == (7,)
    assert load_task("esc50").label.values({"label": "7"}) == (7,)
    assert load_task("cremad").label.values({"label": "H"}) == ("happy",)
    assert load_task("librispeechmalefemale").label.values({"gender": "M"}) == ("male",)
    assert load_task("librispeechmalefemale").label.values({"gender": "?"}) == ("female",)
    assert load_task("fsd50k").label.values({"soundevent": "Bark;Dog"}) == ("Bark", "Dog")
    assert load_task("clotho").label.values({"captions": ["a", "b"]}) == ("a", "b")
    assert load_task("speechocean762").label.values({"accuracy": 8}) == (8.0,)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("esc50", {"target": 3}, "found facts \\['target'\\], expected the label in 'label'"),
        ("esc50", {"label": "dog"}, "expected a number"),
        ("cremad", {"label": "X"}, "expected one of \\['A', 'D'"),
        ("gtzan_genre", {"genre": {"a": 1}}, "expected a name"),
        ("desed", {"events": "Dog"}, "expected a list of events"),
        ("desed", {}, "expected a list of events"),
    ],
)
def test_a_label_that_is_none_is_refused(name, facts, message):
    rule = load_task(name).label
    with pytest.raises(DataError, match=message):
        rule.events(facts) if rule.event else rule.values(facts)


def test_events():
    desed = load_task("desed").label
    facts = {"events": [{"onset": 1, "offset": 2.5, "label": "Dog,Frying"}]}
    assert desed.events(facts) == (Event(1.0, 2.5, "Dog"), Event(1.0, 2.5, "Frying"))
    assert desed.events({"events": []}) == ()
    maestro = load_task("maestro").label
    assert maestro.events({"events": [{"start": 0, "end": 1, "note": 21}]}) == (Event(0.0, 1.0, 0),)
    hear = load_task("hear_dcase2016_task2").label
    assert hear.events({"events": [{"start": 500, "end": 750, "label": "cough"}]}) == (Event(0.5, 0.75, "cough"),)


@pytest.mark.parametrize(
    "event", [{"onset": 2, "offset": 1}, {"onset": -1, "offset": 1}, {"onset": "x", "offset": 1}, {}]
)
def test_an_impossible_event_is_refused(event):
    with pytest.raises(DataError, match="expected"):
        load_task("desed").label.events({"events": [{"label": "Dog", **event}]})


def test_half_a_rule_of_events_is_refused():
    with pytest.raises(ConfigError, match="need event, onset and offset"):
        LabelRule(field="events", event="label")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no usable declaration"),
        ("{", "no usable declaration"),
        ('{"suite": "xares", "tasks": [{"name": "a"}]}', "'a': has no title"),
        (declaration(colour=1), "'toy': unknown field colour"),
        (declaration(epochs="ten"), "'toy': epochs is 'ten', expected a whole number"),
        (declaration(metric="F1"), "'toy': metric is 'F1', expected 'accuracy', 'mAP'"),
        (declaration(source={"licence": 1}), "'toy': source.licence is 1, expected text"),
        (declaration(folds=["1"]), "'toy': task 'toy': folds"),
    ],
)
def test_a_bad_declaration_names_its_file(text, message):
    with pytest.raises(ConfigError, match=f"mine.json: {message}"):
        read_tasks(text, "mine.json")


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(tasks()))
def test_a_declaration_comes_back_from_json(task):
    row = {name: value for name, value in dataclasses.asdict(task).items() if value is not None}
    text = json.dumps({"suite": task.suite, "tasks": [row]})
    assert read_tasks(text, "x") == [task]
