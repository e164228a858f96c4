"""`AudioLM.describe` reaches the first attention by a short path through few files."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from auricle.listen.model import AudioLM

from .test_model import noise

MOST_FRAMES, MOST_FILES = 14, 6


@pytest.fixture(scope="module")
def call_depth() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "call_depth.py"
    spec = spec_from_file_location("call_depth", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_attention_is_near(model: AudioLM, call_depth: ModuleType) -> None:
    stacks = call_depth.first_attention(AudioLM(model.loaded), noise(2))
    assert set(stacks) == {"encoder", "decoder"}
    for frames in stacks.values():
        assert frames[0].function == "describe" and frames[-1].file.startswith("models/")
        assert len(frames) <= MOST_FRAMES and len({frame.file for frame in frames}) <= MOST_FILES, frames
