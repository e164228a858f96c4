"""Keep, review or drop: what the evidence says of each pair, and in which words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.curate.duplicates import near_duplicates
from auricle.curate.pairs import Ids, Line, PairTable
from auricle.curate.random_pairs import Judged
from auricle.errors import ConfigError

NAMES = ("keep", "review", "drop")  # folders of the output; a verdict is a place in here
KEEP, REVIEW, DROP = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """What decides about a pair."""

    caption: str = "caption"  # fact that holds the caption, or a list of captions
    p: float = 0.01  # pairs are kept up to this p value: of random pairs, this share passes
    drop_p: float = 0.1  # pairs are dropped above this p value; what lies between is for review
    random_captions: int = 30  # random captions of the group that each sound is held against
    top: int = 3  # place that the own caption must reach among them and itself, else it is for review
    near: float = 0.995  # cosine from which two sounds are nearly the same; 1: never
    alike: float = 1.0  # cosine from which captions say the same and make no random pairs; 1: equal words only
    keep_duplicates: bool = False  # whether the same or nearly the same sound is marked only
    seed: int = 0  # of the random pairs

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, low in (("near", 0.5), ("alike", 0.5)):
            if not low <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a cosine of {low} to 1, got {getattr(self, name)}")
        if not 1e-4 <= self.p <= self.drop_p <= 1:
            raise ConfigError(f"expected 0.0001 <= p <= drop_p <= 1, got p {self.p} and drop_p {self.drop_p}")
        if not 1 <= self.top <= self.random_captions:
            raise ConfigError(
                f"expected 1 <= top <= random_captions, got top {self.top} of {self.random_captions} random captions"
            )
        if not self.caption or self.seed < 0:
            raise ConfigError(f"expected the name of a fact and a seed >= 0, got {self.caption!r} and {self.seed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """What becomes of each of n pairs."""

    verdict: npt.NDArray[np.int8]  # (n,) places in `NAMES`
    same_as: Ids  # (n,) pair that has the same sound and stays; -1: none
    near: Ids  # (n,) pair that has nearly the same sound and stays; -1: none
    near_cosine: npt.NDArray[np.float32]  # (n,)


def decide(table: PairTable, judged: Judged, config: FilterConfig) -> Verdicts:
    """Judge by the p value and the rank test, then let only the first of the same sounds stay.

    Of pairs with the same sound, the first stays that is kept, else the first for review, else the first.
    """
    verdict = np.full(len(table), REVIEW, np.int8)
    has_score = judged.group >= 0
    verdict[has_score & (judged.p > config.drop_p)] = DROP
    verdict[has_score & (judged.p <= config.p) & fits_best(judged, config)] = KEEP
    order = np.lexsort((np.arange(len(table)), verdict))
    order = order[table.sounds[order] >= 0]
    _, first = np.unique(table.sounds[order], return_index=True)
    leaders = order[np.sort(first)]
    leader_of = np.full(len(table.audio), -1)
    leader_of[table.sounds[leaders]] = leaders
    same_as = np.where(table.sounds >= 0, leader_of[table.sounds], -1)
    same_as[leaders] = -1
    near, near_cosine = np.full(len(table), -1), np.zeros(len(table), np.float32)
    if config.near < 1:
        repeats, cosines = near_duplicates(table.audio, table.sounds[leaders], config.near)
        near[leaders] = np.where(repeats >= 0, leaders[repeats], -1)
        near_cosine[leaders] = cosines
    if not config.keep_duplicates:
        is_kept = verdict == KEEP
        verdict[is_kept & (near >= 0)] = REVIEW
        verdict[is_kept & (same_as >= 0)] = DROP
    return Verdicts(verdict=verdict, same_as=same_as, near=near, near_cosine=near_cosine)


def fits_best(judged: Judged, config: FilterConfig) -> npt.NDArray[np.bool_]:
    """Who passes the rank test (n,); where there were fewer random captions, the same share of them may be better."""
    return judged.better * config.random_captions <= (config.top - 1) * judged.beside


def reasons(
    pair: int, line: Line, judged: Judged, verdicts: Verdicts, config: FilterConfig, keys: Sequence[str]
) -> list[str]:
    """Why a pair went where it went, the gravest reason first."""
    if line.error:
        return [f"not heard: {line.error}"]
    if not line.captions:
        return [f"no caption in the fact {config.caption!r}"]
    p, told = judged.p[pair], []
    better, beside = judged.better[pair], judged.beside[pair]
    name = judged.calibrations[judged.group[pair]].name
    if p > config.drop_p:
        told.append(f"fits no better than random pairs of {name}: p {p:.3g} over {config.drop_p:g}")
    elif p > config.p:
        told.append(f"between kept and dropped: p {p:.3g} over {config.p:g}")
    if better * config.random_captions > (config.top - 1) * beside:
        told.append(f"{better} of {beside} random captions fit the sound as well")
    if (other := int(verdicts.same_as[pair])) >= 0:
        told.append(f"the same sound as {keys[other]}")
    if (other := int(verdicts.near[pair])) >= 0:
        told.append(f"nearly the same sound as {keys[other]}: cosine {verdicts.near_cosine[pair]:.4f}")
    if verdicts.verdict[pair] == KEEP:
        told.insert(0, f"fits better than random pairs of {name}: p {p:.3g}")
    return told


def evidence(pair: int, judged: Judged, verdicts: Verdicts, keys: Sequence[str]) -> dict[str, Any]:
    """The numbers of a pair, as JSON holds them."""
    marks = {
        "same_as": keys[verdicts.same_as[pair]] if verdicts.same_as[pair] >= 0 else None,
        "near": keys[verdicts.near[pair]] if verdicts.near[pair] >= 0 else None,
        "near_cosine": round(float(verdicts.near_cosine[pair]), 5) if verdicts.near[pair] >= 0 else None,
    }
    names = ("score", "p", "p_randa", "p_randt", "probability", "better", "beside")
    if judged.group[pair] < 0:
        return dict.fromkeys(["group", *names]) | marks
    values = {name: round(getattr(judged, name)[pair].item(), 6) for name in names}
    return {"group": judged.calibrations[judged.group[pair]].name, **values, **marks}
