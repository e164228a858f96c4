import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auricle.errors import ConfigError, TrainingError
from auricle.train import loop
from auricle.train.config import RunConfig
from auricle.train.loop import run

from .conftest import Configure, curve, log_of, losses_of

COMMAND = [sys.executable, "-m", "auricle.cli.main", "train"]


@pytest.mark.parametrize("objective", ["mae", "caption"])
def test_a_resumed_run_is_the_uninterrupted_one(configure: Configure, objective: str) -> None:
    heads = {"caption": {"ctc_weight": 0.3, "tag_weight": 1.0}}
    whole = configure(objective, "whole", **heads)
    run(whole)
    for stop in (2, 3):
        run(configure(objective, "parts", stop_after=stop, **heads))
    parts = configure(objective, "parts", **heads)
    exported = run(parts)
    assert curve(parts) == curve(whole) and [step for step, *_ in curve(parts)] == [1, 2, 3, 4, 5, 6]
    same = (exported / "model.safetensors").read_bytes(), (Path(whole.out) / "model/model.safetensors").read_bytes()
    assert same[0] == same[1]


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_never_emulated(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(loop, "CPU_HAS_BFLOAT16", able)
    assert loop.precision_here(RunConfig(precision="bf16")) == ("bf16" if able else "fp32")
    assert loop.precision_here(RunConfig(precision="bf16", device="cuda:1")) == "bf16"
    assert loop.precision_here(RunConfig(precision="fp32")) == "fp32"


def test_records_that_average_steps_survive_a_resume_in_their_middle(configure: Configure) -> None:
    settings: dict[str, Any] = {"steps": 9, "log_every": 3, "checkpoint_minutes": 0.0}
    whole = configure("mae", "whole", **settings)
    run(whole)
    parts = configure("mae", "parts", **settings)
    with pytest.raises(ZeroDivisionError):
        run(parts, on_log=lambda record: 1 / (record["step"] - 6))
    assert (Path(parts.out) / "checkpoints/LATEST").read_text() == "step-00000005"
    run(parts)
    assert curve(parts) == curve(whole) and [step for step, *_ in curve(parts)] == [3, 6, 9]


def wait_for_step(config: RunConfig, step: int, process: subprocess.Popen[bytes]) -> None:
    pointer = Path(config.out) / "checkpoints" / "LATEST"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if pointer.exists() and int(pointer.read_text().rpartition("-")[2] or 0) >= step:
            return
        time.sleep(0.002)
    pytest.fail(f"no checkpoint of step {step}; exit code {process.poll()}")


def test_kill_9_and_resume_gives_the_same_curve(configure: Configure, tmp_path: Path) -> None:
    whole = configure("mae", "whole", steps=80)
    run(whole)
    killed = configure("mae", "killed", steps=80, checkpoint_minutes=0.0)
    with subprocess.Popen([*COMMAND, str(tmp_path / "killed.yaml")], stdout=subprocess.DEVNULL) as process:
        wait_for_step(killed, 7, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    left = len(log_of(killed))
    assert 7 <= left < 80
    run(killed)
    assert curve(killed) == curve(whole) and [step for step, *_ in curve(killed)] == list(range(1, 81))


def test_half_a_log_line_is_written_again(configure: Configure) -> None:
    run(configure("mae", stop_after=2))
    config = configure("mae")
    log = Path(config.out) / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 3, "loss": 0.')
    run(config)
    assert [record["step"] for record in log_of(config)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("objective", ["mae", "caption"])
def test_the_loss_goes_down(configure: Configure, objective: str) -> None:
    found = losses_of(configure(objective, steps=40, log_every=4))
    assert np.mean(found[-3:]) < 0.9 * found[0]


def test_accumulating_gradients_equals_one_batch(configure: Configure) -> None:
    whole = losses_of(configure("caption", "whole", steps=4))
    pieces = losses_of(configure("caption", "pieces", steps=4, accumulate=4))
    assert pieces == pytest.approx(whole, abs=1e-5)


WORKER = """
import sys
from auricle.train.config import load_config
from auricle.train.loop import run

for path in sys.argv[1:]:
    run(load_config(path))
"""


def test_two_processes_under_torchrun(configure: Configure, tmp_path: Path, warm_python: str) -> None:
    """Caption: equal to one process. The batch statistics of mae belong to each process, so there only that it runs."""
    alone = losses_of(configure("caption", "alone", steps=4))
    pair, mae = configure("caption", "pair", steps=4), configure("mae", "mae", steps=2)
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch = [warm_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environment = {**os.environ, "PYTHON_EXEC": warm_python, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    arguments = [*launch, str(tmp_path / "pair.yaml"), str(tmp_path / "mae.yaml")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [record["loss"] for record in log_of(pair)] == pytest.approx(alone, abs=1e-5)
    assert [record["step"] for record in log_of(mae)] == [1, 2]
    assert (Path(mae.out) / "model" / "model.safetensors").is_file()


def test_a_world_too_large_for_the_batch_is_refused(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="leaves some of 3 processes without a clip; set batch_size to at least 6"):
        run(configure("mae", accumulate=2))


def test_a_loss_that_is_not_finite_ends_the_run(configure: Configure) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: loss .*lower lr"):
        run(configure("mae", lr=1e30, warmup=1))


def test_probes_are_logged_and_leave_the_run_as_it_is(configure: Configure) -> None:
    plain = losses_of(configure("mae", "plain"))
    seen: list[bool] = []

    def probe(network: Any) -> dict[str, float]:
        seen.append(network.training)
        return {"knn_events": 0.5}

    probed = configure("mae", "probed", probe_every=3)
    run(probed, probe=probe)
    records = log_of(probed)
    assert [record["loss"] for record in records] == plain and seen == [False, False]
    assert [record["step"] for record in records if "knn_events" in record] == [3, 6]


def test_a_finished_run_is_not_trained_again(configure: Configure) -> None:
    config = configure("mae", steps=2)
    first = run(config)
    before = curve(config)
    assert run(config) == first and curve(config) == before
