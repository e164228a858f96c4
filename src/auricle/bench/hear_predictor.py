"""The predictor of HEAR 2021: a small network on frozen embeddings, its settings sampled from a grid.

A task tries a few random points of the grid on its first fold, keeps the best on validation, and uses it on all folds.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.data.order import Permutation
from auricle.errors import ConfigError, DataError

Kind = Literal["multiclass", "multilabel"]
Initialisation = Literal["xavier_uniform", "xavier_normal"]
Selection = Literal["score", "loss"]
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
    patience: int = 20  # validations without a better score before training stops
    select_by: Selection = "score"  # what epochs and points are chosen by on validation; MAESTRO: the loss
    seed: int = 42  # of grid points, weights, dropout and shuffles

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"kind is {self.kind!r}, expected one of {', '.join(get_args(Kind))}")
        if (
            min(self.width, self.max_epochs, self.check_every, self.patience) < 1
            or self.batch_size < 2
            or self.seed < 0
        ):
            raise ConfigError(f"{self}: expected numbers above 0, at least 2 rows in a batch, and a seed >= 0")
        if self.select_by not in get_args(Selection):
            raise ConfigError(f"select_by is {self.select_by!r}, expected one of {', '.join(get_args(Selection))}")
        if not 0 <= self.dropout < 1 or self.check_every > self.max_epochs:
            raise ConfigError(f"{self}: expected a dropout in [0, 1) and a validation before the last epoch")


@dataclass(frozen=True, slots=True)
class Rows:
    """Embeddings and targets of a split: of clips, or of all frames of its clips one after the other."""

    embeddings: Tensor  # (n, D)
    targets: Tensor  # (n,) int64 classes, or (n, C) of 0 and 1 where several may be active

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.targets) or not len(self.targets):
            raise DataError(
                f"embeddings {tuple(self.embeddings.shape)} and targets {tuple(self.targets.shape)} do not fit; "
                "expected (n, D) and n targets, n > 0"
            )


class FoldRows(NamedTuple):
    """What a fold trains on, and what chooses its epoch."""

    train: Rows
    valid: Rows
    score: Score


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
    score: float  # its best on validation; the negative loss where that selects
    epoch: int  # after how many epochs
    epochs: int  # trained in all

    @torch.inference_mode()
    def probabilities(self, embeddings: Tensor) -> Tensor:
        """(n, D) → (n, C): softmax of one class, sigmoid of several."""
        return _activate(_logits(self.predictor, embeddings), self.kind)


def grid() -> list[GridPoint]:
    """All 16 points."""
    return [GridPoint(*values) for values in itertools.product(HIDDEN_LAYERS, RATES, INITIALISATIONS)]


def sample_points(count: int = GRID_POINTS, *, seed: int = 42) -> list[GridPoint]:
    """Different random points of the grid; fewer are the first of more.

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
        score: of validation probabilities and targets, higher is better; for errors give the negative. Not called where
            the settings select by the loss.
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
    train, valid = (Rows(rows.embeddings.float(), rows.targets) for rows in (train, valid))
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
    on_point: Callable[[Fitted], None] = lambda fitted: None,
) -> Fitted:
    """The best predictor of some points of the grid, by its validation score; of equals the first.

    Use it on the first fold, and `fit_predictor` with its ``point`` on the others. Arguments as there; ``points`` None:
    those of `sample_points` with the seed of the settings; ``on_point`` is called after each. Points are trained one
    after the other: their layers are wide enough to use all of a processor; stacked into one product they are slower.
    """
    tried = sample_points(seed=settings.seed) if points is None else list(points)
    if not tried:
        raise ConfigError("no points of the grid to try; expected at least one")
    best: Fitted | None = None
    for point in tried:
        fitted = fit_predictor(train, valid, point, num_classes=num_classes, score=score, settings=settings)
        best = fitted if best is None or fitted.score > best.score else best
        on_point(fitted)
    assert best is not None
    return best


def fit_folds(
    folds: Iterable[FoldRows],
    *,
    num_classes: int,
    settings: PredictorSettings,
    points: Sequence[GridPoint] | None = None,
    on_point: Callable[[Fitted], None] = lambda fitted: None,
) -> list[Fitted]:
    """A predictor for each fold: `choose_point` on the first, `fit_predictor` with its point on the others.

    Arguments as there; folds are taken one after the other, so that the rows of one are in memory at a time.
    """
    found: list[Fitted] = []
    for train, valid, score in folds:
        if found:
            fitted = fit_predictor(
                train, valid, found[0].point, num_classes=num_classes, score=score, settings=settings
            )
            on_point(fitted)
        else:
            fitted = choose_point(
                train,
                valid,
                num_classes=num_classes,
                score=score,
                settings=settings,
                points=points,
                on_point=on_point,
            )
        found.append(fitted)
    return found


def _fit(
    predictor: Predictor, train: Rows, valid: Rows, point: GridPoint, score: Score, settings: PredictorSettings
) -> Fitted:
    optimizer = torch.optim.Adam(predictor.parameters(), lr=point.rate, fused=True)
    best: dict[str, Tensor] = {}
    highest, best_epoch, waited, epoch = -math.inf, 0, 0, 0
    for epoch in range(1, settings.max_epochs + 1):
        _train_epoch(predictor, optimizer, train, settings, epoch)
        if epoch % settings.check_every:
            continue
        value = _validation_score(_logits(predictor, valid.embeddings), valid.targets, score, settings)
        if not best or value > highest:
            best = {name: part.detach().clone() for name, part in predictor.state_dict().items()}
            highest, best_epoch, waited = value, epoch, 0
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
        loss = _loss(predictor(train.embeddings[rows]), train.targets[rows], settings.kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _validation_score(logits: Tensor, targets: Tensor, score: Score, settings: PredictorSettings) -> float:
    """Of validation rows, higher is better; minus infinity where outputs or score are not finite."""
    if not torch.isfinite(logits).all():
        return -math.inf
    if settings.select_by == "loss":
        return -float(_loss(logits, targets, settings.kind))
    value = score(_activate(logits, settings.kind), targets)
    return -math.inf if math.isnan(value) else value


def _loss(logits: Tensor, targets: Tensor, kind: Kind) -> Tensor:
    if kind == "multiclass":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets.float())


def _activate(logits: Tensor, kind: Kind) -> Tensor:
    return logits.softmax(1) if kind == "multiclass" else logits.sigmoid()


@torch.no_grad()
def _logits(predictor: Predictor, embeddings: Tensor) -> Tensor:
    predictor.eval()
    return torch.cat([predictor(rows.float()) for rows in embeddings.split(_EVAL_ROWS)])


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
