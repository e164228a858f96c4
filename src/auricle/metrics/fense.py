"""FENSE: sentence similarity, cut to a tenth where a detector hears that a caption is no fluent sentence.

Source: `fense/evaluator.py` in github.com/xiaomi-research/dasheng-lm and github.com/xiaomi-research/mecat. What the
former publishes under this name is the similarity without the penalty, here called SBERT.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auricle.errors import LayoutMismatch
from auricle.models.text import BOOKKEEPING, StockText, StockTextConfig
from auricle.weights import safe
from auricle.weights.glap_layouts import state_sha256, stock_text_state
from auricle.weights.text_tokenizers import StockTokenizer

THRESHOLD = 0.9  # probability of an error from which on a caption is penalised
PENALTY = 0.9  # share of the score that it loses
MAX_TOKENS = 64  # of a caption the detector reads
_MARKS = re.compile(r"[^\w\s]")
_BATCH = 128


def penalties(error_probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Factors (n,) of scores: 1, or what is left of them."""
    return np.where(np.asarray(error_probability, np.float64) > THRESHOLD, 1.0 - PENALTY, 1.0)


class ErrorDetector(nn.Module):
    """A BERT and a layer over its first state; the last of its outputs is "any error"."""

    def __init__(self, tower: StockText, classifier: nn.Linear, tokenizer: StockTokenizer, identity: Any) -> None:
        """Take parts with weights; ``identity`` is what a result says of them."""
        super().__init__()
        self.tower, self.classifier, self.tokenizer, self.identity = tower.eval(), classifier, tokenizer, identity

    @torch.inference_mode()
    def probabilities(self, captions: Sequence[str]) -> npt.NDArray[np.float64]:
        """That each caption (n,) has an error; read without punctuation and in lower case."""
        bare = [_MARKS.sub("", caption).lower() for caption in captions]
        parts = [self._logits(bare[at : at + _BATCH]) for at in range(0, len(bare), _BATCH)]
        found: npt.NDArray[np.float64] = torch.cat(parts).double().sigmoid()[:, -1].numpy() if parts else np.empty(0)
        return found

    def _logits(self, captions: Sequence[str]) -> Tensor:
        device = self.classifier.weight.device
        rows = [torch.tensor(ids) for ids in self.tokenizer.encode(captions)]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        mask = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        states = self.tower.network(input_ids=tokens, attention_mask=mask.long().to(device)).last_hidden_state
        logits: Tensor = self.classifier(states[:, 0]).cpu()
        return logits


def load_error_detector(folder: str | Path, *, device: str = "cpu", max_tokens: int = MAX_TOKENS) -> ErrorDetector:
    """A detector from a folder with three files.

    Args:
        folder: with the released ``echecker_*.ckpt`` (or its tensors as safetensors), and ``config.json`` and
            ``tokenizer.json`` of the BERT it names as ``model_type``.
        device: ``cpu``, ``cuda``, …
        max_tokens: of a caption; MECAT reads 256.

    Raises:
        WeightsError: a file is absent, unsafe or of another layout.
        ConfigError: the configuration describes no encoder that is known here.
    """
    folder = Path(folder)
    settings = {key: each for key, each in safe.read_json(folder / "config.json").items() if key not in BOOKKEEPING}
    tensors = safe.read_tensors(folder)
    absent = [name for name in ("clf.weight", "clf.bias") if name not in tensors]
    if absent:
        raise LayoutMismatch(
            f"{folder}: has no {', '.join(absent)}, expected the checkpoint of a FENSE error detector; found "
            f"{', '.join(list(tensors)[:3])}"
        )
    config = StockTextConfig(settings=settings, max_tokens=max_tokens)
    outputs, width = tensors["clf.weight"].shape
    tower, head = StockText(config), nn.Linear(width, outputs)
    state = stock_text_state(tensors, "encoder.")
    if set(state) != set(tower.state_dict()):
        odd = sorted(set(state) ^ set(tower.state_dict()))
        raise LayoutMismatch(
            f"{folder}: weights and config.json differ in {', '.join(odd[:3])}; take both of one model"
        )
    tower.load_state_dict(state)
    head.load_state_dict({"weight": tensors["clf.weight"], "bias": tensors["clf.bias"]})
    tokenizer = StockTokenizer(folder / "tokenizer.json", max_tokens=min(max_tokens, config.longest))
    identity = {
        "weights_sha256": state_sha256(tensors),
        "tokenizer_sha256": tokenizer.fingerprint,
        "threshold": THRESHOLD,
        "penalty": PENALTY,
        "max_tokens": tokenizer.max_tokens,
    }
    return ErrorDetector(tower, head, tokenizer, identity).to(device).eval()
