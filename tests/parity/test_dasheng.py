"""Dasheng equals the reference encoder and pre-training model: every kind of golden tensor, at its own tolerance."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.models.dasheng import Dasheng, to_patches
from auricle.models.mae import MAEConfig, MAEOutput, MaskedAutoencoder, sample_mask
from auricle.weights import load_dasheng

if TYPE_CHECKING:
    from conftest import Golden

SYSTEM = "dasheng"
CASES = ["len_0.3s", "len_1s", "len_3.97s", "len_10.08s_minus1", "len_10.08s", "len_10.5s", "len_25s"]
ENCODER = PRED = 1e-4  # absolute
LOSS = 1e-5  # relative
GRADIENT = ADAMW = 1e-4  # relative
NORM_GRADIENT = 1e-3  # relative, of a gradient's norm
# The reference's gradient of the input norm is wrong: see tests/known_issues/test_input_norm_gradient.py.
WRONG = {"encoder.init_bn.1.weight", "encoder.init_bn.1.bias"}


@pytest.fixture(scope="module")
def encoder(golden: "Golden") -> Dasheng:
    return load_dasheng(golden.folder / "weights.pt")


@pytest.fixture
def mae(golden: "Golden") -> MaskedAutoencoder:
    model = MaskedAutoencoder(load_dasheng(golden.folder / "weights.pt"), MAEConfig(embed_dim=64, depth=2, num_heads=4))
    model.decoder.load_state_dict(load_file(golden.folder / "mae_decoder.safetensors"))
    return model.eval()


@pytest.fixture(autouse=True)
def _inference(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.inference_mode("mae" not in request.fixturenames):
        yield


def clip(golden: "Golden", case: str) -> Tensor:
    if case not in golden.facts["base_offsets"]:
        pytest.skip("only in the whole set")
    samples = {"len_0.3s": 4800, "len_1s": 16_000, "len_3.97s": 63_520, "len_10.08s_minus1": 161_279}
    samples |= {"len_10.08s": 161_280, "len_10.5s": 168_000, "len_25s": 400_000}
    start = golden.facts["base_offsets"][case]
    return golden["wave.base"][start : start + samples[case]]


def check_mel(golden: "Golden", name: str, ours: Tensor) -> None:
    error = golden.error(name, ours, dim=-1)
    loud = golden[name] > -95.0
    golden.note(name, error[loud].max().item())
    assert error[loud].max() <= 1e-3
    assert error.max() <= 5e-2


@pytest.mark.parametrize("case", ["len_0.3s", "len_1s", "len_3.97s", "len_25s"])
def test_log_mel(golden: "Golden", encoder: Dasheng, case: str) -> None:
    check_mel(golden, f"{case}.logmel", encoder.front_end(clip(golden, case)))


def test_log_mel_floor_of_a_clip_and_of_a_batch(golden: "Golden", encoder: Dasheng) -> None:
    waves = golden["wave.batch2"]
    check_mel(golden, "batch2.logmel_alone", encoder.front_end(waves))
    check_mel(golden, "batch2.logmel_alone", torch.stack(encoder.mel(list(waves))))
    check_mel(golden, "batch2.logmel", encoder.front_end(waves, batch_floor=True))


def test_stages(golden: "Golden", encoder: Dasheng) -> None:
    wave = golden["wave.base"][:16_000]
    mel = encoder.init_bn(encoder.front_end(wave))
    golden.check("stage.bn_mel", mel[:, None], ENCODER)
    tokens = encoder.patch_embed(to_patches(mel)[0])
    golden.check("stage.patch_embed", tokens.t()[None, :, None], ENCODER)
    states = encoder.encode_layers([wave], [0, 1, 2])
    for layer in range(3):
        golden.check(f"stage.block{layer}", states[layer][0][None], ENCODER)
    golden.check("stage.final", states[3][0][None], ENCODER)


@pytest.mark.parametrize("case", CASES)
def test_encoder(golden: "Golden", encoder: Dasheng, case: str) -> None:
    wave = clip(golden, case)
    golden.check(f"{case}.encoder_v009", encoder.encode([wave])[0][None], ENCODER)
    golden.check(f"{case}.encoder_v009", encoder(wave[None]), ENCODER)


def test_ragged_batch_equals_each_clip_alone(golden: "Golden", encoder: Dasheng) -> None:
    cases = [case for case in CASES if case in golden.facts["base_offsets"]]
    assert len(cases) >= 6
    for case, frames in zip(cases, encoder.encode([clip(golden, case) for case in cases]), strict=True):
        golden.check(f"{case}.encoder_v009", frames[None], ENCODER)


@pytest.mark.parametrize("case", ["len_10.5s", "len_25s"])
def test_older_rule_for_long_clips(golden: "Golden", case: str) -> None:
    wave = clip(golden, case)
    now = load_dasheng(golden.folder / "weights.pt")
    older = Dasheng(replace(now.config, long_clips="v004")).eval()
    older.load_state_dict(now.state_dict())
    golden.check(f"{case}.encoder_v004", older.encode([wave])[0][None], ENCODER)
    assert golden.error(f"{case}.encoder_v004", now.encode([wave])[0][None], dim=-1).max() > 1.0


def test_reference_batches(golden: "Golden", encoder: Dasheng) -> None:
    waves = golden["wave.batch2"]
    golden.check("batch2.encoder_v009", encoder(waves, batch_floor=True), ENCODER)
    lengths = golden["batch2.x_length"]
    ours = encoder(waves, lengths, batch_floor=True)
    error = golden.error("batch2.encoder_v009_xlength", ours, dim=-1)
    for row, length in enumerate(lengths.tolist()):
        valid = error[row, : length // 640].max().item()
        golden.note("batch2.encoder_v009_xlength", valid)
        assert valid <= ENCODER


def test_reference_batch_of_long_clips(golden: "Golden", encoder: Dasheng) -> None:
    if "batch2_10.5s.encoder_v009" not in golden:
        pytest.skip("only in the whole set")
    base = golden["wave.base"]
    waves = torch.stack([base[:168_000], base[200_000:368_000]])
    golden.check("batch2_10.5s.encoder_v009", encoder(waves, batch_floor=True), ENCODER)


@pytest.mark.parametrize(
    ("name", "length", "group", "ratio"),
    [("L252_g2", 252, 2, 0.75), ("L250_g2", 250, 2, 0.75), ("L252_g4", 252, 4, 0.6), ("L101_g1", 101, 1, 0.75)],
)
def test_masks(golden: "Golden", name: str, length: int, group: int, ratio: float) -> None:
    mask = sample_mask(golden[f"mask.{name}.noise"], length, ratio=ratio, group=group)
    assert torch.equal(mask.kept, golden[f"mask.{name}.kept"].long())
    assert torch.equal(mask.hidden.byte(), golden[f"mask.{name}.mask"])
    assert torch.equal(mask.restore, golden[f"mask.{name}.ids_restore"].long())


def run(mae: MaskedAutoencoder, golden: "Golden") -> MAEOutput:
    return mae(golden["wave.mae"], golden["mae.noise"])


def check_relative(golden: "Golden", name: str, ours: Tensor, tolerance: float) -> None:
    worst = (golden.error(name, ours, dim=-1).max() / golden[name].abs().max()).item()
    golden.note(f"{name} (relative)", worst)
    assert worst <= tolerance, f"{name}: off by {worst:.2e}"


def test_mae_forward(golden: "Golden", mae: MaskedAutoencoder) -> None:
    out = run(mae, golden)
    assert torch.equal(out.mask.hidden, golden["mae.mask"])
    assert torch.equal(out.mask.restore, golden["mae.ids_restore"].long())
    golden.check("mae.latent_eval", out.latent, ENCODER)
    golden.check("mae.pred_eval", out.prediction, PRED)
    golden.check("mae.target", out.target, 1e-3)
    check_relative(golden, "mae.loss_eval", out.loss, LOSS)


@pytest.mark.parametrize(
    ("target", "name"), [("none", "mae.loss_eval_no_norm_pix"), ("global", "mae.loss_eval_global")]
)
def test_mae_other_targets(golden: "Golden", mae: MaskedAutoencoder, target: str, name: str) -> None:
    mae.config = replace(mae.config, target=target)
    check_relative(golden, name, run(mae, golden).loss, LOSS)


def test_mae_training_step(golden: "Golden", mae: MaskedAutoencoder) -> None:
    loss = run(mae.train(), golden).loss
    loss.backward()
    check_relative(golden, "mae.loss_train", loss, LOSS)
    check_relative(golden, "mae.train.running_mean_after", mae.encoder.init_bn.running_mean, LOSS)
    check_relative(golden, "mae.train.running_var_after", mae.encoder.init_bn.running_var, LOSS)
    ours = {name.replace(".init_bn.", ".init_bn.1."): p.grad for name, p in mae.named_parameters()}
    norms = golden.facts["grad_norms"]
    assert ours.keys() == norms.keys()
    for name in norms.keys() - WRONG:
        off = abs(ours[name].norm().item() / norms[name] - 1)
        golden.note("mae gradient norms (relative)", off)
        assert off <= NORM_GRADIENT, name
    stored = [k.removeprefix("mae.grad.") for k in golden.tensors if k.startswith("mae.grad.")]
    assert len(stored) == 8
    for name in sorted(set(stored) - WRONG):
        check_relative(golden, f"mae.grad.{name}", ours[name], GRADIENT)


def test_mae_four_adamw_steps(golden: "Golden", mae: MaskedAutoencoder) -> None:
    mae.train()
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-4, weight_decay=0.01)
    for step, expected in enumerate(golden["mae.adamw_losses"].tolist()):
        loss = run(mae, golden).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        off = abs(loss.item() / expected - 1)
        golden.note("mae.adamw_losses (relative)", off)
        assert off <= ADAMW, f"step {step}: off by {off:.2e}"


def test_bfloat16_keeps_the_direction(golden: "Golden") -> None:
    encoder = load_dasheng(golden.folder / "weights.pt", dtype="bfloat16")
    assert encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    for case in ("len_0.3s", "len_1s", "len_10.5s"):
        frames = encoder.encode([clip(golden, case)])[0].float()
        cosine = torch.cosine_similarity(frames, golden[f"{case}.encoder_v009"][0], dim=-1)
        golden.note("bfloat16 encoder, 1 - cosine", 1 - cosine.min().item())
        assert cosine.min() >= 0.999


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads(golden: "Golden", encoder: Dasheng, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        golden.check("len_3.97s.encoder_v009", encoder.encode([clip(golden, "len_3.97s")])[0][None], ENCODER)
    finally:
        torch.set_num_threads(before)
