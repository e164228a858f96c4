"""The core install has no `transformers`: what it offers must not import it, and what needs it must say so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from auricle.errors import MissingExtra

CLIP = Path(__file__).resolve().parents[2] / "examples" / "voice_over_piano.ogg"
# Runs the command line several times in one interpreter in which `transformers` cannot be imported.
RUN = """
import json, sys
sys.modules["transformers"] = None
from auricle.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["auricle", *arguments]
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    assert not code, (arguments, code)
"""


def test_the_embedded_models_need_no_transformers(tmp_path: Path) -> None:
    commands = [
        ["describe", str(CLIP)],
        ["ask", str(CLIP), "--prompt", "Is there music?"],
        ["transcribe", str(CLIP)],
        ["embed", str(CLIP), "--output", str(tmp_path / "e.npz")],
    ]
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "speak" in done.stdout.lower()


def test_what_is_transformers_own_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from auricle.models.encoders.stock import build_network
    from auricle.models.stock_decoder import StockDecoder
    from auricle.models.text import StockTextConfig, build_text_tower
    from auricle.weights.causal_lm import load_causal_lm

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    for call, extra in (
        (lambda: load_causal_lm(tmp_path), "transformers"),
        (lambda: build_network({"model_type": "hubert"}), "transformers"),
        (lambda: build_text_tower(StockTextConfig(settings={"model_type": "bert"}, max_tokens=9)), "align"),
        (lambda: StockDecoder(load_causal_lm().model), "transformers"),
    ):
        with pytest.raises(MissingExtra, match=rf"pip install 'auricle\[{extra}\]'"):
            call()
