"""Sentences → vectors whose cosine tells how alike they mean: the encoder behind caption scores.

A score belongs to its encoder, so what identifies one goes into every result. Legend: n texts, D dimensions, V words.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.errors import ConfigError
from auricle.models.sonar import cut_groups
from auricle.models.text import StockText, build_text_tower
from auricle.weights.glap import MINILM, read_text_tower
from auricle.weights.glap_layouts import state_sha256
from auricle.weights.text_tokenizers import StockTokenizer

_PADDED_TOKENS = 8192  # in one call of the network: bounds the memory


class SentenceEncoder:
    """A text tower with its tokenizer, in eval mode; vectors are float32 of length 1, on the CPU."""

    def __init__(self, tower: StockText, tokenizer: StockTokenizer, *, name: str, sha256: str) -> None:
        """Take a tower with weights.

        Args:
            tower: on its device.
            tokenizer: that belongs to it.
            name: as the user called it.
            sha256: of the weights.
        """
        self.tower, self.tokenizer, self.name, self.sha256 = tower.eval(), tokenizer, name, sha256

    @property
    def identity(self) -> dict[str, Any]:
        """What a result must say about it."""
        return {
            "name": self.name,
            "weights_sha256": self.sha256,
            "tokenizer_sha256": self.tokenizer.fingerprint,
            "max_tokens": self.tokenizer.max_tokens,
        }

    @cached_property
    def special(self) -> tuple[int, int]:
        """The tokens before and after every text."""
        first, *_, last = self.tokenizer.encode([""])[0]
        return first, last

    @property
    def word_table(self) -> Tensor:
        """Vectors of word pieces (V, D), as the network's first layer has them."""
        network: Any = self.tower.network
        table: Tensor = network.get_input_embeddings().weight.detach()
        return table

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text, special tokens included; one that is too long loses its end, with a warning."""
        return self.tokenizer.encode(list(texts))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Mean over tokens (n, D), equal texts computed once."""
        unique = list(dict.fromkeys(texts))
        found = self.encode_tokens(self.token_ids(unique)) if unique else torch.empty(0, self.tower.width)
        places = {text: at for at, text in enumerate(unique)}
        return found[[places[text] for text in texts]]

    @torch.inference_mode()
    def encode_tokens(self, token_ids: Sequence[Sequence[int]], weights: Sequence[Tensor] | None = None) -> Tensor:
        """Mean over tokens (n, D), each text as if it were alone.

        Args:
            token_ids: of each text, at least one.
            weights: of each text (tokens,), by which its word vectors are multiplied before they enter the network.
        """
        lengths = [len(ids) for ids in token_ids]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        found = torch.empty(len(lengths), self.tower.width)
        for group in cut_groups(order, lengths, _PADDED_TOKENS):
            own = None if weights is None else [weights[at] for at in group]
            found[group] = self._pooled([token_ids[at] for at in group], own).float().cpu()
        return F.normalize(found, dim=1)

    def _pooled(self, token_ids: Sequence[Sequence[int]], weights: Sequence[Tensor] | None) -> Tensor:
        device = self.word_table.device
        rows = [torch.tensor(ids) for ids in token_ids]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        lengths = torch.tensor([len(ids) for ids in token_ids])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).to(device)
        words = self.word_table[tokens]
        if weights is not None:
            factors = torch.nn.utils.rnn.pad_sequence([each.float() for each in weights], batch_first=True)
            words = words * factors.to(device, words.dtype)[..., None]
        states = self.tower.network(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state
        kept = mask[..., None].to(states.dtype)
        pooled: Tensor = (states * kept).sum(1) / kept.sum(1)
        return pooled


def load_sentence_encoder(name: str = MINILM, *, device: str = "cpu") -> SentenceEncoder:
    """A sentence encoder by name or place.

    Args:
        name: ``minilm``, which needs no download, or a folder or hub id in the layout of sentence-transformers with
            ``tokenizer.json``. FENSE and DATE were published with paraphrase-TinyBERT-L6-v2.
        device: ``cpu``, ``cuda``, …

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: a family that is not known here.
        MissingExtra: the package of ``minilm`` is not installed.
    """
    shared, tokenizer = read_text_tower(name)
    tower = build_text_tower(shared.config)
    if not isinstance(tower, StockText) or not isinstance(tokenizer, StockTokenizer):
        raise ConfigError(f"{name} is no sentence encoder; give minilm or a folder of sentence-transformers")
    tower.load_state_dict(dict(shared.state))
    return SentenceEncoder(tower.to(device), tokenizer, name=name, sha256=state_sha256(shared.state))


def mean_cosines(candidates: Tensor, references: Tensor, owners: Tensor) -> Tensor:
    """Cosine of each candidate with its references, averaged: (n,) float64.

    Args:
        candidates: (n, D) of length 1.
        references: (m, D) of length 1.
        owners: (m,) int64, the candidate of each reference; each has at least one.
    """
    each = (candidates[owners].double() * references.double()).sum(1)
    sums = torch.zeros(len(candidates), dtype=torch.float64).index_add_(0, owners, each)
    return sums / owners.bincount(minlength=len(candidates))
