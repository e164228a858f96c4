"""The nine loss settings of the released GLAP code with their gradients, and one step from sounds and texts to them."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.train.alignment_losses import compat_bce_loss, compat_sigmoid_loss, compat_softmax_loss
from auricle.weights import load_glap

from .conftest import FIXTURES, WHOLE

LOSS = 1e-5  # relative
NORM = 1e-4  # of gradients, relative
TAGS = (
    *("sig_default", "sig_noreg", "sig_t01_bm5", "sig_nobias", "bce_default", "bce_dup"),
    *("clip_default", "clip_noreg", "clip_dup"),
)
# Of these the stored gradients are wrong: torch 2.13 sums them up wrongly on a CPU for (B, 64, 1, T) inputs that lie
# (C·T, 1, C, C) in memory, as the reference's do. Finite differences stand in.
INPUT_NORM = ("audio_encoder.model.init_bn.1.weight", "audio_encoder.model.init_bn.1.bias")
ROOTS = [
    pytest.param(FIXTURES / "glap", id="cut"),
    pytest.param(
        Path(WHOLE or ".") / "glap",
        id="whole",
        marks=[pytest.mark.shared, pytest.mark.skipif(not WHOLE, reason="AURICLE_PARITY names no folder")],
    ),
]


class Golden(NamedTuple):
    tensors: dict[str, Tensor]
    losses: dict[str, dict[str, Any]]
    step: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module", params=ROOTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    """The tensors and numbers of one folder; of the cut, those of the losses lie beside the others."""
    folder = request.param
    names = ("golden.safetensors", "loss_golden.safetensors", "inputs.safetensors")
    tensors = {k: v for name in names if (folder / name).is_file() for k, v in load_file(folder / name).items()}
    facts = {}
    for name in ("golden.json", "loss_golden.json"):
        facts |= json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    return Golden(tensors, {setting["tag"]: setting for setting in facts["losses"]}, facts["e2e"], folder)


def run(setting: dict[str, Any], audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loss, temperature and bias."""
    options = {"regularise": setting["args"].get("embed_regularization", True)}
    temperature = torch.tensor(setting["args"]["temperature"], requires_grad=True)
    names = setting["filenames"]
    counts = names and torch.tensor([Counter(names)[name] for name in names])
    if setting["cls"].startswith("Sig"):
        start = setting["args"].get("bias", -10.0)
        bias = None if start is None else torch.tensor(start, requires_grad=True)
        return compat_sigmoid_loss(audio, text, temperature, bias, **options), temperature, bias
    if setting["cls"].startswith("BCE"):
        return compat_bce_loss(audio, text, temperature, counts, **options), temperature, None
    log_scale = torch.tensor(math.log(1 / temperature.item()), requires_grad=True)
    return compat_softmax_loss(audio, text, log_scale, counts, **options), log_scale, None


@pytest.mark.parametrize("tag", TAGS)
def test_released_losses(golden: Golden, tag: str) -> None:
    tensors = golden.tensors
    assert set(golden.losses) == set(TAGS)
    setting = golden.losses[tag]
    audio, text = (tensors[f"loss_{name}"].clone().requires_grad_() for name in ("audio", "text"))
    loss, temperature, bias = run(setting, audio, text)
    loss.backward()
    assert loss.item() == pytest.approx(setting["loss"], rel=LOSS)
    assert temperature.grad is not None and audio.grad is not None and text.grad is not None
    assert temperature.grad.item() == pytest.approx(setting["grad_temperature"], rel=NORM)
    assert (bias is None) == ("grad_bias" not in setting)
    if bias is not None and bias.grad is not None:
        assert bias.grad.item() == pytest.approx(setting["grad_bias"], rel=NORM)
    for name, grad in (("audio", audio.grad), ("text", text.grad)):
        assert grad.norm().item() == pytest.approx(setting[f"grad_{name}_norm"], rel=NORM)
        torch.testing.assert_close(grad, tensors[f"loss_{tag}_grad_{name}"], rtol=1e-4, atol=1e-6)


def wave(golden: Golden, number: int) -> Tensor:
    if f"wave_{number}" in golden.tensors:
        return golden.tensors[f"wave_{number}"].float() / 32768
    return torch.from_numpy(soundfile.read(golden.folder / "wav" / f"wave_{number}.flac", dtype="float32")[0])


def our_name(official: str) -> str:
    return official.replace("_encoder.model.", "_encoder.").replace("init_bn.1.", "init_bn.")


def test_a_step_from_clips_and_texts(golden: Golden) -> None:
    """Clips zero-padded to the longest and one dB floor for all of them, as the released code makes its batches."""
    model = load_glap(golden.folder / "checkpoint.safetensors").model
    clips = [wave(golden, number) for number in range(3)]
    longest = max(map(len, clips))
    padded = [torch.nn.functional.pad(clip, (0, longest - len(clip))) for clip in clips]
    lengths = golden.tensors["token_lengths"].clamp(max=9)
    texts = [golden.tensors["token_ids"][row, : lengths[row]].tolist() for row in range(3)]
    temperature, bias = (torch.tensor(start, requires_grad=True) for start in (0.07, -10.0))

    def step() -> Tensor:
        audio = model.embed_audio(padded, pooling="v013", batch_floor=True)
        return compat_sigmoid_loss(audio, model.embed_text(texts), temperature, bias)

    loss = step()
    loss.backward()
    assert loss.item() == pytest.approx(golden.step["loss"], rel=LOSS)
    assert temperature.grad is not None and bias.grad is not None
    assert temperature.grad.item() == pytest.approx(golden.step["grad_temperature"], rel=NORM)
    assert bias.grad.item() == pytest.approx(golden.step["grad_bias"], rel=NORM)
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(map(our_name, golden.step["grad_norms"]))
    for name, expected in golden.step["grad_norms"].items():
        parameter = parameters[our_name(name)]
        assert parameter.grad is not None
        found = parameter.grad.norm().item()
        if name in INPUT_NORM:
            expected = difference(step, parameter, parameter.grad / found)
            assert found == pytest.approx(expected, rel=1e-3), name
        else:
            assert found == pytest.approx(expected, rel=NORM, abs=1e-6), name


@torch.no_grad()
def difference(step: Callable[[], Tensor], parameter: Tensor, direction: Tensor, by: float = 1e-2) -> float:
    """The slope of a loss along a direction, from both sides."""
    around = []
    for sign in (1, -2, 1):
        parameter += sign * by * direction
        around.append(step().item())
    return (around[0] - around[1]) / (2 * by)
