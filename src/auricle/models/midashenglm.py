"""MiDashengLM: Dasheng frames → 5 Hz audio tokens → a Qwen2 or Qwen3 decoder (arXiv 2508.03983).

* The audio tokens of a clip replace the ``<|AUDIO|>`` placeholders of the prompt (prefix language model).
* Clips are encoded packed and unpadded, so a clip's tokens depend on the clip alone; the reference pads.
* The decoder is `auricle.models.qwen`: with 1-D positions the M-RoPE of the 7B releases is ordinary RoPE.

Shape legend: B prompts, L prompt tokens, N samples, P frames at 25 Hz, n audio tokens at 5 Hz, D encoder width,
H decoder width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError, PromptError
from auricle.models.blocks import Linear
from auricle.models.dasheng import SAMPLES_PER_TOKEN, Dasheng, DashengConfig, num_tokens
from auricle.models.qwen import QwenConfig, QwenForCausalLM

MIN_CLIP_SAMPLES = 3200  # 0.2 s: shorter clips are padded with zeros to give one audio token (vLLM's rule)
IGNORE = -100  # label of tokens that carry no loss


@dataclass(frozen=True, kw_only=True, slots=True)
class MiDashengLMConfig:
    """Geometry. Source: ``config.json`` of the released checkpoints."""

    encoder: DashengConfig
    text: QwenConfig  # of the decoder
    subsample_factor: int = 5  # 25 Hz frames stacked into one 5 Hz audio token
    audio_token_id: int = 151_646  # <|AUDIO|>
    whole_tokens: bool = False  # clips are zero-padded to whole audio tokens; the releases drop the rest, up to 0.2 s

    def __post_init__(self) -> None:
        """Reject impossible geometries; the encoder must attend as MiDashengLM's does."""
        if self.subsample_factor < 1:
            raise ConfigError(f"subsample_factor is {self.subsample_factor}; expected at least 1")
        if self.encoder.attend != "whole":
            raise ConfigError(f"MiDashengLM needs an encoder with attend='whole', got {self.encoder.attend!r}")

    @property
    def min_samples(self) -> int:
        """Length to which shorter clips are zero-padded."""
        return MIN_CLIP_SAMPLES


def padded_length(num_samples: int, subsample_factor: int = 5, *, whole_tokens: bool = False) -> int:
    """Samples of a clip after zero-padding: at least 0.2 s and one audio token, or whole audio tokens."""
    least = max(MIN_CLIP_SAMPLES, subsample_factor * SAMPLES_PER_TOKEN)
    length = torch.sym_max(num_samples, least)  # of a symbolic number in an exported graph, too
    return length + -length % (subsample_factor * SAMPLES_PER_TOKEN) if whole_tokens else length


def audio_token_count(num_samples: int, subsample_factor: int = 5, *, whole_tokens: bool = False) -> int:
    """5 Hz audio tokens of a clip: ``((1 + N // 160) // 4) // 5`` for N samples after padding, at least 1."""
    return num_tokens(padded_length(num_samples, subsample_factor, whole_tokens=whole_tokens)) // subsample_factor


class AudioProjector(nn.Module):
    """Stack ``factor`` neighbouring frames, then Linear → exact GELU → Linear, both with bias."""

    def __init__(self, width: int, hidden: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.net = nn.Sequential(Linear(factor * width, hidden), nn.GELU(), Linear(hidden, hidden))

    def forward(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Frames (P_i, D) of each clip → audio tokens (P_i // factor, H); P_i mod factor last frames are dropped."""
        counts = [len(clip) // self.factor for clip in frames]
        stacked = torch.cat([clip[: n * self.factor].reshape(n, -1) for clip, n in zip(frames, counts, strict=True)])
        return list(self.net(stacked).split(counts))


class MiDashengLM(nn.Module):
    """Audio encoder, projector and decoder; parameter names are those of the official checkpoints."""

    def __init__(self, config: MiDashengLMConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = Dasheng(config.encoder)
        width = config.text.hidden_size
        self.audio_projector = AudioProjector(config.encoder.embed_dim, width, config.subsample_factor)
        self.decoder = QwenForCausalLM(config.text)

    def audio_tokens(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Clips (N_i,) 16 kHz in [-1, 1] → audio tokens (n_i, H) at 5 Hz, each clip as if it were alone."""
        return self.audio_projector(self.audio_encoder.encode([self.pad(clip) for clip in clips])) if clips else []

    def pad(self, clip: Tensor) -> Tensor:
        """Zero-pad a clip (N,) to what the encoder is to process: see `padded_length`."""
        config = self.config
        length = padded_length(clip.shape[-1], config.subsample_factor, whole_tokens=config.whole_tokens)
        return F.pad(clip, (0, length - clip.shape[-1]))

    def embed(self, input_ids: Tensor, clips: Sequence[Tensor]) -> Tensor:
        """Prompts (B, L) with placeholders and all their clips in order → decoder inputs (B, L, H).

        Raises:
            PromptError: the number of placeholders is not the number of audio tokens.
        """
        return self.place(input_ids, self.audio_tokens(clips))

    def place(self, input_ids: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Prompts (B, L) with placeholders and the audio tokens (n_i, H) of their clips → decoder inputs (B, L, H).

        Raises:
            PromptError: the number of placeholders is not the number of audio tokens.
        """
        embeddings = self.decoder.get_input_embeddings()(input_ids)
        places = input_ids == self.config.audio_token_id
        found = sum(len(t) for t in tokens)
        if int(places.sum()) != found:
            raise PromptError(
                f"the prompts hold {int(places.sum())} audio placeholders, the {len(tokens)} clips give {found} audio "
                "tokens: expand each <|AUDIO|> to audio_token_count(clip) copies"
            )
        if not tokens:
            return embeddings
        return embeddings.masked_scatter(places[:, :, None], torch.cat(list(tokens)).to(embeddings.dtype))

    def decode(self, embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Decoder inputs (B, L, H) and their mask (B, L), 1 = token → last hidden states (B, L, H)."""
        return self.decoder.decode(embeddings, attention_mask)

    def next_token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean next-token cross-entropy () float32 over the tokens whose label (B, L) is not `IGNORE`.

        Logits are computed only where a label asks for them.
        """
        targets = labels[:, 1:]
        wanted = targets != IGNORE
        return F.cross_entropy(self.decoder.lm_head(hidden[:, :-1][wanted]).float(), targets[wanted])

    def forward(self, input_ids: Tensor, clips: Sequence[Tensor], attention_mask: Tensor | None = None) -> Tensor:
        """Prompts (B, L), their clips in order, mask (B, L) 1 = token → logits (B, L, V)."""
        return self.decoder.lm_head(self.decode(self.embed(input_ids, clips), attention_mask))

    def loss(
        self, input_ids: Tensor, clips: Sequence[Tensor], labels: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Training loss () of prompts with answers: see `next_token_loss`."""
        return self.next_token_loss(self.decode(self.embed(input_ids, clips), attention_mask), labels)
