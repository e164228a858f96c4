"""MECAT's scores: DATE, FENSE and BLEU of each group, and the overall number.

=========  ==========================================================================================================
compat     as released, with its δ; a group of mixed clips also holds those whose content is absent
strict     the δ that was stated; kinds of content are scored where they are there, and where not it is only asked
           whether the answer says so: absence accuracy
=========  ==========================================================================================================

Either way every reference needs an answer; the release leaves out what is missing.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from auricle.errors import ConfigError, DataError
from auricle.evaluate import mecat
from auricle.evaluate.scores import RULES, Scored, group_numbers, references_digest
from auricle.metrics.date import (
    SIZES,
    DateScores,
    date_ceiling,
    date_scores,
    expected_date,
    mean_references,
    weighted_embeddings,
)
from auricle.metrics.fense import PENALTY_RULE, error_penalties, mean_cosine_similarity
from auricle.metrics.intervals import ROUNDS, Score, bootstrap_mean, proportion_interval
from auricle.metrics.ngrams import sentence_bleu
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

METRICS = ("date", "fense", "bleu")
_SMALLEST = 2  # clips of a group


class GroupScores(NamedTuple):
    """Of one group; lists in the order of its names."""

    values: Mapping[str, Sequence[float]]  # by metric, each clip's
    date: DateScores | None


def score_group(
    said: Sequence[str],
    references: Sequence[Sequence[str]],
    encoder: SentenceEncoder,
    *,
    delta: float,
    protocol: ScoringRule = "compat",
    factors: Sequence[float] | None = None,
    metrics: Sequence[str] = METRICS,
) -> GroupScores:
    """Values of each clip of a group.

    Args:
        said: a text for each clip.
        references: one text or more for each clip; numbers may differ.
        encoder: of sentences.
        delta: scores this close are equal to DATE.
        protocol: of DATE; by ``strict`` an empty text is like nothing, whatever its vector.
        factors: of `fense.error_penalties`; None: no detector, so FENSE is the similarity alone, called ``sbert``.
        metrics: of `METRICS`.
    """
    counts = [len(own) for own in references]
    texts = [text for own in references for text in own]
    values: dict[str, list[float]] = {}
    date = None
    heard = np.array([protocol == "compat" or bool(text.strip()) for text in said], np.float64)
    scale = heard if factors is None else heard * np.asarray(factors)
    if "date" in metrics:
        own = mean_references(weighted_embeddings(encoder, texts), counts)
        _, same = np.unique(["\0".join(sorted(each)) for each in references], return_inverse=True)
        vectors = weighted_embeddings(encoder, said)
        date = date_scores(vectors, own, delta=delta, factors=scale, same=same, rule=protocol)
        values |= {name: getattr(date, name).tolist() for name in ("date", "similarity", "discrimination")}
    if "fense" in metrics:
        vectors = encoder.encode([*said, *texts])
        owners = torch.arange(len(said)).repeat_interleave(torch.tensor(counts))
        cosines = mean_cosine_similarity(vectors[: len(said)], vectors[len(said) :], owners).numpy()
        values["sbert"] = (cosines * heard).tolist()
        if factors is not None:
            values["fense"] = (cosines * scale).tolist()
    if "bleu" in metrics:
        for order, scores in enumerate(zip(*map(sentence_bleu, said, references), strict=True), 1):
            values[f"bleu{order}"] = list(scores)
    return GroupScores(values, date)


def score_mecat(
    files: Mapping[str, str | Path],
    references: str | Path,
    encoder: SentenceEncoder,
    *,
    protocol: ScoringRule = "strict",
    detector: ErrorDetector | None = None,
    metrics: Sequence[str] = METRICS,
    missing: str = "error",
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Scored:
    """Score answers to MECAT.

    Args:
        files: by field (``long``, …); a single one under "" holds all fields, or one text for all of them.
        references: folder of a split, see `mecat.read_references`.
        encoder: of sentences.
        protocol: see above.
        detector: of errors in captions; without it nothing is penalised and there is no FENSE.
        metrics: of `METRICS`.
        missing: ``error``, or ``worst``: an absent answer is the empty text.
        rounds: resamples behind each interval.
        seed: of the resampling.

    Raises:
        DataError: files that cannot be read, or references without an answer.
        ConfigError: an unknown metric.
    """
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ConfigError(f"metrics are {', '.join(unknown)}, expected some of {', '.join(METRICS)}")
    truth = mecat.read_references(references)
    answers = mecat.merge_answers(files)
    shared = answers.get("", {})
    counts = {"references": len(truth.entries), "missing": 0, "extra": len(_named(answers) - set(truth.entries))}
    draw: dict[str, Any] = {"rounds": rounds, "seed": seed}
    parts: dict[str, dict[str, Score]] = {}
    items: dict[str, dict[str, float]] = {}
    facts: dict[str, Any] = {}
    for group in truth.groups:
        names = _members(truth, group)
        said, absent = _said(answers.get(group.field, {}), shared, names, group, missing)
        counts["missing"] += absent
        if protocol == "strict":
            parts |= _absence(truth, group, names, said, draw)
            names = [name for name in names if not mecat.is_absent(truth.entries[name].domain, group.field)]
        if len(names) < _SMALLEST:
            continue
        found = _scored(truth, group, names, said, encoder, detector, protocol=protocol, metrics=metrics)
        clips = [_clip(name, truth.kind) for name in names]
        own = {metric: bootstrap_mean(each, groups=clips, **draw) for metric, each in found.values.items()}
        parts[group.name] = own | parts.get(group.name, {})
        items |= {
            f"{group.name}.{metric}": dict(zip(names, each, strict=True)) for metric, each in found.values.items()
        }
        if found.date is not None and protocol == "compat":
            facts[group.name] = _dependence(found.date)
    if not parts:
        raise DataError(f"{references}: no group has {_SMALLEST} clips; expected the references of a split")
    return Scored(
        task="mecat",
        protocol=protocol,
        rule=RULES["mecat", protocol],
        scores=_overall(parts, truth.kind),
        parts=parts,
        counts=counts,
        items=items,
        groups=group_numbers(list(truth.entries), [_clip(name, truth.kind) for name in truth.entries]),
        settings={
            "encoder": encoder.identity,
            "error_detector": None if detector is None else {**detector.identity, **PENALTY_RULE},
            "kind": truth.kind,
            "date_by_number_of_clips": facts,
            "difficulties": _by_difficulty(truth, items),
            **draw,
        },
        data=_data(files, truth),
    )


def _scored(
    truth: mecat.References,
    group: mecat.Group,
    names: Sequence[str],
    said: Mapping[str, str],
    encoder: SentenceEncoder,
    detector: ErrorDetector | None,
    *,
    protocol: ScoringRule,
    metrics: Sequence[str],
) -> GroupScores:
    texts = [said[name] for name in names]
    return score_group(
        texts,
        [truth.entries[name].texts[group.field] for name in names],
        encoder,
        delta=group.released_delta if protocol == "compat" else group.delta,
        protocol=protocol,
        factors=None if detector is None else error_penalties(detector.probabilities(texts)).tolist(),
        metrics=metrics,
    )


def _members(truth: mecat.References, group: mecat.Group) -> list[str]:
    """Names of what a group scores, sorted, as the release does."""
    return sorted(
        name for name, entry in truth.entries.items() if entry.domain in group.domains and group.field in entry.texts
    )


def _named(answers: Mapping[str, Mapping[str, str]]) -> set[str]:
    return set().union(*answers.values()) if answers else set()


def _said(
    own: Mapping[str, str], shared: Mapping[str, str], names: Sequence[str], group: mecat.Group, missing: str
) -> tuple[dict[str, str], int]:
    absent = [name for name in names if name not in own and name not in shared]
    if absent and missing == "error":
        raise DataError(
            f"{group.name}: {len(absent)} of {len(names)} references have no answer, first {absent[0]}; add them, or "
            "count them as wrong with missing answers taken as worst"
        )
    return {name: own.get(name, shared.get(name, "")) for name in names}, len(absent)


def _absence(
    truth: mecat.References,
    group: mecat.Group,
    names: Sequence[str],
    said: Mapping[str, str],
    draw: Mapping[str, Any],
) -> dict[str, dict[str, Score]]:
    """How often an answer rightly says, or does not say, that a kind of content is absent; only where both occur."""
    absent = [mecat.is_absent(truth.entries[name].domain, group.field) for name in names]
    if not any(absent) or all(absent):
        return {}
    texts = [said[name] for name in names]
    # Who says nothing has not said either.
    right = [
        bool(each.strip()) and mecat.states_absence(each) == is_so for each, is_so in zip(texts, absent, strict=True)
    ]
    parts = {
        "absence_accuracy": right,
        "absence_recall": [hit for hit, is_so in zip(right, absent, strict=True) if is_so],
    }
    return {group.name: {name: proportion_interval(each, **draw) for name, each in parts.items()}}


def _dependence(scores: DateScores) -> dict[str, float]:
    """What the released score would be among other numbers of clips, and the most it could be among these."""
    number = len(scores.date)
    foretold = {str(size): expected_date(scores, size) for size in SIZES}
    return {"clips": number, "ceiling": date_ceiling(number), **foretold}


def _overall(parts: Mapping[str, Mapping[str, Score]], kind: mecat.Kind) -> dict[str, Score]:
    """Of each metric that all groups have; without an interval, as groups share clips."""
    combine = mecat.caption_score if kind == "caption" else mecat.question_score
    found = {}
    for metric in sorted({metric for own in parts.values() for metric in own}):
        values = {name: own[metric].value for name, own in parts.items() if metric in own}
        total = combine(values)
        if total is not None:
            clips = sum(own[metric].n for own in parts.values() if metric in own)
            found[metric] = Score(total, float("nan"), float("nan"), clips)
    return found


def _by_difficulty(truth: mecat.References, items: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means over the questions of each difficulty."""
    sums: dict[str, dict[str, list[float]]] = {}
    for name, own in items.items():
        for item, value in own.items():
            if level := truth.entries[item].difficulty:
                sums.setdefault(level, {}).setdefault(name.partition(".")[2], []).append(value)
    return {level: {name: float(np.mean(each)) for name, each in own.items()} for level, own in sorted(sums.items())}


def _clip(name: str, kind: mecat.Kind) -> str:
    """The clip of a question, whose name ends in eight digits of a hash."""
    return name.rpartition("_")[0] if kind == "qa" else name


def _data(files: Mapping[str, str | Path], truth: mecat.References) -> dict[str, Any]:
    references = {name: [entry.domain, dict(entry.texts)] for name, entry in truth.entries.items()}
    return {
        "answers_sha256": {name or "all": _hash(path) for name, path in sorted(files.items())},
        "references_sha256": references_digest(references),
    }


def _hash(path: str | Path) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()
