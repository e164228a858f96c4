"""Objective ``align``: clips and their captions in one space (GLAP, arXiv 2506.11350).

The towers run as in inference, without dropout and with the batch norm at its statistics, whether they are trained or
not: a pair's embedding then depends on the pair alone, and a resumed run equals the uninterrupted one.

``accumulate`` cuts a batch into parts that are no negatives of each other. For many negatives in little memory leave it
at 1 and set ``align.cache`` and ``align.chunk``.
"""

import copy
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from auricle.errors import ConfigError
from auricle.models.glap import Glap, GlapConfig
from auricle.train import alignment_losses as losses
from auricle.train.config import AlignSettings, RunConfig
from auricle.train.objective import Batch, Objective, run_card
from auricle.train.pairs import SAMPLE_RATE, ScenePairs, open_pairs
from auricle.weights import load_dasheng, load_glap, save_glap
from auricle.weights.glap import read_text_tower
from auricle.weights.text_tokenizers import TextTokenizer

Item = TypeVar("Item")


class AlignObjective(Objective):
    """Two towers with a projection each, of which those in ``align.train`` learn, and the parameters of the loss."""

    network: Glap

    _CACHED_TEXTS = 1 << 17  # texts; of 384 numbers each they take 200 MB

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        settings = config.align
        self.network, self.tokenizer = _build(settings)
        uncut = copy.copy(self.tokenizer)  # captions are cut here, where they can be counted
        uncut.max_tokens = sys.maxsize
        self._tokens: Callable[[Sequence[str]], list[list[int]]] = uncut.encode
        self.pairs = open_pairs(
            config, num_tokens=lambda text: len(self._tokens([text])[0]), max_tokens=self.tokenizer.max_tokens
        )
        parts = self._parts()
        if absent := set(settings.train) - parts.keys():
            raise ConfigError(
                f"align.train names {', '.join(absent)}, which {settings.init} does not have; take it out"
            )
        for name, part in parts.items():
            part.requires_grad_(name in settings.train)
        scale, bias = _calibration(self.network, settings)
        self.temperature = nn.Parameter(torch.tensor(_LEARNED[self._kind][0](scale)))
        self.bias = nn.Parameter(torch.tensor(bias)) if settings.loss == "sigmoid" else None
        # Outputs of towers that do not learn, for scenes and texts that are repeated.
        self._audio_cache: dict[int, Tensor] = {}
        self._text_cache: dict[tuple[int, ...], Tensor] = {}
        self.train()

    @property
    def _kind(self) -> str:
        """Parametrisation of the temperature, see `_LEARNED`."""
        settings = self.config.align
        return "logarithm" if settings.rule == "strict" else "scale" if settings.loss == "softmax" else "divisor"

    def _parts(self) -> dict[str, nn.Module]:
        network = self.network
        parts = {
            "audio": network.audio_encoder,
            "text": network.text_encoder,
            "audio_projection": network.audio_proj,
            "text_projection": network.text_proj,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def train(self, mode: bool = True) -> "AlignObjective":
        """Training mode of the objective; the network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, clips: list[Tensor], tokens: list[list[int]], keys: Tensor, scenes: list[int]) -> Tensor:
        """Mean loss () of pairs.

        Args:
            clips: waveforms (N_i,); (0,) for a scene that was encoded before.
            tokens: ids of each caption.
            keys: (B, K) what pairs share, see `auricle.train.alignment_losses`.
            scenes: number of each clip; -1 for one that is not repeated.
        """
        # A caption that is common in a batch goes through the tower once.
        different = list(dict.fromkeys(map(tuple, tokens)))
        places = {ids: place for place, ids in enumerate(different)}
        audio = self._pool_audio(clips, scenes)
        text = self._pool_text(different)
        text = text[torch.tensor([places[tuple(ids)] for ids in tokens], device=text.device)]
        return self.loss(self.network.project_audio(audio), self.network.project_text(text), keys)

    def loss(self, audio: Tensor, text: Tensor, keys: Tensor) -> Tensor:
        """The configured loss () of embeddings (B, D) and the keys (B, K) of their pairs."""
        settings = self.config.align
        if settings.rule == "strict":
            how: dict[str, Any] = {"chunk": settings.chunk, "gather": settings.gather}
            if self.bias is None:
                return losses.softmax_loss(audio, text, self.temperature, keys, **how)
            return losses.sigmoid_loss(audio, text, self.temperature, self.bias, keys, **how)
        if self.bias is not None:
            return losses.compat_sigmoid_loss(audio, text, self.temperature, self.bias, chunk=settings.chunk)
        counts = losses.shares_key(keys[:, :1], keys[:, :1]).sum(1)
        released = losses.compat_softmax_loss if settings.loss == "softmax" else losses.compat_bce_loss
        return released(audio, text, self.temperature, counts)

    def _pool_audio(self, clips: list[Tensor], scenes: list[int]) -> Tensor:
        """Means over the frames of clips (B, W)."""
        if "audio" in self.config.align.train or min(scenes) < 0:
            return self._pool(self.network.pool_audio, clips, "audio")
        fresh = {number: clip for number, clip in zip(scenes, clips, strict=True) if number not in self._audio_cache}
        if fresh:
            pooled = self._pool(self.network.pool_audio, list(fresh.values()), "audio")
            self._audio_cache.update(zip(fresh, pooled, strict=True))
            if isinstance(self.pairs, ScenePairs):
                self.pairs.encoded.update(fresh)
        return torch.stack([self._audio_cache[number] for number in scenes])

    def _pool_text(self, texts: list[tuple[int, ...]]) -> Tensor:
        """Outputs of the text tower for different texts (n, W)."""
        if "text" in self.config.align.train:
            return self._pool(self.network.pool_text, texts, "text")
        fresh = [ids for ids in texts if ids not in self._text_cache]
        pooled = dict(zip(fresh, self._pool(self.network.pool_text, fresh, "text"), strict=True)) if fresh else {}
        found = torch.stack([pooled[ids] if ids in pooled else self._text_cache[ids] for ids in texts])
        if len(self._text_cache) < self._CACHED_TEXTS:
            self._text_cache |= pooled
        return found

    def _pool(self, pool: Callable[[Sequence[Item]], Tensor], items: Sequence[Item], name: str) -> Tensor:
        size = self.config.align.cache or len(items)
        if name in self.config.align.train:
            return embed_cached(pool, items, size, self.temperature) if size < len(items) else pool(items)
        with torch.no_grad():
            return torch.cat([pool(part) for part in _cut(items, size)])

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Pairs ``start … stop`` of the batch of ``step``."""
        pairs = [self.pairs.sample(step, place) for place in range(start, stop)]
        clips = [torch.from_numpy(pair.waveform) for pair in pairs]
        limit = self.tokenizer.max_tokens
        # The last token ends the text, and stays when it is cut.
        tokens = [
            ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
            for ids in self._tokens([pair.text for pair in pairs])
        ]
        keys = torch.tensor([pair.keys for pair in pairs], dtype=torch.int64)
        inputs = {"clips": clips, "tokens": tokens, "keys": keys, "scenes": [pair.scene for pair in pairs]}
        return Batch(inputs, len(pairs), sum(map(len, clips)) / SAMPLE_RATE)

    def lr_scale(self, name: str) -> float:
        """``tower_lr_scale`` of the towers."""
        in_tower = name.startswith(("network.audio_encoder.", "network.text_encoder."))
        return self.config.align.tower_lr_scale if in_tower else 1.0

    def calibration(self) -> tuple[float, float] | None:
        """Scale and bias that make a probability of a pair's cosine; None: the loss only compares pairs."""
        if self.config.align.loss == "softmax":
            return None
        scale = _LEARNED[self._kind][1](self.temperature.item())
        return scale, 0.0 if self.bias is None else self.bias.item()

    def export(self, folder: Path) -> None:
        """The model in GLAP's layout, with scale and bias of its loss, and a card that counts what was left out."""
        settings = self.config.align
        if found := self.calibration():
            self.network.set_calibration(*found)
        shared = {
            f"{name}_encoder": getattr(settings, name)
            for name in ("audio", "text")
            if settings.share_towers and name not in settings.train
        }
        card = run_card(self.config, self.pairs.manifest_hash)
        card = replace(card, config={**card.config, "left_out": dict(self.pairs.left_out)})
        save_glap(folder, self.network, self.tokenizer, card=card, **shared)


# Parametrisation of the temperature -> from and to the scale that cosines are multiplied by.
_LEARNED: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "logarithm": (lambda scale: -math.log(scale), lambda learned: math.exp(-learned)),  # of the temperature
    "divisor": (lambda scale: 1.0 / scale, lambda learned: 1.0 / learned),  # the temperature itself
    "scale": (math.log, math.exp),  # logarithm of the scale
}


def embed_cached(embed: Callable[[Sequence[Item]], Tensor], items: Sequence[Item], size: int, anchor: Tensor) -> Tensor:
    """``embed`` of items, ``size`` at a time, in the memory that ``size`` of them need; gradients stay the same.

    The first pass keeps nothing but the embeddings. When their gradients are known, the backward pass embeds each part
    again, with the random state it had, and goes on through it.

    Args:
        embed: items → (n, D), independent of the others.
        items: in order.
        size: of a part.
        anchor: any tensor on the device of the embeddings, whose random state is kept, too.

    Source: gradient caching, arXiv 2101.06983; the second pass is `torch.utils.checkpoint`'s.
    """
    return torch.cat(
        [checkpoint(lambda part, _: embed(part), part, anchor, use_reentrant=False) for part in _cut(items, size)]
    )


def _cut(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _build(settings: AlignSettings) -> tuple[Glap, TextTokenizer]:
    if settings.init:
        loaded = load_glap(settings.init)
        if loaded.tokenizer is None:
            raise ConfigError(f"align.init {settings.init} has no tokenizer beside its weights; put it there")
        return loaded.model, loaded.tokenizer
    if not settings.audio or not settings.text:
        raise ConfigError(
            f"align needs init, or audio and text to name the towers; got audio={settings.audio!r} and "
            f"text={settings.text!r}"
        )
    encoder = load_dasheng(settings.audio, dtype="float32")
    tower, tokenizer = read_text_tower(settings.text)
    space: dict[str, Any] = {
        "embed_dim": settings.embed_size,
        "hidden_dim": settings.hidden_size or None,
        "project_text": settings.project_text,
    }
    network = Glap(GlapConfig(audio=encoder.config, text=tower.config, **space))
    network.audio_encoder.load_state_dict(encoder.state_dict())
    network.text_encoder.load_state_dict(tower.state)
    return network, tokenizer


def _calibration(network: Glap, settings: AlignSettings) -> tuple[float, float]:
    """Scale and bias to start from: the model's own, if it has any; from here on they belong to the objective."""
    scale, bias = network.logit_scale, network.logit_bias
    network.logit_scale = network.logit_bias = None
    if scale is None or bias is None:
        return 1.0 / settings.temperature, settings.bias
    return scale.item(), bias.item()
