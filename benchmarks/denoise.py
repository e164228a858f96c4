"""Time `auricle denoise` against a plain forward pass of the released denoiser, same random weights, in alternation.

python benchmarks/denoise.py [--seconds 10 60] [--rounds 5] [--threads 2] [--json] [-o FILE] [--quick]

The released package is on no registry. `plain_forward` below is its forward pass in torch's own layers, written from
the description of the network: whole file at once, with torch's fused attention and FFT, and no part of Auricle. Before
anything is timed, our network must give the same waveform. Of ours all is timed that the command does with a decoded
file: windows with their overlaps, the comparison of loudness, and the rating of each second for speech in the receipt;
of the reference the forward pass alone. A speed-up is the median of the ratios of neighbouring runs; only ratios carry
over to other machines.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from pairs import compare, machine, make_clips, options, write
from torch import Tensor

from auricle.denoise import SpeechDenoiser
from auricle.models.dasheng import DashengConfig
from auricle.models.denoiser import Denoiser, DenoiserConfig

TOLERANCE = 1e-4  # of the waveform, relative to its largest value
QUICK = DenoiserConfig(encoder=DashengConfig(depth=2), num_layers=1, backbone_layers=2)


def plain_forward(state: dict[str, Tensor], config: DenoiserConfig, mel_filters: Tensor, waveform: Tensor) -> Tensor:
    """A clip (N,) → (640 · T,): log-mel, chunks of 252 tokens through the encoder, the rest on the whole clip."""
    window = torch.hann_window(512)
    spectrum = torch.stft(waveform, 512, 160, 512, window, center=True, return_complex=True).abs().square()
    decibel = 10 * torch.log10((mel_filters.t() @ spectrum).clamp(min=1e-10))
    decibel = torch.maximum(decibel, decibel.max() - 120)
    bn = {key: state[f"encoder.init_bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    mel = F.batch_norm(decibel[None], *bn.values())[0]
    count = mel.shape[1] // 4
    chunks = []
    positions = (state["encoder.time_pos_embed"] + state["encoder.freq_pos_embed"])[0, :, 0].t()
    weight, bias = state["encoder.patch_embed.proj.weight"], state["encoder.patch_embed.proj.bias"]
    for chunk in mel[:, : count * 4].split(1008, dim=1):
        tokens = F.conv2d(chunk[None, None], weight, bias, stride=(64, 4))[0, :, 0].t()
        tokens = tokens + positions[: len(tokens)]
        for block in range(config.encoder.depth):
            tokens = _block(state, f"encoder.blocks.{block}.", tokens, config.encoder.num_heads, 1e-6)
        chunks.append(_norm(state, "encoder.norm.", tokens, 1e-6))
    tokens = torch.cat(chunks)
    for block in range(config.num_layers):
        tokens = _block(state, f"denoise_encoder.blocks.{block}.", tokens, config.num_heads, 1e-5)
    frames = _norm(state, "denoise_encoder.norm.", tokens, 1e-5).t()[None]
    hidden = F.conv1d(frames, state["backbone.embed.weight"], state["backbone.embed.bias"], padding=3)
    hidden = _norm(state, "backbone.norm.", hidden.transpose(1, 2), 1e-6).transpose(1, 2)
    for layer in range(config.backbone_layers):
        hidden = _convnext(state, f"backbone.convnext.{layer}.", hidden)
    out = _linear(state, "head.out.", _norm(state, "backbone.final_layer_norm.", hidden.transpose(1, 2), 1e-6)[0])
    magnitude, phase = out.t().chunk(2)
    spectrum = magnitude.exp().clip(max=1e2) * torch.complex(phase.cos(), phase.sin())
    return _inverse(spectrum, state["head.istft.window"])


def _linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}weight"], state[f"{name}bias"])


def _norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}weight"], state[f"{name}bias"], eps)


def _block(state: dict[str, Tensor], name: str, x: Tensor, heads: int, eps: float) -> Tensor:
    length, width = x.shape
    qkv = _linear(state, f"{name}attn.qkv.", _norm(state, f"{name}norm1.", x, eps))
    query, key, value = qkv.view(1, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).reshape(length, width)
    x = x + _linear(state, f"{name}attn.proj.", mixed)
    hidden = F.gelu(_linear(state, f"{name}mlp.fc1.", _norm(state, f"{name}norm2.", x, eps)))
    return x + _linear(state, f"{name}mlp.fc2.", hidden)


def _convnext(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}dwconv.weight"], state[f"{name}dwconv.bias"]
    mixed = _norm(state, f"{name}norm.", F.conv1d(x, weight, bias, padding=3, groups=len(weight)).transpose(1, 2), 1e-6)
    made = _linear(state, f"{name}pwconv2.", F.gelu(_linear(state, f"{name}pwconv1.", mixed)))
    return x + (state[f"{name}gamma"] * made).transpose(1, 2)


def _inverse(spectrum: Tensor, window: Tensor) -> Tensor:
    """(641, T) → (640 · T,) by the FFT and `fold`."""
    frames = torch.fft.irfft(spectrum, 1280, dim=0) * window[:, None]
    count = frames.shape[1]
    size = {"output_size": (1, 640 * (count - 1) + 1280), "kernel_size": (1, 1280), "stride": (1, 640)}
    waveform = F.fold(frames[None], **size).flatten()[320:-320]
    envelope = F.fold(window.square()[None, :, None].expand(1, -1, count), **size).flatten()[320:-320]
    return waveform / envelope


def main() -> None:
    """Check, time and print."""
    parser = options(__doc__, rounds=5, threads=2)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0], help="lengths of the clips")
    parser.add_argument("--quick", action="store_true", help="a network of few layers, to see whether all of it runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = QUICK if args.quick else DenoiserConfig()
    network = Denoiser(config).eval().requires_grad_(False)
    network.encoder.init_bn.running_mean.fill_(-30.0)
    network.encoder.init_bn.running_var.fill_(400.0)
    denoiser = SpeechDenoiser(network, "random", {})
    reference = partial(plain_forward, network.state_dict(), config, network.encoder.front_end.filterbank)
    rows = []
    with torch.inference_mode():
        (check,) = make_clips([12.0])
        ours, theirs = network([check])[0], reference(check)
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        assert error < TOLERANCE, f"the waveforms differ by {error:.1e}"
        for clip, seconds in zip(make_clips(args.seconds), args.seconds, strict=True):
            row = compare(
                f"file_{seconds:g}s",
                partial(denoiser.denoise, clip.numpy()),
                partial(reference, clip),
                args.rounds,
                audio_s=seconds,
            )
            row |= {f"{who}_rtf": round(row[f"{who}_s"] / seconds, 4) for who in ("ours", "reference")}
            rows.append(row)
    facts = {"difference": error, "parameters": sum(p.numel() for p in network.parameters()), "quick": args.quick}
    write({"rows": rows, **facts, "threads": args.threads, **machine()}, args)


if __name__ == "__main__":
    main()
