from typing import Any, get_args

import pytest

from auricle.bench.embedded_task import partitions
from auricle.errors import DataError
from auricle.metrics.scoring_rule import ScoringRule

from .toy_task import embedded


def test_strict_picks_epochs_on_neither_training_nor_test_clips() -> None:
    rows = embedded([0, 1] * 40, ["a", "a", "b", "b"] * 20)
    for partition in partitions(rows, "strict", 1):
        parts = [set(sounds.tolist()) for sounds in partition[1:]]
        assert parts[0] | parts[1] | parts[2] == set(range(80)) and sum(map(len, parts)) == 80
        assert len(parts[1]) == 4 and rows.labels[partition.valid].bincount().tolist() == [2, 2]
    assert [partition.valid.tolist() for partition in partitions(rows, "compat", 1)] == [
        partition.test.tolist() for partition in partitions(rows, "compat", 1)
    ]
    assert partitions(rows, "strict", 1)[0].valid.tolist() != partitions(rows, "strict", 2)[0].valid.tolist()


def test_declared_validation_sets_are_taken() -> None:
    declared: dict[str, Any] = {"folds": (), "train": "t", "valid": "v", "test": "e", "split_field": "split"}
    rows = embedded([0, 1] * 30, (["t"] * 10 + ["v"] * 5 + ["e"] * 5) * 3, **declared)
    for scoring_rule in get_args(ScoringRule):
        (partition,) = partitions(rows, scoring_rule, 0)
        assert (len(partition.train), len(partition.valid), len(partition.test)) == (30, 15, 15)


def test_too_few_clips_to_hold_some_out_are_an_error() -> None:
    with pytest.raises(DataError, match="too few to keep some for validation"):
        partitions(embedded([0, 1, 0, 1], ["a", "a", "b", "b"]), "strict", 0)
