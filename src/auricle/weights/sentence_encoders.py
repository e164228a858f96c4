"""Sentence encoders and FENSE's error detector: the networks behind caption scores.

A score depends on its networks, so every result states their identity. Legend: n texts, D dimensions, V words.
"""

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError, LayoutMismatch
from auricle.models.frame_model import tensors_sha256
from auricle.models.inference import inference
from auricle.models.sonar import cut_groups
from auricle.models.text import (
    BOOKKEEPING,
    PADDED_TOKENS,
    StockText,
    StockTextConfig,
    build_text_tower,
    masked_mean,
    padded,
)
from auricle.weights import safe
from auricle.weights.glap import MINILM, read_text_tower
from auricle.weights.glap_layouts import stock_text_state
from auricle.weights.layouts import reads_models
from auricle.weights.text_tokenizers import StockTokenizer

DETECTOR_MAX_TOKENS = 64  # of a caption that the error detector reads; FENSE's own value
_CAPTIONS = 128  # in one call of the error detector


class SentenceEncoder:
    """A text tower with its tokenizer, in eval mode; embeddings are float32 of unit length, on the CPU."""

    def __init__(self, tower: StockText, tokenizer: StockTokenizer, *, name: str, sha256: str) -> None:
        """Take a tower with weights.

        Args:
            tower: on its device.
            tokenizer: of the same model.
            name: as given by the user.
            sha256: of the weights.
        """
        self.tower, self.tokenizer, self.name, self.sha256 = tower.eval(), tokenizer, name, sha256

    @property
    def identity(self) -> dict[str, Any]:
        """What a result states about the encoder."""
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
        """Input embeddings of word pieces (V, D)."""
        network: Any = self.tower.network
        table: Tensor = network.get_input_embeddings().weight.detach()
        return table

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with special tokens; a text that is too long is cut, with a warning."""
        return self.tokenizer.encode(list(texts))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Mean over tokens (n, D); repeated texts are encoded once."""
        unique = list(dict.fromkeys(texts))
        embeddings = self.encode_tokens(self.token_ids(unique)) if unique else torch.empty(0, self.tower.width)
        row_of = {text: row for row, text in enumerate(unique)}
        return embeddings[[row_of[text] for text in texts]]

    @inference()
    def encode_tokens(self, token_ids: Sequence[Sequence[int]], weights: Sequence[Tensor] | None = None) -> Tensor:
        """Mean over tokens (n, D), independent of the other texts.

        Args:
            token_ids: of each text, at least one token.
            weights: of each text (tokens,); the word embeddings are multiplied by them before the first layer.
        """
        lengths = [len(ids) for ids in token_ids]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        embeddings = torch.empty(len(lengths), self.tower.width)
        for group in cut_groups(order, lengths, PADDED_TOKENS):
            group_weights = None if weights is None else [weights[at] for at in group]
            embeddings[group] = self._mean_states([token_ids[at] for at in group], group_weights).float().cpu()
        return F.normalize(embeddings, dim=1)

    def _mean_states(self, token_ids: Sequence[Sequence[int]], weights: Sequence[Tensor] | None) -> Tensor:
        tokens, mask = padded(token_ids, self.word_table.device)
        words = self.word_table[tokens]
        if weights is not None:
            factors = nn.utils.rnn.pad_sequence([each.float() for each in weights], batch_first=True)
            words = words * factors.to(words.device, words.dtype)[..., None]
        states = self.tower.network(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state
        return masked_mean(states, mask)


class ErrorDetector(nn.Module):
    """FENSE's detector of captions that are not fluent: a BERT and a linear layer; its last output is "any error"."""

    def __init__(self, tower: StockText, classifier: nn.Linear, tokenizer: StockTokenizer, sha256: str) -> None:
        super().__init__()
        self.tower, self.classifier, self.tokenizer, self.sha256 = tower.eval(), classifier, tokenizer, sha256

    @property
    def identity(self) -> dict[str, Any]:
        """What a result states about the detector."""
        return {
            "weights_sha256": self.sha256,
            "tokenizer_sha256": self.tokenizer.fingerprint,
            "max_tokens": self.tokenizer.max_tokens,
        }

    @inference()
    def probabilities(self, captions: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probability of an error in each caption (n,), read in lower case and without punctuation and symbols."""
        bare = ["".join(filter(_is_read, caption)).lower() for caption in captions]
        parts = [self._logits(bare[at : at + _CAPTIONS]) for at in range(0, len(bare), _CAPTIONS)]
        if not parts:
            return np.empty(0)
        found: npt.NDArray[np.float64] = torch.cat(parts).double().sigmoid()[:, -1].numpy()
        return found

    def _logits(self, captions: Sequence[str]) -> Tensor:
        tokens, mask = padded(self.tokenizer.encode(captions), self.classifier.weight.device)
        states = self.tower.network(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        logits: Tensor = self.classifier(states[:, 0]).cpu()
        return logits


def _is_read(letter: str) -> bool:
    # Combining marks are no letters to Python, yet parts of words.
    return letter.isalnum() or letter == "_" or letter.isspace() or unicodedata.category(letter)[0] == "M"


@reads_models
def load_sentence_encoder(name: str = MINILM, *, device: str = "cpu") -> SentenceEncoder:
    """Load a sentence encoder by name or path.

    Args:
        name: ``minilm``, which needs no download, or a folder or hub id in the layout of sentence-transformers with
            ``tokenizer.json``. FENSE and DATE were published with paraphrase-TinyBERT-L6-v2.
        device: ``cpu``, ``cuda``, …

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: an unknown family.
        MissingExtra: the package of ``minilm`` is not installed.
    """
    shared, tokenizer = read_text_tower(name)
    tower = build_text_tower(shared.config)
    if not isinstance(tower, StockText) or not isinstance(tokenizer, StockTokenizer):
        raise ConfigError(f"{name} is no sentence encoder; give minilm or a folder of sentence-transformers")
    tower.load_state_dict(dict(shared.state))
    return SentenceEncoder(tower.to(device), tokenizer, name=name, sha256=tensors_sha256(shared.state))


@reads_models
def load_error_detector(
    folder: str | Path, *, device: str = "cpu", max_tokens: int = DETECTOR_MAX_TOKENS
) -> ErrorDetector:
    """Load FENSE's error detector from a folder with three files.

    Args:
        folder: with the released ``echecker_*.ckpt`` (or its tensors as safetensors), and ``config.json`` and
            ``tokenizer.json`` of the BERT it names as ``model_type``.
        device: ``cpu``, ``cuda``, …
        max_tokens: of a caption; MECAT reads 256.

    Raises:
        WeightsError: a file is absent, unsafe or of another layout.
        ConfigError: the configuration describes an unknown encoder.

    Source: `fense/evaluator.py` of github.com/blmoistawinde/fense.
    """
    folder = Path(folder)
    settings = {key: each for key, each in safe.read_json(folder / "config.json").items() if key not in BOOKKEEPING}
    tensors = safe.read_tensors(folder)
    if absent := [name for name in ("clf.weight", "clf.bias") if name not in tensors]:
        raise LayoutMismatch(
            f"{folder}: has no {', '.join(absent)}, expected the checkpoint of a FENSE error detector; found "
            f"{', '.join(list(tensors)[:3])}"
        )
    config = StockTextConfig(settings=settings, max_tokens=max_tokens)
    outputs, width = tensors["clf.weight"].shape
    tower, classifier = StockText(config), nn.Linear(width, outputs)
    state = stock_text_state(tensors, "encoder.")
    if set(state) != set(tower.state_dict()):
        odd = sorted(set(state) ^ set(tower.state_dict()))
        raise LayoutMismatch(
            f"{folder}: weights and config.json differ in {', '.join(odd[:3])}; take both of one model"
        )
    tower.load_state_dict(state)
    classifier.load_state_dict({"weight": tensors["clf.weight"], "bias": tensors["clf.bias"]})
    tokenizer = StockTokenizer(folder / "tokenizer.json", max_tokens=min(max_tokens, config.longest))
    return ErrorDetector(tower, classifier, tokenizer, tensors_sha256(tensors)).to(device).eval()
