"""MECAT's scores: DATE, FENSE and BLEU of each group, and the overall number.

=========  ==========================================================================================================
compat     as released, with its δ; a group of mixed clips also holds those whose content is absent
strict     the δ that was published; kinds of content are scored where they are present, and where absent only whether
           the answer states it: absence accuracy
=========  ==========================================================================================================

By both rules every reference needs an answer; the release skips missing ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from auricle.errors import DataError
from auricle.evaluate import mecat
from auricle.evaluate.scores import (
    MECAT_METRICS,
    RULES,
    Scored,
    ScoringConfig,
    group_numbers,
    network_settings,
    references_digest,
)
from auricle.metrics.date import (
    SIZES,
    DateScores,
    date_ceiling,
    date_scores,
    expected_date,
    mean_references,
    weighted_embeddings,
)
from auricle.metrics.fense import error_penalties, mean_cosine_similarity
from auricle.metrics.intervals import Score, bootstrap_mean, proportion_interval
from auricle.metrics.ngrams import sentence_bleu
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

_SMALLEST = 2  # clips of a group


class GroupScores(NamedTuple):
    """Of one group; lists in the order of its names."""

    values: Mapping[str, Sequence[float]]  # by metric, of each clip
    date: DateScores | None


def score_group(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    encoder: SentenceEncoder,
    *,
    delta: float,
    scoring_rule: ScoringRule = "compat",
    factors: Sequence[float] | None = None,
    metrics: Sequence[str] = MECAT_METRICS,
) -> GroupScores:
    """Values of each clip of a group.

    Args:
        texts: a prediction for each clip.
        references: one text or more for each clip; numbers may differ.
        encoder: of sentences.
        delta: scores this close are equal to DATE.
        scoring_rule: of DATE; by ``strict`` the similarity of an empty text is 0, whatever its vector.
        factors: of `fense.error_penalties`; None: no detector, so FENSE is the similarity alone, called ``sbert``.
        metrics: of `MECAT_METRICS`.
    """
    counts = [len(own) for own in references]
    own_texts = [text for own in references for text in own]
    values: dict[str, list[float]] = {}
    date = None
    is_answered = np.array([scoring_rule == "compat" or bool(text.strip()) for text in texts], np.float64)
    scale = is_answered if factors is None else is_answered * np.asarray(factors)
    if "date" in metrics:
        targets = mean_references(weighted_embeddings(encoder, own_texts), counts)
        _, same = np.unique(["\0".join(sorted(each)) for each in references], return_inverse=True)
        vectors = weighted_embeddings(encoder, texts)
        date = date_scores(vectors, targets, delta=delta, factors=scale, same=same, scoring_rule=scoring_rule)
        values |= {name: getattr(date, name).tolist() for name in ("date", "similarity", "discrimination")}
    if "fense" in metrics:
        vectors = encoder.encode([*texts, *own_texts])
        owners = torch.arange(len(texts)).repeat_interleave(torch.tensor(counts))
        cosines = mean_cosine_similarity(vectors[: len(texts)], vectors[len(texts) :], owners).numpy()
        values["sbert"] = (cosines * is_answered).tolist()
        if factors is not None:
            values["fense"] = (cosines * scale).tolist()
    if "bleu" in metrics:
        for order, scores in enumerate(zip(*map(sentence_bleu, texts, references), strict=True), 1):
            values[f"bleu{order}"] = list(scores)
    return GroupScores(values, date)


def score_mecat(predictions: mecat.MecatPredictions, config: ScoringConfig) -> Scored:
    """Score predictions for MECAT.

    Args:
        predictions: of `mecat.read_mecat_predictions` or a run.
        config: without a detector of errors in captions nothing is penalised and there is no FENSE.

    Raises:
        DataError: references without an answer, or too few of them.
        ConfigError: there is no sentence encoder.
    """
    encoder, detector = config.load_encoder(), config.detector()
    split, scoring_rule = predictions.references, config.scoring_rule
    found = _score_groups(predictions, config, encoder, detector)
    if not found.parts:
        raise DataError(f"{predictions.origin}: no group has {_SMALLEST} clips; expected the references of a split")
    extra = set().union(*predictions.texts.values()) - set(split.entries)
    return Scored(
        kind="mecat",
        scoring_rule=scoring_rule,
        rule=RULES["mecat", scoring_rule],
        scores=_overall(found.parts, split.kind),
        parts=found.parts,
        counts={"references": len(split.entries), "missing": found.missing, "extra": len(extra)},
        items=found.items,
        groups=group_numbers(list(split.entries), [split.clip(name) for name in split.entries]),
        settings={
            **network_settings(encoder, detector),
            "kind": split.kind,
            "date_by_number_of_clips": found.dependence,
            "difficulties": _by_difficulty(split, found.items),
            "rounds": config.rounds,
            "seed": config.seed,
        },
        data=_data(predictions),
    )


@dataclass(kw_only=True, slots=True)
class _Groups:
    parts: dict[str, dict[str, Score]] = field(default_factory=dict)
    items: dict[str, dict[str, float]] = field(default_factory=dict)
    dependence: dict[str, Any] = field(default_factory=dict)  # of the released score on the number of clips
    missing: int = 0


def _score_groups(
    predictions: mecat.MecatPredictions,
    config: ScoringConfig,
    encoder: SentenceEncoder,
    detector: ErrorDetector | None,
) -> _Groups:
    split, scoring_rule = predictions.references, config.scoring_rule
    resampling: dict[str, Any] = {"rounds": config.rounds, "seed": config.seed}
    found = _Groups()
    for group in split.groups:
        texts, missing = _texts(predictions, _members(split, group), group, config)
        found.missing += missing
        if scoring_rule == "strict":
            found.parts |= _absence(split, group, texts, resampling)
            texts = {
                name: text
                for name, text in texts.items()
                if not mecat.is_absent(split.entries[name].domain, group.field)
            }
        if len(texts) < _SMALLEST:
            continue
        scores = score_group(
            list(texts.values()),
            [split.entries[name].texts[group.field] for name in texts],
            encoder,
            delta=group.released_delta if scoring_rule == "compat" else group.delta,
            scoring_rule=scoring_rule,
            factors=None
            if detector is None
            else error_penalties(detector.probabilities(list(texts.values()))).tolist(),
            metrics=config.metrics,
        )
        clips = [split.clip(name) for name in texts]
        means = {metric: bootstrap_mean(own, groups=clips, **resampling) for metric, own in scores.values.items()}
        found.parts[group.name] = means | found.parts.get(group.name, {})
        for metric, own in scores.values.items():
            found.items[f"{group.name}.{metric}"] = dict(zip(texts, own, strict=True))
        if scores.date is not None and scoring_rule == "compat":
            found.dependence[group.name] = _dependence(scores.date)
    return found


def _members(split: mecat.References, group: mecat.Group) -> list[str]:
    """Names of what a group scores, sorted, as the release does."""
    return sorted(
        name for name, entry in split.entries.items() if entry.domain in group.domains and group.field in entry.texts
    )


def _texts(
    predictions: mecat.MecatPredictions, names: Sequence[str], group: mecat.Group, config: ScoringConfig
) -> tuple[dict[str, str], int]:
    """Predictions by name, absent ones empty, and how many are absent."""
    found = {name: predictions.text(name, group.field) for name in names}
    absent = [name for name, text in found.items() if text is None]
    if absent and config.missing == "error":
        raise DataError(
            f"{group.name}: {len(absent)} of {len(names)} references have no answer, first {absent[0]}; add them, or "
            "count them as wrong with missing answers taken as worst"
        )
    return {name: text or "" for name, text in found.items()}, len(absent)


def _absence(
    split: mecat.References, group: mecat.Group, texts: Mapping[str, str], resampling: Mapping[str, Any]
) -> dict[str, dict[str, Score]]:
    """How often a text rightly states, or does not, that a kind of content is absent; only where both occur."""
    absent = [mecat.is_absent(split.entries[name].domain, group.field) for name in texts]
    if not any(absent) or all(absent):
        return {}
    # An empty text does not state it.
    right = [
        bool(text.strip()) and mecat.states_absence(text) == is_so
        for text, is_so in zip(texts.values(), absent, strict=True)
    ]
    parts = {
        "absence_accuracy": right,
        "absence_recall": [hit for hit, is_so in zip(right, absent, strict=True) if is_so],
    }
    return {group.name: {name: proportion_interval(each, **resampling) for name, each in parts.items()}}


def _dependence(scores: DateScores) -> dict[str, float]:
    """What the released score would be among other numbers of clips, and the most it could be among these."""
    number = len(scores.date)
    expected = {str(size): expected_date(scores, size) for size in SIZES}
    return {"clips": number, "ceiling": date_ceiling(number), **expected}


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


def _by_difficulty(split: mecat.References, items: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means over the questions of each difficulty."""
    sums: dict[str, dict[str, list[float]]] = {}
    for name, own in items.items():
        for item, value in own.items():
            if level := split.entries[item].difficulty:
                sums.setdefault(level, {}).setdefault(name.partition(".")[2], []).append(value)
    return {level: {name: float(np.mean(each)) for name, each in own.items()} for level, own in sorted(sums.items())}


def _data(predictions: mecat.MecatPredictions) -> dict[str, Any]:
    entries = predictions.references.entries
    return {
        "answers_sha256": dict(predictions.sha256),
        "references_sha256": references_digest(
            {name: [entry.domain, dict(entry.texts)] for name, entry in entries.items()}
        ),
    }
