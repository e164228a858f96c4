"""The ``compat`` crops are those of X-ARES, sample for sample."""

import json
from pathlib import Path

import numpy as np
import pytest

from auricle.bench.encode import cut, trim_or_pad

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "fixtures/xares/crops.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["crop_or_pad"], ids=lambda case: f"{case['n_samples']}-{case['crop_seconds']}s")
def test_crops(case):
    waveform = np.arange(case["n_samples"], dtype=np.float32)
    crops = cut(waveform, case["crop_seconds"], "compat", sample_rate=case["sr"])
    assert [[len(crop), int(crop[0]), int(crop.max())] for crop in crops] == case["crops"]


@pytest.mark.parametrize("case", GOLDEN["pad_or_trim"], ids=lambda case: str(case["target"]))
def test_trim_or_pad(case):
    given = np.arange(np.prod(case["shape"]), dtype=np.float32).reshape(case["shape"])
    assert trim_or_pad(given, case["target"]).tolist() == case["result"]
