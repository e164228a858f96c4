"""`auricle --help` answers at once because nothing heavy is imported before it is needed."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "transformers", "tokenizers", "soundfile", "soxr", "safetensors", "huggingface_hub"}
HEAVY |= {"omegaconf", "av", "pyarrow", "matplotlib", "tensorboard", "starlette", "uvicorn", "prometheus_client"}


def loaded_after(code: str) -> set[str]:
    """Top-level packages a fresh interpreter holds after running `code`."""
    tail = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["auricle", "auricle.errors", "auricle.cli.main"])
def test_import_is_light(module: str) -> None:
    assert loaded_after(f"import {module}") & (HEAVY | {"rich"}) == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["describe", "--help"], ["train", "--help"], ["serve", "--help"]], ids=" ".join
)
def test_help_is_light(arguments: list[str]) -> None:
    # Help is set with rich, which is light; that it appears at all is checked here too.
    code = f"import sys; sys.argv = ['auricle', *{arguments}]\nfrom auricle.cli.main import main\n"
    code += "try:\n    code = main()\nexcept SystemExit as stop:\n    code = stop.code\nassert not code, code"
    assert loaded_after(code) & HEAVY == set()


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import numpy")
