"""A run killed by SIGKILL at any stage can be continued, and ends with the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from .toy_task import waveform, write

SOUNDS = 60
# Runs a task and prints all of the result but its cost; dies after `die` clips or epochs of the given stage.
CHILD = """
import itertools, json, os, signal, sys
from auricle.bench import run as benchmark
from auricle.bench import encode as embeddings
from auricle.bench.task import LabelRule, Source, Task
from auricle.encode.encoder import load_encoder

data, store, where, die = sys.argv[1:4] + [int(sys.argv[4])]
embeddings.WINDOW_CLIPS = 8
epochs = itertools.count(1)

def advance(finished, total=0):
    if finished >= die:
        os.kill(os.getpid(), signal.SIGKILL)

task = Task(name="toy", title="Toy", suite="auricle", domain="sound", kind="clip", label=LabelRule(field="label"),
            classes=("noise", "tone"), folds=("a", "b"), split_field="fold", metric="accuracy", source=Source())
result = benchmark.run_benchmark(load_encoder("auricle-tiny-encoder"), task, data, scoring_rule="strict", store=store,
                            progress=advance if where == "encode" else lambda finished, total: None,
                            on_epoch=lambda done: advance(next(epochs)) if where == "heads" else None)
content = json.loads(result.to_json())
print(json.dumps({"cost": content.pop("cost"), "scores": content}))
"""


def run(python: str, data: Path, store: Path, where: str = "", die: int = 0) -> subprocess.CompletedProcess[str]:
    command = [python, "-c", CHILD, str(data), str(store), where, str(die)]
    return subprocess.run(command, capture_output=True, text=True)


def test_killed_in_the_encoder_and_in_the_heads_the_scores_are_the_same_bytes(tmp_path: Path, warm_python: str) -> None:
    rows = []
    for i in range(SOUNDS):
        label = ("tone", "noise")[i % 2]
        # Nearly noise, so that scores lie between chance and one and show any difference.
        samples = waveform("noise", i) + 0.35 * waveform("tone", i) * (label == "tone")
        rows.append((f"s{i}", {"label": label, "fold": "ab"[i // 2 % 2]}, samples.astype(np.float32)))
    data = write(tmp_path / "data", rows)

    whole = run(sys.executable, data, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)
    assert expected["cost"]["encoded"] == SOUNDS

    store = tmp_path / "store"
    assert run(warm_python, data, store, "encode", 20).returncode == -signal.SIGKILL
    assert run(warm_python, data, store, "encode", 40).returncode == -signal.SIGKILL
    assert run(warm_python, data, store, "heads", 3).returncode == -signal.SIGKILL
    last = run(warm_python, data, store)
    assert last.returncode == 0, last.stderr
    found = json.loads(last.stdout)
    assert found["cost"]["encoded"] == 0 and found["cost"]["reused"] == SOUNDS
    assert json.dumps(found["scores"]) == json.dumps(expected["scores"])
