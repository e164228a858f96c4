"""The retrieval head of X-ARES (Clotho): frozen clip embeddings and word vectors trained from scratch, in one space."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.bench.heads import cosine_rates
from auricle.data.order import Permutation
from auricle.errors import ConfigError, DataError
from auricle.metrics.retrieval import CaptionRanks, RetrievalScores, caption_ranks, summarise_ranks

Mode = Literal["strict", "compat"]

WIDTH = 1024  # of all layers; X-ARES `models/retrival.py`
TEMPERATURE = 0.07  # at the start; the same
MAX_SCALE = 100.0  # of similarities in strict mode, where temperature is trained; CLIP, arXiv 2103.00020 §2.5
_TEXTS = 1024  # captions encoded at once


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalSettings:
    """How the head is trained; the defaults are those of X-ARES `clotho_task.py`."""

    mode: Mode = "strict"  # see `contrastive_loss`
    epochs: int = 20
    batch_size: int = 128  # pairs of clip and caption
    rate: float = 1e-3  # falls by `heads.cosine_rates`
    width: int = WIDTH
    seed: int = 42  # of weights and shuffles

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode is {self.mode!r}, expected one of {', '.join(get_args(Mode))}")
        if min(self.epochs, self.width) < 1 or self.batch_size < 2 or self.rate <= 0 or self.seed < 0:
            raise ConfigError(
                f"epochs {self.epochs}, width {self.width}, batch {self.batch_size}, rate {self.rate} and seed "
                f"{self.seed}; expected all above 0, at least 2 pairs in a batch, and a seed >= 0"
            )


@dataclass(frozen=True, slots=True)
class Captioned:
    """Clips with their captions."""

    audio: Tensor  # (n, D) embeddings
    tokens: Sequence[Sequence[int]]  # m captions as numbers below the vocabulary; X-ARES: bert-base-uncased
    owners: Tensor  # (m,) int64, the clip of each caption

    def __post_init__(self) -> None:
        if not all(self.tokens):
            raise DataError("a caption has no tokens; expected at least one")
        if self.audio.ndim != 2 or len(self.tokens) != len(self.owners) or not len(self.owners):
            raise DataError(
                f"audio {tuple(self.audio.shape)}, {len(self.tokens)} captions and {len(self.owners)} owners do not "
                "fit; expected (n, D) and as many captions as owners"
            )
        if int(self.owners.min()) < 0 or int(self.owners.max()) >= len(self.audio):
            raise DataError(f"owners up to {int(self.owners.max())}; expected clips 0 … {len(self.audio) - 1}")


class RetrievalHead(nn.Module):
    """Two small networks into one space.

    Audio: LayerNorm → Linear → GELU → Linear on the clip's embedding. Text: word vectors → Linear → GELU → Linear, then
    the mean over the words.
    """

    def __init__(self, dim: int, vocabulary: int, *, width: int = WIDTH) -> None:
        """New weights from torch's random state.

        Args:
            dim: D of the clip embeddings.
            vocabulary: number of different tokens.
            width: of hidden layers and of the space.
        """
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.audio = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.words = nn.Embedding(vocabulary, width)
        self.text = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.log_scale = nn.Parameter(torch.tensor(1.0 / TEMPERATURE).log())

    def embed_audio(self, embeddings: Tensor) -> Tensor:
        """Clips (n, D) → (n, W)."""
        return self.audio(self.norm(embeddings.float()))

    def embed_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Captions: tokens (n, L) int64 and mask (n, L), True at words → (n, W)."""
        kept = mask[..., None].float()
        return (self.text(self.words(tokens)) * kept).sum(1) / kept.sum(1).clamp(min=1)


def contrastive_loss(
    audio: Tensor,
    text: Tensor,
    log_scale: Tensor,
    *,
    owners: Tensor | None = None,
    mode: Mode = "strict",
    regularised: bool = True,
) -> Tensor:
    """Cross entropy of finding the caption of a clip and the clip of a caption among the batch, averaged.

    Args:
        audio: (B, W).
        text: (B, W), the captions of the same rows.
        log_scale: () the logarithm of the factor of similarities.
        owners: (B,) the clip of each row. In strict mode another row of the same clip is no negative; None: all differ.
        mode: ``strict`` compares at length 1 (cosine), scale at most `MAX_SCALE`. ``compat`` is the rule of X-ARES:
            products of vectors without scaling, and every other row a negative.
        regularised: in ``compat``, add mean |x| / ‖x‖ of both matrices, as released.

    Source: X-ARES `models/retrival.py`.
    """
    if mode == "strict":
        audio, text = F.normalize(audio, dim=1), F.normalize(text, dim=1)
        log_scale = log_scale.clamp(max=math.log(MAX_SCALE))
    logits = log_scale.exp() * audio @ text.t()
    if mode == "strict" and owners is not None:
        is_twin = (owners[:, None] == owners[None, :]).fill_diagonal_(False)
        logits = logits.masked_fill(is_twin, -math.inf)
    truth = torch.arange(len(audio), device=audio.device)
    loss = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.t(), truth)) / 2
    if mode == "compat" and regularised:
        loss = loss + audio.abs().mean() / audio.norm() + text.abs().mean() / text.norm()
    return loss


@torch.no_grad()
def rank_captions(head: RetrievalHead, clips: Captioned) -> CaptionRanks:
    """Ranks of the captions of clips, and of the clips of captions."""
    texts = [
        head.embed_text(*_pad(clips.tokens[start : start + _TEXTS], clips.audio.device))
        for start in range(0, len(clips.tokens), _TEXTS)
    ]
    return caption_ranks(head.embed_audio(clips.audio), torch.cat(texts), clips.owners)


def evaluate_retrieval(head: RetrievalHead, clips: Captioned) -> tuple[RetrievalScores, RetrievalScores]:
    """Recalls from clips to captions and from captions to clips; see `auricle.metrics.retrieval`."""
    return summarise_ranks(rank_captions(head, clips))


def train_retrieval(
    train: Captioned,
    valid: Captioned,
    *,
    vocabulary: int,
    settings: RetrievalSettings | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, score: None,
) -> tuple[RetrievalHead, list[float]]:
    """Train the head, on the device of the audio, and return it as after the first epoch with the highest mean of both
    recalls at rank 1, with the validation score of every epoch.

    Raises:
        DataError: a token outside the vocabulary, or fewer than two captions to train on.

    Source: X-ARES `clotho_task.py`, `trainer.py`: Adam without decay. A last batch of one pair is left out, since it
    has no negatives.
    """
    settings = settings or RetrievalSettings()
    _check(train, valid, vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = RetrievalHead(train.audio.shape[1], vocabulary, width=settings.width)
    head.to(train.audio.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.rate)
    best, scores = {}, list[float]()
    for epoch, rate in enumerate(cosine_rates(settings.rate, settings.epochs)):
        optimizer.param_groups[0]["lr"] = rate
        _train_epoch(head, optimizer, train, settings, epoch)
        score = sum(each.r1 for each in evaluate_retrieval(head, valid)) / 2
        if not scores or score > max(scores):
            best = {name: value.detach().clone() for name, value in head.state_dict().items()}
        scores.append(score)
        on_epoch(epoch, score)
    head.load_state_dict(best)
    return head.eval(), scores


def _train_epoch(
    head: RetrievalHead, optimizer: torch.optim.Optimizer, train: Captioned, settings: RetrievalSettings, epoch: int
) -> None:
    device = train.audio.device
    order = Permutation(len(train.tokens), settings.seed, epoch).ids(np.arange(len(train.tokens)))
    for pairs in torch.from_numpy(order).split(settings.batch_size):
        if len(pairs) < 2:
            continue
        owners = train.owners[pairs.to(train.owners.device)].to(device)
        texts = head.embed_text(*_pad([train.tokens[pair] for pair in pairs.tolist()], device))
        audio = head.embed_audio(train.audio[owners])
        loss = contrastive_loss(audio, texts, head.log_scale, owners=owners, mode=settings.mode)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _pad(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (n, L) padded with 0, and the mask of words."""
    rows = [torch.tensor(text) for text in texts]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens.to(device), (torch.arange(tokens.shape[1]) < lengths[:, None]).to(device)


def _check(train: Captioned, valid: Captioned, vocabulary: int) -> None:
    for clips in (train, valid):
        low, high = min(map(min, clips.tokens)), max(map(max, clips.tokens))
        if low < 0 or high >= vocabulary:
            raise DataError(f"tokens from {low} to {high}; expected 0 … {vocabulary - 1}: is this the right tokenizer?")
    if len(train.tokens) < 2:
        raise DataError("one caption to train on; expected at least two, so that there is a wrong one")
