"""MiDashengLM with a Qwen3 decoder equals the reference parts, with either encoder, and is written as it was read.

Reference: encoder classes of the released DashengTokenizer, `Qwen3ForCausalLM` of transformers 5.24, float32 on a CPU.
The layout of the released 0.6B file is not known: these are two that it may have.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auricle.errors import LayoutMismatch
from auricle.models.midashenglm import MiDashengLM
from auricle.weights import load_midashenglm, save_midashenglm

from .conftest import Golden

SYSTEM = "midashenglm_qwen3"
FRAMES, LOGITS, LOSS, GRADIENT = 1e-4, 5e-4, 1e-4, 1e-3  # absolute; of gradients' norms relative


@pytest.fixture(params=["dasheng", "tokenizer"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(golden: Golden, kind: str, tmp_path: Path) -> Path:
    """The model with one of the two encoders."""
    if kind == "dasheng":
        return golden.folder / "model"
    folder = tmp_path / "model"
    shutil.copytree(golden.folder / "model", folder)
    stored = load_file(folder / "model.safetensors")
    rest = {key: tensor for key, tensor in stored.items() if not key.startswith("audio_encoder.")}
    (folder / "model.safetensors").unlink()
    save_file(rest | load_file(golden.folder / "tokenizer_encoder.safetensors"), folder / "model.safetensors")
    return folder


@pytest.fixture
def model(folder: Path) -> MiDashengLM:
    return load_midashenglm(folder, dtype="float32").model


def clips_of(golden: Golden, names: list[str]) -> list[Tensor]:
    wave = golden["wave_int16"].float() / 32_768
    return [wave[start : start + count] for count, start in (golden.facts["clips"][name] for name in names)]


def test_audio_tokens(golden: Golden, model: MiDashengLM, kind: str) -> None:
    names = list(golden.facts["clips"])
    with torch.inference_mode():
        for name, tokens in zip(names, model.audio_tokens(clips_of(golden, names)), strict=True):
            golden.check(f"{kind}.audio_tokens.{name}", tokens, FRAMES)
            assert len(tokens) == golden.facts["counts"][name]
        for name in ("0.5s", "1s"):
            golden.check(f"{kind}.frames.{name}", model.audio_encoder.encode(clips_of(golden, [name]))[0], FRAMES)


def test_logits_and_greedy_ids(golden: Golden, model: MiDashengLM, kind: str) -> None:
    with torch.inference_mode():
        for name, prompt in golden.facts["prompts"].items():
            if f"generated_{kind}" not in prompt:
                continue
            clips, ids = clips_of(golden, prompt["clips"]), torch.tensor([prompt["input_ids"]])
            logits = model(ids, clips)
            golden.check(f"{kind}.logits_last12.{name}", logits[0, -12:], LOGITS)
            for wanted in prompt[f"generated_{kind}"]:
                assert logits[0, -1].argmax().item() == wanted
                ids = torch.cat([ids, torch.tensor([[wanted]])], 1)
                logits = model(ids, clips)


def test_loss_and_gradients(golden: Golden, model: MiDashengLM, kind: str) -> None:
    if kind != "dasheng":
        pytest.skip("the reference trained with the other encoder")
    train = golden.facts["train"]
    model.audio_encoder.requires_grad_(False)
    ids, labels = torch.tensor(train["input_ids"])[None], torch.tensor(train["labels"])[None]
    loss = model.loss(ids, clips_of(golden, train["clips"]), labels)
    assert abs(loss.item() - train["loss"]) <= LOSS
    loss.backward()
    parameters = dict(model.named_parameters())
    for name, norm in train["grad_norms"].items():
        gradient = parameters[name].grad
        assert gradient is not None and abs(gradient.norm().item() / norm - 1) <= GRADIENT, name


def test_what_is_written_is_what_was_read(folder: Path, tmp_path: Path) -> None:
    lm = load_midashenglm(folder, dtype="float32")
    ends = {"eos_token_id": list(lm.eos_token_ids), "pad_token_id": lm.pad_token_id}
    written = save_midashenglm(tmp_path / "written", lm.model, lm.tokenizer.to_str(), lm.chat_template, generation=ends)
    official, ours = load_file(folder / "model.safetensors"), load_file(written / "model.safetensors")
    computed = {key for key in official if "front_end." in key or key.endswith("num_batches_tracked")}
    assert official.keys() - computed <= ours.keys() <= official.keys() | {"audio_encoder.init_bn.num_batches_tracked"}
    assert all(torch.equal(ours[key], official[key]) for key in official.keys() - computed)
    stated = json.loads((written / "config.json").read_text())["text_config"]
    assert (stated["model_type"], stated["head_dim"]) == ("qwen3", 32)
    assert load_midashenglm(written, dtype="float32").model.config == lm.model.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "miaudiollm"}, "a first revision of the release"),
        ({"architectures": ["DashengQwen25OmniModelInstruct"], "model_type": None}, "a first revision of the release"),
        ({"model_type": "midashenglm_spatial"}, "a spatial model .* hears two channels"),
        ({"text_config": {"model_type": "qwen3"}}, "of a Qwen3 has no head_dim"),
        ({"text_config": {"model_type": "llama"}}, "the decoder is 'llama'"),
    ],
)
def test_other_models_are_named(golden: Golden, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    shutil.copytree(golden.folder / "model", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.chmod(0o644)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(LayoutMismatch, match=message):
        load_midashenglm(tmp_path / "model")
