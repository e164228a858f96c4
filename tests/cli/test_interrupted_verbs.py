"""Verbs that write: killed at any event of the file system, on a full disk, and twice at once on the same output.

A verb runs in a process of its own, which counts its events under the output. Where it dies is a sample of these; what
another run then makes of it is compared with what one makes that was left alone. With ``AURICLE_INTERRUPT=all`` every
verb that writes dies at every event, and two processes start at once six times.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from auricle.data.shards import ShardWriter
from auricle.files import locked

from .conftest import MODEL, auricle, write_noise

ALL = os.environ.get("AURICLE_INTERRUPT") == "all"

# Ends, or has no space left, from its event number `moment` under a folder; prints how many there are if it gets there.
CHILD = """
import errno, os, signal, sys, torch
torch.set_num_threads(1)
from auricle.cli.main import main

folder, how, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[1:] = sys.argv[4:]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
ABOVE = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1}  # where the descriptor of the folder is
count = 0

def place(event, arguments):
    path, above = arguments[0], arguments[ABOVE[event]] if event in ABOVE else -1
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return os.path.join(os.readlink(f"/proc/self/fd/{above}") if above >= 0 else os.getcwd(), os.fsdecode(path))

def hook(event, arguments):
    global count
    if not (event in EVENTS or event == "open" and arguments[2] & WRITES) or arguments[0] is None:
        return
    path = place(event, arguments)
    if not path.startswith(folder):
        return
    count += 1
    if how == "kill" and count == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    takes_space = event in ("open", "os.mkdir", "os.rename")
    if how == "full" and count >= moment and takes_space:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

sys.addaudithook(hook)
try:
    main()
except SystemExit as end:
    print(f"events {count}", file=sys.stderr)
    raise
"""

FACTS: list[dict[str, Any]] = [{"kind": "sound", "event": "dog"}, {"kind": "speech", "text": "one"}, {"kind": "music"}]
Inputs = dict[str, Path]
Contents = dict[str, object]  # of names of files: their hashes; of folders of stored parts: the parts


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
            writer.write(str(number), 0.1 * rng.standard_normal(8000).clip(-5, 5), FACTS[number % 3])
    with ShardWriter(folder / "pairs", "p", max_bytes=250_000) as writer:
        for number in range(60):
            sound = 0.1 * rng.standard_normal(1600).clip(-5, 5)
            writer.write(str(number), sound, {"caption": f"{('dog', 'rain', 'bell')[number % 3]} {number}"})
    tests = []
    for number in range(40):
        event = {"category": ("dog", "rain")[number % 2], "fold": number // 2 % 4 + 1}
        write_noise(folder / "events" / f"{number}.wav", 0.2, number)
        tests.append(json.dumps({"id": str(number), "audio": f"{number}.wav", **event}) + "\n")
    (folder / "events" / "manifest.jsonl").write_text("".join(tests))
    (folder / "train.yaml").write_text(
        f"objective: mae\ndata: ['{folder}/shards']\nsteps: 2\nbatch_size: 2\nlog_every: 1\ncheckpoint_minutes: 0\n"
        "keep: 1\nprecision: fp32\nthreads: 1\nmae: {embed_dim: 32, depth: 1, num_heads: 2, decoder_dim: 16, "
        "decoder_depth: 1, decoder_heads: 2, crop_s: 0.4}\n"
    )
    names = ("sounds", "few.jsonl", "rows.jsonl", "train.yaml", "shards", "pairs", "events")
    return {name: folder / name for name in names}


def evaluated(rows: Path, out: Path, verb: str = "run", *more: object) -> list[object]:
    short = ["--max-new-tokens", 2, "--batch-size", 4]
    return ["evaluate", verb, "-t", f"vggsound={rows}", "--model", MODEL, "-o", out / "o", *short, *more]


def scored(given: Inputs, out: Path, rows: str) -> list[object]:
    return ["evaluate", "score", given[rows], "-t", "tagging", "-o", out / "o"]


def robust(given: Inputs, out: Path, rows: str) -> list[object]:
    return evaluated(given[rows], out, "robustness", "-c", "white-noise=10")


def benched(given: Inputs, out: Path, *encoders: str) -> list[object]:
    named = [part for encoder in encoders for part in ("-e", encoder)]
    return ["bench", "run", *named, "-t", f"esc10={given['events']}", "-o", out / "b", "--store", out / "store"]


# The command, and an earlier one whose output it replaces.
Command = Callable[[Inputs, Path], list[Any]]
VERBS: dict[str, tuple[Command, Command | None]] = {
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
EVERY_VERB: dict[str, tuple[Command, Command | None]] = {
    **VERBS,
    "filter": (lambda given, out: ["filter", given["pairs"], "-o", out / "f"], None),
    "filter again": (
        lambda given, out: ["filter", given["pairs"], "-o", out / "f"],
        lambda given, out: ["filter", given["pairs"], "-o", out / "f", "--p", "0.2", "--drop-p", "0.3"],
    ),
    "export": (
        lambda given, out: ["export", "auricle-tiny-encoder", out / "e.pt2"],
        lambda given, out: ["export", "auricle-tiny-encoder", out / "e.pt2", "--frames"],
    ),
    "export onnx": (lambda given, out: ["export", "auricle-tiny-encoder", out / "e.onnx"], None),
    "bench run": (lambda given, out: benched(given, out, "log-mel"), None),
    "bench run again": (
        lambda given, out: benched(given, out, "log-mel", "mfcc"),
        lambda given, out: benched(given, out, "mfcc"),
    ),
    "evaluate score": (
        lambda given, out: scored(given, out, "rows.jsonl"),
        lambda given, out: scored(given, out, "few.jsonl"),
    ),
    "evaluate robustness": (
        lambda given, out: robust(given, out, "rows.jsonl"),
        lambda given, out: robust(given, out, "few.jsonl"),
    ),
    "heldout": (
        lambda given, out: ["heldout", given["shards"], "--model", MODEL, "-o", out / "t.json"],
        lambda given, out: ["heldout", given["shards"], "--model", MODEL, "-o", out / "t.json", "--limit", 1],
    ),
    "data pack": (lambda given, out: ["data", "pack", given["rows.jsonl"], out / "s"], None),
    "index": (
        lambda given, out: ["index", given["sounds"], "-o", out / "i.auricle"],
        lambda given, out: ["index", given["sounds"] / "0.wav", "-o", out / "i.auricle"],
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

    def twice(self, command: list[Any], wait_s: float = 0) -> list[subprocess.CompletedProcess[str]]:
        """Two at once, or one a moment after the other."""

        def run(pause: float) -> subprocess.CompletedProcess[str]:
            time.sleep(pause)
            return self(command)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, (0, wait_s)))

    def contents(self, *, may_repeat: bool = False) -> Contents:
        """Hashes of files, but for what may differ: speeds, times in indexes of shards, names of stored parts.

        Args:
            may_repeat: two processes may have stored the same.
        """
        found: Contents = {}
        parts: dict[str, list[str]] = {}
        for path in sorted(self.out.rglob("*")):
            name, content = str(path.relative_to(self.out)), path.read_bytes() if path.is_file() else b"folder"
            if path.name == "log.jsonl":
                records = [json.loads(line) for line in content.splitlines()]
                content = json.dumps([[record["step"], record["loss"]] for record in records]).encode()
            elif path.suffix == ".json" and (name.startswith("b/") or name == "t.json"):
                content = json.dumps(json.loads(content) | {"cost": None, "seconds": None}).encode()
            elif ".index." in name:
                content = b"index"
            if path.parent.name == "cache":
                parts.setdefault(str(Path(name).parent), []).extend(content.decode().splitlines())
            elif name.startswith("store/") and path.suffix == ".safetensors":
                parts.setdefault(str(Path(name).parent), []).extend(map(str, load_file(path)["digests"].tolist()))
            else:
                found[name] = sha256(content).hexdigest()
        return found | {name: sorted(set(found) if may_repeat else found) for name, found in parts.items()}


def events_of(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1].removeprefix("events "))


class Interrupted:
    """A verb on an output that is as it was before, again and again."""

    def __init__(self, python: str, folder: Path, inputs: Inputs, verb: str) -> None:
        new, old = EVERY_VERB[verb]
        self.verb, self.runner, self.before = verb, Runner(python, folder / "out"), folder / "before"
        self.command = new(inputs, self.runner.out)
        if old:
            assert self.runner(old(inputs, self.runner.out)).returncode == 0
        self.earlier = self.runner.contents()
        shutil.copytree(self.runner.out, self.before)
        start = time.monotonic()
        self.events = events_of(self.runner(self.command))
        self.duration_s = time.monotonic() - start
        self.expected = self.runner.contents()

    def begin(self) -> None:
        shutil.rmtree(self.runner.out)
        shutil.copytree(self.before, self.runner.out)

    def finish(self) -> None:
        """Another run makes what one makes that was left alone."""
        again = self.runner(self.command)
        is_there = self.verb in ("convert", "data pack") and "exists" in again.stderr
        assert again.returncode == 0 or is_there, again.stderr
        assert self.runner.contents() == self.expected

    def killed(self, moment: int) -> None:
        self.begin()
        stopped = self.runner(self.command, "kill", moment)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        self.finish()

    def full(self, moment: int) -> None:
        """What was there stays, but for what counts as done."""
        self.begin()
        stopped = self.runner(self.command, "full", moment)
        if stopped.returncode:  # else it had no need of more space
            assert "Traceback" not in stopped.stderr and "No space left on device" in stopped.stderr, stopped.stderr
            kept = self.runner.contents()
            assert not lost(self.earlier, kept, self.expected if self.verb in CONTINUED else self.earlier)
            assert not [name for name in kept if "auricle-tmp" in name]
        else:
            assert self.runner.contents() == self.expected
        self.finish()

    def twice(self, wait_s: float) -> None:
        self.begin()
        refused = [done.stderr for done in self.runner.twice(self.command, wait_s) if done.returncode]
        assert len(refused) < 2 and all("another run" in text or "exists" in text for text in refused), refused
        assert self.runner.contents(may_repeat=True) == self.expected


def lost(earlier: Contents, kept: Contents, new: Contents) -> list[str]:
    """Names of what is neither as it was nor as it is to become; stored parts may have become more."""
    parts = {
        name: [part for part in now if part in before]
        for name, before in earlier.items()
        if isinstance(before, list) and isinstance(now := kept.get(name), list)
    }
    return [name for name, before in earlier.items() if (kept | parts).get(name) not in (before, new.get(name))]


CONTINUED = ("train", "filter again", "bench run again", "evaluate robustness")  # replaces file by file


@pytest.mark.parametrize("verb", EVERY_VERB if ALL else VERBS)
def test_what_was_interrupted_is_done_by_the_next_run(
    tmp_path: Path, warm_python: str, inputs: Inputs, verb: str
) -> None:
    case, place = Interrupted(warm_python, tmp_path, inputs, verb), sha256(verb.encode()).digest()
    every: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (case.killed, (2 + place[0] % (case.events - 2),)),
        (case.full, (2 + place[1] % (case.events // 2),)),
        (case.twice, (0,)),
    ]
    if ALL:
        moments = range(1, case.events + 1)
        waits = [0.0, 0.0, *(random.Random(verb).uniform(0, case.duration_s) for _ in range(4))]
        every = [(case.killed, (moment,)) for moment in moments]
        every += [(case.full, (moment,)) for moment in moments]
        every += [(case.twice, (wait_s,)) for wait_s in waits]
    faults = {}
    for check, arguments in every:
        try:
            check(*arguments)
        except AssertionError as error:
            faults[(check.__name__, *arguments)] = str(error)
    assert faults == {}, case.events
    print(verb, case.events, len(every))


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
