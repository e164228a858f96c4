"""Objectives ``denoise`` and ``vocode``: losses, gradients, updates, resumption, what is exported."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.errors import ConfigError
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.train.config import RunConfig
from auricle.train.denoise import DenoiseObjective
from auricle.train.loop import run
from auricle.train.objective import Objective, build_objective
from auricle.train.vocode import VocodeObjective
from auricle.weights import read_card, save_dasheng
from auricle.weights.vocoders.denoiser import load_denoiser

from .conftest import Configure, curve, log_of, losses_of
from .test_loop import WORKER

FIXTURE = Path(__file__).parents[1] / "fixtures" / "denoiser"
VOCODE = {
    "backbone_dim": 16,
    "backbone_hidden_dim": 24,
    "backbone_layers": 2,
    "crop_s": 0.8,
    "window_s": 0.2,
    "discriminator_channels": 2,
}
ADVERSARIAL = {"beta1": 0.8, "beta2": 0.9, "clip_norm": 1e3}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("encoder")
    return str(save_dasheng(folder, Dasheng(DashengConfig(embed_dim=32, depth=1, num_heads=2))))


@pytest.fixture
def vocode(configure: Configure, encoder: str) -> Any:
    """A configuration of the objective, changed."""

    def make(out: str = "vocoder", vocode: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
        own = {**VOCODE, "encoder": encoder, **(vocode or {})}
        return configure("vocode", out, **{**ADVERSARIAL, "batch_size": 2, **changes}, vocode=own)

    return make


@pytest.fixture(scope="module")
def vocoder(shards: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the first run of the recipe makes."""
    folder = tmp_path_factory.mktemp("vocoder")
    config = RunConfig(objective="vocode", data=[str(shards)], out=str(folder), precision="fp32")
    for name, value in {**VOCODE, "encoder": encoder}.items():
        setattr(config.vocode, name, value)
    torch.manual_seed(2)
    VocodeObjective(config).export(folder / "model")
    return str(folder / "model")


@pytest.fixture
def denoise(configure: Configure, vocoder: str) -> Any:
    def make(out: str = "denoiser", denoise: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
        own = {"vocoder": vocoder, "num_layers": 1, "num_heads": 2, "crop_s": 0.8, **(denoise or {})}
        return configure("denoise", out, **{"batch_size": 2, **changes}, denoise=own)

    return make


def gradients(objective: Objective) -> dict[str, Tensor]:
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("distance", ["l1", "mse"])
def test_the_distance_of_frames_is_the_published_one(denoise: Any, distance: str) -> None:
    """Against the released code: losses and the gradient of the squared one."""
    golden = json.loads((FIXTURE / "golden.json").read_text())["train"]
    tensors = load_file(FIXTURE / "golden.safetensors")
    model = FIXTURE.parent / "denoiser"
    objective = DenoiseObjective(denoise(denoise={"init": str(model), "vocoder": None, "distance": distance}))
    import soundfile

    clean = torch.from_numpy(soundfile.read(FIXTURE / "wave_1.flac", dtype="float32")[0])
    loss = objective(noisy=tensors["train_noisy"][None], clean=clean[None])
    assert loss.item() == pytest.approx(golden[distance], rel=1e-4)
    if distance == "mse":
        loss.backward()
        found = gradients(objective)
        assert {name.removeprefix("network.denoise_encoder.") for name in found} == golden["mse_grad_norms"].keys()
        for name, norm in golden["mse_grad_norms"].items():
            own = found[f"network.denoise_encoder.{name}"].norm().item()
            assert own == pytest.approx(norm, rel=1e-3, abs=1e-6), name


def test_only_the_denoise_encoder_learns(denoise: Any, vocoder: str) -> None:
    config = denoise(steps=4)
    folder = run(config)
    assert folder is not None
    before, after = load_denoiser(vocoder).model, load_denoiser(folder).model
    for part in ("encoder", "backbone", "head"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert all(torch.equal(value, new[key]) for key, value in old.items()), part
    torch.manual_seed(config.seed)
    start = DenoiseObjective(config).network.denoise_encoder.state_dict()
    moved = after.denoise_encoder.state_dict()
    assert not any(torch.equal(value, moved[key]) for key, value in start.items() if value.ndim > 1)
    assert all(record["noisy_distance"] > 0 for record in log_of(config))
    with torch.no_grad():
        assert after([torch.randn(16_000) * 0.1])[0].shape == (16_000,)
    assert "limits" not in read_card(folder).config and not read_card(folder).limits


def test_the_distance_falls(denoise: Any) -> None:
    config = denoise(steps=60, batch_size=4, lr=3e-3, denoise={"degrade": {"room_share": 0.0, "codec_share": 0.0}})
    run(config)
    losses = [record["loss"] for record in log_of(config)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])


def test_each_update_moves_its_own_part(vocode: Any) -> None:
    torch.manual_seed(0)
    objective = VocodeObjective(vocode()).train()
    inputs = objective.make_batch(0, 0, 2).inputs
    for update in objective.updates(0):
        objective.zero_grad(set_to_none=True)
        objective(**inputs, **update).backward()
        names = gradients(objective).keys()
        starts = ("discriminators.",) if update["part"] == "discriminators" else ("network.backbone.", "network.head.")
        expected = {name for name, p in objective.named_parameters() if name.startswith(starts)}
        assert names == expected
        assert all(p.requires_grad for p in objective.discriminators.parameters())


def reference_losses(objective: VocodeObjective, recorded: Tensor, made: Tensor) -> dict[str, Tensor]:
    """Vocos's losses, written out over lists of discriminators."""
    weight = objective.config.vocode.resolution_weight
    total = {"discriminators": torch.zeros(()), "vocoder": torch.zeros(())}
    for group, factor in ((objective.discriminators.periods, 1.0), (objective.discriminators.resolutions, weight)):
        for each in group:
            true, false, fixed = each(recorded), each(made), each(made.detach())
            real, fake = true.scores.flatten(), fixed.scores.flatten()
            hinge = sum(max(torch.zeros(()), 1 - value) for value in real) / len(real)
            hinge = hinge + sum(max(torch.zeros(()), 1 + value) for value in fake) / len(fake)
            total["discriminators"] = total["discriminators"] + factor * hinge / len(group)
            fooled = sum(max(torch.zeros(()), 1 - value) for value in false.scores.flatten()) / len(fake)
            matched = sum(
                (a.detach() - b).abs().sum() / a.numel() for a, b in zip(true.layers, false.layers, strict=True)
            )
            total["vocoder"] = total["vocoder"] + factor * (fooled + matched) / len(group)
    mel = (objective.mel_loss.mel(recorded) - objective.mel_loss.mel(made)).abs().mean()
    return {**total, "vocoder": total["vocoder"] + objective.config.vocode.mel_weight * mel}


def test_losses_and_gradients_are_those_of_the_formulas(vocode: Any) -> None:
    torch.manual_seed(0)
    objective = VocodeObjective(vocode(vocode={"window_s": 0.08, "crop_s": 0.4})).train()
    inputs = objective.make_batch(0, 0, 1).inputs
    waveform, start = inputs["waveform"], int(inputs["start"][0])
    with torch.no_grad():
        frames = objective.network.encoder.encode([waveform[0]])[0]
    for part in ("discriminators", "vocoder"):
        made = objective.network.vocode(frames[None, start : start + 2])
        recorded = waveform[:, 640 * start : 640 * (start + 2)]
        objective.zero_grad(set_to_none=True)
        expected = reference_losses(objective, recorded, made)[part]
        expected.backward()
        prefix = "discriminators." if part == "discriminators" else "network."
        wanted = {name: grad for name, grad in gradients(objective).items() if name.startswith(prefix)}
        objective.zero_grad(set_to_none=True)
        loss = objective(**inputs, part=part)
        loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
        found = gradients(objective)
        assert found.keys() == wanted.keys()
        for name, grad in found.items():
            torch.testing.assert_close(
                grad, wanted[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_the_mel_is_that_of_the_definition(vocode: Any) -> None:
    objective = VocodeObjective(vocode())
    rng = np.random.default_rng(0)
    clip = (0.1 * rng.standard_normal(4_000)).astype(np.float32)
    padded = np.pad(clip, 512, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[i : i + 1024] * hann for i in range(0, len(padded) - 1023, 256)])
    magnitude = np.abs(np.fft.rfft(frames))
    hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
    bins = np.arange(513) * 16_000 / 1024
    filters = np.stack(
        [np.interp(bins, hz[i : i + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0) for i in range(80)], axis=1
    )
    expected = np.log(np.maximum(magnitude @ filters, 1e-7))
    found = objective.mel_loss.mel(torch.from_numpy(clip)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_silence_has_finite_gradients(vocode: Any) -> None:
    torch.manual_seed(0)
    objective = VocodeObjective(vocode()).train()
    inputs = {"waveform": torch.zeros(1, 12_800), "start": torch.zeros(1, dtype=torch.long)}
    for update in objective.updates(0):
        objective.zero_grad(set_to_none=True)
        loss = objective(**inputs, **update)
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(grad).all() for grad in gradients(objective).values())


def test_one_optimiser_is_as_good_as_two(vocode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's AdamW against one for each part, step by step."""
    config = vocode(steps=3, weight_decay=0.0)
    folder = run(config)
    assert folder is not None
    torch.manual_seed(config.seed)
    objective = build_objective(config).train()
    from auricle.train.schedule import learning_rate

    parts = {
        "discriminators": list(objective.discriminators.parameters()),
        "vocoder": [p for name, p in objective.named_parameters() if name.startswith(("network.b", "network.h"))],
    }
    settings = {"betas": (0.8, 0.9), "weight_decay": 0.0, "foreach": True}
    optimizers = {name: torch.optim.AdamW(values, **settings) for name, values in parts.items()}
    for step in range(3):
        inputs = objective.make_batch(step, 0, 2).inputs
        rate = learning_rate(step, peak=config.lr, warmup=config.warmup, total=3, floor=config.lr_floor)
        for name, optimizer in optimizers.items():
            objective.zero_grad(set_to_none=True)
            objective(**inputs, part=name).backward()
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
    ours = load_denoiser(folder).model.backbone.state_dict()
    for name, value in objective.network.backbone.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_the_mel_loss_comes_first(vocode: Any) -> None:
    config = vocode(steps=3, vocode={"mel_only_steps": 2})
    run(config)
    assert ["discriminator_loss" in record for record in log_of(config)] == [False, False, True]
    assert all(record["mel_loss"] > 0 for record in log_of(config))
    assert log_of(config)[0]["loss"] == pytest.approx(45 * log_of(config)[0]["mel_loss"], rel=1e-4)


@pytest.mark.parametrize("objective", ["vocode", "denoise"])
def test_a_stopped_run_has_the_same_curve_and_weights(objective: str, request: pytest.FixtureRequest) -> None:
    make = request.getfixturevalue(objective)
    changes = {"vocode": {"vocode": {"mel_only_steps": 1}}, "denoise": {}}[objective]
    whole, parts = make("whole", steps=5, **changes), make("parts", steps=5, stop_after=2, **changes)
    done = run(whole)
    assert run(parts) is None and run(parts) is None
    again = run(parts)
    assert done is not None and again is not None and curve(parts) == curve(whole)
    first, second = (load_file(folder / "model.safetensors") for folder in (done, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_micro_batches_and_processes_give_the_same_curve(
    vocode: Any, denoise: Any, tmp_path: Path, warm_python: str
) -> None:
    """Each loss is a mean over clips, so that their number in a micro-batch does not matter."""
    alone = {name: losses_of(make(name, steps=3, batch_size=4)) for name, make in (("v", vocode), ("d", denoise))}
    for name, make in (("v", vocode), ("d", denoise)):
        pieces = losses_of(make(f"{name}-pieces", steps=3, batch_size=4, accumulate=2))
        assert pieces == pytest.approx(alone[name], rel=1e-4)
    pairs = {name: make(f"{name}-pair", steps=3, batch_size=4) for name, make in (("v", vocode), ("d", denoise))}
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch = [warm_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environment = {**os.environ, "PYTHON_EXEC": warm_python, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    arguments = [*launch, *(str(tmp_path / f"{name}-pair.yaml") for name in pairs)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, config in pairs.items():
        assert [record["loss"] for record in log_of(config)] == pytest.approx(alone[name], rel=1e-4)


def test_batches_are_made_of_their_places_alone(vocode: Any, denoise: Any) -> None:
    for objective in (build_objective(vocode()), build_objective(denoise())):
        whole = objective.make_batch(3, 0, 4)
        halves = [objective.make_batch(3, start, start + 2) for start in (0, 2)]
        for name, value in whole.inputs.items():
            assert torch.equal(value, torch.cat([half.inputs[name] for half in halves]))
        assert whole.weight == 4 and whole.audio_s == pytest.approx(sum(half.audio_s for half in halves))


def test_a_vocoder_says_that_it_is_no_denoiser_yet(vocoder: str, vocode: Any) -> None:
    assert "not trained" in read_card(vocoder).limits[0]
    again = VocodeObjective(vocode(vocode={"init": vocoder}))
    stored = load_denoiser(vocoder).model.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in again.network.state_dict().items())


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("vocode", {"crop_s": 0.81}, r"vocode.crop_s is 0.81; expected a positive multiple of 0.04 s"),
        ("vocode", {"window_s": 0.04}, r"window_s is 0.04, expected at least 0.064"),
        ("vocode", {"window_s": 1.6}, r"at most crop_s, 0.8"),
        ("denoise", {"crop_s": 0.0}, r"denoise.crop_s is 0.0"),
        ("denoise", {"vocoder": None}, r"neither a vocoder nor a denoiser to start from; set denoise.vocoder"),
        ("denoise", {"degrade": {"loudness": 1}}, r"denoise.degrade has no setting loudness; known: backgrounds"),
        ("denoise", {"degrade": {"codec_share": 2}}, r"codec_share is 2"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    objective: str, changes: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_objective(request.getfixturevalue(objective)(**{objective: changes}))
