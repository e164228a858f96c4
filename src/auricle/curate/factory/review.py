"""Verdicts of reviewers on captions: their files, and how far reviewers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Strict

from auricle.data.untrusted_json import StrictFields, parse_object, read_text, validate
from auricle.errors import DataError

FORMAT = "auricle-verdicts-1"
VERDICTS = ("accept", "reject")
_MAX_BYTES, _MOST = 64 << 20, 200_000


@dataclass(frozen=True, kw_only=True)
class Verdicts(StrictFields):
    """What one reviewer decided, as the page of a review saves it."""

    format: str
    manifest: str  # of the shards
    reviewer: str
    verdicts: Annotated[dict[str, str], Strict(False)]  # by key of the clip: accept or reject


class Agreement(NamedTuple):
    """How far reviewers agree."""

    clips: int  # that at least two of them judged
    share: float | None  # of equal verdicts among all pairs
    kappa: float | None  # mean of Cohen's over pairs of reviewers; None where one gives a single verdict


def read_verdicts(path: str | Path, manifest: str) -> Verdicts:
    """A file of verdicts.

    Args:
        path: as the page saved it.
        manifest: hash of the shards that are reviewed.

    Raises:
        DataError: damaged, or of other shards.
    """
    content = parse_object(read_text(path, max_bytes=_MAX_BYTES), str(path), allow_nan=False)
    found = validate(Verdicts, content, str(path), fix="save it again from the page")
    wrong = next((each for each in found.verdicts.values() if each not in VERDICTS), None)
    if found.format != FORMAT or wrong is not None or len(found.verdicts) > _MOST:
        raise DataError(f"{path}: no verdicts of a review, expected accept or reject for each clip; save it again")
    if found.manifest != manifest:
        raise DataError(f"{path}: has verdicts on other captions; review these shards again")
    return found


def agreement(verdicts: Sequence[Mapping[str, str]]) -> Agreement:
    """Share of equal verdicts, and Cohen's kappa (Educational and Psychological Measurement 20, 1960).

    Args:
        verdicts: of each reviewer, by clip.

    >>> agreement([{"a": "accept", "b": "reject"}, {"a": "accept", "b": "reject"}])
    Agreement(clips=2, share=1.0, kappa=1.0)
    """
    judged: set[str] = set()
    equal = pairs = 0
    kappas = []
    for one, other in combinations(verdicts, 2):
        shared = [(one[key], other[key]) for key in one.keys() & other.keys()]
        judged |= one.keys() & other.keys()
        same = sum(a == b for a, b in shared)
        equal, pairs = equal + same, pairs + len(shared)
        if shared:
            chance = (
                sum(sum(a == verdict for a, _ in shared) * sum(b == verdict for _, b in shared) for verdict in VERDICTS)
                / len(shared) ** 2
            )
            if chance < 1:
                kappas.append((same / len(shared) - chance) / (1 - chance))
    return Agreement(len(judged), equal / pairs if pairs else None, sum(kappas) / len(kappas) if kappas else None)


def accepted_share(verdicts: Sequence[Mapping[str, str]]) -> float | None:
    """Share of accepted clips over all verdicts."""
    every = [verdict for each in verdicts for verdict in each.values()]
    return every.count("accept") / len(every) if every else None
