"""The X-ARES "MLP" (LayerNorm and one linear layer), for all folds and learning rates of a task in one run.

The heads are stacked: F folds × R learning rates, parameters (F, R, …). A fold's rows are fetched and normalised once
for all its rates, one batched product serves all heads, and one Adam moves them. Heads are independent: the result
of a fold is the same, within rounding, alone or with others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.data.order import Permutation
from auricle.errors import ConfigError, DataError
from auricle.metrics.events import pad_or_trim

Loss = Literal["cross_entropy", "bce", "l1", "mse"]
# Outputs and targets of the validation items, (n, C) and (n, …), or of frame tasks a list of each → higher is better.
Score = Callable[[Any, Any], float]

NORM_EPS = 1e-5  # of torch's LayerNorm, which X-ARES uses
FINAL_RATE = 0.1  # share of the learning rate that the cosine falls towards; X-ARES `trainer.py`
_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8  # torch's defaults
_EVAL_ROWS = 1 << 15  # rows of outputs at once
_SEED_STRIDE = 1 << 32  # between the seeds of two folds, so that they never overlap


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """How heads are trained; the defaults are those of X-ARES `TaskConfig`."""

    epochs: int = 10
    batch_size: int = 32  # items: clips, also where frames are scored
    rates: tuple[float, ...] = (1e-3,)  # learning rates, a head for each
    loss: Loss = "cross_entropy"
    pos_weight: float | None = None  # of positive targets in bce; 10 for MAESTRO
    shuffle: bool = True  # False: items in the order the fold lists them, every epoch
    seed: int = 42  # of weights and shuffles, < 2^32

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or not self.rates or min(self.rates) <= 0:
            raise ConfigError(
                f"epochs {self.epochs}, batch {self.batch_size} and rates {self.rates}; expected all above 0"
            )
        if self.loss not in get_args(Loss):
            raise ConfigError(f"loss is {self.loss!r}, expected one of {', '.join(get_args(Loss))}")
        if self.pos_weight is not None and (self.loss != "bce" or self.pos_weight <= 0):
            raise ConfigError(f"pos_weight is {self.pos_weight}; expected above 0, and with the loss 'bce' only")
        if not 0 <= self.seed < _SEED_STRIDE:
            raise ConfigError(f"seed is {self.seed}, expected 0 … 2^32 - 1")


class Fold(NamedTuple):
    """Items a head is trained on, and items that pick its best epoch."""

    key: int  # number of the fold in its task, >= 0; seeds its weights and shuffles
    train: Tensor  # (n,) int64
    valid: Tensor  # (n,) int64


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Features and targets of all items of a task, one item after the other."""

    features: Tensor  # (N, D) rows, float16 or float32
    targets: Tensor  # (N,) int64 classes, or (N, C) of 0 and 1 or of numbers
    lengths: Tensor | None = None  # (n,) int64 rows of each item, N in all; None: one each

    def __post_init__(self) -> None:
        rows = len(self.features) if self.lengths is None else int(self.lengths.sum())
        if self.features.ndim != 2 or not (len(self.features) == len(self.targets) == rows > 0):
            raise DataError(
                f"features {tuple(self.features.shape)}, targets {tuple(self.targets.shape)} and items of {rows} rows "
                "do not fit; expected (N, D) and N targets, N > 0"
            )

    @classmethod
    def of_frames(cls, features: Sequence[Tensor], targets: Sequence[Tensor]) -> "LabelledFeatures":
        """Of clips (T_i, D) with targets (T_i', C), which are trimmed or zero-padded to T_i as in X-ARES."""
        fitted = [pad_or_trim(truth, len(frames)) for frames, truth in zip(features, targets, strict=True)]
        if not fitted:
            raise DataError("no clips to train heads on; the task's folder is empty or holds another layout")
        return cls(torch.cat(list(features)), torch.cat(fitted), torch.tensor([len(frames) for frames in features]))

    def __len__(self) -> int:
        return len(self.features) if self.lengths is None else len(self.lengths)

    def rows(self, items: Tensor) -> Tensor:
        """Numbers of the rows of some items, in their order."""
        if self.lengths is None:
            return items
        lengths = self.lengths[items]
        starts = (self.lengths.cumsum(0) - self.lengths)[items]
        shift = starts - (lengths.cumsum(0) - lengths)
        return torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)

    def split(self, rows: Tensor, items: Tensor) -> Any:
        """Values of the rows of some items as a score needs them: of frames a list, one (T_i, …) an item."""
        return rows if self.lengths is None else list(rows.split(self.lengths[items].tolist()))


@dataclass(frozen=True, slots=True)
class Heads:
    """Stacked weights of F × R heads: linear(layer_norm(features) · scale + shift)."""

    scale: Tensor  # (F, R, D)
    shift: Tensor  # (F, R, D)
    weight: Tensor  # (F, R, C, D)
    bias: Tensor  # (F, R, C)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four."""
        return self.scale, self.shift, self.weight, self.bias

    def folded(self) -> tuple[Tensor, Tensor]:
        """The affine part of the norm moved into the linear layer: weights (F, R, C, D) and bias (F, R, C)."""
        return self.weight * self.scale[:, :, None], self.bias + torch.einsum("frcd,frd->frc", self.weight, self.shift)

    @torch.no_grad()
    def outputs(self, features: Tensor, fold: int) -> Tensor:
        """Outputs of the heads of a fold for features (n, D): (R, n, C) float32."""
        weight, bias = (part[fold] for part in self.folded())
        rates, classes = bias.shape
        joined, joined_bias = weight.flatten(0, 1), bias.flatten()
        parts = [F.linear(_normalise(rows), joined, joined_bias) for rows in features.split(_EVAL_ROWS)]
        return torch.cat(parts).view(-1, rates, classes).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a run; E epochs, F folds, R rates."""

    best: Heads  # of each head's best epoch: the first with the highest validation score
    final: Heads  # of the last epoch
    best_epoch: Tensor  # (F, R) int64, from 0
    scores: Tensor  # (E, F, R) float64 validation scores, -inf where outputs were not finite
    losses: Tensor  # (E, F, R) float64 mean losses on the validation items
    rates: tuple[float, ...]


def cosine_rates(rate: float, epochs: int) -> list[float]:
    """The learning rate of each epoch: rate + (0.1 · rate - rate) / 2 · (1 - cos(π e / E)), e = 0 … E - 1.

    Source: X-ARES `trainer.py`; the final tenth is never reached, and a single epoch runs at the full rate.
    """
    fall = (FINAL_RATE * rate - rate) / 2
    return [rate + fall * (1 - math.cos(math.pi * epoch / epochs)) for epoch in range(epochs)]


def initial_heads(keys: Sequence[int], rates: int, dim: int, classes: int, *, seed: int) -> Heads:
    """Weights of torch's defaults: norm 1 and 0, linear uniform in ±1 / √D; all rates of a fold start alike."""
    weights, biases = [], []
    for key in keys:
        state = np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) >> 1)
        values = (torch.rand(classes, dim + 1, generator=generator) * 2 - 1) / math.sqrt(dim)
        weights.append(values[:, :dim].expand(rates, -1, -1))
        biases.append(values[:, dim].expand(rates, -1))
    ones = torch.ones(len(keys), rates, dim)
    return Heads(ones, torch.zeros_like(ones), torch.stack(weights).contiguous(), torch.stack(biases).contiguous())


def train_heads(
    examples: LabelledFeatures,
    folds: Sequence[Fold],
    *,
    num_outputs: int,
    score: Score,
    settings: HeadSettings | None = None,
    start: Heads | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Trained:
    """Train a head for each fold and learning rate, and keep each one's best epoch.

    Args:
        examples: of the task; the run happens where its features are.
        folds: different keys.
        num_outputs: C.
        score: of validation items, higher is better; for errors give the negative.
        settings: None: the defaults of `HeadSettings`.
        start: weights to start from instead of `initial_heads`.
        on_epoch: called after each epoch with its number.

    Raises:
        DataError: items outside the examples, an empty split, or targets that do not fit the outputs.
        ConfigError: keys that repeat or are negative.

    Source: X-ARES `trainer.py`, `models/simple.py`: Adam without decay, no warm-up, no clipping, the last batch kept,
    the loss of frame tasks averaged over all frames of a batch. Differs from: it, in that padding is no frame.
    """
    settings = settings or HeadSettings()
    _check(examples, folds, num_outputs, settings)
    keys = [fold.key for fold in folds]
    if start is None:
        start = initial_heads(keys, len(settings.rates), examples.features.shape[1], num_outputs, seed=settings.seed)
    device = examples.features.device
    heads = Heads(*(part.detach().to(device, torch.float32).clone().requires_grad_() for part in start.tensors))
    best = Heads(*(part.detach().clone() for part in heads.tensors))
    adam = _Adam(heads)
    schedule = torch.tensor([cosine_rates(rate, settings.epochs) for rate in settings.rates], device=device)
    shape = (settings.epochs, len(folds), len(settings.rates))
    scores, losses = (torch.full(shape, math.nan, dtype=torch.float64) for _ in range(2))
    best_epoch = torch.zeros(shape[1:], dtype=torch.int64)
    for epoch in range(settings.epochs):
        _train_epoch(heads, adam, examples, folds, settings, epoch, schedule[:, epoch])
        for number, fold in enumerate(folds):
            scores[epoch, number], losses[epoch, number] = _validate(heads, examples, number, fold, score, settings)
        # The first epoch counts whatever its score: weights of a head that diverged are still weights.
        better = scores[epoch] > scores[:epoch].amax(0) if epoch else torch.ones(shape[1:], dtype=torch.bool)
        best_epoch[better] = epoch
        for kept, part in zip(best.tensors, heads.tensors, strict=True):
            kept[better.to(device)] = part.detach()[better.to(device)]
        on_epoch(epoch)
    final = Heads(*(part.detach() for part in heads.tensors))
    return Trained(best, final, best_epoch, scores, losses, settings.rates)


class _Adam:
    """Adam over stacked parameters; a fold without a batch keeps weights, moments and step count."""

    def __init__(self, heads: Heads) -> None:
        self.parameters = heads.tensors
        self.first = [torch.zeros_like(part) for part in heads.tensors]
        self.second = [torch.zeros_like(part) for part in heads.tensors]
        self.steps = torch.zeros(len(heads.bias), 1, dtype=torch.float64, device=heads.bias.device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor, active: Tensor) -> None:
        """Move by gradients shaped as the parameters at rates (R,), in the folds where ``active`` (F,)."""
        (one, two), moves = _BETAS, active[:, None]
        self.steps += moves
        steps = self.steps.clamp(min=1)
        stride = torch.where(moves, rates.double() / (1 - one**steps), 0.0).float()  # (F, R)
        root = (1 - two**steps).sqrt().float()  # (F, 1)
        new_first, old_second, new_second = (
            torch.where(moves, changed, kept).float() for changed, kept in ((1 - one, 0.0), (two, 1.0), (1 - two, 0.0))
        )
        for part, gradient, first, second in zip(self.parameters, gradients, self.first, self.second, strict=True):
            shape = (-1,) + (1,) * (part.ndim - 1)
            first.add_((gradient - first).mul_(new_first.view(shape)))
            second.mul_(old_second.view(shape)).add_((gradient * gradient).mul_(new_second.view(shape)))
            change = first / (second.sqrt().div_(root.view(shape)).add_(_ADAM_EPS))
            part.sub_(change.mul_(stride.view(*stride.shape, *(1,) * (part.ndim - 2))))


def _train_epoch(
    heads: Heads,
    adam: _Adam,
    examples: LabelledFeatures,
    folds: Sequence[Fold],
    settings: HeadSettings,
    epoch: int,
    rates: Tensor,
) -> None:
    orders = [_order(fold, settings, epoch) for fold in folds]
    device = examples.features.device
    for start in range(0, max(map(len, orders)), settings.batch_size):
        picked = [examples.rows(order[start : start + settings.batch_size]) for order in orders]
        # Clip batches are padded to the batch size, so that other folds do not change the shapes of a fold's products.
        width = settings.batch_size if examples.lengths is None else max(map(len, picked))
        rows = torch.stack([pad_or_trim(each, width, dim=0) for each in picked])
        counts = torch.tensor([len(each) for each in picked])
        mask = (torch.arange(width) < counts[:, None]).to(device)
        inputs, targets = _normalise(examples.features[rows.to(device)]), examples.targets[rows.to(device)]
        weight, bias = heads.folded()
        outputs = torch.bmm(inputs, weight.flatten(1, 2).transpose(1, 2)).unflatten(2, bias.shape[1:]) + bias[:, None]
        losses = _losses(outputs, targets[:, :, None].expand(-1, -1, bias.shape[1], *targets.shape[2:]), settings)
        totals = (losses * mask[..., None]).sum(1) / mask.sum(1)[:, None].clamp(min=1)
        adam.step(torch.autograd.grad(totals.sum(), list(heads.tensors)), rates, mask.any(1))


def _order(fold: Fold, settings: HeadSettings, epoch: int) -> Tensor:
    if not settings.shuffle:
        return fold.train
    shuffle = Permutation(len(fold.train), settings.seed + _SEED_STRIDE * fold.key, epoch)
    return fold.train[torch.from_numpy(shuffle.ids(np.arange(len(fold.train))))]


def _losses(outputs: Tensor, targets: Tensor, settings: HeadSettings) -> Tensor:
    """Loss of each row: outputs (…, C) and targets (…) or (…, C) → (…)."""
    if settings.loss == "cross_entropy":
        flat = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(outputs.shape[:-1])
    truth = targets.float() if targets.ndim == outputs.ndim else targets.float()[..., None]
    if settings.loss == "bce":
        weight = None if settings.pos_weight is None else outputs.new_tensor(settings.pos_weight)
        each = F.binary_cross_entropy_with_logits(outputs, truth, pos_weight=weight, reduction="none")
    else:
        each = (outputs - truth).abs() if settings.loss == "l1" else (outputs - truth).square()
    return each.mean(-1)


def _validate(
    heads: Heads, examples: LabelledFeatures, number: int, fold: Fold, score: Score, settings: HeadSettings
) -> tuple[Tensor, Tensor]:
    """Scores and mean losses (R,) of the heads of one fold on its validation items."""
    rows = examples.rows(fold.valid).to(examples.features.device)
    outputs, targets = heads.outputs(examples.features[rows], number), examples.targets[rows]
    truth = examples.split(targets, fold.valid)
    scores, losses = [], []
    for each in outputs:
        finite = bool(torch.isfinite(each).all())
        value = score(examples.split(each, fold.valid), truth) if finite else -math.inf
        scores.append(-math.inf if math.isnan(value) else value)
        losses.append(float(_losses(each, targets, settings).double().mean()))
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64)


def _normalise(features: Tensor) -> Tensor:
    return F.layer_norm(features.float(), features.shape[-1:], eps=NORM_EPS)


def _check(examples: LabelledFeatures, folds: Sequence[Fold], num_outputs: int, settings: HeadSettings) -> None:
    keys = [fold.key for fold in folds]
    if not keys or len(set(keys)) < len(keys) or min(keys) < 0:
        raise ConfigError(f"folds have keys {keys}; expected at least one, all different and >= 0")
    for key, *splits in folds:
        for name, items in zip(("train", "valid"), splits, strict=True):
            if not len(items) or int(items.min()) < 0 or int(items.max()) >= len(examples):
                raise DataError(
                    f"fold {key}: {len(items)} items to {name} on; expected some of 0 … {len(examples) - 1}"
                )
    targets = examples.targets
    if settings.loss == "cross_entropy":
        if targets.ndim != 1 or int(targets.min()) < 0 or int(targets.max()) >= num_outputs:
            raise DataError(
                f"targets {tuple(targets.shape)} from {targets.min()} to {targets.max()}; expected (N,) classes 0 … "
                f"{num_outputs - 1}"
            )
    elif (targets.shape[1] if targets.ndim == 2 else 1) != num_outputs:
        raise DataError(f"targets {tuple(targets.shape)} for {num_outputs} outputs; expected (N, {num_outputs})")
