"""Every declared task of every suite keeps the rules a runner, a table and a reader rely on."""

import re
from typing import Any

import pytest

from auricle.bench.class_words import declared_words, task_prompts
from auricle.bench.task import LabelRule, Task, load_task, tasks
from auricle.data.upstream import LAYOUTS
from auricle.encode.zero_shot import TEMPLATES
from auricle.errors import ConfigError

METRICS = {
    "clip": {"accuracy", "mAP", "AUCROC"},
    "frame": {"segmentf1_macro", "segmentf1_micro", "onset_f"},
    "asr": {"WER_inv"},
    "retrieval": {"recallatk_r1"},
    "regression": {"MSE"},
}
every_task = pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)


def value_of(rule: LabelRule, task: Task) -> Any:
    """A value that data of the task may have in the field of its label, or in that of an event's class."""
    if rule.value in ("index", "number"):
        return rule.first
    if rule.value == "text":
        return "a dog barks"
    if rule.mapping:
        return next(iter(rule.mapping))
    name = task.classes[0] if isinstance(task.classes, tuple) else "some_class"
    return f"{name}{rule.separator}{name}" if rule.separator else name


@every_task
def test_names_can_be_shown_and_typed(task: Task) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", task.name)
    assert task.title == task.title.strip() and task.title.isprintable() and task.title
    assert all(text.strip() == text and text for text in task.compat)
    if isinstance(task.classes, tuple):
        assert all(name.isprintable() and name for name in task.classes)


@every_task
def test_metric_and_loss_fit_the_kind(task: Task) -> None:
    assert task.metric in METRICS[task.kind]
    assert (task.loss == "bce") == task.is_multilabel
    assert task.metric != "accuracy" or not task.is_multilabel
    assert task.pos_weight is None or task.is_multilabel
    assert (task.segment_s is not None) == task.metric.startswith("segmentf1")
    assert not task.knn or task.kind == "clip"


@every_task
def test_labels_can_be_read(task: Task) -> None:
    rule = task.label
    if task.kind == "frame":
        event = {rule.event: value_of(rule, task), rule.onset: 1, rule.offset: 2}
        scale = 1000 if rule.event_unit == "ms" else 1
        for found in rule.events({rule.field: [event]}):
            assert (found.onset_s, found.offset_s) == (1 / scale, 2 / scale)
            assert not isinstance(task.classes, tuple) or found.label in task.classes
        assert rule.events({rule.field: []}) == ()
        return
    found_values = rule.values({rule.field: value_of(rule, task)})
    assert found_values
    if isinstance(task.classes, tuple):
        assert set(found_values) <= set(task.classes)
    if rule.value == "index":
        assert found_values == (0,)
    assert {rule.otherwise} | set(rule.mapping.values()) <= {None, *(task.classes if rule.mapping else ())}  # type: ignore[misc]


@every_task
def test_the_audio_can_be_found(task: Task) -> None:
    assert task.source.licence.strip()
    assert task.is_private or task.source.zenodo or task.source.url
    assert task.source.zenodo is None or task.source.zenodo.isdigit()
    assert task.source.url is None or task.source.url.startswith("https://")
    assert task.layout is None or task.layout in LAYOUTS
    assert not task.tars or set(task.tars) == set(task.splits)
    assert all(pattern.endswith(".tar") and "/" not in pattern for pattern in task.tars.values())


@every_task
def test_splits_and_weight_can_be_used(task: Task) -> None:
    assert task.weight >= 0 and len(set(task.splits)) == len(task.splits)
    for role in ("train", "valid", "test") if not task.folds else task.folds:
        assert task.split_of(role) in task.splits
    assert task.kind != "clip" or task.classes is None or (task.num_classes or 0) >= 2
    assert task.kind not in ("frame", "clip") or task.classes is None or task.num_classes


@every_task
def test_hear_facts_agree_with_the_task(task: Task) -> None:
    assert (task.hear is not None) == (task.suite == "hear")
    if task.hear is not None:
        assert (task.hear.embedding == "timestamp") == (task.kind == "frame")
        assert (task.hear.mode == "multilabel") == task.is_multilabel
        assert (task.hear.split_mode == "folds") == bool(task.folds)
        assert (task.hear.tolerance_ms is not None) == (task.metric == "onset_f") == bool(task.hear.min_duration_ms)
        assert task.hear.clips > 0 and 0 < task.hear.check_every <= task.epochs


@every_task
def test_class_words_are_of_its_classes_and_readable(task: Task) -> None:
    words = declared_words(task)
    if isinstance(task.classes, tuple):
        assert words.keys() <= set(task.classes)
    elif words and task.label.value == "index":
        assert words.keys() == {str(number) for number in range(task.num_classes or 0)}
    assert len(set(words.values())) == len(words)
    if task.kind != "clip":
        assert not words
        return
    try:
        prompts = task_prompts(task)
    except ConfigError as error:
        assert "cannot be put into words" in str(error) and not words
        return
    assert prompts.templates in TEMPLATES.values()
    for name in words or (task.classes if isinstance(task.classes, tuple) else ()):
        assert all(any(letter.isalpha() for letter in prompt) for prompt in prompts.of(name))


def test_words_of_known_classes() -> None:
    words = declared_words(load_task("esc50"))
    assert words["49"] == "hand saw" and words["0"] == "dog"
    # The ten of ESC-10 are among the fifty under their names.
    assert {name.replace("_", " ") for name in load_task("esc10").classes} <= set(words.values())  # type: ignore[union-attr]


def test_which_tasks_have_no_words() -> None:
    refused = set()
    for task in tasks():
        if task.kind == "clip":
            try:
                task_prompts(task)
            except ConfigError:
                refused.add(task.name)
    assert {"voxceleb1", "nsynth_pitch"} <= refused
    assert not {"esc50", "esc10", "fsd50k", "vocalsound", "gtzan_genre", "speechcommandsv1"} & refused
