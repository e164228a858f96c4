"""Verbs that write: killed at any event of the file system, on a full disk, and twice at once on the same output.

A verb runs in a process of its own, which counts its events under the output. Where it dies is a sample of these; what
another run then makes of it is compared with what one makes that was left alone. With AURICLE_INTERRUPT=all it is every
event of more verbs, which takes an hour.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.data.shards import ShardWriter
from auricle.files import locked

from .conftest import MODEL, auricle, write_noise

# Ends, or fails, just before its event number `moment` under a folder; prints how many there are if it gets there.
CHILD = """
import errno, os, signal, sys, torch
torch.set_num_threads(1)
from auricle.cli.main import main

folder, how, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[1:] = sys.argv[4:]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
count = 0

def hook(event, arguments):
    global count
    if not (event in EVENTS or event == "open" and arguments[2] & WRITES):
        return
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.path.abspath(os.fsdecode(path)).startswith(folder):
        return
    count += 1
    if count != moment:
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

sys.addaudithook(hook)
try:
    main()
except SystemExit as end:
    print(f"events {count}", file=sys.stderr)
    raise
"""

Inputs = dict[str, Path]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    rows = []
    for number in range(4):
        write_noise(folder / "sounds" / f"{number}.wav", 0.5, number)
        row = {"dataset_name": "Set", "audio": f"sounds/{number}.wav", "label": [("dog", "rain")[number % 2]]}
        rows.append(json.dumps({**row, "model_output": "x", "caption": "noise"}) + "\n")
    (folder / "few.jsonl").write_text("".join(rows[:3]))
    (folder / "rows.jsonl").write_text("".join(rows))
    rng = np.random.default_rng(0)
    with ShardWriter(folder / "shards", "x") as writer:
        for number in range(6):
            writer.write(str(number), 0.1 * rng.standard_normal(8000).clip(-5, 5), {"kind": "sound"})
    (folder / "train.yaml").write_text(
        f"objective: mae\ndata: ['{folder}/shards']\nsteps: 2\nbatch_size: 2\nlog_every: 1\ncheckpoint_minutes: 0\n"
        "keep: 1\nprecision: fp32\nthreads: 1\nmae: {embed_dim: 32, depth: 1, num_heads: 2, decoder_dim: 16, "
        "decoder_depth: 1, decoder_heads: 2, crop_s: 0.4}\n"
    )
    with ShardWriter(folder / "pairs", "x") as writer:
        for number in range(40):
            tone = 0.1 * np.sin(np.arange(8000) * (0.05 + 0.01 * number))
            writer.write(str(number), tone + 0.01 * rng.standard_normal(8000), {"caption": f"tone {number}"})
    task = folder / "data" / "esc10"
    lines = []
    for number in range(16):
        write_noise(task / f"{number}.wav", 0.4, number)
        facts = {"id": str(number), "audio": f"{number}.wav", "category": ("dog", "rain")[number % 2]}
        lines.append(json.dumps({**facts, "fold": number // 2 % 4 + 1}) + "\n")
    (task / "manifest.jsonl").write_text("".join(lines))
    return {path.name: path for path in folder.iterdir()}


def evaluated(rows: Path, out: Path) -> list[object]:
    short = ["--max-new-tokens", 2, "--batch-size", 4]
    return ["evaluate", "run", "-t", f"vggsound={rows}", "--model", MODEL, "-o", out / "o", *short]


# The command, and an earlier one whose output it replaces.
VERBS: dict[str, tuple[Callable[[Inputs, Path], list[Any]], Callable[[Inputs, Path], list[Any]] | None]] = {
    "embed": (
        lambda given, out: ["embed", given["sounds"], "-o", out / "e.npz"],
        lambda given, out: ["embed", given["sounds"] / "0.wav", "-o", out / "e.npz"],
    ),
    "convert": (lambda given, out: ["convert", "auricle-tiny-encoder", out / "model"], None),
    "evaluate run": (
        lambda given, out: evaluated(given["rows.jsonl"], out),
        lambda given, out: evaluated(given["few.jsonl"], out),
    ),
    "train": (
        lambda given, out: ["train", given["train.yaml"], "--out", out / "run"],
        lambda given, out: ["train", given["train.yaml"], "--out", out / "run", "steps=1"],
    ),
}
EVERY_EVENT = os.environ.get("AURICLE_INTERRUPT") == "all"
if EVERY_EVENT:
    VERBS |= {
        "data pack": (lambda given, out: ["data", "pack", given["rows.jsonl"], out / "s"], None),
        "index": (
            lambda given, out: ["index", given["sounds"], "-o", out / "i.auricle"],
            lambda given, out: ["index", given["sounds"] / "0.wav", "-o", out / "i.auricle"],
        ),
        "export": (lambda given, out: ["export", "auricle-tiny-encoder", out / "e.pt2"], None),
        "filter": (lambda given, out: ["filter", given["pairs"], "-o", out / "f", "--random-captions", "10"], None),
        "bench run": (
            lambda given, out: [
                *("bench", "run", "-e", "log-mel", "-t", "esc10", "--data", given["data"]),
                *("--protocol", "knn", "-o", out / "b"),
            ],
            None,
        ),
    }


class Runner:
    """Runs verbs in processes of their own on one output."""

    def __init__(self, python: str, out: Path) -> None:
        self.python, self.out = python, out
        out.mkdir()

    def __call__(self, command: list[Any], how: str = "count", moment: int = 0) -> subprocess.CompletedProcess[str]:
        line = [self.python, "-c", CHILD, str(self.out), how, str(moment), *map(str, command)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120)

    def contents(self) -> dict[str, str]:
        """Hashes of files, but for what may differ: names of the cache's files, speeds, times in indexes of shards."""
        found = {}
        for path in sorted(self.out.rglob("*")):
            name, content = str(path.relative_to(self.out)), path.read_bytes() if path.is_file() else b"folder"
            if path.name == "log.jsonl":
                records = [json.loads(line) for line in content.splitlines()]
                content = json.dumps([[record["step"], record["loss"]] for record in records]).encode()
            if "cache/" not in name and ".index." not in name:
                found[name] = sha256(content).hexdigest()
        return found


def events_of(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1].removeprefix("events "))


@pytest.mark.parametrize("verb", VERBS)
def test_what_was_interrupted_is_done_by_the_next_run(
    tmp_path: Path, warm_python: str, inputs: Inputs, verb: str
) -> None:
    new, old = VERBS[verb]
    runner = Runner(warm_python, tmp_path / "out")
    command, before = new(inputs, runner.out), tmp_path / "before"
    if old:
        assert runner(old(inputs, runner.out)).returncode == 0
    earlier = runner.contents()
    shutil.copytree(runner.out, before)

    def begin() -> None:
        shutil.rmtree(runner.out)
        shutil.copytree(before, runner.out)

    def finish(*at: object) -> None:
        again = runner(command)
        is_there = verb == "convert" and "exists" in again.stderr
        assert again.returncode == is_there, again.stderr
        assert runner.contents() == expected, at

    events = events_of(runner(command))
    expected = runner.contents()
    place = sha256(verb.encode()).digest()
    moments = [("kill", 2 + place[0] % (events - 2)), ("full", 2 + place[1] % (events // 2))]
    if EVERY_EVENT:
        moments = [(how, moment) for how in ("kill", "full") for moment in range(1, events + 1)]
    for how, moment in moments:
        begin()
        stopped = runner(command, how, moment)
        if how == "kill":
            assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        elif stopped.returncode:  # else it failed to remove what nobody needs
            assert "Traceback" not in stopped.stderr and "No space left on device" in stopped.stderr, stopped.stderr
            kept = runner.contents()
            assert verb == "train" or {name: kept.get(name) for name in earlier} == earlier  # train keeps what is done
            assert not [name for name in kept if "auricle-tmp" in name]
        finish(how, moment, events)
    if not old:
        begin()
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(runner, [command, command]))
        refused = [done.stderr for done in both if done.returncode]
        assert len(refused) < 2 and all("another run" in text or "exists" in text for text in refused), refused
        assert runner.contents() == expected


@pytest.mark.parametrize("verb", ["train", "evaluate run"])
def test_what_another_process_is_writing_is_refused(tmp_path: Path, inputs: Inputs, verb: str) -> None:
    command = VERBS[verb][0](inputs, tmp_path)
    assert auricle(*command).code == 0
    place: Path = {"train": tmp_path / "run", "evaluate run": next(tmp_path.glob("o/*/vggsound"), tmp_path)}[verb]
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with locked(place):
        done = auricle(*command)
    assert done.code == 1 and f"{place}: another run is writing here" in done.err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


REFUSED: dict[str, Callable[[Inputs, str], list[Any]]] = {
    "embed": lambda given, out: ["embed", given["sounds"], "-o", f"{out}/e.npz"],
    "index": lambda given, out: ["index", given["sounds"], "-o", f"{out}/s.auricle"],
    "export": lambda given, out: ["export", "auricle-tiny", f"{out}/e.pt2"],
    "convert": lambda given, out: ["convert", "auricle-tiny-encoder", f"{out}/m"],
    "data pack": lambda given, out: ["data", "pack", given["rows.jsonl"], f"{out}/s"],
    "train": lambda given, out: ["train", given["train.yaml"], "--out", f"{out}/r"],
    "bench run": lambda given, out: [
        "bench",
        "run",
        "-e",
        "log-mel",
        "-t",
        f"esc10={given['sounds']}",
        "-o",
        f"{out}/b",
    ],
    "bench align": lambda given, out: ["bench", "align", "-t", f"esc10={given['sounds']}", "-o", f"{out}/b"],
    "evaluate run": lambda given, out: ["evaluate", "run", "-t", f"vggsound={given['rows.jsonl']}", "-o", f"{out}/b"],
    "evaluate robustness": lambda given, out: [
        "evaluate",
        "robustness",
        "-t",
        f"vggsound={given['rows.jsonl']}",
        "-o",
        f"{out}/b",
    ],
    "evaluate prompts": lambda given, out: [
        "evaluate",
        "prompts",
        "-t",
        f"vggsound={given['rows.jsonl']}",
        "-o",
        f"{out}/b",
    ],
    "evaluate score": lambda given, out: ["evaluate", "score", given["rows.jsonl"], "-t", "tagging", "-o", f"{out}/b"],
    "filter": lambda given, out: ["filter", given["sounds"].parent / "shards", "-o", f"{out}/b"],
}


@pytest.mark.parametrize("command", REFUSED.values(), ids=REFUSED)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Inputs, command: Callable[[Inputs, str], list[Any]]
) -> None:
    """A part of the path is a file, which stops root, too."""
    for name in ("load", "load_encoder", "load_aligner"):
        monkeypatch.setattr(f"auricle.{name}", lambda *_, **__: pytest.fail("the work was begun"), raising=False)
    (tmp_path / "file").write_text("mine")
    done = auricle(*command(inputs, str(tmp_path / "file")))
    assert done.code == 1 and "a part of its path is a file" in done.err and len(done.err.splitlines()) == 1, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"
