"""Time our Dasheng encoder against PyPI's `dasheng`, base size, same random weights, in alternation.

python benchmarks/encoder.py [--only fp32_one_clip …] [--rounds 7] [--threads 2] [--json] [-o FILE] [--quick]

Needs an environment that holds both; benchmarks/README.md says how to make one. Before anything is timed, both must
give the same frames. A speed-up is the median of the ratios of neighbouring runs; only ratios carry over to other
machines. Where a GPU is found, its rows follow; elsewhere they are named with the reason why they are missing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from dasheng.pretrained.pretrained import Dasheng as Reference
from dasheng.train.models import (
    AudioTransformerMAE,
    AudioTransformerMAE_Decoder,
    AudioTransformerMAE_Encoder,
)
from pairs import Row, compare, make_clips, options, run_rows, seconds, write
from torch import Tensor

from auricle.models.dasheng import Dasheng
from auricle.models.mae import MAEConfig, MaskedAutoencoder
from auricle.weights import load_dasheng

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much work a row is."""

    depth: int = 12  # encoder blocks
    decoder_depth: int = 8
    clip_s: float = 10.0
    batch: int = 32  # clips of the bf16 and GPU rows
    ragged_s: tuple[float, float, int] = (1.0, 30.0, 6)  # shortest, longest, clips
    crops: int = 8  # of a pre-training step


QUICK = Scale(depth=2, decoder_depth=1, clip_s=2.0, batch=3, ragged_s=(0.5, 12.0, 4), crops=2)


def make_reference(scale: Scale) -> Reference:
    """PyPI's network with random weights; the input norm has the statistics of the test clips."""
    torch.manual_seed(0)
    model = Reference(embed_dim=768, depth=scale.depth, num_heads=12).eval()
    with torch.no_grad():
        mel = model.front_end(torch.cat(make_clips([scale.clip_s] * 8)))
        norm = model.init_bn[1]
        norm.running_mean.copy_(mel.mean(-1))
        norm.running_var.copy_(mel.var(-1))
    return model


def take_over(reference: torch.nn.Module, dtype: str = "float32") -> Dasheng:
    """Our network with the reference's weights, the way a user would load them: from an official checkpoint file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.pt"
        torch.save({"model": reference.state_dict(), "config": {"embed_dim": 768, "num_heads": 12}}, file)
        return load_dasheng(file, dtype=dtype)


def cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Smallest cosine of two corresponding frames."""
    return min(
        F.cosine_similarity(a.double(), b.double(), dim=-1).min().item() for a, b in zip(first, second, strict=True)
    )


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Largest absolute difference of two corresponding values."""
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


@torch.inference_mode()
def fp32_one_clip(scale: Scale, rounds: int) -> Row:
    """One clip, float32."""
    reference = make_reference(scale)
    ours, clips = take_over(reference), make_clips([scale.clip_s])
    found = difference(ours.encode(clips), reference(clips[0][None]))
    assert found < 1e-4, f"the networks disagree by {found}"
    return compare(
        f"fp32, one clip of {scale.clip_s:g} s",
        lambda: ours.encode(clips),
        lambda: reference(clips[0][None]),
        3 * rounds,
        target=1.2,
        max_abs_difference=found,
    )


@torch.inference_mode()
def fp32_ragged(scale: Scale, rounds: int) -> Row:
    """Clips of evenly spread lengths, float32; the reference pads to the longest and gets the lengths.

    Agreement is checked clip by clip: padding changes the reference's frames at each clip's end.
    """
    reference = make_reference(scale)
    ours = take_over(reference)
    clips = make_clips(torch.linspace(*scale.ragged_s).tolist())
    clips = [clips[i] for i in torch.randperm(len(clips), generator=torch.Generator().manual_seed(1))]
    lengths = torch.tensor([len(clip) for clip in clips])
    found = difference(ours.encode(clips), [reference(clip[None])[0] for clip in clips])
    assert found < 1e-4, f"the networks disagree by {found}"
    return compare(
        f"fp32, {len(clips)} clips of {scale.ragged_s[0]:g}-{scale.ragged_s[1]:g} s",
        lambda: ours.encode(clips),
        lambda: reference(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), x_length=lengths),
        rounds,
        target=2.0,
        max_abs_difference=found,
        padding_of_the_reference=round(1 - lengths.float().mean().item() / lengths.max().item(), 3),
    )


@torch.inference_mode()
def bf16_batch(scale: Scale, rounds: int) -> Row:
    """A batch of equal clips, ours in bfloat16, the reference in float32."""
    reference = make_reference(scale)
    exact, ours = take_over(reference), take_over(reference, "bfloat16")
    clips = make_clips([scale.clip_s] * scale.batch)
    frames = exact.encode(clips[:8])
    found = difference(frames, reference(torch.stack(clips[:8])))
    assert found < 1e-4, f"the networks disagree by {found}"
    closeness = cosine(ours.encode(clips[:8]), frames)
    assert closeness >= 0.999, f"bfloat16 is {closeness} from float32"
    return compare(
        f"bf16 against the reference's fp32, {scale.batch} clips of {scale.clip_s:g} s",
        lambda: ours.encode(clips),
        lambda: reference(torch.stack(clips)),
        rounds,
        target=3.0,
        max_abs_difference=found,
        min_frame_cosine=round(closeness, 6),
    )


def mae_step(scale: Scale, rounds: int) -> Row:
    """One pre-training step, float32: loss, gradients, AdamW (the same fused one for both)."""
    reference, ours = make_autoencoders(scale)
    crops = torch.stack(make_clips([scale.clip_s] * scale.crops))
    steps = []
    for model, loss_of in (
        (ours, lambda: ours(crops).loss),
        (reference, lambda: reference(crops, mask_ratio=0.75, return_loss=True)),
    ):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        steps.append(lambda optimizer=optimizer, loss_of=loss_of: _step(optimizer, loss_of))
    losses = []
    for step in steps:
        torch.manual_seed(2)  # the same mask for both
        losses.append(step())
    found = abs(losses[0] - losses[1]) / losses[1]
    assert found < 1e-5, f"the losses {losses} disagree"
    slopes = gradient_difference(ours, reference)
    assert slopes < 1e-3, f"the gradients disagree by {slopes}"
    return compare(
        f"fp32 pre-training step, {scale.crops} crops of {scale.clip_s:g} s",
        *steps,
        rounds,
        target=1.5,
        relative_difference_of_loss=found,
        relative_difference_of_gradients=slopes,
    )


def gradient_difference(ours: MaskedAutoencoder, reference: AudioTransformerMAE) -> float:
    """Largest difference of a parameter's two gradients, relative to their norm.

    The input norm is left out: on a CPU the reference's gradient of it is wrong.
    """
    theirs = dict(reference.named_parameters())
    worst = 0.0
    for name, parameter in ours.named_parameters():
        if "init_bn" not in name:
            expected = theirs[name].grad
            assert parameter.grad is not None and expected is not None
            worst = max(worst, ((parameter.grad - expected).norm() / expected.norm()).item())
    return worst


def make_autoencoders(scale: Scale) -> tuple[AudioTransformerMAE, MaskedAutoencoder]:
    """The reference's autoencoder (its base geometry) and ours with the same weights."""
    torch.manual_seed(0)
    encoder = AudioTransformerMAE_Encoder(
        patch_size=(64, 4), patch_stride=(64, 4), embed_dim=768, depth=scale.depth, num_heads=12, group_masking=2
    )
    decoder = AudioTransformerMAE_Decoder(
        input_dim=768, outputdim=256, embed_dim=512, depth=scale.decoder_depth, num_heads=16, num_patches=252
    )
    ours = MaskedAutoencoder(take_over(encoder), MAEConfig(depth=scale.decoder_depth))
    ours.decoder.load_state_dict(decoder.state_dict())
    return AudioTransformerMAE(encoder, decoder).train(), ours.train()


def _step(optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor]) -> float:
    optimizer.zero_grad()
    loss = loss_of()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def gpu(scale: Scale, rounds: int, device: str = "cuda") -> list[Row]:
    """The batch of `bf16_batch` on a GPU: ours in three ways, each against the reference in float32."""
    reference = make_reference(scale)
    clips = [clip.to(device) for clip in make_clips([scale.clip_s] * scale.batch)]
    ways = {"fp32": take_over(reference), "bf16": take_over(reference, "bfloat16")}
    ways["bf16, compiled"] = take_over(reference, "bfloat16")
    for block in ways["bf16, compiled"].blocks:
        block.compile()
    reference.to(device)
    rows = []
    for name, ours in ways.items():
        ours.to(device)
        dtype = torch.bfloat16 if "bf16" in name else torch.float32
        closeness = cosine(ours.encode(clips), reference(torch.stack(clips)))
        assert closeness >= 0.999, f"{name} is {closeness} from the reference"
        row = compare(
            f"GPU {name} against the reference's fp32, {scale.batch} clips of {scale.clip_s:g} s",
            lambda ours=ours: _finished(device, ours.encode(clips)),
            lambda: _finished(device, reference(torch.stack(clips))),
            rounds,
            min_frame_cosine=round(closeness, 6),
        )
        speed, peak = count_flops(ours, clips) / row["ours_s"] / 1e12, matmul_peak(device, dtype)
        rows.append(
            {**row, "tflops": round(speed, 2), "peak_tflops": round(peak, 1), "of_peak": round(speed / peak, 3)}
        )
    return rows


def _finished(device: str, result: T) -> T:
    if device == "cuda":
        torch.cuda.synchronize()
    return result


def count_flops(model: Dasheng, clips: Sequence[Tensor]) -> float:
    """Floating-point operations of the matrix products of the blocks, for clips of one chunk."""
    config = model.config
    weights = sum(p.numel() for name, p in model.blocks.named_parameters() if name.endswith("weight") and p.ndim == 2)
    counts = [(1 + len(clip) // 160) // 4 for clip in clips]
    return sum(2 * n * weights + 4 * n * n * config.embed_dim * config.depth for n in counts)


def matmul_peak(device: str, dtype: torch.dtype, size: int = 8192) -> float:
    """Measured TFLOP/s of one large matrix product."""
    size = size if device == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    _finished(device, a @ b)
    times = [seconds(lambda: _finished(device, a @ b)) for _ in range(10)]
    return 2 * size**3 / min(times) / 1e12


ROWS = {row.__name__: row for row in (fp32_one_clip, fp32_ragged, bf16_batch, mae_step)}


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=7, threads=2)
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "gpu"], help="rows to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="small networks, one round: does it run at all?")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", module="torchaudio")
    scale, rounds = (QUICK, 1) if args.quick else (Scale(), args.rounds)
    rows = {name: partial(row, scale, rounds) for name, row in ROWS.items()}
    write(run_rows(args, rows, partial(gpu, scale, rounds)), args)


if __name__ == "__main__":
    main()
