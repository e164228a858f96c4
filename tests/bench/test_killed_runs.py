"""A run that dies by SIGKILL, wherever it was, goes on where it stood and ends with the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from .test_run import waveform, write

SOUNDS = 60
# Runs a task and prints all of the result but its cost; dies after `die` sounds or epochs, where that is asked for.
CHILD = """
import json, os, signal, sys
from functools import partial
from auricle.bench import run as benchmark
from auricle.bench import encode as embeddings
from auricle.bench.task import LabelRule, Source, Task
from auricle.encode.encoder import load_encoder

data, store, where, die = sys.argv[1:4] + [int(sys.argv[4])]
embeddings.WINDOW_SOUNDS = 8
count = 0

def advance(number=1):
    global count
    count += number
    if count >= die:
        os.kill(os.getpid(), signal.SIGKILL)

if where == "heads":
    benchmark.judge_linear = partial(benchmark.judge_linear, on_epoch=lambda epoch: advance())
task = Task(name="toy", title="Toy", suite="auricle", domain="sound", kind="clip", label=LabelRule(field="label"),
            classes=("noise", "tone"), folds=("a", "b"), split_field="fold", metric="accuracy", source=Source())
result = benchmark.run_benchmark(load_encoder("auricle-tiny-encoder"), task, data, protocol="strict", store=store,
                            on_sound=advance if where == "encode" else lambda number: None)
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
