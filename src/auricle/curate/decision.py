"""Keep, review or drop: the verdict on each pair, and its reasons in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.curate.duplicates import near_duplicates
from auricle.curate.pairs import Ids, Line, PairTable
from auricle.curate.random_pairs import Evidence
from auricle.errors import ConfigError

NAMES = ("keep", "review", "drop")  # folders of the output; a verdict is a place in here
KEEP, REVIEW, DROP = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """What decides about a pair."""

    caption: str = "caption"  # fact that has the caption, or a list of captions
    p: float = 0.01  # pairs are kept up to this p value: of random pairs, this share passes
    drop_p: float = 0.1  # pairs are dropped above this p value; those between are for review
    random_captions: int = 30  # random captions of the group that each clip is compared with
    top: int = 3  # place that the own caption must reach among them and itself, else it is for review
    near: float = 0.995  # cosine from which two clips are nearly the same; 1: never
    alike: float = 1.0  # cosine from which captions say the same and make no random pairs; 1: equal words only
    keep_duplicates: bool = False  # whether duplicates and near duplicates are marked only
    seed: int = 0  # of the random pairs

    def __post_init__(self) -> None:
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
    """The verdict on each of n pairs."""

    verdict: npt.NDArray[np.int8]  # (n,) places in `NAMES`
    same_as: Ids  # (n,) pair that has the same audio and stays; -1: none
    near: Ids  # (n,) pair that has nearly the same audio and stays; -1: none
    near_cosine: npt.NDArray[np.float32]  # (n,)


def decide(table: PairTable, evidence: Evidence, config: FilterConfig) -> Verdicts:
    """Decide by the p value and the rank test, then let only the first of the same clips stay.

    Of pairs with the same audio, the first stays that is kept, else the first for review, else the first.
    """
    verdict = np.full(len(table), REVIEW, np.int8)
    has_score = evidence.group >= 0
    verdict[has_score & (evidence.p > config.drop_p)] = DROP
    verdict[has_score & (evidence.p <= config.p) & ~fails_rank_test(evidence, config)] = KEEP
    order = np.lexsort((np.arange(len(table)), verdict))
    order = order[table.audio_rows[order] >= 0]
    _, first = np.unique(table.audio_rows[order], return_index=True)
    leaders = order[np.sort(first)]
    leader_of = np.full(len(table.audio), -1)
    leader_of[table.audio_rows[leaders]] = leaders
    same_as = np.where(table.audio_rows >= 0, leader_of[table.audio_rows], -1)
    same_as[leaders] = -1
    near, near_cosine = np.full(len(table), -1), np.zeros(len(table), np.float32)
    if config.near < 1:
        repeats, cosines = near_duplicates(table.audio, table.audio_rows[leaders], config.near)
        near[leaders] = np.where(repeats >= 0, leaders[repeats], -1)
        near_cosine[leaders] = cosines
    if not config.keep_duplicates:
        is_kept = verdict == KEEP
        verdict[is_kept & (near >= 0)] = REVIEW
        verdict[is_kept & (same_as >= 0)] = DROP
    return Verdicts(verdict=verdict, same_as=same_as, near=near, near_cosine=near_cosine)


def fails_rank_test(evidence: Evidence, config: FilterConfig) -> npt.NDArray[np.bool_]:
    """Which pairs (n,) fail; where there were fewer random captions, the same share of them may be better."""
    return evidence.better * config.random_captions > (config.top - 1) * evidence.beside


def reasons(
    pair: int, line: Line, evidence: Evidence, verdicts: Verdicts, config: FilterConfig, keys: Sequence[str]
) -> list[str]:
    """Why a pair got its verdict, the gravest reason first."""
    if line.error:
        return [f"not processed: {line.error}"]
    if not line.captions:
        return [f"no caption in the fact {config.caption!r}"]
    p, found = evidence.p[pair], []
    name = evidence.calibrations[evidence.group[pair]].name
    if verdicts.verdict[pair] == KEEP:
        found.append(f"fits better than random pairs of {name}: p {p:.3g}")
    if p > config.drop_p:
        found.append(f"fits no better than random pairs of {name}: p {p:.3g} over {config.drop_p:g}")
    elif p > config.p:
        found.append(f"between kept and dropped: p {p:.3g} over {config.p:g}")
    better, beside = evidence.better[pair], evidence.beside[pair]
    if better * config.random_captions > (config.top - 1) * beside:
        found.append(f"{better} of {beside} random captions fit the audio as well")
    if (other := int(verdicts.same_as[pair])) >= 0:
        found.append(f"the same audio as {keys[other]}")
    if (other := int(verdicts.near[pair])) >= 0:
        found.append(f"nearly the same audio as {keys[other]}: cosine {verdicts.near_cosine[pair]:.4f}")
    return found


def numbers(pair: int, evidence: Evidence, verdicts: Verdicts, keys: Sequence[str]) -> dict[str, Any]:
    """The numbers of a pair, as JSON has them."""
    marks = {
        "same_as": keys[verdicts.same_as[pair]] if verdicts.same_as[pair] >= 0 else None,
        "near": keys[verdicts.near[pair]] if verdicts.near[pair] >= 0 else None,
        "near_cosine": round(float(verdicts.near_cosine[pair]), 5) if verdicts.near[pair] >= 0 else None,
    }
    names = ("score", "p", "p_randa", "p_randt", "probability", "better", "beside")
    if evidence.group[pair] < 0:
        return dict.fromkeys(["group", *names]) | marks
    values = {name: round(getattr(evidence, name)[pair].item(), 6) for name in names}
    return {"group": evidence.calibrations[evidence.group[pair]].name, **values, **marks}
