"""GLAP: audio and text in one space (arXiv 2506.11350).

Dasheng → mean over its 25 Hz frames → Linear, ReLU, Linear → length 1; a text tower likewise. A score is 100 × cosine.

Shape legend: n clips or texts, N samples, T mel frames, W width of a tower, D width of the shared space.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.audio.logmel import LogMel
from auricle.errors import ConfigError
from auricle.models.blocks import Linear, plan_spans
from auricle.models.dasheng import PATCH_FRAMES, SAMPLES_PER_TOKEN, Dasheng, DashengConfig, to_patches
from auricle.models.sonar import SonarConfig
from auricle.models.text import TextConfig, build_text_tower

Pooling = Literal["framemean", "v013", "zeropad"]
SCORE_SCALE = 100.0  # of cosines; the released code's


@dataclass(frozen=True, kw_only=True, slots=True)
class GlapConfig:
    """Geometry and rule of pooling; the defaults are those of the released model."""

    audio: DashengConfig = field(default_factory=DashengConfig)
    text: TextConfig = field(default_factory=SonarConfig)
    embed_dim: int = 1024  # D
    hidden_dim: int | None = None  # between the two layers of a projection; None: embed_dim, as released
    # Of clips over 10.08 s. framemean: mean over all frames, the last chunk as short as it is. v013 (PyPI 0.0.12 and
    # 0.0.13): the last chunk is filled with zeros, and the zeros count. zeropad (up to 0.0.11 with git dasheng): it is
    # filled, and they do not count, save where it holds under four mel frames. Up to 10.07 s all are the same.
    pooling: Pooling = "framemean"
    project_text: bool = True  # False: the space is that of the text tower, which knows more words than the pairs hold
    stored_front_end: bool = False  # window and mel filters are weights of the checkpoint, and no formula

    def __post_init__(self) -> None:
        check_pooling(self.pooling)


class MelChunk(NamedTuple):
    """A part of a clip that goes through the audio tower at once."""

    mel: Tensor  # (64, T), T at most the encoder's target_length
    num_samples: int  # of the clip, from the start of the chunk on
    is_rest: bool  # the short end of a clip of several chunks


class StoredLogMel(LogMel):
    """The front end with window and filters out of a checkpoint."""

    def __init__(self) -> None:
        """Start with the computed ones, and count them among the weights."""
        super().__init__()
        self.register_buffer("window", self.window)
        self.register_buffer("filterbank", self.filterbank)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "StoredLogMel":
        # A cast of the whole model must not round them, nor put computed ones in their place.
        stored = self.window, self.filterbank
        super()._apply(fn, recurse)
        self.window, self.filterbank = (kept.to(self.window.device) for kept in stored)
        return self


class Glap(nn.Module):
    """Both towers and their projections; `embed_audio` and `embed_text` can be differentiated."""

    logit_scale: Tensor | None
    logit_bias: Tensor | None

    def __init__(self, config: GlapConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = Dasheng(config.audio)
        if config.stored_front_end:
            self.audio_encoder.front_end = StoredLogMel()
        self.text_encoder = build_text_tower(config.text)
        self.audio_proj = _projection(config.audio.embed_dim, config)
        self.text_proj = _projection(self.text_encoder.width, config) if config.project_text else None
        if self.text_proj is None and self.text_encoder.width != config.embed_dim:
            raise ConfigError(
                f"the text tower is {self.text_encoder.width} wide and the space {config.embed_dim}; without a "
                "projection of texts they must be the same"
            )
        self.register_buffer("logit_scale", None)
        self.register_buffer("logit_bias", None)

    def set_calibration(self, scale: float, bias: float) -> None:
        """Store the calibration of probabilities: ``sigmoid(scale · cosine + bias)``.

        Args:
            scale: what cosines are multiplied by, the inverse of a loss's temperature.
            bias: added to the product.
        """
        device = next(self.parameters()).device
        self.logit_scale, self.logit_bias = (torch.tensor(float(v), device=device) for v in (scale, bias))

    def forward(
        self, waveforms: Sequence[Tensor], token_ids: Sequence[Sequence[int]], *, pooling: Pooling | None = None
    ) -> tuple[Tensor, Tensor]:
        """Clips and texts → both embeddings; see `embed_audio` and `embed_text`."""
        return self.embed_audio(waveforms, pooling=pooling), self.embed_text(token_ids)

    def embed_audio(
        self, waveforms: Sequence[Tensor], *, pooling: Pooling | None = None, batch_floor: bool = False
    ) -> Tensor:
        """Ragged clips (N_i,) 16 kHz in [-1, 1] → (n, D) float32 of length 1; each clip independent of the others.

        Args:
            waveforms: float32, on the model's device.
            pooling: instead of the model's own rule.
            batch_floor: the reference's dB floor of the whole batch, for clips of one length.

        Raises:
            ClipTooShort: a clip gives no token (under 480 samples, 30 ms).
            ConfigError: an unknown rule, or clips of several lengths with ``batch_floor``.
        """
        return self.project_audio(self.pool_audio(waveforms, pooling=pooling, batch_floor=batch_floor))

    def embed_text(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of each text, from its tokenizer → (n, D) float32 of length 1; each independent of the others.

        Raises:
            ConfigError: no texts, an empty or too long one, or an id outside the vocabulary.
        """
        return self.project_text(self.pool_text(token_ids))

    def pool_audio(
        self, waveforms: Sequence[Tensor], *, pooling: Pooling | None = None, batch_floor: bool = False
    ) -> Tensor:
        """What `embed_audio` projects, (n, W) float32; arguments and errors as there."""
        if batch_floor:
            if len({len(waveform) for waveform in waveforms}) > 1:
                raise ConfigError("batch_floor is a rule for clips of one length; pad them, or leave it out")
            mels = list(self.audio_encoder.front_end(torch.stack(list(waveforms)), batch_floor=True))
        else:
            mels = self.audio_encoder.mel(waveforms)
        chunks, owners = [], []
        for clip, (mel, waveform) in enumerate(zip(mels, waveforms, strict=True)):
            own = cut_chunks(mel, len(waveform), self.config.audio.target_length)
            chunks += own
            owners += [clip] * len(own)
        sums, counts = self.sum_frames(chunks, pooling)
        places = torch.tensor(owners, device=sums.device)
        total = sums.new_zeros(len(mels), sums.shape[1]).index_add(0, places, sums)
        return total / counts.new_zeros(len(mels)).index_add(0, places, counts)[:, None]

    def pool_text(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """What `embed_text` projects, (n, W); argument and errors as there."""
        return self.text_encoder.encode(token_ids)

    def project_audio(self, pooled: Tensor) -> Tensor:
        """Means over frames (n, W) → embeddings (n, D) float32 of length 1."""
        return _projected(self.audio_proj, pooled)

    def project_text(self, pooled: Tensor) -> Tensor:
        """Vectors of the text tower (n, W) → embeddings (n, D) float32 of length 1."""
        return _projected(self.text_proj, pooled)

    def sum_frames(self, chunks: Sequence[MelChunk], pooling: Pooling | None = None) -> tuple[Tensor, Tensor]:
        """Sums over the frames of each chunk (k, W) float32, and how many frames count (k,) float32.

        Over all chunks of a clip, the sum of the first divided by that of the second is what `pool_audio` gives.
        """
        rule = check_pooling(pooling or self.config.pooling)
        filled = [chunk.is_rest and rule != "framemean" for chunk in chunks]
        natural = [c for c, fill in zip(chunks, filled, strict=True) if not fill and c.mel.shape[-1] >= PATCH_FRAMES]
        whole = [chunk for chunk, fill in zip(chunks, filled, strict=True) if fill]
        encode = self.audio_encoder.encode_mels
        own = iter(encode([c.mel for c in natural], [c.num_samples for c in natural])[-1] if natural else [])
        padded = iter(self._filled_frames(whole))
        sums, counts = [], []
        for chunk, fill in zip(chunks, filled, strict=True):
            count = chunk.mel.shape[-1] // PATCH_FRAMES
            if fill:
                frames = next(padded)
                # Up to 0.0.11 an end of one to three mel frames was not cut back at all.
                frames = frames[:count] if rule == "zeropad" and count else frames
            else:
                frames = next(own) if count else chunk.mel.new_zeros(0, self.config.audio.embed_dim)
            sums.append(frames.float().sum(0))
            counts.append(len(frames))
        return torch.stack(sums), torch.tensor(counts, dtype=torch.float32, device=sums[0].device)

    def probability(self, cosine: Tensor) -> Tensor:
        """Probability that clip and text belong together, 0 to 1, for any cosines.

        Raises:
            ConfigError: the checkpoint holds no calibration.
        """
        if self.logit_scale is None or self.logit_bias is None:
            raise ConfigError(
                "this model was stored without the scale and bias of its loss, as all released ones are; compare "
                "scores with each other, or train and save one with set_calibration"
            )
        return torch.sigmoid(self.logit_scale * cosine.to(self.logit_scale.device) + self.logit_bias)

    def _filled_frames(self, chunks: Sequence[MelChunk]) -> Tensor | list[Tensor]:
        """Chunks filled with zeros behind the batch norm, and encoded as if all of them were audio."""
        if not chunks:
            return []
        encoder, length = self.audio_encoder, self.config.audio.target_length
        normed = [F.pad(encoder.init_bn(c.mel[None]), (0, length - c.mel.shape[-1])) for c in chunks]
        patches = to_patches(torch.cat(normed))
        tokens = encoder.patch_embed(patches.flatten(0, 1)) + encoder.positions().repeat(len(chunks), 1)
        _, spans = plan_spans([patches.shape[1]] * len(chunks))
        return encoder.run_blocks(tokens, spans).view(*patches.shape[:2], -1)


def cut_chunks(mel: Tensor, num_samples: int, length: int) -> list[MelChunk]:
    """Cut the log-mel (64, T) of a clip of ``num_samples`` into chunks of ``length`` frames, the last one shorter."""
    starts = range(0, mel.shape[-1], length)
    return [
        MelChunk(
            mel[:, start : start + length],
            num_samples - start // PATCH_FRAMES * SAMPLES_PER_TOKEN,
            start > 0 and mel.shape[-1] - start < length,
        )
        for start in starts
    ]


def score(audio: Tensor, text: Tensor) -> Tensor:
    """Embeddings of clips (n, D) and texts (m, D) of length 1 → 100 × cosine (n, m)."""
    return SCORE_SCALE * audio @ text.t()


def check_pooling(pooling: str) -> str:
    """Give back a known rule of pooling.

    Raises:
        ConfigError: it is unknown.
    """
    if pooling not in get_args(Pooling):
        raise ConfigError(f"pooling is {pooling!r}, expected one of {', '.join(get_args(Pooling))}")
    return pooling


def _projection(width: int, config: GlapConfig) -> nn.Sequential:
    hidden = config.hidden_dim or config.embed_dim
    return nn.Sequential(Linear(width, hidden), nn.ReLU(), Linear(hidden, config.embed_dim))


def _projected(projection: nn.Sequential | None, pooled: Tensor) -> Tensor:
    if projection is None:
        return F.normalize(pooled.float(), dim=-1)
    return F.normalize(projection(pooled.to(next(projection.parameters()).dtype)).float(), dim=-1)
