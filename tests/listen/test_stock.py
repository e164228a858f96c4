"""Tiny models of the audio classes of `transformers`: limits, windows, choices, and tasks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auricle
from auricle.errors import AuricleError, ConfigError, LimitExceeded, WeightsError
from auricle.listen.other_models.stock import StockLM
from auricle.listen.other_models.stock_classes import STOCK_CLASSES
from auricle.weights import safe

from ..cli.conftest import auricle as command_line
from .test_endpoint import manifests, outputs
from .toy_stock import ANSWERING, PLACEHOLDERS, write_stock

RATE = 16_000
# What becomes of a clip of 62 s: the longest window in s, and how many there are.
LONG = {
    "qwen2_audio": (30.0, 3),
    "qwen2_5_omni": (30.0, 3),
    "qwen3_omni_moe": (1890.5, 1),
    "qwen3_asr": (1890.5, 1),
    "audioflamingo3": (600.0, 1),
    "musicflamingo": (983.0, 1),
    "glmasr": (655.0, 1),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_stock(tmp_path_factory.mktemp(kind), kind) for kind in PLACEHOLDERS}


@pytest.fixture(scope="module")
def stock(folders: dict[str, Path]) -> dict[str, StockLM]:
    found = {}
    for kind, folder in folders.items():
        model = auricle.load(str(folder), device="cpu")
        assert isinstance(model, StockLM)
        found[kind] = model
    return found


def noise(seconds: float, seed: int = 0) -> Any:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("kind", PLACEHOLDERS)
def test_a_clip_of_62_s_is_read_whole(stock: dict[str, StockLM], kind: str) -> None:
    model = stock[kind]
    longest, windows = LONG[kind]
    assert model.capabilities.max_audio_s == pytest.approx(longest, abs=0.1)
    seen: list[int] = []  # audio tokens of each prompt
    inner = model._checked
    id_of = getattr(model.stock.network.config, "audio_token_id", None)
    id_of = model.stock.network.config.audio_token_index if id_of is None else id_of

    def counted(inputs: Any, seconds: float) -> Any:
        seen.append(int((inputs["input_ids"] == id_of).sum()))
        return inner(inputs, seconds)

    model._checked = counted  # type: ignore[method-assign]
    try:
        if kind == "qwen3_asr":
            found: Any = model.transcribe((noise(62), RATE), max_new_tokens=2)
        else:
            (found,) = model.ask_many([(noise(62), RATE)], "What is it?", sampling=_short())
    finally:
        del model._checked
    receipt = found.receipt
    assert receipt.complete and receipt.read[0].start_s == 0 and receipt.read[-1].stop_s == 62.0
    assert len(receipt.read) == windows == len(seen)
    assert all(a.stop_s == b.start_s for a, b in zip(receipt.read, receipt.read[1:], strict=False))
    noted = any(f"processed in {windows} windows" in note for note in receipt.notes)
    assert noted == (windows > 1)
    assert sum(seen) == pytest.approx(62 * STOCK_CLASSES[kind].tokens_per_s, rel=0.02)


def test_the_processor_itself_would_cut(stock: dict[str, StockLM]) -> None:
    """Why there are windows: the class cuts what is longer than 30 s, and says nothing."""
    model = stock["qwen2_audio"]
    processor = model.stock.processor
    counts = []
    for seconds in (30, 62):
        turn = {"role": "user", "content": [{"type": "audio", "audio": noise(seconds)}]}
        inputs = processor.apply_chat_template([turn], tokenize=True, return_dict=True, return_tensors="pt")
        counts.append(int((inputs["input_ids"] == processor.tokenizer.audio_token_id).sum()))
    assert counts == [750, 750]
    with pytest.raises(LimitExceeded, match="it has cut the audio"):
        model._checked(inputs, 62.0)


def test_a_limit_that_the_files_state_wrongly_is_found_out(folders: dict[str, Path], tmp_path: Path) -> None:
    """A processor that cuts earlier than it says gives an error, not half an answer."""
    model = auricle.load(str(folders["qwen2_audio"]), device="cpu")
    model.max_audio_s = model.max_prompt_s = 60.0
    (found,) = model.ask_many([(noise(50), RATE)], "What is it?", sampling=_short())
    assert isinstance(found, LimitExceeded) and "750 audio tokens of 50.0 s" in str(found)


def _short() -> Any:
    from auricle.engine.request import SamplingParams

    return SamplingParams(max_new_tokens=3)


@pytest.mark.parametrize("kind", ANSWERING)
def test_an_answer_depends_on_its_clip_and_question_alone(stock: dict[str, StockLM], kind: str) -> None:
    model = stock[kind]
    clips = [(noise(1.0, 1), RATE), (noise(2.3, 2), RATE), (noise(0.4, 3), RATE)]
    together = [str(each) for each in model.ask_many(clips, "What is it?", sampling=_short())]
    alone = [str(model.ask(clip, "What is it?", max_new_tokens=3)) for clip in clips]
    assert together == alone
    answer = model.ask(clips[0], "What is it?", max_new_tokens=3)
    assert answer.confidence is not None and 0 < answer.confidence <= 1
    assert any("cut at 3 tokens" in note for note in answer.receipt.notes)
    assert model.describe(clips[0], max_new_tokens=3).receipt.complete


@pytest.mark.parametrize("kind", ANSWERING)
def test_a_choice_is_the_likeliest_option(stock: dict[str, StockLM], kind: str) -> None:
    model = stock[kind]
    clip = (noise(1.5, 4), RATE)
    chosen = model.choose(clip, "Which?", ["a dog", "rain"])
    assert sum(each.probability for each in chosen.odds) == pytest.approx(1.0, abs=1e-5)
    greedy = model.ask(clip, "Which?", max_new_tokens=2)
    ends = model.answer_tokens[1]
    (logprobs,) = model.logprobs(_turns(model, clip), [_generated(model, clip)])
    # The probabilities of a generated answer are those that were found while it was generated.
    assert sum(logprobs) / len(logprobs) == pytest.approx(greedy.segments[0].mean_logprob, abs=2e-3)
    assert ends == model.stock.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def _turns(model: StockLM, clip: Any) -> Any:
    from auricle.audio.decode import as_clip
    from auricle.listen.other_models.prompted import Turn

    return [Turn("user", (as_clip(clip), "Which?"))]


def _generated(model: StockLM, clip: Any) -> list[int]:
    inputs = model._inputs(_turns(model, clip))
    with torch.inference_mode():
        found = model.stock.network.generate(**inputs, max_new_tokens=2, do_sample=False)
    return found[0, inputs["input_ids"].shape[1] :].tolist()


def test_chat_and_what_a_class_cannot_do(stock: dict[str, StockLM]) -> None:
    clip = {"type": "audio", "audio": (noise(1.0), RATE)}
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [clip, clip, {"type": "text", "text": "Same?"}]},
    ]
    assert isinstance(stock["qwen2_audio"].chat(turns, max_new_tokens=2), str)
    with pytest.raises(ConfigError, match="takes one clip"):
        stock["audioflamingo3"].chat(turns, max_new_tokens=2)
    with pytest.raises(ConfigError, match="cannot ask; it can transcribe"):
        stock["qwen3_asr"].ask((noise(1.0), RATE), "What is it?")
    with pytest.raises(ConfigError, match="control token"):
        stock["qwen2_audio"].ask((noise(1.0), RATE), "Say <|im_end|>")
    with pytest.raises(ConfigError, match="names no language"):
        stock["glmasr"].transcribe((noise(1.0), RATE), language="en")
    with pytest.raises(ConfigError, match="30 s"):
        stock["qwen2_audio"].chat([{"role": "user", "content": [{"type": "audio", "audio": (noise(31), RATE)}]}])


@pytest.mark.parametrize("kind", ["qwen3_asr", "audioflamingo3", "glmasr", "qwen2_audio"])
def test_transcripts(stock: dict[str, StockLM], kind: str) -> None:
    found = stock[kind].transcribe((noise(1.0), RATE), max_new_tokens=4)
    assert found.receipt.complete and isinstance(found.text, str)
    assert stock[kind].transcribe((np.zeros(RATE, np.float32), RATE)).text == ""


def test_files_that_lack_a_tensor_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folders["qwen2_audio"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(each for each in tensors if "multi_modal_projector" in each and each.endswith("weight"))
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="1 tensors are absent"):
        auricle.load(str(tmp_path), device="cpu")
    config = safe.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    with pytest.raises(AuricleError):
        auricle.load(str(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match="leave out adapter and quantize"):
        auricle.load(str(folders["qwen2_audio"]), quantize="int8")


@pytest.mark.parametrize("kind", ANSWERING)
def test_two_tasks_run(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    tasks, out = manifests(tmp_path, count=3), tmp_path / "out"
    command = ["evaluate", "run", *tasks, "-o", out, "--model", folders[kind], "--max-new-tokens", "4", "--json"]
    done = command_line(*command, "--scoring-rule", "both")
    assert done.code == 0, done.err + done.out
    found = outputs(out)
    assert {"gender", "events", "gender strict", "events compat"} <= set(found) and len(found["events"]) == 3
    again = command_line(*command, "--scoring-rule", "both")
    assert [each["asked"] for each in again.records] == [0, 0] and outputs(out) == found


def test_the_core_needs_no_transformers(folders: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\nimport auricle\nfrom auricle.errors import MissingExtra\n"
        "try:\n    auricle.load(sys.argv[1])\nexcept MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folders["glmasr"])], capture_output=True, text=True)
    assert "auricle[transformers]" in done.stdout, done.stderr


def test_a_model_that_takes_no_prompt_runs_tasks_of_transcripts(folders: dict[str, Path], tmp_path: Path) -> None:
    import soundfile

    rows = []
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", noise(1.0, number), RATE)
        rows.append({"audio": f"{number}.wav", "text": "a b", "lang": "en"})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [f"{task}={tmp_path / 'm.jsonl'}" for task in ("librispeech_clean", "librispeech_other")]
    settings = ["--model", folders["qwen3_asr"], "--max-new-tokens", "4", "-o", tmp_path / "out", "--json"]
    done = command_line("evaluate", "run", "-t", sources[0], "-t", sources[1], *settings)
    assert done.code == 0, done.err + done.out
    assert [each["answered"] for each in done.records] == [2, 2]
