"""The stand-in does what Python does, as far as the suite uses it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TELL = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['MOOD'], sys.stdin.read(), __name__)"
DYING = "import os; os.kill(os.getpid(), {})"


@pytest.mark.parametrize("how", ["code", "script", "module"])
def test_a_process_has_all_that_python_gives_it(warm_python: str, tmp_path: Path, how: str) -> None:
    (tmp_path / "teller.py").write_text(TELL)
    words = {"code": ["-c", TELL], "script": [str(tmp_path / "teller.py")], "module": ["-m", "teller"]}[how]
    found = [
        subprocess.run(
            [python, *words, "a b", "c"],
            cwd=tmp_path,
            env={**os.environ, "MOOD": "good"},
            input="said",
            capture_output=True,
            text=True,
        )
        for python in (sys.executable, warm_python)
    ]
    assert [(done.returncode, done.stderr) for done in found] == [(0, "")] * 2
    assert found[0].stdout == found[1].stdout == f"['a b', 'c'] {tmp_path} good said __main__\n"


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "1 / 0", *map(DYING.format, (signal.SIGKILL, 15))])
def test_a_process_ends_as_in_python(warm_python: str, code: str) -> None:
    found = [subprocess.run([python, "-c", code], capture_output=True) for python in (sys.executable, warm_python)]
    assert found[0].returncode == found[1].returncode != 0
    assert found[0].stderr.splitlines()[-1:] == found[1].stderr.splitlines()[-1:]


def test_torch_is_there_already(warm_python: str) -> None:
    subprocess.run([warm_python, "-c", "import sys; assert 'torch' in sys.modules"], check=True)


def test_a_process_dies_with_its_stand_in(warm_python: str) -> None:
    code = "import time; print('up', flush=True); time.sleep(600)"
    with subprocess.Popen([warm_python, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b""  # ends only when the process behind has closed its side, too
    assert process.returncode == -signal.SIGKILL
