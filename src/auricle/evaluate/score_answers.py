"""Scores of predictions: by kind of task and scoring rule, with intervals, per item, and what decided them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from auricle.data.untrusted_json import parse_object, read_text, shorten, validate
from auricle.errors import DataError
from auricle.evaluate.mecat import MecatPredictions
from auricle.evaluate.mecat_scores import score_mecat
from auricle.evaluate.predictions import Predictions, Row
from auricle.evaluate.scores import (
    RULES,
    Scored,
    ScoringConfig,
    TaskKind,
    group_numbers,
    network_settings,
    references_digest,
)
from auricle.metrics import closed_qa, multilabel, ngrams, tags
from auricle.metrics.fense import error_penalties, mean_cosine_similarity
from auricle.metrics.intervals import Score, bootstrap_mean, proportion_interval
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.word_errors import TranscriptPair, error_rates

_REFERENCES = ("text", "lang", "label", "question", "choices", "answer")  # fields that references are made of

Rows: TypeAlias = Sequence[Row]
Resampling: TypeAlias = Mapping[str, Any]  # groups, rounds and seed of `auricle.metrics.intervals`


@dataclass(kw_only=True, slots=True)
class _Found:
    """The result of the scorer of one kind of task, see `Scored`."""

    scores: dict[str, Score]
    parts: dict[str, dict[str, Score]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    items: dict[str, dict[str, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def score_predictions(predictions: Predictions | MecatPredictions, config: ScoringConfig | None = None) -> Scored:
    """Score the predictions of a model.

    Args:
        predictions: of `auricle.evaluate.predictions.read_predictions`,
            `auricle.evaluate.mecat.read_mecat_predictions` or a run.
        config: defaults if None.

    Raises:
        DataError: the predictions cannot be scored; the row is named.
        ConfigError: captions without an encoder.
        MissingExtra: a normaliser is not installed.
    """
    config = config or ScoringConfig()
    if isinstance(predictions, MecatPredictions):
        return score_mecat(predictions, config)
    kind, scoring_rule, rows = predictions.kind, config.scoring_rule, predictions.rows
    unanswered = [row.where for row in rows if row.prediction is None]
    if unanswered and config.missing == "error":
        raise DataError(
            f"{unanswered[0]}: model_output is None, expected text; answer the row, or count it as wrong with missing "
            "answers taken as worst"
        )
    has_labels = scoring_rule == "strict" and kind in ("tagging", "multitag")
    if has_labels and len(predictions.datasets) > 1:
        raise DataError(
            f"{predictions.origin}: mixes the labels of {', '.join(predictions.datasets)}; expected one data set, "
            "split the file"
        )
    groups = _groups(predictions, config.group_by)
    found = _SCORERS[kind](rows, config, {"groups": groups, "rounds": config.rounds, "seed": config.seed})
    if config.synonyms and has_labels:
        names = {name: sorted(own) for name, own in config.synonyms.items()}
        found.settings["synonyms_sha256"] = references_digest(names)
    return Scored(
        kind=kind,
        scoring_rule=scoring_rule,
        rule=RULES[kind, scoring_rule],
        scores=found.scores,
        parts=found.parts,
        counts={"rows": len(rows), "unanswered": len(unanswered), **found.counts},
        items=found.items,
        groups=group_numbers([row.item for row in rows], groups),
        settings={**found.settings, "group_by": config.group_by, "rounds": config.rounds, "seed": config.seed},
        data=_data(predictions),
    )


def read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """Other names of labels from a JSON file ``{"label": ["name", …]}``.

    Raises:
        DataError: it cannot be read, or is no such object.
    """
    content = parse_object(read_text(path), str(path), allow_nan=False)
    return validate(dict[str, list[str]], content, str(path), fix='write {"label": ["another name", …], …}')


def _data(predictions: Predictions) -> dict[str, Any]:
    references = {
        row.item: [row.dataset, {name: row.fields[name] for name in _REFERENCES if row.fields.get(name) is not None}]
        for row in predictions.rows
    }
    return {
        "datasets": predictions.datasets,
        "models": predictions.models,
        "predictions_sha256": predictions.sha256,
        "references_sha256": references_digest(references),
    }


def _groups(predictions: Predictions, name: str) -> list[str]:
    rows = predictions.rows
    if absent := next((row.item for row in rows if row.fields.get(name) is None), None):
        raise DataError(
            f"{predictions.origin}: {absent} has no field {name!r} to resample by; name one that every row has"
        )
    # Clips of several sets may share a name.
    return [f"{row.dataset} · {row.fields[name]}" for row in rows]


# --- scorers


def _transcripts(rows: Rows, config: ScoringConfig, resampling: Resampling) -> _Found:
    transcripts = [TranscriptPair(row.fields["text"], row.answer, row.fields["lang"]) for row in rows]
    rates = error_rates(transcripts, scoring_rule=config.scoring_rule, unit=config.unit, **resampling)
    counted = [(row, each) for row, each in zip(rows, rates.rows, strict=True) if each.counts]
    return _Found(
        scores={"error_rate": rates.total},
        parts={name: {"error_rate": score} for name, score in rates.languages.items()},
        counts={
            "errors": sum(each.errors for _, each in counted),
            "tokens": sum(each.length for _, each in counted),
            "empty_answers": rates.empty,
            "left_out_by_rule": rates.left_out,
        },
        items={
            "errors": {row.item: float(each.errors) for row, each in counted},
            "tokens": {row.item: float(each.length) for row, each in counted},
        },
        settings={"units": dict(rates.units)},
    )


@dataclass(kw_only=True, slots=True)
class _Marked:
    """Rows that are right or wrong."""

    right: list[bool]
    unparseable: list[bool] | None = None  # None: not known by the rule
    classes: list[str] = field(default_factory=list)  # references, for recalls of each


def _mark(
    mark: Callable[[Rows, ScoringConfig], _Marked],
) -> Callable[[Rows, ScoringConfig, Resampling], _Found]:
    """A scorer by accuracy."""

    def score(rows: Rows, config: ScoringConfig, resampling: Resampling) -> _Found:
        marked = mark(rows, config)
        found = _Found(
            scores={"accuracy": proportion_interval(marked.right, **resampling)}, counts={"correct": sum(marked.right)}
        )
        found.items["accuracy"] = {row.item: float(hit) for row, hit in zip(rows, marked.right, strict=True)}
        if any(row.fields.get("order") is not None for row in rows):
            found.scores["all_correct_rate"] = proportion_interval(
                _all_right(marked.right, resampling["groups"]), rounds=resampling["rounds"], seed=resampling["seed"]
            )
        if (unparseable := marked.unparseable) is not None:
            found.scores["unparseable_rate"] = proportion_interval(unparseable, **resampling)
            found.counts["unparseable"] = sum(unparseable)
            found.items["unparseable_rate"] = {
                row.item: float(each) for row, each in zip(rows, unparseable, strict=True)
            }
        for name in sorted(set(marked.classes)):
            own = [at for at, each in enumerate(marked.classes) if each == name]
            groups = [resampling["groups"][at] for at in own]
            recall = proportion_interval([marked.right[at] for at in own], **{**resampling, "groups": groups})
            found.parts[name] = {"recall": recall}
        return found

    return score


def _all_right(right: Sequence[bool], groups: Sequence[str]) -> list[bool]:
    """Of each group, the orders of one question, whether all its rows are right."""
    found: dict[str, bool] = {}
    for is_right, group in zip(right, groups, strict=True):
        found[group] = found.get(group, True) and is_right
    return list(found.values())


def _mark_tags(rows: Rows, config: ScoringConfig) -> _Marked:
    labels = [row.texts("label")[0] for row in rows]
    if config.scoring_rule == "compat":
        right = [tags.contains_label_compat(label, row.answer) for label, row in zip(labels, rows, strict=True)]
        return _Marked(right=right, classes=labels)
    if several := next((row.item for row in rows if len(row.texts("label")) > 1), None):
        raise DataError(f"{several}: has several labels, expected one; score the file as multitag")
    return _mark_names(rows, labels, tags.LabelMatcher([*labels, *config.synonyms], config.synonyms))


def _mark_genders(rows: Rows, config: ScoringConfig) -> _Marked:
    labels = [row.texts("label")[0] for row in rows]
    if config.scoring_rule == "compat":
        right = [tags.gender_of_compat(row.answer) == label for row, label in zip(rows, labels, strict=True)]
        return _Marked(right=right, classes=labels)
    if unknown := sorted(set(map(tags.plain, labels)) - set(tags.GENDERS)):
        raise DataError(f"labels are {', '.join(map(repr, unknown[:5]))}, expected {' and '.join(tags.GENDERS)}")
    return _mark_names(rows, labels, tags.gender_matcher())


def _mark_names(rows: Rows, labels: list[str], matcher: tags.LabelMatcher) -> _Marked:
    named = [tags.single_label(row.answer, matcher) for row in rows]
    right = [found == matcher.key(label) for found, label in zip(named, labels, strict=True)]
    return _Marked(right=right, unparseable=[each is None for each in named], classes=labels)


def _mark_choices(rows: Rows, config: ScoringConfig) -> _Marked:
    answers = [row.texts("answer")[0] for row in rows]
    choices = [row.texts("choices") for row in rows]
    if config.scoring_rule == "compat":
        triples = zip(answers, rows, choices, strict=True)
        return _Marked(right=[closed_qa.is_right_compat(answer, row.answer, own) for answer, row, own in triples])
    given = [at for at, own in enumerate(choices) if own]
    truth = dict(
        zip(given, closed_qa.right_choices([answers[at] for at in given], [choices[at] for at in given]), strict=True)
    )
    right, unparseable = [], []
    for at, row in enumerate(rows):
        number = closed_qa.choice_of(row.answer, choices[at]) if choices[at] else None
        right.append(number == truth[at] if choices[at] else closed_qa.contains_answer(answers[at], row.answer))
        unparseable.append(number is None if choices[at] else not tags.plain(row.answer))
    return _Marked(right=right, unparseable=unparseable)


def _label_sets(rows: Rows, config: ScoringConfig, resampling: Resampling) -> _Found:
    unknown: list[int] | None = None
    if config.scoring_rule == "compat":
        references = [[label.lower() for label in row.texts("label")] for row in rows]
        answers: list[Any] = [
            tags.split_labels_compat(row.answer, dataset=row.dataset, model=row.model) for row in rows
        ]
    else:
        matcher = tags.LabelMatcher((label for row in rows for label in row.texts("label")), config.synonyms)
        references = [[matcher.key(label) for label in row.texts("label")] for row in rows]
        split = [tags.split_labels(row.answer, matcher) for row in rows]
        answers, unknown = [each.known for each in split], [each.unknown for each in split]
    scored = multilabel.multilabel_scores(references, answers, unknown=unknown, **resampling)
    return _Found(
        scores={"mAP": scored.mAP, "micro_f1": scored.micro_f1, "macro_f1": scored.macro_f1},
        counts={
            "labels": len(scored.average_precision),
            "unknown_labels": scored.unknown,
            "empty_answers": sum(not tags.plain(row.answer) for row in rows),
        },
        items={"f1": {row.item: value for row, value in zip(rows, scored.f1, strict=True)}},
        settings={"average_precision": dict(scored.average_precision)},
    )


def _captions(rows: Rows, config: ScoringConfig, resampling: Resampling) -> _Found:
    encoder, detector = config.load_encoder(), config.detector()
    texts = [row.answer for row in rows]
    references = [_caption_references(row, config.scoring_rule) for row in rows]
    owners = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(own) for own in references]))
    vectors = encoder.encode([*texts, *(text for own in references for text in own)])
    similarities = mean_cosine_similarity(vectors[: len(rows)], vectors[len(rows) :], owners).tolist()
    if config.scoring_rule == "strict":  # an empty sentence has a vector too, which is near to some others
        similarities = [each if tags.plain(text) else 0.0 for each, text in zip(similarities, texts, strict=True)]
    values: dict[str, list[float]] = {"sbert": similarities}
    counts: dict[str, float] = {}
    if detector is not None:
        factors = error_penalties(detector.probabilities(texts))
        values["fense"] = (np.array(similarities) * factors).tolist()
        counts["penalised"] = int((factors < 1).sum())
    for order, scores in enumerate(zip(*map(ngrams.sentence_bleu, texts, references), strict=True), 1):
        values[f"bleu{order}_of_sentences"] = list(scores)
    means = {name: bootstrap_mean(own, **resampling) for name, own in values.items()}
    values["chrf"] = list(map(ngrams.sentence_chrf, texts, references))
    return _Found(
        scores={
            **means,
            "bleu": ngrams.corpus_bleu(texts, references, **resampling),
            "chrf": ngrams.corpus_chrf(texts, references, **resampling),
        },
        counts={**counts, "empty_answers": sum(not tags.plain(text) for text in texts)},
        items={name: dict(zip((row.item for row in rows), own, strict=True)) for name, own in values.items()},
        settings={
            **network_settings(encoder, detector),
            "bleu": ngrams.BLEU_SIGNATURE,
            "chrf": ngrams.CHRF_SIGNATURE,
        },
    )


def _caption_references(row: Row, scoring_rule: ScoringRule) -> tuple[str, ...]:
    name = "text" if row.fields.get("text") is not None else "answer"
    texts = row.texts(name)
    if scoring_rule == "strict" and not all(map(tags.plain, texts)):
        raise DataError(
            f"{row.where}: {name} is {shorten(list(texts))}, of which one has no words; expected references in words, "
            "take it out"
        )
    question = row.fields.get("question")
    if scoring_rule == "strict" and isinstance(question, str):
        # MusicQA's answers repeat the question, which every answer of a model would have to do too.
        return tuple(text.removeprefix(f"{question}:").strip() or text for text in texts)
    return texts


_SCORERS: Mapping[TaskKind, Callable[[Rows, ScoringConfig, Resampling], _Found]] = {
    "asr": _transcripts,
    "tagging": _mark(_mark_tags),
    "gender": _mark(_mark_genders),
    "qa": _mark(_mark_choices),
    "multitag": _label_sets,
    "caption": _captions,
}
