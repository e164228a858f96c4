import pytest

from auricle.errors import DataError
from auricle.metrics.multilabel import multilabel_scores


def test_unknown_labels_are_wrong_but_make_no_class() -> None:
    scored = multilabel_scores([["a"], ["b"]], [["a", "x"], ["b"]], rounds=5)
    assert scored.mAP.value == scored.macro_f1.value == 1 and scored.micro_f1.value == 4 / 5
    assert scored.unknown == 1 and scored.f1 == (2 / 3, 1)
    for references, answers in (([], []), ([["a"]], []), ([[]], [["a"]])):
        with pytest.raises(DataError, match="expected one answer for each"):
            multilabel_scores(references, answers)


def test_average_precision_by_label() -> None:
    scored = multilabel_scores([["a"], ["b"]], [["a"], ["a"]], rounds=5)
    assert scored.average_precision == {"a": 0.5, "b": 0.5}
