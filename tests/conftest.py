"""Settings of the whole suite, an interpreter that starts at once, and the tiny model with its reference answers."""

import copy
import gc
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import settings
from safetensors.torch import load_file
from torch import Tensor

from auricle.listen.loading import load
from auricle.listen.model import AudioLM
from auricle.weights.processor import Prompt, PromptWriter

from .warm_python import serving

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("auricle", deadline=None)
settings.load_profile("auricle")

FOLDER = Path(__file__).resolve().parent / "fixtures" / "midashenglm"
FACTS: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
PROMPTS = sorted(FACTS["prompts"])
MEMORY, ROOM_BYTES = "/dev/shm", 6 * 2**30  # six times what the whole suite needs


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """At most four, for each loads torch; none where single tests are named, which would wait for that longest."""
    if all("::" in each for each in config.args):
        return 0
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """One thread in each of several processes: more would fight over the cores, and those that wait keep them busy.

    Temporary folders are in memory where that has much room, for all that is written is forced to disk.
    """
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    if config.getoption("numprocesses"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_finish() -> None:
    """All that is there stays: to look through it for garbage, again and again, takes long."""
    gc.collect()
    gc.freeze()


def messages_of(name: str) -> list[dict[str, Any]]:
    """The stored messages, their audio as waveforms."""
    messages = copy.deepcopy(FACTS["prompts"][name]["messages"])
    for part in (part for message in messages for part in message["content"] if part["type"] == "audio"):
        file = FOLDER / Path(part["audio"]).with_suffix(".flac")
        part["audio"] = soundfile.read(file, dtype="float32")[0]
    return messages


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    return load_file(FOLDER / "golden.safetensors")


@pytest.fixture(scope="session")
def model() -> AudioLM:
    return load(str(FOLDER / "model"))


@pytest.fixture(scope="session")
def writer(model: AudioLM) -> PromptWriter:
    return PromptWriter(
        model.loaded.tokenizer, model.loaded.chat_template, audio_token_id=model.loaded.model.config.audio_token_id
    )


@pytest.fixture(scope="session")
def prompts(writer: PromptWriter) -> dict[str, Prompt]:
    return {name: writer.write(messages_of(name)) for name in PROMPTS}


@pytest.fixture(scope="session", params=PROMPTS)
def prompt_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def wavs() -> list[Path]:
    """0.5, 1, 1.19, 7.3, 10, 12.4 and 31 s."""
    return sorted((FOLDER / "wav").iterdir(), key=lambda path: soundfile.info(path).frames)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """A stand-in for ``sys.executable`` that has torch and the package loaded."""
    with serving() as program:
        yield program
