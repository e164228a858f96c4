"""Soft TF-IDF: weights of tokens, where tokens of similar embeddings count for each other.

    tf(w, doc) = Σ s(w, v)² over the tokens v of doc          s: cosine of two word embeddings
    df(w)      = Σ min(1, tf(w, doc)) over documents
    idf(w)     = ln((documents + 1) / (df(w) + 1)) + 1

The weight is tf · idf over its mean in the document. Source: `DATE.py` of github.com/xiaomi-research/mecat.
Legend: V distinct tokens, W width of an embedding, L tokens of a document.
"""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

_COLUMNS = 1024  # tokens whose df is counted at once: bounds the memory at V × 1024 cosines
_DOCUMENTS = 4096  # at once
_PAIRS = 2**22  # of tokens, in documents whose tf is computed at once


def soft_tfidf(documents: Sequence[Sequence[int]], table: Tensor, *, opening: int, closing: int) -> list[Tensor]:
    """Weights (L,) float32 of each document's tokens.

    Args:
        documents: token ids, with the special tokens at start and end.
        table: word embeddings (V, W).
        opening: the special token at the start; its weight is that of the heaviest token, at least 1.
        closing: the special token at the end; its weight is that of the lightest token, at most 1.

    Memory grows with the documents and the distinct tokens, never with the product of both.

    >>> soft_tfidf([[0, 2, 1], [0, 3, 1]], torch.eye(4), opening=0, closing=1)[0].tolist()
    [1.0, 1.0, 1.0]
    """
    special = (opening, closing)
    contents = [[token for token in ids if token not in special] for ids in documents]
    words = sorted(set(chain.from_iterable(contents)))
    places = {word: at for at, word in enumerate(words)}
    rows = [torch.tensor([places[word] for word in content], dtype=torch.int64) for content in contents]
    units = F.normalize(table[words].float().cpu(), dim=1)
    idf = torch.log((len(documents) + 1) / (_document_frequencies(rows, units) + 1)) + 1
    frequencies = _term_frequencies(rows, units)
    found = []
    for ids, row, tf in zip(documents, rows, frequencies, strict=True):
        weights = tf.double() * idf[row]
        weights = weights / weights.mean()
        heavy, light = (max(1.0, float(weights.max())), min(1.0, float(weights.min()))) if len(row) else (1.0, 1.0)
        tokens = torch.tensor(ids)
        full = torch.where(tokens == opening, heavy, light).double()
        full[(tokens != opening) & (tokens != closing)] = weights
        found.append(full.float())
    return found


def _document_frequencies(rows: Sequence[Tensor], units: Tensor) -> Tensor:
    """(V,) float64."""
    found = torch.zeros(len(units), dtype=torch.float64)
    filled = [row for row in rows if len(row)]
    for left in range(0, len(units), _COLUMNS):
        closeness = (units @ units[left : left + _COLUMNS].t()).square()
        for top in range(0, len(filled), _DOCUMENTS):
            part = filled[top : top + _DOCUMENTS]
            ends = torch.tensor([0, *(len(row) for row in part[:-1])]).cumsum(0)
            sums = F.embedding_bag(torch.cat(part), closeness, ends, mode="sum")
            found[left : left + _COLUMNS] += sums.clamp(max=1.0).double().sum(0)
    return found


def _term_frequencies(rows: Sequence[Tensor], units: Tensor) -> list[Tensor]:
    """(L,) of each document."""
    by_length: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(at)
    found = [torch.empty(0)] * len(rows)
    for length, own in by_length.items():
        step = max(1, _PAIRS // max(1, length * max(length, units.shape[1])))
        for start in range(0, len(own), step):
            part = own[start : start + step]
            vectors = units[torch.stack([rows[at] for at in part])]
            sums = (vectors @ vectors.transpose(1, 2)).square().sum(2)
            for at, each in zip(part, sums, strict=True):
                found[at] = each
    return found
