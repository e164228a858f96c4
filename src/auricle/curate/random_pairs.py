"""Random pairs sampled from the data itself, and how each pair scores beside them: group by group."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from auricle.curate.calibration import Calibration, Scores, calibrate
from auricle.curate.pairs import Ids, PairTable
from auricle.errors import DataError

RANDOM_PAIRS = 20_000  # of each kind and group, at most
FEWEST_RANDOM = 200  # of each kind; a group with fewer is calibrated with a larger one
_EXTRA = 3  # rounds sampled for each random caption wanted, since some partners are no random ones

Group = tuple[str, str]  # domain and language; empty: any
ALL: Group = ("", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Scores of each of n pairs, beside random ones; without meaning where a pair has no score."""

    score: Scores  # (n,) 100 × cosine
    p: Scores  # (n,) the larger of the next two
    p_randa: Scores
    p_randt: Scores
    probability: Scores
    better: Ids  # (n,) random captions that fit the audio as well as its own, or better
    beside: Ids  # (n,) random captions it was compared with
    group: Ids  # (n,) number in `calibrations`; -1: no score
    calibrations: list[Calibration]


def score_pairs(table: PairTable, *, p: float, num_captions: int, alike: float = 1.0, seed: int = 0) -> Evidence:
    """Compare every pair with random ones of its domain and language.

    A group that gives too few random pairs is compared with those of its domain, and failing that with all.

    Args:
        table: of all pairs.
        p: the smallest p value that must be distinguished.
        num_captions: random captions of the rank test.
        alike: cosine from which two captions say the same, so that they make no random pairs; 1: equal ones only.
        seed: of the random pairs.

    Raises:
        DataError: even all pairs together give too few random ones.
    """
    usable = table.usable()
    n = len(table)
    found = {name: np.full(n, np.nan) for name in ("score", "p", "p_randa", "p_randt", "probability")}
    better, beside, group = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, -1)
    calibrations: list[Calibration] = []
    found["score"][usable] = table.scores(usable, usable)
    for own, members, sample in _groups(table, usable, max(FEWEST_RANDOM, ceil(1 / p)), alike, seed):
        calibration = calibrate(sample.name, found["score"][members], *sample.scores)
        scores = found["score"][own]
        for name, values in zip(("p", "p_randa", "p_randt"), calibration.p(scores), strict=True):
            found[name][own] = values
        found["probability"][own] = calibration.probability(scores)
        group[own] = len(calibrations)
        calibrations.append(calibration)
        rng = np.random.default_rng((seed, len(calibrations)))
        better[own], beside[own] = rank_captions(table, own, members, num_captions, rng, alike=alike)
    return Evidence(**found, better=better, beside=beside, group=group, calibrations=calibrations)


@dataclass(frozen=True, slots=True)
class _Sample:
    name: str
    scores: tuple[Scores, Scores, Scores]  # randa, randt, and those to test on


def _groups(table: PairTable, usable: Ids, fewest: int, alike: float, seed: int) -> Iterator[tuple[Ids, Ids, _Sample]]:
    """Pairs to compare, the pairs they are compared with, and random scores of these; every usable pair comes once."""
    names: dict[Group, int] = {}
    codes = np.array([names.setdefault(table.groups[pair], len(names)) for pair in usable.tolist()])
    waiting: dict[Group, list[int]] = {}
    for pair in usable.tolist():
        waiting.setdefault(table.groups[pair], []).append(pair)
    for level in range(3):
        smaller: dict[Group, list[int]] = {}
        for group, own in sorted(waiting.items()):
            members = usable[np.isin(codes, [code for name, code in names.items() if _is_part(name, group)])]
            scores = sample_scores(table, members, np.random.default_rng((seed, level)), alike=alike)
            if min(map(len, scores)) >= fewest:
                yield np.array(sorted(own)), members, _Sample(" / ".join(filter(None, group)) or "all", scores)
            elif group == ALL:
                larger = ", or a larger p" if fewest > FEWEST_RANDOM else ""
                raise DataError(
                    f"{len(usable)} pairs with a caption give {min(map(len, scores))} random pairs, at least {fewest} "
                    f"are needed; give more pairs with different captions{larger}"
                )
            else:
                smaller.setdefault((group[0], "") if level == 0 else ALL, []).extend(own)
        waiting = smaller


def _is_part(group: Group, whole: Group) -> bool:
    return all(wanted in ("", own) for own, wanted in zip(group, whole, strict=True))


def sample_scores(
    table: PairTable, members: Ids, rng: np.random.Generator, *, alike: float = 1.0, count: int = RANDOM_PAIRS
) -> tuple[Scores, Scores, Scores]:
    """Scores of random pairs among some: random audio, random captions, and further ones to test on.

    Args:
        table: of all pairs.
        members: (m,) numbers of the pairs to sample from.
        rng: of the sample.
        alike: see `score_pairs`.
        count: of each kind, at most; fewer where there are not as many.
    """
    size = len(members)
    rounds = min(ceil(count / size), (size - 1) // 3)
    items = np.sort(rng.choice(size, min(size, count), replace=False))
    kinds: tuple[list[Scores], ...] = ([], [], [])
    for number, partners in enumerate(random_partners(size, 3 * rounds, rng)):
        own, other = members[items], members[partners[items]]
        fit = ~table.are_alike(own, other, alike)
        own, other = own[fit], other[fit]
        # First the captions stay and get other audio, then the audio stays and gets another caption.
        kinds[number % 3].append(table.scores(other, own) if number % 3 == 0 else table.scores(own, other))
    randa, randt, check = (np.concatenate(kind)[:count] if kind else np.zeros(0) for kind in kinds)
    return randa, randt, check


def rank_captions(
    table: PairTable, own: Ids, members: Ids, num_captions: int, rng: np.random.Generator, *, alike: float = 1.0
) -> tuple[Ids, Ids]:
    """The rank test: how many random captions of the group fit each clip as well as its own, or better.

    Args:
        table: of all pairs.
        own: (m,) numbers of the pairs to test, all of them among the members.
        members: numbers of the pairs whose captions are sampled.
        num_captions: random captions for each clip; fewer where there are not as many others.
        rng: of the sample.
        alike: see `score_pairs`.

    Returns:
        (m,) captions that fit as well or better, and (m,) captions compared.
    """
    places = np.searchsorted(members, own)
    scores = table.scores(own, own)
    better, beside = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    for partners in random_partners(len(members), _EXTRA * num_captions, rng):
        open_ones = np.flatnonzero(beside < num_captions)
        if not len(open_ones):
            break
        these, others = own[open_ones], members[partners[places[open_ones]]]
        fit = ~table.are_alike(these, others, alike)
        reached = table.scores(these[fit], others[fit]) >= scores[open_ones[fit]]
        better[open_ones[fit]] += reached
        beside[open_ones] += fit
    return better, beside


def random_partners(size: int, rounds: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Permutations of ``0 … size - 1`` without fixed points; no two of them give an item the same partner.

    Args:
        size: items.
        rounds: permutations wanted; there are at most ``size - 1``.
        rng: of the sample.

    Yields:
        (size,) the partner of each item.
    """
    order = rng.permutation(size)
    places = np.argsort(order)
    for shift in rng.permutation(np.arange(1, size))[:rounds]:
        yield order[(places + shift) % size]
