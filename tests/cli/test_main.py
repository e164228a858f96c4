import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import auricle as package
from auricle.cli import doctor as room

from .conftest import MODEL, auricle, write_noise

VERBS = "describe ask transcribe embed score classify index search models convert train heldout filter doctor".split()
COMMAND = [sys.executable, "-m", "auricle.cli.main"]


@pytest.mark.parametrize("verb", [*VERBS, "data pack", "data index", "data info"])
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    done = auricle(*verb.split(), "--help")
    assert done.code == 0 and f"Example: auricle {verb}" in " ".join(done.out.split())


def test_the_root_lists_all_verbs_and_gives_its_version() -> None:
    assert all(f"  {verb} " in auricle("--help").out for verb in [*VERBS, "data"])
    assert auricle("--version").out == f"auricle {package.__version__}\n"
    assert "Commands:" in auricle().out + auricle().err


def test_help_imports_nothing_heavy() -> None:
    # The cause of a fast start; benchmarks/listen.py measures the seconds, which a shared machine cannot promise.
    done = subprocess.run([sys.executable, "-X", "importtime", *COMMAND[1:], "--help"], capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    heavy = {"torch", "numpy", "scipy", "soundfile", "soxr", "safetensors", "tokenizers", "transformers", "pyarrow"}
    assert done.returncode == 0 and "typer" in imported
    assert not imported & heavy


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav", 0.3)
    process = subprocess.Popen([*COMMAND, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--help"]])
def test_a_full_disk_behind_standard_output_is_reported(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "auricle: standard output: No space left on device\n")


def wait_until_idle(pid: int) -> None:
    """Return once a process has slept for half a second."""
    history: list[tuple[str, str]] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        history.append((fields[0], fields[11]))
        if len(history) > 5 and set(history[-5:]) == {("S", history[-1][1])}:
            return
        time.sleep(0.1)
    pytest.fail("the process never waited")


def test_ctrl_c_ends_without_a_traceback() -> None:
    arguments = [*COMMAND, "describe", "-", "--model", MODEL]

    def heed_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs in the background may inherit that it is ignored

    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c
    ) as process:
        wait_until_idle(process.pid)  # standard input stays open and empty
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 130 and err == b"auricle: interrupted\n"


def test_the_doctor_finds_this_installation_well() -> None:
    done = auricle("doctor", "--json")
    (facts,) = done.records
    assert done.code == 0 and facts["ok"] and set(facts["formats"].values()) == {"ok"}
    assert facts["packages"]["torch"] != "absent" and facts["threads"]["cores"] >= 1
    assert "formats:" in auricle("doctor").out


def test_the_doctor_finds_a_broken_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(room, "_tone", lambda rate: np.zeros(rate, np.float32))
    (facts,) = auricle("doctor", "--json").records
    assert not facts["ok"] and "decoded wrongly" in facts["formats"]["wav"]
    monkeypatch.setattr(room, "_core_file", lambda name: b"not a sound")
    done = auricle("doctor")
    assert done.code == 1 and "UnsupportedFormat" in done.out


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        (">&-", 1, b"auricle: standard output is closed; send it to a file, or to /dev/null\n"),
        ("<&-", 2, b"standard input is closed"),
        (">/dev/full", 1, b"auricle: standard output: No space left on device\n"),
        ("2>&-", 0, b""),
    ],
)
def test_standard_streams_that_cannot_be_used(folder: Path, redirection: str, code: int, err: bytes) -> None:
    audio = (folder / "a.wav").read_bytes()
    command = shlex.join([*COMMAND, "describe", "-", "--model", MODEL])
    done = subprocess.run(["sh", "-c", f"{command} {redirection}"], input=audio, capture_output=True, check=False)
    assert done.returncode == code and err in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_any_bytes_can_be_printed(folder: Path) -> None:
    content = (folder / "a.wav").read_bytes()
    for name in (b"caf\xe9.wav", b"red\x1b[31m\n.wav"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    for more in ([], ["--stream"]):
        command = [*COMMAND, "ask", str(folder), "-p", "?", "--model", MODEL, *more]
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONUTF8": "1"})
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and len(lines) == 5 and b"\x1b" not in done.stdout + done.stderr
        assert any(b"caf\\udce9.wav: " in line for line in lines)
        assert any(b"red\\x1b[31m .wav: " in line for line in lines)
