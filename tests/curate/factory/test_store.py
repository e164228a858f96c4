import json
import sys
from pathlib import Path
from typing import Any

import pytest

from auricle.curate.factory.experts import Expert, Fact
from auricle.curate.factory.store import FactStore, Row, error_row, read_rows
from auricle.errors import DataError

EXPERT = Expert(name="x:y", version="1/2", phase="tag", gives=("tag",), run=lambda clips: [])
ROWS = [
    Row(clip="ab12", facts=(Fact(name="tag", value="speech", confidence=0.5, stop_s=2.0),), seconds=0.25),
    Row(clip="cd34", facts=(Fact(name="level", value=-3), Fact(name="word", value="ü\n<b>")), seconds=0.5),
    error_row("ef56", DataError("broken"), 0.0),
]


@pytest.fixture(params=["parquet", "jsonl"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "jsonl":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    else:
        pytest.importorskip("pyarrow")
    return str(request.param)


def test_facts_are_found_again(tmp_path: Path, kind: str) -> None:
    FactStore(tmp_path).add(EXPERT, ROWS)
    assert [path.suffix for path in tmp_path.rglob("*.*") if path.is_file()] == [f".{kind}"]
    assert FactStore(tmp_path).rows(EXPERT) == {row.clip: row for row in ROWS}
    assert FactStore(tmp_path).rows(EXPERT)["ef56"].error == "broken"


def test_another_version_has_no_facts(tmp_path: Path, kind: str) -> None:
    FactStore(tmp_path).add(EXPERT, ROWS)
    newer = Expert(name="x:y", version="2", phase="tag", gives=("tag",), run=lambda clips: [])
    assert FactStore(tmp_path).rows(newer) == {}


def test_both_formats_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    FactStore(tmp_path).add(EXPERT, ROWS[:1])
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "pyarrow", None)
        FactStore(tmp_path / "other").add(EXPERT, ROWS[1:])
    (tmp_path / "other").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.jsonl"):
        path.rename(next(tmp_path.rglob("*.parquet")).parent / path.name)
    assert len(FactStore(tmp_path).rows(EXPERT)) == 3


def stranger(tmp_path: Path, **columns: Any) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good = {"clip": ["ab"], "expert": ["x"], "version": ["1"], "facts": ["[]"], "error": [""], "seconds": [0.1]}
    table = {name: value for name, value in {**good, **columns}.items() if value is not None}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


@pytest.mark.parametrize(
    "columns",
    [
        {"facts": ["{"]},
        {"facts": ['{"a": 1}']},
        {"facts": ['[{"name": "x", "value": {"deep": 1}}]']},
        {"facts": ['[{"name": "x", "value": 1, "more": 2}]']},
        {"facts": ['[{"name": "x", "value": NaN}]']},
        {"facts": ["[" * 100_000]},
        {"facts": [3]},
        {"clip": ["../../etc/passwd"]},
        {"clip": ["a" * 65]},
        {"seconds": ["now"]},
        {"error": [None]},
        {"clip": None},
        {"more": [1]},
    ],
)
def test_a_strangers_parquet_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"x\.parquet"):
        list(read_rows(stranger(tmp_path, **columns)))


def test_the_strangers_table_is_readable_as_such(tmp_path: Path) -> None:
    assert [row.clip for row in read_rows(stranger(tmp_path))] == ["ab"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(5000) + b"PAR1"])
def test_a_damaged_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match="delete it"):
        list(read_rows(tmp_path / "x.parquet"))


@pytest.mark.parametrize("content", ["[1]", "{", json.dumps({"clip": "ab"})])
def test_a_damaged_jsonl_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError):
        list(read_rows(tmp_path / "x.jsonl"))


def test_an_expert_that_says_too_much_is_refused(tmp_path: Path) -> None:
    flood = Row(clip="ab", facts=tuple(Fact(name="tag", value="x" * 900) for _ in range(1999)))
    with pytest.raises(DataError, match="at most"):
        FactStore(tmp_path).add(EXPERT, [flood])
