import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from auricle.cli import train as room
from auricle.data.shards import ShardWriter

from .conftest import Outcome, auricle, write_noise
from .test_output import on_terminal

RECORD = {"step": 20, "loss": 0.51234, "grad_norm": 1.0, "lr": 1e-3, "audio_s_per_s": 1234.0, "eta_s": 65.0}


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "digits", "digits") as writer:
        for number in range(20):
            wave = 0.1 * np.random.default_rng(number).uniform(-1, 1, 6400)
            meta = {"kind": "speech", "text": ("one", "two")[number // 2 % 2], "set": "fsdd"}
            writer.write(f"digit{number}", wave, meta)
    return tmp_path / "digits"


def train(digits: Path, *arguments: str) -> Outcome:
    config = digits.parent / "run.yaml"
    config.write_text(
        f"objective: mae\ndata: ['{digits}']\nsteps: 2\nbatch_size: 2\nlog_every: 1\nprobe_every: 2\n"
        "mae: {embed_dim: 32, depth: 1, num_heads: 2, decoder_dim: 16, decoder_depth: 1, decoder_heads: 2, "
        "crop_s: 0.4}\n"
    )
    return auricle("train", config, "--out", str(digits.parent / "run"), *arguments)


def test_an_encoder_is_probed_while_it_trains(digits: Path) -> None:
    first, second = train(digits, "--json").records
    assert not first.keys() & {"knn_digits", "rank_digits"}
    assert 0 <= second["knn_digits"] <= 1 <= second["rank_digits"]


def test_a_run_is_continued_and_its_model_embeds(digits: Path) -> None:
    plain = ("probe_every=0", "precision=fp32")
    first = train(digits, *plain)
    lines = first.out.splitlines()
    assert first.code == 0 and [line.split("  ")[0] for line in lines[:2]] == ["step 1/2", "step 2/2"]
    exported = Path(lines[-1])
    assert exported.is_relative_to(digits.parent / "run")
    more = train(digits, *plain, "steps=3", "--json")
    assert more.code == 0 and [record["step"] for record in more.records] == [3]
    clip = write_noise(digits.parent / "a.wav", 0.5)
    assert auricle("embed", clip, "--model", exported, "--json").code == 0


def test_wrong_settings_are_refused(digits: Path) -> None:
    for change in ("steps", "no_such_key=1", "steps=0"):
        done = train(digits, change)
        assert done.code == 2 and "Traceback" not in done.err
    assert auricle("train", digits.parent / "missing.yaml").code == 2


def test_a_device_that_is_absent_is_refused(digits: Path) -> None:
    done = train(digits, "device=tpu")
    assert done.code == 2 and "device" in done.err and "Traceback" not in done.err


def test_a_terminal_gets_one_line_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with room._display(100, as_json=False) as show:
        show(RECORD)
        show({**RECORD, "step": 40, "knn_events": 0.5})
    shown = terminal.shown()
    assert "40/100" in shown and "loss 0.5123" in shown and "1,234 s of audio/s" in shown and "0:01:05" in shown
    assert "step 40: knn_events 0.5" in shown


def test_others_get_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with room._display(100, as_json=False) as show:
        show(RECORD)
    shown = capsys.readouterr()
    assert shown.out == "step 20/100  loss 0.5123  1,234 s of audio/s  ETA 0:01:05\n" and shown.err == ""


def test_tensorboard_is_named_when_absent(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = train(digits, "--tensorboard")
    assert done.code == 1 and "pip install 'auricle[train]'" in done.err and not (digits.parent / "run").exists()


def test_tensorboard_gets_every_scalar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, *arguments: Any) -> None:
            written.append(arguments)

        def flush(self) -> None: ...

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    write = room._scalar_writer(tmp_path)
    assert not written  # only the process that logs opens the file
    write({"step": 20, "loss": 0.5, "knn_events": 0.25})
    assert written == [(str(tmp_path / "tensorboard"), 20), ("loss", 0.5, 20), ("knn_events", 0.25, 20)]
