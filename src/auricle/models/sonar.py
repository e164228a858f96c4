"""SONAR's text encoder (arXiv 2308.11466): NLLB's encoder of 24 blocks, one vector for a text of any of 202 languages.

* Pre-norm transformer, ReLU feed-forward, fixed sine positions, mean over all tokens, language tag and end included.
* Texts are packed: a ragged batch is one token matrix without padding, so a text's vector depends on the text alone.

Shape legend: n texts, M tokens of all texts, W width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import Linear, Spans, attend, plan_spans

# Positions are counted from here, the first two being what fairseq kept for padding.
_FIRST_POSITION = 2
# Tokens that go through the blocks together; more bring no speed, and the widest layer takes 32 KB for each.
_GROUP_TOKENS = {"cpu": 1024}
_MANY_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class SonarConfig:
    """Geometry; the defaults are those of the released encoder, as in GLAP's config.json."""

    vocab_size: int = 256_206  # 256,000 pieces, 202 languages, 4 signs
    width: int = 1024  # W
    depth: int = 24  # blocks
    num_heads: int = 16
    hidden: int = 8192  # of the feed-forward networks
    max_tokens: int = 514  # longest text, tag and end included

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 2 or self.width < 4:
            raise ConfigError(f"width {self.width} is no even multiple of num_heads {self.num_heads}, at least 4")


class _SelfAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (Linear(width, width) for _ in range(3))
        self.output_proj = Linear(width, width)

    def forward(self, x: Tensor, spans: Sequence[Spans]) -> Tensor:
        """(M, W) → (M, W), inside each span."""
        sizes = [span.repeats * span.length for span in spans]
        parts = zip(spans, *(proj(x).split(sizes) for proj in (self.q_proj, self.k_proj, self.v_proj)), strict=True)
        return self.output_proj(torch.cat([self._attend(span, *qkv) for span, *qkv in parts]))

    def _attend(self, span: Spans, *qkv: Tensor) -> Tensor:
        heads = (p.view(span.repeats, span.length, self.num_heads, -1).transpose(1, 2) for p in qkv)
        return attend(*heads).transpose(1, 2).reshape(qkv[0].shape)


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner_proj, self.output_proj = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, W) → (M, W)."""
        return self.output_proj(torch.relu(self.inner_proj(x)))


class _Block(nn.Module):
    def __init__(self, config: SonarConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.ffn_layer_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.self_attn = _SelfAttention(config.width, config.num_heads)
        self.ffn = _FeedForward(config.width, config.hidden)

    def forward(self, x: Tensor, spans: Sequence[Spans]) -> Tensor:
        """(M, W) → (M, W)."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), spans)
        return x + self.ffn(self.ffn_layer_norm(x))


class _FrontEnd(nn.Module):
    def __init__(self, config: SonarConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embed.weight, std=config.width**-0.5)


class _Blocks(nn.Module):
    def __init__(self, config: SonarConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.depth))


class SonarText(nn.Module):
    """The encoder. Parameter names are those of GLAP's checkpoints."""

    positions: Tensor  # (max_tokens, W) float32

    def __init__(self, config: SonarConfig) -> None:
        """Random weights: embeddings N(0, 1 / W), xavier linears."""
        super().__init__()
        self.config = config
        self.encoder_frontend, self.encoder = _FrontEnd(config), _Blocks(config)
        self.layer_norm = nn.LayerNorm(config.width)
        self.register_buffer("positions", sine_positions(config.max_tokens, config.width), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def width(self) -> int:
        """W of a text's vector."""
        return self.config.width

    @property
    def max_tokens(self) -> int:
        """Longest text."""
        return self.config.max_tokens

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of each text, tag and end included → (n, W), each text as if it were alone.

        Raises:
            ConfigError: no texts, an empty or too long one, or an id outside the vocabulary.
        """
        check_tokens(token_ids, vocab_size=self.config.vocab_size, max_tokens=self.max_tokens)
        return in_groups(self._pooled, token_ids, _GROUP_TOKENS.get(self.layer_norm.weight.device.type, _MANY_TOKENS))

    def _pooled(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of texts, short ones first → means (n, W)."""
        device = self.layer_norm.weight.device
        _, spans = plan_spans([len(ids) for ids in token_ids])
        tokens = torch.tensor([token for ids in token_ids for token in ids], device=device)
        places = torch.cat([torch.arange(len(ids)) for ids in token_ids]).to(device)
        embedded = self.encoder_frontend.embed(tokens) * math.sqrt(self.config.width)
        x = embedded + self.positions[places].to(embedded.dtype)
        for block in self.encoder.layers:
            x = block(x, spans)
        x = self.layer_norm(x)
        parts = x.split([span.repeats * span.length for span in spans])
        means = [part.view(span.repeats, span.length, -1).mean(1) for part, span in zip(parts, spans, strict=True)]
        return torch.cat(means)


def sine_positions(count: int, width: int) -> Tensor:
    """Fixed positions (count, width) float32: sines in the first half of the channels, cosines in the second."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10_000.0) / (half - 1)))
    angles = torch.arange(_FIRST_POSITION, _FIRST_POSITION + count, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def check_tokens(token_ids: Sequence[Sequence[int]], *, vocab_size: int, max_tokens: int) -> None:
    """Refuse what a text encoder cannot embed.

    Raises:
        ConfigError: no texts, an empty or too long one, or an id outside the vocabulary.
    """
    if not len(token_ids):
        raise ConfigError("there are no texts to encode; give at least one")
    for row, ids in enumerate(token_ids):
        if not 1 <= len(ids) <= max_tokens:
            raise ConfigError(f"text {row} has {len(ids)} tokens; expected 1 to {max_tokens}: cut it")
        if min(ids) < 0 or max(ids) >= vocab_size:
            raise ConfigError(
                f"text {row} has token ids from {min(ids)} to {max(ids)}; expected 0 to {vocab_size - 1}: "
                "the tokenizer does not belong to this encoder"
            )


def in_groups(
    encode: Callable[[Sequence[Sequence[int]]], Tensor], token_ids: Sequence[Sequence[int]], limit: int
) -> Tensor:
    """Vectors (n, W) of texts that are encoded in groups of similar length, see `cut_groups`, in the given order."""
    lengths = [len(ids) for ids in token_ids]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = [encode([token_ids[i] for i in group]) for group in cut_groups(order, lengths, limit)]
    return torch.cat(parts)[torch.tensor(order).argsort().to(parts[0].device)]


def cut_groups(order: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Cut texts in ``order``, short ones first, into groups of at most ``limit`` tokens, or of one text."""
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > limit:
            groups.append([])
        groups[-1].append(i)
    return groups
