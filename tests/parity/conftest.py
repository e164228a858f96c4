"""Golden tensors of the reference implementations: a cut of them beside the tests, or the whole set.

`AURICLE_PARITY` names the folder of the whole set; without it the tests run on the cut in `tests/fixtures`. A cut
tensor keeps every n-th row of one axis (`strides` in the file's metadata), nothing is rounded.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
WHOLE = os.environ.get("AURICLE_PARITY")
ROOTS = [
    pytest.param(FIXTURES, id="cut"),
    pytest.param(
        Path(WHOLE or "."),
        id="whole",
        marks=[pytest.mark.shared, pytest.mark.skipif(not WHOLE, reason="AURICLE_PARITY names no folder")],
    ),
]


class Golden:
    """The golden file of one system, and the folder of its weights and sounds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "golden.safetensors"
        self.tensors = load_file(file)
        with safe_open(file, framework="pt") as handle:
            self.strides: dict[str, int] = json.loads((handle.metadata() or {}).get("strides", "{}"))
        name = "meta.json" if (folder / "meta.json").is_file() else "manifest.json"
        self.facts = json.loads((folder / name).read_text())

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def error(self, name: str, ours: Tensor, *, dim: int) -> Tensor:
        """|ours - golden|, of the rows along `dim` that the golden file keeps."""
        golden = self[name]
        if stride := self.strides.get(name):
            ours = ours.index_select(dim, torch.arange(0, ours.shape[dim], stride))
        assert ours.shape == golden.shape, f"{name}: {tuple(ours.shape)}, golden {tuple(golden.shape)}"
        return (ours - golden).abs()

    def check(self, name: str, ours: Tensor, tolerance: float, *, dim: int = -1) -> None:
        worst = self.error(name, ours, dim=dim).max().item()
        self.note(name, worst)
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"

    def note(self, name: str, worst: float) -> None:
        """Append an error to the file named by AURICLE_PARITY_LOG."""
        if path := os.environ.get("AURICLE_PARITY_LOG"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"tensor": name, "error": worst}) + "\n")


@pytest.fixture(scope="module", params=ROOTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Golden tensors of the module's SYSTEM."""
    return Golden(request.param / request.module.SYSTEM)
