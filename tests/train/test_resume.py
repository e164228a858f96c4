"""A run goes on with what it was started with, says what is odd, and overwrites nothing of another run."""

import shutil
import signal
import subprocess
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from auricle.errors import ConfigError, OutputError, TrainingError
from auricle.files import locked
from auricle.train.config import RunConfig, curve_settings
from auricle.train.loop import run

from .conftest import Configure, curve


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def other_shards(shards: Path, tmp_path: Path) -> Path:
    """The same clips but one, under other names of files."""
    from auricle.data.shards import ShardSet, ShardWriter

    clips = ShardSet([str(shards)])
    with ShardWriter(tmp_path / "others", "toy") as writer:
        for number in range(1, len(clips)):
            record = clips.read(number)
            writer.write(record.key, record.waveform, record.meta)
    return tmp_path / "others"


CHANGES: dict[str, dict[str, Any]] = {
    "batch_size is 4 there and 2 here": {"batch_size": 2},
    "seed is 3 there and 4 here": {"seed": 4},
    "lr is 0.003 there and 0.001 here": {"lr": 0.001},
    "accumulate is 1 there and 2 here": {"accumulate": 2},
    "mae.mask_ratio is 0.75 there and 0.5 here": {"mae": {"mask_ratio": 0.5}},
    "mae.embed_dim is 32 there and 64 here": {"mae": {"embed_dim": 64}},
    'objective is "mae" there and "caption" here': {"objective": "caption"},
}


def test_other_settings_are_refused_and_nothing_is_touched(configure: Configure) -> None:
    started = configure("mae", stop_after=2)
    assert run(started) is None
    before = contents(Path(started.out))
    for message, changes in CHANGES.items():
        changes = {"objective": "mae", **changes}
        with pytest.raises(TrainingError, match=f"step-00000002 is of another run: {message}.*; give the run another"):
            run(configure(changes.pop("objective"), **changes))
    assert contents(Path(started.out)) == before


def test_other_data_are_refused_and_moved_data_are_not(configure: Configure, shards: Path, other_shards: Path) -> None:
    run(configure("mae", stop_after=2))
    with pytest.raises(TrainingError, match=r"data is .* there and .* here"):
        run(configure("mae", data=[str(other_shards)]))
    with pytest.raises(TrainingError, match=r"data is .* there and .* here"):
        run(configure("mae", data=[str(shards), str(other_shards)]))
    shutil.rmtree(other_shards)
    shutil.copytree(shards, other_shards)
    assert run(configure("mae", data=[str(other_shards)])) is not None


def test_what_does_not_decide_the_curve_may_change(configure: Configure) -> None:
    whole = configure("mae", "whole", log_every=2)
    run(whole)
    run(configure("mae", "parts", stop_after=3))
    parts = configure("mae", "parts", log_every=2, keep=1, threads=2, workers=2, checkpoint_minutes=0.0)
    run(parts)
    assert [step for step, *_ in curve(parts)] == [1, 2, 3, 4, 6] and curve(parts)[-1] == curve(whole)[-1]


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "x"]
    return {**value, "x": 1.0} if isinstance(value, dict) else f"{value}x"


@pytest.mark.parametrize("objective", ["mae", "caption", "align", "sft", "vocode", "denoise"])
def test_every_setting_is_compared_but_those_that_leave_the_curve_alone(objective: str) -> None:
    """The list is written out so that a new setting has to be thought of."""
    config = RunConfig(objective=objective)
    free = set()
    for field in fields(config):
        if field.name == "objective":
            continue
        value = getattr(config, field.name)
        if not is_dataclass(value):
            if curve_settings(replace(config, **{field.name: changed(value)})) == curve_settings(config):
                free.add(field.name)
        elif field.name == objective:
            for own in fields(value):
                other = replace(value, **{own.name: changed(getattr(value, own.name))})  # type: ignore[type-var]
                if curve_settings(replace(config, **{objective: other})) == curve_settings(config):
                    free.add(own.name)
    shared = {"out", "data", "steps", "device", "threads", "workers", "checkpoint_minutes", "keep", "log_every"}
    own_free = {
        "mae": {"teacher"},
        "caption": {"tokenizer", "teacher"},
        "align": {"chunk", "cache", "share_towers"},
        "sft": {"train", "checkpoint_blocks", "remember_mb", "loss_chunk", "heldout", "heldout_rows", "max_new_tokens"},
        "vocode": set(),
        "denoise": set(),
    }
    assert free == shared | {"probe_every", "best", "stop_after"} | own_free[objective]


def test_more_steps_are_taken_with_a_word_and_fewer_are_refused(configure: Configure) -> None:
    run(configure("mae", steps=4))
    said: list[str] = []
    assert run(configure("mae", steps=5), notify=said.append) and "started with 4 steps, now it has 5" in said[0]
    with pytest.raises(TrainingError, match="has done 5 steps, this run has 3; set steps to at least 5, or give"):
        run(configure("mae", steps=3))
    assert run(configure("mae", steps=5), notify=pytest.fail)


def test_a_run_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match=r"out is not set, .*--out FOLDER"):
        run(RunConfig())
    assert not Path("runs").exists()


def test_a_start_over_a_log_is_said_and_over_a_model_refused(configure: Configure) -> None:
    config = configure("mae", steps=2)
    out = Path(config.out)
    run(config)
    expected = curve(config)
    shutil.rmtree(out / "checkpoints")
    before = contents(out)
    with pytest.raises(TrainingError, match=r"holds a model and no checkpoint, .*another folder"):
        run(config)
    assert contents(out) == before
    shutil.rmtree(out / "model")
    said: list[str] = []
    run(config, notify=said.append)
    assert len(said) == 1 and "a log and no checkpoint: training starts at step 0" in said[0]
    assert curve(config) == expected


def test_a_checkpoint_without_settings_is_taken_with_a_word(configure: Configure) -> None:
    config = configure("mae", stop_after=2)
    run(config)
    (Path(config.out) / "checkpoints/step-00000002/state.json").write_text('{"step": 2}')
    with pytest.warns(match="does not state the settings of its run"):
        run(configure("mae"))
    assert [step for step, *_ in curve(config)] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(configure: Configure) -> None:
    whole = configure("mae", "whole")
    run(whole)
    run(configure("mae", "parts", stop_after=3, checkpoint_minutes=0.0))
    parts = configure("mae", "parts")
    (Path(parts.out) / "checkpoints/step-00000003/state.json").write_bytes(b"")
    with pytest.warns(match=r"step-00000003 is damaged .*: going on from step-00000002"):
        run(parts)
    assert curve(parts) == curve(whole)


def test_a_log_that_is_none_is_refused(configure: Configure) -> None:
    run(configure("mae", stop_after=3))
    config = configure("mae")
    log = Path(config.out) / "log.jsonl"
    lines = log.read_text().splitlines()
    for damage in ('{"step": 2, "lo', "[]", "{}", '{"step": "2"}'):
        log.write_text("\n".join([lines[0], damage, lines[2], ""]))
        with pytest.raises(TrainingError, match=r"log.jsonl, line 2 is no record of a run: .*; remove the line"):
            run(config)


def test_a_second_run_in_one_folder_is_refused(configure: Configure) -> None:
    config = configure("mae", steps=1)
    Path(config.out).mkdir()
    with locked(config.out), pytest.raises(OutputError, match="another run is writing here"):
        run(config)
    assert list(Path(config.out).iterdir()) == []


def test_what_asks_for_a_stop_gets_a_checkpoint(configure: Configure) -> None:
    whole = configure("mae", "whole", log_every=4)
    run(whole)
    parts = configure("mae", "parts", log_every=4)
    for step in (1, 2, 3):
        assert run(parts, should_stop=lambda: True) is None
        assert (Path(parts.out) / "checkpoints/LATEST").read_text() == f"step-{step:08d}"
    assert run(parts) == Path(parts.out) / "model" and curve(parts) == curve(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_and_ends_with_its_code(
    configure: Configure, tmp_path: Path, warm_python: str, number: signal.Signals, code: int
) -> None:
    config = configure("mae", "run", steps=100_000)
    log = Path(config.out) / "log.jsonl"
    # The process sends itself the signal, since the stand-in would not pass it on.
    start = (
        "import os, threading, time\nfrom pathlib import Path\nfrom auricle.cli.main import main\n"
        f"log = Path({str(log)!r})\n"
        "def send():\n"
        "    while not log.exists() or not log.read_text():\n        time.sleep(0.01)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "threading.Thread(target=send, daemon=True).start()\nmain()\n"
    )
    command = [warm_python, "-c", start, "train", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert "stopped, with a checkpoint in" in done.stderr and "Traceback" not in done.stderr
    saved = (Path(config.out) / "checkpoints/LATEST").read_text()
    assert int(saved.removeprefix("step-")) == len(curve(config)) >= 1
