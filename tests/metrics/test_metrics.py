"""Every metric against an independent reference; a public function without an entry here fails."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import auricle.metrics

from .cases_classification import CLASSIFICATION
from .cases_date import DATE
from .cases_enhancement import ENHANCEMENT
from .cases_events import EVENTS
from .cases_intervals import INTERVALS
from .cases_retrieval import RETRIEVAL
from .cases_text import TEXTS
from .metric_tester import MetricCase, MetricTester

CASES = [*CLASSIFICATION, *RETRIEVAL, *TEXTS, *DATE, *ENHANCEMENT, *EVENTS, *INTERVALS]

# No metrics: functions of texts and shapes, by the file whose assertions they are named in.
OTHERS = {
    "calibration": ("test_calibration.py", {"calibration_error", "fit_map", "log_loss", "reliability"}),
    "characters": ("test_characters.py", {"is_following", "is_mark", "is_unspaced", "marks", "visible"}),
    "chinese_text": ("test_chinese_text.py", {"cardinal", "digit_by_digit", "read_aloud", "read_aloud_compat"}),
    "closed_qa": (
        "test_closed_qa.py",
        {
            *("choice_of", "contains_answer", "is_answer", "is_right_compat", "list_choices", "right_choices"),
            "same_choices",
        },
    ),
    "date": ("test_date.py", {"weighted_embeddings"}),
    "events": ("test_events.py", {"pad_or_trim", "segment_window"}),
    "intervals": ("test_intervals.py", {"fault_of_range", "no_score", "plain_score", "resampled_counts"}),
    "languages": ("test_languages.py", {"language_code"}),
    "normalisers": (
        "test_normalisers.py",
        {
            *("basic", "english", "normalise", "normalise_compat", "own_unit", "simplified", "split_words", "tokens"),
            "without_special",
        },
    ),
    "paired": ("test_paired.py", {"goodness"}),
    "tags": (
        "test_tags.py",
        {
            *(
                "contains_label_compat",
                "folded",
                "gender_matcher",
                "gender_of_compat",
                "plain",
                "single_label",
                "split_labels",
            ),
            "split_labels_compat",
        },
    ),
}


def ids(case: MetricCase) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_agrees_with_an_independent_reference(case: MetricCase) -> None:
    MetricTester(case).agrees_with_reference()


@pytest.mark.parametrize("case", [case for case in CASES if case.items], ids=ids)
def test_ignores_the_order_of_items(case: MetricCase) -> None:
    MetricTester(case, examples=10).ignores_the_order_of_items()


@pytest.mark.parametrize("case", [case for case in CASES if case.dtypes], ids=ids)
def test_ignores_the_data_type(case: MetricCase) -> None:
    MetricTester(case, examples=10).ignores_the_data_type()


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case in CASES for kind in case.degenerate],
    ids=lambda each: getattr(each, "name", each),
)
def test_degenerate_inputs(case: MetricCase, kind: str) -> None:
    MetricTester(case).handles(kind)


@pytest.mark.parametrize("case", [case for case in CASES if case.needs], ids=ids)
def test_names_the_missing_extra(case: MetricCase, monkeypatch: pytest.MonkeyPatch) -> None:
    MetricTester(case).names_the_missing_extra(monkeypatch)


def modules() -> list[Any]:
    names = sorted(module.name for module in pkgutil.iter_modules(auricle.metrics.__path__))
    return [importlib.import_module(f"auricle.metrics.{name}") for name in names]


def functions(module: Any) -> set[str]:
    """Functions without an underscore that a module defines."""
    found = inspect.getmembers(module, lambda each: inspect.isfunction(inspect.unwrap(each)))
    return {
        name for name, each in found if not name.startswith("_") and inspect.unwrap(each).__module__ == module.__name__
    }


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_function_is_tested(module: Any) -> None:
    room = module.__name__.rpartition(".")[2]
    file, others = OTHERS.get(room, ("", set()))
    covered = {case.name.partition(".")[2] for case in CASES if case.name.startswith(f"{room}.")}
    assert functions(module) == covered | others
    if others:
        source = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert {name for name in others if not re.search(rf"\b{name}\b", source)} == set()


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_metrics_know_nothing_of_models_files_and_tasks(module: Any) -> None:
    """Of the package they import its errors and each other."""
    imported = re.findall(r"^\s*(?:from|import) (auricle[\w.]*)", inspect.getsource(module), re.MULTILINE)
    assert all(name == "auricle.errors" or name.startswith("auricle.metrics") for name in imported)


def test_every_public_name_is_a_metric_of_the_table_or_a_type() -> None:
    tested = {case.name.partition(".")[2] for case in CASES}
    public = {name for name in auricle.metrics.__all__ if inspect.isfunction(getattr(auricle.metrics, name))}
    assert public <= tested


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_in_docstrings(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_every_metric_is_documented() -> None:
    for module in modules():
        for name in functions(module):
            assert inspect.getdoc(getattr(module, name)), f"{module.__name__}.{name} has no docstring"
