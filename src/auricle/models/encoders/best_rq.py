"""BEST-RQ (arXiv 2202.01855) as SpeechBrain trains it: a conformer that names random codes of hidden speech.

* Log-mel of 80 bands in dB, each band normalised over the clip; two convolutions reduce time and frequency by 4 each.
* Conformer blocks with relative positions (Transformer-XL) and a depthwise convolution over 31 frames of 40 ms.
* Clips over 30 s are cut every 30 s; the pieces do not see each other, normalisation is the whole clip's.

Shape legend: N samples, T mel frames, P frames of a piece, M frames of all pieces, D width, H heads, C width of a head.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import Linear, Spans, linear_gelu
from auricle.models.encoders.pieces import Family, Parts, Piece, PieceNetwork, depth_of, heads_of, pad_frames

_MELS, _N_FFT, _HOP = 80, 400, 160  # the periodic Hamming window is as long as the transform
_TOP_DB, _AMIN = 80.0, 1e-10  # dB below the loudest value of the clip; power floor
_STD_FLOOR = 1e-10
_REDUCTION = 4  # mel frames of a frame
_CHUNK = 3000  # mel frames that attend to each other, 30 s
_EPS = 1e-5  # of every LayerNorm but the last
_HEADS = {576: 8}  # of SpeechBrain's recipes


@dataclass(frozen=True, kw_only=True, slots=True)
class BestRqConfig:
    """Geometry; the defaults are SpeechBrain's recipe for LibriSpeech."""

    embed_dim: int = 576  # width D
    depth: int = 12
    num_heads: int = 8
    ffn_dim: int = 2048
    channels: tuple[int, int] = (128, 32)  # of the two convolutions
    conv_kernel: int = 31  # frames, odd
    compat: bool = False  # pad a batch as the recipe does: convolutions see the padding

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # a list where it comes from JSON
        if self.embed_dim % self.num_heads or self.embed_dim % 2 or not self.conv_kernel % 2:
            raise ConfigError(
                f"embed_dim {self.embed_dim} must be an even multiple of num_heads {self.num_heads}, conv_kernel "
                f"{self.conv_kernel} odd"
            )


class BestRq(PieceNetwork):
    """The encoder."""

    family = "best_rq"
    hop_samples = _REDUCTION * _HOP
    min_samples = _HOP
    window_samples = _CHUNK * _HOP

    def __init__(self, config: BestRqConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.embed_dim
        first, second = config.channels
        self.reduction = nn.ModuleList([ReducingConv(1, first, _MELS // 2), ReducingConv(first, second, _MELS // 4)])
        self.proj = Linear(second * _MELS // 4, config.embed_dim)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        """See `PieceNetwork`: features of each clip, cut every 30 s, filled up with 0 to whole frames."""
        if self.config.compat:
            return self._padded_pieces(waveforms)
        clips = [sentence_normalised(band_decibels(waveform)) for waveform in waveforms]
        return [[self._piece(part) for part in clip.split(_CHUNK)] for clip in clips]

    def embed(self, piece: Piece) -> Tensor:
        """See `PieceNetwork`."""
        return self.proj(self.reduce(piece.features))

    def reduce(self, features: Tensor) -> Tensor:
        """Normalised features (T, 80) → what the two convolutions leave, (T // 4, 20 · channels)."""
        x = features.to(self.proj.weight.dtype)[None, ..., None]
        for convolution in self.reduction:
            x = convolution(x)
        return x[0].flatten(1)

    def states(self, tokens: Tensor, spans: Sequence[Spans]) -> Iterator[Tensor]:
        """See `PieceNetwork`."""
        positions = [relative_positions(span.length, self.width).to(tokens.device, tokens.dtype) for span in spans]
        for block in self.blocks:
            tokens = block(tokens, spans, positions, is_leaky=self.config.compat)
            yield tokens
        yield self.norm(tokens)

    def targets(self, waveform: Tensor, projection: Tensor, codebook: Tensor) -> Tensor:
        """The random codes that are the targets of training, (P,) int64.

        Args:
            waveform: a clip (N,) of up to 30 s.
            projection: ``P`` of SpeechBrain's quantizer.ckpt, (320, code width).
            codebook: its ``CB``, (codes, code width), rows of length 1.
        """
        features = self._piece(sentence_normalised(band_decibels(waveform))).features
        projected = F.normalize(features.reshape(-1, _REDUCTION * _MELS) @ projection, dim=-1)
        return torch.cdist(projected, codebook).argmin(-1)

    def _piece(self, features: Tensor) -> Piece:
        count = -(-len(features) // _REDUCTION)
        return Piece(pad_frames(features, count * _REDUCTION), count)

    def _padded_pieces(self, waveforms: Sequence[Tensor]) -> list[list[Piece]]:
        longest = max(len(waveform) for waveform in waveforms)
        found = []
        for waveform in waveforms:
            share = len(waveform) / longest
            decibels = band_decibels(F.pad(waveform, (0, longest - len(waveform))))
            # Frames of the clip are counted once upwards, once to the nearest.
            piece = self._piece(sentence_normalised(decibels, math.ceil(share * len(decibels))))
            count = max(1, round(share * piece.frames))
            found.append([Piece(piece.features, count, count)])
        return found


class ReducingConv(nn.Module):
    """Convolution that halves time and frequency, norm over frequency and channels, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, bands: int) -> None:
        """``bands``: mels that are left."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)  # its kernel is frequency × time
        self.norm = nn.LayerNorm((bands, outputs), eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mels, channels) → (B, T // 2, bands, channels)."""
        padded = F.pad(x.transpose(1, 3), (1, 1, 1, 1), mode="reflect")
        return F.leaky_relu(self.norm(self.conv(padded).transpose(1, 3)), 0.01)


class FeedForward(nn.Module):
    """Norm, two layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.fc1, self.fc2 = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) → (M, D)."""
        return self.fc2(linear_gelu(self.norm(x), self.fc1.weight, self.fc1.bias))


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: BestRqConfig) -> None:
        super().__init__()
        self.ffn1 = FeedForward(config.embed_dim, config.ffn_dim)
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=_EPS)
        self.attn = RelativeAttention(config.embed_dim, config.num_heads)
        self.conv = ConvolutionModule(config.embed_dim, config.conv_kernel)
        self.ffn2 = FeedForward(config.embed_dim, config.ffn_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=_EPS)

    def forward(
        self, x: Tensor, spans: Sequence[Spans], positions: Sequence[Tensor], *, is_leaky: bool = False
    ) -> Tensor:
        """(M, D) → (M, D); positions (2 P - 1, D) of each group of spans; leaky: see `ConvolutionModule`."""
        x = x + 0.5 * self.ffn1(x)
        x = x + self.attn(self.norm1(x), spans, positions)
        x = x + self.conv(x, spans, is_leaky=is_leaky)
        return self.norm2(x + 0.5 * self.ffn2(x))


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution inside each span, norm, GELU, projection."""

    def __init__(self, width: int, kernel: int) -> None:
        """``kernel``: frames, odd."""
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.gate = Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.after_norm = nn.LayerNorm(width, eps=_EPS)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, spans: Sequence[Spans], *, is_leaky: bool = False) -> Tensor:
        """(M, D) → (M, D), zero for frames that are no keys; leaky: their neighbours see these all the same."""
        gated = F.glu(self.gate(self.norm(x)), dim=-1)
        if not is_leaky:
            gated = _masked(gated, spans)
        parts = gated.split([span.repeats * span.length for span in spans])
        mixed = torch.cat([self._convolve(part, span) for part, span in zip(parts, spans, strict=True)])
        return _masked(self.out(F.gelu(self.after_norm(mixed))), spans)

    def _convolve(self, part: Tensor, span: Spans) -> Tensor:
        rows = part.view(span.repeats, span.length, -1).transpose(1, 2)
        return self.depthwise(rows).transpose(1, 2).reshape(len(part), -1)


class RelativeAttention(nn.Module):
    """Attention whose logits have a part for the distance (Transformer-XL); query, key and value head by head."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Width must be a multiple of ``num_heads``."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.linear_pos = Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, spans: Sequence[Spans], positions: Sequence[Tensor]) -> Tensor:
        """(M, D) → (M, D)."""
        parts = self.qkv(x).split([span.repeats * span.length for span in spans])
        return self.out_proj(torch.cat([self._attend(*each) for each in zip(parts, spans, positions, strict=True)]))

    def _attend(self, part: Tensor, span: Spans, positions: Tensor) -> Tensor:
        rows = part.view(span.repeats, span.length, self.num_heads, -1).transpose(1, 2)
        query, key, value = rows.chunk(3, dim=-1)  # (B, H, P, C)
        places = self.linear_pos(positions).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)  # (H, 2 P - 1, C)
        scale = part.shape[1] / 3
        distance = ((query + self.pos_bias_v[:, None]) @ places.transpose(-1, -2))[..., : 2 * span.length - 1]
        bias = shift(distance)[..., : span.keys] * scale**-0.5
        mixed = F.scaled_dot_product_attention(
            query + self.pos_bias_u[:, None],
            key[:, :, : span.keys],
            value[:, :, : span.keys],
            attn_mask=bias,
            scale=scale**-0.5,  # of the whole width, not of a head
        )
        return mixed.transpose(1, 2).reshape(len(part), -1)


def shift(logits: Tensor) -> Tensor:
    """Logits of distances P - 1 … -(P - 1) for each query (…, P, 2 P - 1) → of each key (…, P, P)."""
    length = logits.shape[-2]
    places = torch.arange(length, device=logits.device)
    index = length - 1 - places[:, None] + places
    return logits.gather(-1, index.expand(*logits.shape[:-1], length))


def relative_positions(length: int, width: int) -> Tensor:
    """Waves of the distances P - 1 … -(P - 1), (2 P - 1, D) float32; the sines, at even places, know no sign."""
    distances = torch.arange(length - 1, -length, -1, dtype=torch.float32)[:, None]
    omega = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    return torch.stack([(distances.abs() * omega).sin(), (distances * omega).cos()], dim=-1).flatten(1)


def band_decibels(waveform: Tensor) -> Tensor:
    """A clip (N,) at 16 kHz → mel powers in dB, (1 + N // 160, 80) float32, at most 80 dB below the loudest."""
    window = torch.hamming_window(_N_FFT, device=waveform.device, dtype=torch.float64)
    spectrum = torch.stft(
        waveform.double(), _N_FFT, _HOP, window=window, return_complex=True, center=True, pad_mode="constant"
    )
    power = spectrum.abs().square().float().t() @ symmetric_filterbank().to(waveform.device)
    decibels = 10.0 * power.clamp(min=_AMIN).log10()
    return decibels.clamp(min=float(decibels.amax()) - _TOP_DB)


def sentence_normalised(decibels: Tensor, num_frames: int | None = None) -> Tensor:
    """Zero mean and unit (population) deviation of each band over the first frames of a clip (T, 80); None: all."""
    own = decibels[:num_frames]
    return (decibels - own.mean(0)) / own.std(0, correction=0).clamp(min=_STD_FLOOR)


@lru_cache
def symmetric_filterbank() -> Tensor:
    """SpeechBrain's triangles: centred on HTK mels, both sides as wide as the step *before* the centre, (201, 80)."""
    mels = torch.linspace(0.0, 2595.0 * math.log10(1.0 + 8_000.0 / 700.0), _MELS + 2)
    hertz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    steps, centres = hertz.diff()[:-1], hertz[1:-1]
    bins = torch.linspace(0.0, 8_000.0, _N_FFT // 2 + 1)[:, None]
    return (1.0 - (bins - centres).abs() / steps).clamp(min=0.0)


def _masked(x: Tensor, spans: Sequence[Spans]) -> Tensor:
    """Packed (M, D) with zeros where nothing may be attended to."""
    if all(span.keys == span.length for span in spans):
        return x
    keep = [torch.arange(span.length, device=x.device).repeat(span.repeats) < span.keys for span in spans]
    return x * torch.cat(keep)[:, None]


_ENCODER = "1.transformer."
_MARK = _ENCODER + "encoder.layers.0.mha_layer.pos_bias_u"
_NAMES = (
    (r"^0\.convblock_(\d)\.convs\.conv_0\.conv\.", r"reduction.\1.conv."),
    (r"^0\.convblock_(\d)\.convs\.norm_0\.norm\.", r"reduction.\1.norm."),
    (r"^1\.transformer\.custom_src_module\.layers\.0\.w\.", "proj."),
    (r"^1\.transformer\.encoder\.norm\.norm\.", "norm."),
    (r"^1\.transformer\.encoder\.layers\.", "blocks."),
    (r"\.mha_layer\.in_proj_weight$", ".attn.qkv.weight"),
    (r"\.mha_layer\.", ".attn."),
    (r"\.convolution_module\.layer_norm\.", ".conv.norm."),
    (r"\.convolution_module\.bottleneck\.0\.", ".conv.gate."),
    (r"\.convolution_module\.conv\.", ".conv.depthwise."),
    (r"\.convolution_module\.after_conv\.0\.", ".conv.after_norm."),
    (r"\.convolution_module\.after_conv\.2\.", ".conv.out."),
    (r"\.ffn_module(\d)\.0\.", r".ffn\1.norm."),
    (r"\.ffn_module(\d)\.1\.ffn\.0\.", r".ffn\1.fc1."),
    (r"\.ffn_module(\d)\.1\.ffn\.3\.", r".ffn\1.fc2."),
    (r"\.norm([12])\.norm\.", r".norm\1."),
)
_UNUSED = (_ENCODER + "positional_encoding",)


def _read(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> Parts:
    """``model.ckpt`` of a folder that SpeechBrain's recipe wrote."""
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith(_UNUSED):
            continue
        name = key
        for theirs, ours in _NAMES:
            name = re.sub(theirs, ours, name)
        if name.endswith(("pos_bias_u", "pos_bias_v")):
            tensor = tensor.reshape(tensor.shape[1], tensor.shape[0])  # reshaped, not transposed, as the recipe does
        state[name] = tensor[..., 0] if name.endswith("conv.gate.weight") else tensor
    width = len(state["norm.weight"])
    config = BestRqConfig(
        embed_dim=width,
        depth=depth_of(state),
        num_heads=heads_of(width, settings, source, _HEADS),
        ffn_dim=len(state["blocks.0.ffn1.fc1.weight"]),
        channels=(len(state["reduction.0.conv.weight"]), len(state["reduction.1.conv.weight"])),
        conv_kernel=state["blocks.0.conv.depthwise.weight"].shape[2],
    )
    return Parts(config, state)


FAMILY = Family("best_rq", BestRq, BestRqConfig, lambda tensors: _MARK in tensors, _read)
