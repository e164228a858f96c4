"""Encoder and projector of an audio language model as one graph for other runtimes: torch.export (``.pt2``) or ONNX.

The graph reads one clip of any length and is exact within rounding, long clips and the end of the last chunk included.
It differs in form from `MiDashengLM.audio_tokens`: the transform is a product with sines and cosines (the FFT of other
runtimes differs, or is absent), and chunks of 10.08 s are kept apart by a mask, whose cost grows with the square of the
length: a twentieth at 30 s, and 0.6 GB for each block's scores at two minutes with 16 heads.

Shape legend: N samples, T mel frames, P tokens at 25 Hz, D encoder width, H decoder width, n audio tokens at 5 Hz.
"""

import io
import math
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from auricle.errors import ConfigError, MissingExtra, WeightsError
from auricle.files import atomic_path, check_writable
from auricle.models.blocks import Block
from auricle.models.dasheng import PATCH_FRAMES, SAMPLES_PER_TOKEN, Dasheng
from auricle.models.midashenglm import MIN_CLIP_SAMPLES, AudioProjector, MiDashengLM
from auricle.weights.construct import on_meta
from auricle.weights.quantize import check_unrounded

FORMATS = (".pt2", ".onnx")
MAX_SAMPLES = 16_000 * 120  # of the graph's clips; MiDashengLM was trained on 30 s at most
TOLERANCE = 1e-4  # of an exported graph, relative to the largest audio token value
_OPSET = 18  # reductions and pads with axes as inputs; onnxruntime 1.14 and later
# Lengths a graph is compared at: the shortest, a broken token, a chunk and a token that sees none, several chunks.
_PROBES = (MIN_CLIP_SAMPLES, 16_123, 161_440, 400_321)


class Exported(NamedTuple):
    """What was written, and how far it is from the model itself."""

    path: Path
    difference: float | None  # largest, relative to the largest value; None: not compared, there is no runtime here


class AudioGraph(nn.Module):
    """A clip (N,) float32 16 kHz in [-1, 1], N at least 3200 → audio tokens (n, H); pad first: `MiDashengLM.pad`."""

    basis: Tensor
    filterbank: Tensor

    def __init__(self, model: MiDashengLM) -> None:
        """Copy the weights of ``model``: a program must not hold a whole file that they are mapped from.

        Raises:
            ConfigError: the model was loaded with ``quantize``, or its encoder chunks as version 0.0.4.
        """
        super().__init__()
        check_unrounded(model)
        encoder = model.audio_encoder
        if encoder.config.long_clips != "v009":
            raise ConfigError("only encoders that leave the last chunk short (long_clips 'v009') can be exported")
        hidden, factor = model.decoder.config.hidden_size, model.audio_projector.factor
        with on_meta():
            self.encoder = Dasheng(encoder.config)
            self.projector = AudioProjector(encoder.config.embed_dim, hidden, factor)
        for ours, theirs in ((self.encoder, encoder), (self.projector, model.audio_projector)):
            ours.load_state_dict({key: tensor.clone() for key, tensor in theirs.state_dict().items()}, assign=True)
        del self.encoder.front_end  # see `_mel`
        self.requires_grad_(False)
        self.spec = encoder.front_end.spec
        n_fft = self.spec.n_fft
        angles = 2 * math.pi / n_fft * torch.outer(torch.arange(n_fft), torch.arange(n_fft // 2 + 1)).double()
        window = encoder.front_end.window.double().cpu()[:, None]
        basis = torch.cat([angles.cos(), -angles.sin()], 1) * window
        self.register_buffer("basis", basis.to(encoder.front_end.window.device), persistent=False)
        self.register_buffer("filterbank", encoder.front_end.filterbank.repeat(2, 1), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """See the class."""
        encoder = self.encoder
        patches = self._patches(encoder.init_bn(self._mel(waveform)[None])[0])
        place = torch.arange(patches.shape[0], device=waveform.device)
        weight = encoder.patch_embed.proj.weight
        tokens = F.linear(patches.to(weight.dtype), weight.flatten(1), encoder.patch_embed.proj.bias)
        tokens = tokens + encoder.positions()[place % encoder.config.chunk_tokens]
        # A token attends to its own chunk, and there to tokens wholly inside the samples.
        chunk = place // encoder.config.chunk_tokens
        visible = (chunk[:, None] == chunk) & (place < waveform.shape[0] // SAMPLES_PER_TOKEN)
        for block in encoder.blocks:
            assert isinstance(block, Block)
            tokens = _block(block, tokens, visible)
        frames = encoder.norm(tokens)
        first, _, last = self.projector.net
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        stacked = frames[_groups(frames, self.projector.factor)].flatten(1)
        return F.linear(F.gelu(F.linear(stacked, first.weight, first.bias)), last.weight, last.bias)

    def _mel(self, waveform: Tensor) -> Tensor:
        """(N,) → (64, T) float32 dB; float64 in the transform, as the front end."""
        spec = self.spec
        half = spec.n_fft // 2
        padded = F.pad(waveform.double()[None, None], (half, half), mode="reflect")[0, 0]
        starts = spec.hop_length * torch.arange(1 + waveform.shape[0] // spec.hop_length, device=waveform.device)
        frames = padded[starts[:, None] + torch.arange(spec.n_fft, device=waveform.device)]
        power = (frames @ self.basis).float().square() @ self.filterbank
        decibel = 10.0 * torch.log10(power.t().clamp(min=spec.amin))
        return torch.maximum(decibel, decibel.max() - spec.top_db)

    def _patches(self, mel: Tensor) -> Tensor:
        """(64, T) → (P, 256), element mel × 4 + frame."""
        frames = mel.t()
        return frames[_groups(frames, PATCH_FRAMES)].transpose(1, 2).flatten(1)


def _groups(rows: Tensor, size: int) -> Tensor:
    """Numbers of rows (R, …) in groups (R // size, size); a slice would ask the exporter to prove that it fits."""
    device = rows.device
    return size * torch.arange(rows.shape[0] // size, device=device)[:, None] + torch.arange(size, device=device)


def export_audio(model: MiDashengLM) -> ExportedProgram:
    """Encoder and projector of a model in evaluation mode as a torch.export program with a free number of samples.

    Raises:
        ConfigError: see `AudioGraph`.
    """
    from torch.fx.experimental import _config

    shapes: Any = _config  # gets its methods when it is imported
    graph = AudioGraph(model).eval()
    example = torch.zeros(3 * MIN_CLIP_SAMPLES, device=graph.basis.device)
    length = Dim("num_samples", min=MIN_CLIP_SAMPLES, max=MAX_SAMPLES)
    # One audio token is as good as several: without it, the exporter sets clips of one token apart and refuses them.
    with torch.no_grad(), shapes.patch(backed_size_oblivious=True):
        return torch.export.export(
            graph,
            (example,),
            dynamic_shapes=({0: length},),
            strict=False,
            # What the exporter cannot prove of rounded quotients is checked when the graph runs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def check_export(path: Path) -> None:
    """Refuse a file that could not be written, before a model is loaded for it.

    Raises:
        ConfigError: another suffix than those of `FORMATS`.
        OutputError: the file cannot be written.
        MissingExtra: ONNX needs onnx and onnxscript.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise MissingExtra("ONNX export", "onnx")
    check_writable(path)


def save_audio(model: MiDashengLM, path: str | Path) -> Exported:
    """Write encoder and projector to a file and compare what was written with the model.

    Args:
        model: float32, in evaluation mode, on the CPU.
        path: ``.pt2`` for torch.export, ``.onnx`` for ONNX: input ``waveform`` (N,), output ``audio_tokens`` (n, H).

    Raises:
        ConfigError: another suffix, or a model that cannot be exported.
        MissingExtra: ONNX needs onnx and onnxscript.
        WeightsError: the graph differs from the model by more than `TOLERANCE`.
    """
    path = Path(path)
    check_export(path)
    program = export_audio(model)
    with atomic_path(path) as temporary:
        if path.suffix == ".pt2":
            stored = io.BytesIO()  # on a full disk torch.export would end the process
            torch.export.save(program, stored)
            temporary.write_bytes(stored.getbuffer())
            difference: float | None = _difference(model, program.module())
        else:
            _save_onnx(program, temporary)
            difference = _difference(model, _onnx_runner(temporary)) if find_spec("onnxruntime") else None
        if difference is not None and not difference <= TOLERANCE:
            raise WeightsError(f"{path}: differs from the model by {difference:.1e}, expected at most {TOLERANCE:.0e}")
    return Exported(path, difference)


def _block(block: Block, x: Tensor, visible: Tensor) -> Tensor:
    """A block on tokens (P, D); ``visible`` (P, P) True = the row attends to the column."""
    attention = block.attn
    count, width = x.shape
    qkv = F.linear(block.norm1(x), attention.qkv.weight, attention.qkv.bias)
    query, key, value = qkv.view(count, 3, attention.num_heads, width // attention.num_heads).permute(1, 2, 0, 3)
    scores = query @ key.transpose(-1, -2) * (width // attention.num_heads) ** -0.5
    # A token that may attend to nothing mixes nothing; -inf everywhere would be no number.
    shares = torch.softmax(scores.masked_fill(~visible, -1e30), dim=-1) * visible.to(x.dtype)
    mixed = (shares @ value).transpose(0, 1).reshape(count, width)
    x = x + block.ls1(F.linear(mixed, attention.proj.weight, attention.proj.bias))
    mlp = block.mlp
    hidden = F.gelu(F.linear(block.norm2(x), mlp.fc1.weight, mlp.fc1.bias))
    return x + block.ls2(F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias))


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        made = torch.onnx.export(
            program,
            input_names=["waveform"],
            output_names=["audio_tokens"],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.save(str(path))


def _onnx_runner(path: Path):  # type: ignore[no-untyped-def]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda waveform: torch.from_numpy(session.run(None, {"waveform": waveform.numpy()})[0])


@torch.no_grad()
def _difference(model: MiDashengLM, run) -> float:  # type: ignore[no-untyped-def]
    """Largest difference of audio tokens over clips of all kinds of lengths, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for length in _PROBES:
        clip = model.pad(0.1 * torch.randn(length, generator=generator))
        wanted, found = model.audio_tokens([clip])[0], run(clip)
        if found.shape != wanted.shape:
            return math.inf
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst
