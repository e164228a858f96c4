import numpy as np
import pytest
import soundfile

from auricle.bench.leaks import Pair, audit, near_duplicates
from auricle.bench.task import load_task
from auricle.errors import DataError

from .test_examples import esc10


def test_audit_finds_one_clip_in_two_folds(tmp_path):
    esc10(tmp_path)
    assert audit(load_task("esc10"), tmp_path).duplicates == ()
    soundfile.write(tmp_path / "audio/2-1.flac", soundfile.read(tmp_path / "audio/1-0.wav")[0], 16_000)
    (tmp_path / "audio/2-1.wav").unlink()
    (tmp_path / "audio/4-0.wav").write_bytes((tmp_path / "audio/4-1.wav").read_bytes())
    (tmp_path / "audio/3-0.wav").write_bytes(b"RIFFgarbage")
    found = audit(load_task("esc10"), tmp_path)
    assert found.duplicates == (("1/1-0", "2/2-1"),)
    assert found.clips == 7
    assert [name for name, _ in found.failed] == ["3/3-0"]


def test_near_duplicates():
    rows = np.eye(4, 8)
    rows = np.concatenate([rows, rows[:2] * 7 + 0.001, rows[2:3]])
    ids, splits = list("abcdefg"), ["x", "x", "x", "x", "y", "x", "y"]
    found = near_duplicates(ids, splits, rows)
    assert [(pair.first, pair.second) for pair in found] == [("c", "g"), ("a", "e")]
    assert found[0] == Pair("c", "g", pytest.approx(1.0))
    assert near_duplicates(ids, splits, rows, threshold=1.01) == []
    with pytest.raises(DataError, match="expected n, n and"):
        near_duplicates(ids, splits[1:], rows)
    with pytest.raises(DataError, match="finite"):
        near_duplicates(ids, splits, rows * np.nan)
