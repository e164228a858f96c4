"""From scores to evidence: how a pair scores beside random ones, and how probable it is that it belongs together.

Scores of one model mean different things in different domains and languages. So each group of pairs is compared with
two sets of random scores sampled from itself: *randa*, random audio with the caption, and *randt*, a random caption
with the audio. Everything here is arithmetic on arrays of scores.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

# P values over it are taken for mismatched pairs, which spread evenly over 0 to 1: the usual choice for the estimate of
# Storey, "A direct approach to false discovery rates", 2002.
STOREY_LAMBDA = 0.5
CURVE = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # p values of the keep-rate curve
_BIN_ITEMS, _MAX_BINS = 30, 50  # scores of a bin of the density ratio, at least; bins, at most


class EqualError(NamedTuple):
    """Where as large a share of the matched pairs scores below as of the random ones at or above."""

    threshold: float
    rate: float  # share of either


class KeepRate(NamedTuple):
    """What a threshold on the p value keeps."""

    p: float
    kept: float  # share of the real pairs
    mismatched: float  # share of the kept ones that is expected not to belong together


def auc(real: Scores, random: Scores) -> float:
    """Probability that a real pair (n,) scores above a random one (m,); ties count half."""
    ordered = np.sort(random)
    below = np.searchsorted(ordered, real, "left") + np.searchsorted(ordered, real, "right")
    return float(below.mean() / (2 * len(random)))


def matched_auc(measured: float, mismatched: float) -> float:
    """The AUC of the matched pairs alone, where a share of mismatched ones scores as random pairs do."""
    return min(1.0, max(0.0, (measured - mismatched / 2) / (1 - mismatched))) if mismatched < 1 else 0.5


def equal_error(real: Scores, random: Scores, mismatched: float = 0.0) -> EqualError:
    """The threshold, one of the scores, at which the two kinds of error are nearest to each other.

    Args:
        real: (n,) scores.
        random: (m,) scores.
        mismatched: share of the real pairs, below 1, that scores as random ones do and is no loss.
    """
    thresholds = np.unique(np.concatenate([real, random]))
    missed = np.searchsorted(np.sort(real), thresholds, "left") / len(real)
    passed = 1 - np.searchsorted(np.sort(random), thresholds, "left") / len(random)
    missed = np.clip((missed - mismatched * (1 - passed)) / (1 - mismatched), 0, 1)
    best = int(np.abs(missed - passed).argmin())
    return EqualError(float(thresholds[best]), float(missed[best] + passed[best]) / 2)


def p_values(scores: Scores, random: Scores) -> Scores:
    """Share of random scores (m,) that reach each score (n,), the score itself counted among them: never 0.

    If a pair is random, its p value is at most x with a probability of at most x.
    """
    reached = len(random) - np.searchsorted(np.sort(random), scores, "left")
    return (1 + reached) / (1 + len(random))


def mismatched_share(p: Scores) -> float:
    """How many of the pairs with these p values (n,) do not belong together, as a share; an estimate from above."""
    over = np.count_nonzero(p > STOREY_LAMBDA)
    return min(1.0, float(1 + over) / (len(p) * (1 - STOREY_LAMBDA)))


def rising(values: Scores, weights: Scores) -> Scores:
    """The never-falling sequence (n,) nearest to ``values`` in weighted squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, own, members = blocks.pop()
            total = own + block[1]
            block = ((mean * own + block[0] * block[1]) / total, total, members + block[2])
        blocks.append(block)
    return np.repeat([mean for mean, _, _ in blocks], [members for _, _, members in blocks])


def density_ratio(real: Scores, random: Scores) -> tuple[Scores, Scores]:
    """How much denser real scores (n,) are than random ones (m,), by an isotonic fit: knots and ratios, (k,) each.

    Between the knots the logarithm runs straight; beyond them it is constant.
    """
    bins = int(np.clip(min(len(real), len(random)) // _BIN_ITEMS, 1, _MAX_BINS))
    steps = np.linspace(0, 1, bins + 1)
    # Quantiles of both, so that there are bins wherever one of them is dense.
    edges = np.unique(np.concatenate([np.quantile(real, steps), np.quantile(random, steps)]))
    if len(edges) < 2:
        return edges, np.ones(1)
    # Half an item more in each bin keeps the ratio finite.
    own = (np.histogram(real, edges)[0] + 0.5) / len(real)
    other = (np.histogram(random, edges)[0] + 0.5) / len(random)
    share = rising(own / (own + other), own + other)
    return (edges[:-1] + edges[1:]) / 2, share / (1 - share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What scores mean in one group of pairs."""

    name: str  # such as "speech / en"
    real: Scores  # of the group's pairs
    randa: Scores  # random audio with the captions
    randt: Scores  # random captions with the audio
    check: Scores  # random pairs that are not used by it, to test it on
    mismatched: float  # estimated share of the real pairs that do not belong together
    knots: Scores
    ratios: Scores  # density of real over that of random scores at the knots

    def p(self, scores: Scores) -> tuple[Scores, Scores, Scores]:
        """P values of scores (n,): the larger of the two, against random audio, against random captions."""
        randa, randt = p_values(scores, self.randa), p_values(scores, self.randt)
        return np.maximum(randa, randt), randa, randt

    def probability(self, scores: Scores) -> Scores:
        """How probable it is that pairs with these scores (n,) belong together.

        Real scores are a mixture: matched ones, and a share e distributed as random ones are. Of the density f of real
        scores, e × f0 is that of the mismatched ones, and what is left is the probability: 1 - e × f0 / f.
        """
        ratio = np.exp(np.interp(scores, self.knots, np.log(self.ratios)))
        return np.clip(1 - self.mismatched / ratio, 0, 1)

    def curve(self) -> list[KeepRate]:
        """What thresholds on the p value keep."""
        p = self.p(self.real)[0]
        kept = [float((p <= limit).mean()) for limit in CURVE]
        wrong = self.mismatched * np.array(CURVE) / np.maximum(kept, 1 / len(p))
        return [KeepRate(*row) for row in zip(CURVE, kept, np.minimum(wrong, 1).tolist(), strict=True)]

    def score_at(self, p: float) -> float | None:
        """The lowest score among the random ones whose p value is at most ``p``; None: no such score."""
        both = np.sort(np.concatenate([self.randa, self.randt]))
        passes = self.p(both)[0] <= p
        return float(both[passes.argmax()]) if passes.any() else None

    def facts(self, p: float) -> dict[str, Any]:
        """The calibration in numbers, as JSON has it."""
        random = np.concatenate([self.randa, self.randt])
        measured = auc(self.real, random)
        error = equal_error(self.real, random, min(self.mismatched, 0.99))
        return {
            "pairs": len(self.real),
            "random_pairs": len(random),
            "auc": measured,
            "auc_randa": auc(self.real, self.randa),
            "auc_randt": auc(self.real, self.randt),
            # Mismatched pairs score as random ones do, half a point each; without them:
            "auc_matched": matched_auc(measured, self.mismatched),
            "mismatched_share": self.mismatched,
            "equal_error_threshold": error.threshold,
            "equal_error_rate": error.rate,
            "score_at_p": self.score_at(p),
            "random_passing": float((self.p(self.check)[0] <= p).mean()),
            # Of random pairs; far over p, many of them belong together as well.
            "random_over_median": float((random >= np.median(self.real)).mean()),
            "mean_real": float(self.real.mean()),
            "mean_randa": float(self.randa.mean()),
            "mean_randt": float(self.randt.mean()),
            "keep_rate": [row._asdict() for row in self.curve()],
            "probability": {"scores": self.knots.tolist(), "values": self.probability(self.knots).tolist()},
        }


def calibrate(name: str, real: Scores, randa: Scores, randt: Scores, check: Scores) -> Calibration:
    """Fit a group's calibration; each array has one score or more, see `Calibration`."""
    random = np.concatenate([randa, randt])
    knots, ratios = density_ratio(real, random)
    mismatched = mismatched_share(p_values(real, random))
    return Calibration(
        name=name,
        real=real,
        randa=randa,
        randt=randt,
        check=check,
        mismatched=mismatched,
        knots=knots,
        ratios=ratios,
    )
