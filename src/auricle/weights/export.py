"""An encoder, or encoder and projector of an audio language model, as one graph for other runtimes: ``.pt2`` or ONNX.

The graph reads one clip of any length, pads it as the library does, and is exact within rounding, long clips and the
end of the last chunk included. It differs in form from `Dasheng.encode`: the transform is a product with sines and
cosines (the FFT of other runtimes differs, or is absent), and chunks of 10.08 s are kept apart by a mask, whose cost
grows with the square of the length: a twentieth at 30 s, and 0.6 GB for each block's scores at two minutes with 16
heads.

Shape legend: N samples, T mel frames, P tokens at 25 Hz, D encoder width, H decoder width, n audio tokens at 5 Hz.
"""

import io
import json
import math
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from auricle import __version__
from auricle.audio.logmel import DASHENG_MEL
from auricle.errors import ConfigError, MissingExtra, WeightsError
from auricle.files import atomic_path, check_writable
from auricle.models.blocks import Block
from auricle.models.dasheng import HOP_MS, MIN_SAMPLES, PATCH_FRAMES, SAMPLES_PER_TOKEN, Dasheng
from auricle.models.midashenglm import MIN_CLIP_SAMPLES, AudioProjector, MiDashengLM, padded_length
from auricle.weights.cards import read_license
from auricle.weights.catalog import resolve
from auricle.weights.construct import on_meta
from auricle.weights.loaders import identity_of, is_language_model, load_dasheng, load_midashenglm
from auricle.weights.quantize import check_unrounded

FORMATS = (".pt2", ".onnx")
FACTS = "auricle.json"  # extra file of a .pt2
MAX_SAMPLES = 16_000 * 120  # of the graph's clips; MiDashengLM was trained on 30 s at most
TOLERANCE = 1e-4  # of an exported graph, relative to the largest audio token value
_OPSET = 18  # reductions and pads with axes as inputs; onnxruntime 1.14 and later
# Lengths a graph is compared at: padded, one token, a broken token, a chunk and a token that sees none, several chunks.
_PROBES = (100, MIN_CLIP_SAMPLES, 16_123, 161_440, 400_321)

Run = Callable[[Tensor], Tensor]  # a clip (N,) → the output of a graph


class Exported(NamedTuple):
    """What was written, and how far it is from the model itself."""

    path: Path
    difference: float | None  # largest, relative to the largest value; None: not compared, there is no runtime here
    facts: Mapping[str, str]  # the metadata in the file, see `graph_facts`


class AudioGraph(nn.Module):
    """A clip (N,) float32 16 kHz in [-1, 1], N at least 1 → frames (P, D) of an encoder, or audio tokens (n, H)."""

    basis: Tensor
    filterbank: Tensor

    def __init__(self, model: MiDashengLM | Dasheng) -> None:
        """Copy the weights of ``model``: a program must not hold a whole file that they are mapped from.

        Raises:
            ConfigError: the model was loaded with ``quantize``, or its encoder chunks as version 0.0.4 or has an
                acoustic branch.
        """
        super().__init__()
        check_unrounded(model)
        encoder = model if isinstance(model, Dasheng) else model.audio_encoder
        if encoder.config.long_clips != "v009":
            raise ConfigError("only encoders that leave the last chunk short (long_clips 'v009') can be exported")
        if encoder.config.acoustic:
            raise ConfigError("an encoder with an acoustic branch cannot be exported; export a Dasheng without one")
        pairs: list[tuple[nn.Module, nn.Module]] = []
        self.projector: AudioProjector | None = None
        self.whole_tokens = False
        with on_meta():
            self.encoder = Dasheng(encoder.config)
            pairs.append((self.encoder, encoder))
            if isinstance(model, MiDashengLM):
                width, factor = encoder.config.embed_dim, model.audio_projector.factor
                self.projector = AudioProjector(width, model.decoder.config.hidden_size, factor)
                self.whole_tokens = model.config.whole_tokens
                pairs.append((self.projector, model.audio_projector))
        for ours, theirs in pairs:
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
        length = self.padded_length(waveform.shape[0])
        patches = self._patches(encoder.init_bn(self._mel(waveform, length)[None])[0])
        count = patches.shape[0]
        # One more, which no token sees: the exporter sets matrices of a single row apart.
        patches = F.pad(patches, (0, 0, 0, 1))
        place = torch.arange(count + 1, device=waveform.device)
        weight = encoder.patch_embed.proj.weight
        tokens = F.linear(patches.to(weight.dtype), weight.flatten(1), encoder.patch_embed.proj.bias)
        tokens = tokens + encoder.positions()[place % encoder.config.chunk_tokens]
        chunk = place // encoder.config.chunk_tokens
        num_visible = length // SAMPLES_PER_TOKEN if encoder.config.attend == "whole" else count
        visible = (chunk[:, None] == chunk) & (place < num_visible)
        for block in encoder.blocks:
            assert isinstance(block, Block)
            tokens = _block(block, tokens, visible)
        frames = cast(Tensor, encoder.norm(tokens))[torch.arange(count, device=waveform.device)]
        if self.projector is None:
            return frames
        first, _, last = self.projector.net
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        stacked = frames[_groups(frames, self.projector.factor)].flatten(1)
        return F.linear(F.gelu(F.linear(stacked, first.weight, first.bias)), last.weight, last.bias)

    def padded_length(self, num_samples: int) -> int:
        """Samples of a clip with the zeros that the library adds; of a symbolic number, too."""
        if self.projector is None:
            return torch.sym_max(num_samples, MIN_SAMPLES)
        return padded_length(num_samples, self.projector.factor, whole_tokens=self.whole_tokens)

    def _mel(self, waveform: Tensor, length: int) -> Tensor:
        """(N,) and zeros up to ``length`` → (64, T) float32 dB; float64 in the transform, as the front end."""
        spec, device = self.spec, waveform.device
        starts = spec.hop_length * torch.arange(1 + length // spec.hop_length, device=device)
        places = starts[:, None] + torch.arange(spec.n_fft, device=device) - spec.n_fft // 2
        places = places.abs()  # reflected at both ends
        places = torch.minimum(places, 2 * (length - 1) - places)
        num_samples = waveform.shape[0]
        frames = waveform.double()[places.clamp(max=num_samples - 1)] * (places < num_samples)
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


def export_audio(model: MiDashengLM | Dasheng) -> ExportedProgram:
    """`AudioGraph` of a model in evaluation mode as a torch.export program with a free number of samples.

    Raises:
        ConfigError: see `AudioGraph`.
    """
    from torch.fx.experimental import _config

    shapes: Any = _config  # gets its methods when it is imported
    graph = AudioGraph(model).eval()
    example = torch.zeros(3 * MIN_CLIP_SAMPLES, device=graph.basis.device)
    length = Dim("num_samples", min=1, max=MAX_SAMPLES)
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


def graph_facts(model: MiDashengLM | Dasheng) -> dict[str, str]:
    """What a file states about its graph: rates, input, output, and what is done to a clip before it is encoded."""
    facts = {
        "sample_rate": str(DASHENG_MEL.sample_rate),
        "input": f"waveform (N,) float32 mono in [-1, 1], N from 1 to {MAX_SAMPLES}; one clip",
        "auricle_version": __version__,
    }
    if isinstance(model, Dasheng):
        return facts | {
            "hop_ms": f"{HOP_MS:g}",
            "output": f"frames (P, {model.config.embed_dim}) float32, P = (1 + L // 160) // 4, L = N after padding",
            "padding": f"in the graph: zeros up to {MIN_SAMPLES} samples",
        }
    factor, width = model.config.subsample_factor, model.decoder.config.hidden_size
    whole = f", then to whole tokens of {factor * SAMPLES_PER_TOKEN} samples" if model.config.whole_tokens else ""
    return facts | {
        "hop_ms": f"{factor * HOP_MS:g}",
        "output": f"audio_tokens (n, {width}) float32, n = ((1 + L // 160) // 4) // {factor}, L = N after padding",
        "padding": f"in the graph: zeros up to {padded_length(1, factor)} samples{whole}",
    }


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


def save_audio(model: MiDashengLM | Dasheng, path: str | Path, facts: Mapping[str, str] | None = None) -> Exported:
    """Write `AudioGraph` to a file and compare what was written with the model.

    The file holds `graph_facts` and ``facts``: ONNX as ``metadata_props``, ``.pt2`` as the extra file `FACTS`.

    Args:
        model: float32, in evaluation mode, on the CPU.
        path: ``.pt2`` for torch.export, ``.onnx`` for ONNX: input ``waveform`` (N,), output ``frames`` (P, D) of an
            encoder, ``audio_tokens`` (n, H) of a language model.
        facts: more for the metadata, such as name, licence and hash of the weights.

    Raises:
        ConfigError: another suffix, or a model that cannot be exported.
        MissingExtra: ONNX needs onnx and onnxscript.
        WeightsError: the graph differs from the model by more than `TOLERANCE`.
    """
    path = Path(path)
    check_export(path)
    program = export_audio(model)
    stated = {**graph_facts(model), **(facts or {})}
    with atomic_path(path) as temporary:
        if path.suffix == ".pt2":
            stored = io.BytesIO()  # on a full disk torch.export would end the process
            torch.export.save(program, stored, extra_files={FACTS: json.dumps(stated, indent=1)})
            temporary.write_bytes(stored.getbuffer())
            difference: float | None = _difference(model, program.module())
        else:
            _save_onnx(program, temporary, stated)
            difference = _difference(model, _onnx_runner(temporary)) if find_spec("onnxruntime") else None
        if difference is not None and not difference <= TOLERANCE:
            raise WeightsError(f"{path}: differs from the model by {difference:.1e}, expected at most {TOLERANCE:.0e}")
    return Exported(path, difference, stated)


def export_named(
    name_or_path: str | Path,
    path: str | Path,
    *,
    frames: bool = False,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> Exported:
    """`save_audio` of a model by its name, with name, licence and SHA-256 of its weights in the file.

    Args:
        name_or_path: any name that `catalog.resolve` knows.
        path: of the file to write.
        frames: of an audio language model, its encoder alone.
        adapter: PEFT adapter to merge into a language model.
        revision: branch, tag or commit on the hub.

    Raises:
        ConfigError: an adapter for an encoder, a wrong suffix, or a model that cannot be exported.
        WeightsError: it cannot be read, or is no Dasheng and no audio language model.
    """
    source = resolve(name_or_path, revision=revision)
    facts = {"name": source.name, "license": read_license(source.path)}
    model: MiDashengLM | Dasheng
    if is_language_model(source):
        loaded = load_midashenglm(name_or_path, dtype="float32", adapter=adapter, revision=revision)
        model = loaded.model.audio_encoder if frames else loaded.model
        identity = loaded.identity
    else:
        if adapter is not None:
            raise ConfigError(f"{source.name}: an encoder; adapters are merged into language models only")
        model, identity = load_dasheng(source.path, dtype="float32"), identity_of(source)
    hashes = {"weights_sha256": identity["sha256"], "adapter_sha256": identity.get("adapter_sha256")}
    return save_audio(model, path, {**facts, **{key: value for key, value in hashes.items() if value}})


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


def _save_onnx(program: ExportedProgram, path: Path, facts: Mapping[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        made = torch.onnx.export(
            program,
            input_names=["waveform"],
            output_names=[facts["output"].partition(" ")[0]],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.model.metadata_props.update(facts)
        made.save(str(path))


def _onnx_runner(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda waveform: torch.from_numpy(session.run(None, {"waveform": waveform.numpy()})[0])


def library_output(model: MiDashengLM | Dasheng, clip: Tensor) -> Tensor:
    """What a graph is to give for a clip (N,): frames (P, D) or audio tokens (n, H), by the library's own way."""
    if isinstance(model, Dasheng):
        return model.encode([F.pad(clip, (0, max(0, MIN_SAMPLES - len(clip))))])[0]
    return model.audio_tokens([clip])[0]


@torch.no_grad()
def _difference(model: MiDashengLM | Dasheng, run: Run) -> float:
    """Largest difference over clips of all kinds of lengths, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for length in _PROBES:
        clip = 0.1 * torch.randn(length, generator=generator)
        wanted, found = library_output(model, clip), run(clip)
        if found.shape != wanted.shape:
            return math.inf
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return worst
