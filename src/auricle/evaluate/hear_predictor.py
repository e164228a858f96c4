"""The predictor of HEAR 2021: a small network on frozen embeddings, its settings drawn from a grid.

A task tries a few random points of the grid on its first fold, keeps the best on validation, and uses it on all folds.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.data.order import Permutation
from auricle.errors import ConfigError, DataError

Kind = Literal["multiclass", "multilabel"]
Initialisation = Literal["xavier_uniform", "xavier_normal"]
# Probabilities (n, C) and targets of the validation items → higher is better.
Score = Callable[[Tensor, Tensor], float]

# All from hear-eval-kit 2021.1 `task_predictions.py`, PARAM_GRID.
HIDDEN_LAYERS = (1, 2)
RATES = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
INITIALISATIONS: tuple[Initialisation, ...] = ("xavier_uniform", "xavier_normal")
GRID_POINTS = 8  # of the 16 that are tried
_EVAL_ROWS = 1 << 14


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One setting of the grid."""

    hidden_layers: int
    rate: float  # of Adam, constant
    initialisation: Initialisation

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.hidden_layers < 1 or self.rate <= 0 or self.initialisation not in get_args(Initialisation):
            raise ConfigError(
                f"{self}: expected at least one hidden layer, a rate above 0 and one of "
                f"{', '.join(get_args(Initialisation))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorSettings:
    """What is the same at all points of the grid; the defaults are HEAR's."""

    kind: Kind  # one class an item, or any number
    width: int = 1024  # of hidden layers
    dropout: float = 0.1
    batch_size: int = 1024  # rows
    max_epochs: int = 500
    check_every: int = 3  # epochs between validations; 10 for DCASE 2016
    patience: int = 20  # validations without a better score before the end
    seed: int = 42  # of weights, dropout and shuffles

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.kind not in get_args(Kind):
            raise ConfigError(f"kind is {self.kind!r}, expected one of {', '.join(get_args(Kind))}")
        if (
            min(self.width, self.max_epochs, self.check_every, self.patience) < 1
            or self.batch_size < 2
            or self.seed < 0
        ):
            raise ConfigError(f"{self}: expected numbers above 0, at least 2 rows in a batch, and a seed >= 0")
        if not 0 <= self.dropout < 1 or self.check_every > self.max_epochs:
            raise ConfigError(f"{self}: expected a dropout in [0, 1) and a validation before the last epoch")


@dataclass(frozen=True, slots=True)
class Rows:
    """Embeddings and targets of a split: of clips, or of all frames of its clips one after the other."""

    embeddings: Tensor  # (n, D)
    targets: Tensor  # (n,) int64 classes, or (n, C) of 0 and 1 where several may hold

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.targets) or not len(self.targets):
            raise DataError(
                f"embeddings {tuple(self.embeddings.shape)} and targets {tuple(self.targets.shape)} do not fit; "
                "expected (n, D) and n targets, n > 0"
            )


class Predictor(nn.Module):
    """Hidden layers of Linear → BatchNorm → Dropout → ReLU, then a linear layer."""

    def __init__(self, dim: int, classes: int, point: GridPoint, *, width: int = 1024, dropout: float = 0.1) -> None:
        """New weights from torch's random state; the gain of a layer is that of the activation before it."""
        super().__init__()
        init = nn.init.xavier_uniform_ if point.initialisation == "xavier_uniform" else nn.init.xavier_normal_
        layers: list[nn.Module] = []
        gain = 1.0
        for _ in range(point.hidden_layers):
            linear = nn.Linear(dim, width)
            init(linear.weight, gain=gain)
            layers += [linear, nn.BatchNorm1d(width), nn.Dropout(dropout), nn.ReLU()]
            dim, gain = width, math.sqrt(2.0)
        self.hidden = nn.Sequential(*layers)
        self.projection = nn.Linear(dim, classes)
        init(self.projection.weight, gain=gain)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n, D) → logits (n, C)."""
        return self.projection(self.hidden(embeddings))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained predictor, as after its best validation."""

    predictor: Predictor
    point: GridPoint
    kind: Kind
    score: float  # its best on validation
    epoch: int  # after how many epochs
    epochs: int  # trained in all

    @torch.inference_mode()
    def probabilities(self, embeddings: Tensor) -> Tensor:
        """(n, D) → (n, C): softmax of one class, sigmoid of several."""
        return _probabilities(self.predictor, embeddings, self.kind)


def grid() -> list[GridPoint]:
    """All 16 points."""
    return [GridPoint(*values) for values in itertools.product(HIDDEN_LAYERS, RATES, INITIALISATIONS)]


def draw_points(count: int = GRID_POINTS, *, seed: int = 42) -> list[GridPoint]:
    """Different random points of the grid; fewer are the beginning of more.

    Raises:
        ConfigError: fewer than one point, or more than the grid has.
    """
    points = grid()
    if not 1 <= count <= len(points):
        raise ConfigError(f"{count} points of the grid; expected 1 … {len(points)}")
    return [points[i] for i in Permutation(len(points), seed).ids(np.arange(count))]


def fit_predictor(
    train: Rows, valid: Rows, point: GridPoint, *, num_classes: int, score: Score, settings: PredictorSettings
) -> Fitted:
    """Train one predictor until validation has not improved for a while.

    Args:
        train: rows to learn from; the run happens where they are.
        valid: rows that choose the epoch, the first with the highest score.
        point: of the grid.
        num_classes: C.
        score: of validation probabilities and targets, higher is better; for errors give the negative.
        settings: the rest.

    Raises:
        DataError: targets that do not fit the kind or the classes, or a single row to learn from.

    Source: hear-eval-kit 2021.1 `task_predictions.py`. Differs from: it, in that the rows of tasks with folds are
    shuffled too, and a last batch of a single row, which has no variance to normalise by, waits for another epoch.
    """
    _check(train, num_classes, settings)
    _check(valid, num_classes, settings)
    if len(train.embeddings) < 2:
        raise DataError("one row to learn from; batch normalisation needs at least two")
    device = train.embeddings.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        predictor = Predictor(
            train.embeddings.shape[1], num_classes, point, width=settings.width, dropout=settings.dropout
        ).to(device)
        return _fit(predictor, train, valid, point, score, settings)


def choose_point(
    train: Rows,
    valid: Rows,
    *,
    num_classes: int,
    score: Score,
    settings: PredictorSettings,
    points: Sequence[GridPoint] | None = None,
) -> Fitted:
    """The best predictor of some points of the grid, by its validation score; of equals the first.

    Use it on the first fold, and `fit_predictor` with its ``point`` on the others. Arguments as there; ``points`` None:
    those of `draw_points` with the seed of the settings.
    """
    tried = draw_points(seed=settings.seed) if points is None else list(points)
    if not tried:
        raise ConfigError("no points of the grid to try; expected at least one")
    fitted = [
        fit_predictor(train, valid, point, num_classes=num_classes, score=score, settings=settings) for point in tried
    ]
    return max(fitted, key=lambda each: each.score)


def _fit(
    predictor: Predictor, train: Rows, valid: Rows, point: GridPoint, score: Score, settings: PredictorSettings
) -> Fitted:
    optimizer = torch.optim.Adam(predictor.parameters(), lr=point.rate)
    best: dict[str, Tensor] = {}
    highest, best_epoch, waited, epoch = -math.inf, 0, 0, 0
    for epoch in range(1, settings.max_epochs + 1):
        _train_epoch(predictor, optimizer, train, settings, epoch)
        if epoch % settings.check_every:
            continue
        value = score(_probabilities(predictor, valid.embeddings, settings.kind), valid.targets)
        if not best or value > highest:
            best = {name: part.detach().clone() for name, part in predictor.state_dict().items()}
            highest, best_epoch, waited = -math.inf if math.isnan(value) else value, epoch, 0
        else:
            waited += 1
        if waited >= settings.patience:
            break
    predictor.load_state_dict(best)
    return Fitted(predictor.eval(), point, settings.kind, highest, best_epoch, epoch)


def _train_epoch(
    predictor: Predictor, optimizer: torch.optim.Optimizer, train: Rows, settings: PredictorSettings, epoch: int
) -> None:
    predictor.train()
    n = len(train.embeddings)
    order = torch.from_numpy(Permutation(n, settings.seed, epoch).ids(np.arange(n))).to(train.embeddings.device)
    for rows in order.split(settings.batch_size):
        if len(rows) < 2:
            continue
        logits, truth = predictor(train.embeddings[rows].float()), train.targets[rows]
        if settings.kind == "multiclass":
            loss = F.cross_entropy(logits, truth)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, truth.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _probabilities(predictor: Predictor, embeddings: Tensor, kind: Kind) -> Tensor:
    predictor.eval()
    logits = torch.cat([predictor(rows.float()) for rows in embeddings.split(_EVAL_ROWS)])
    return logits.softmax(1) if kind == "multiclass" else logits.sigmoid()


def _check(rows: Rows, num_classes: int, settings: PredictorSettings) -> None:
    targets = rows.targets
    if settings.kind == "multilabel":
        if targets.shape[1:] != (num_classes,):
            raise DataError(f"targets {tuple(targets.shape)}; expected (n, {num_classes}) of 0 and 1")
    elif targets.ndim != 1 or int(targets.min()) < 0 or int(targets.max()) >= num_classes:
        raise DataError(
            f"targets {tuple(targets.shape)} from {targets.min()} to {targets.max()}; expected (n,) classes 0 … "
            f"{num_classes - 1}"
        )
