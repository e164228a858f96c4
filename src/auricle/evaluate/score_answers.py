"""Scores of answers that lie in files: by task and protocol, with intervals, per item, and what decided them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auricle.errors import ConfigError, DataError
from auricle.evaluate.predictions import LINES_TASKS, LinesTask, Missing, Predictions, Row, read_predictions
from auricle.evaluate.scores import RULES, Scored, group_numbers, references_digest
from auricle.metrics import closed_qa, multilabel, ngrams, tags
from auricle.metrics.fense import PENALTY_RULE, error_penalties, mean_cosine_similarity
from auricle.metrics.intervals import ROUNDS, Score, bootstrap_mean, proportion_interval
from auricle.metrics.normalisers import Unit
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.word_errors import TranscriptPair, error_rates
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

_REFERENCES = ("text", "lang", "label", "question", "choices", "answer")  # fields that say what would be right


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringSettings:
    """What may be chosen; whatever does not belong to a task is not looked at."""

    missing: Missing = "error"  # rows without an answer: refuse the file, or count them as wrong
    unit: Unit | None = None  # of strict error rates; None: by language
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of labels, for strict tagging
    group_by: str = "audio"  # field of the rows; rows that agree in it are resampled together
    rounds: int = ROUNDS  # of the bootstrap
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        """Reject what cannot be computed."""
        if self.rounds < 1:
            raise ConfigError(f"rounds must be at least 1, got {self.rounds}")


class _Found:
    """What a judge of one task fills in."""

    def __init__(self) -> None:
        self.scores: dict[str, Score] = {}
        self.parts: dict[str, dict[str, Score]] = {}
        self.counts: dict[str, float] = {}
        self.items: dict[str, dict[str, float]] = {}
        self.settings: dict[str, Any] = {}


def score_predictions(
    path: str | Path,
    task: LinesTask,
    *,
    protocol: ScoringRule = "strict",
    settings: ScoringSettings | None = None,
    encoder: Callable[[], SentenceEncoder] | None = None,
    detector: ErrorDetector | None = None,
) -> Scored:
    """Score a file of answers.

    Args:
        path: see `auricle.evaluate.predictions`.
        task: ``asr``, ``tagging``, ``gender``, ``multitag``, ``qa`` or ``caption``.
        protocol: ``compat`` as published, ``strict`` as it should be; each module of a metric tells the difference.
        settings: defaults if None.
        encoder: gives the sentence encoder, asked for captions only.
        detector: of errors in captions; without it there is no FENSE.

    Raises:
        DataError: the file cannot be scored; the row is named.
        ConfigError: an unknown task, or captions without an encoder.
        MissingExtra: a normaliser is not installed.
    """
    if task not in LINES_TASKS:
        raise ConfigError(f"task is {task!r}, expected one of {', '.join(LINES_TASKS)}")
    chosen = settings or ScoringSettings()
    predictions = read_predictions(path, task, missing=chosen.missing)
    if protocol == "strict" and task in ("tagging", "multitag") and len(predictions.datasets) > 1:
        raise DataError(
            f"{path}: mixes the labels of {', '.join(predictions.datasets)}; expected one data set, split the file"
        )
    found = _Found()
    groups = _groups(predictions.rows, chosen.group_by, path)
    draw: dict[str, Any] = {"groups": groups, "rounds": chosen.rounds, "seed": chosen.seed}
    if task == "caption":
        if encoder is None:
            raise ConfigError("captions are scored by a sentence encoder; give one")
        _captions(found, predictions.rows, protocol, encoder(), detector, draw)
    elif task == "asr":
        _transcripts(found, predictions.rows, protocol, chosen, draw)
    elif task == "multitag":
        _label_sets(found, predictions.rows, protocol, chosen, draw)
    else:
        _right_or_wrong(found, predictions.rows, task, protocol, chosen, draw)
    if chosen.synonyms and protocol == "strict" and task in ("tagging", "multitag"):
        found.settings["synonyms_sha256"] = references_digest(
            {name: sorted(own) for name, own in chosen.synonyms.items()}
        )
    return Scored(
        task=task,
        protocol=protocol,
        rule=RULES[task, protocol],
        scores=found.scores,
        parts=found.parts,
        counts={"rows": len(predictions.rows), "unanswered": predictions.unanswered, **found.counts},
        items=found.items,
        groups=group_numbers([row.item for row in predictions.rows], groups),
        settings={**found.settings, "group_by": chosen.group_by, "rounds": chosen.rounds, "seed": chosen.seed},
        data=_data(predictions),
    )


def read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """Other names of labels from a JSON file ``{"label": ["name", …]}``.

    Raises:
        DataError: it cannot be read, or is no such object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); expected a JSON object") from None
    is_object = isinstance(content, dict) and all(isinstance(own, list) for own in content.values())
    if not is_object or not all(isinstance(name, str) for own in content.values() for name in own):
        raise DataError(f'{path}: expected {{"label": ["another name", …], …}}')
    found: dict[str, list[str]] = content
    return found


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


def _groups(rows: Sequence[Row], name: str, path: str | Path) -> list[str]:
    if absent := next((row.item for row in rows if row.fields.get(name) is None), None):
        raise DataError(f"{path}: {absent} has no field {name!r} to resample by; name one that every row has")
    # Clips of several sets may share a name.
    return [f"{row.dataset} · {row.fields[name]}" for row in rows]


def _transcripts(
    found: _Found, rows: Sequence[Row], protocol: ScoringRule, chosen: ScoringSettings, draw: Mapping[str, Any]
) -> None:
    transcripts = [TranscriptPair(row.fields["text"], row.said, row.fields["lang"]) for row in rows]
    rates = error_rates(transcripts, rule=protocol, unit=chosen.unit, **draw)
    found.scores["error_rate"] = rates.total
    found.parts = {name: {"error_rate": score} for name, score in rates.languages.items()}
    found.counts = {
        "errors": sum(row.errors for row in rates.rows if row.counts),
        "tokens": sum(row.length for row in rates.rows if row.counts),
        "empty_answers": rates.empty,
        "left_out_by_rule": rates.left_out,
    }
    counted = [(row, each) for row, each in zip(rows, rates.rows, strict=True) if each.counts]
    found.items = {
        "errors": {row.item: float(each.errors) for row, each in counted},
        "tokens": {row.item: float(each.length) for row, each in counted},
    }
    found.settings["units"] = dict(rates.units)


def _right_or_wrong(
    found: _Found,
    rows: Sequence[Row],
    task: str,
    protocol: ScoringRule,
    chosen: ScoringSettings,
    draw: Mapping[str, Any],
) -> None:
    judge = {"tagging": _tagged, "gender": _gendered, "qa": _chosen}[task]
    right, unread, classes = judge(rows, protocol, chosen)
    found.scores["accuracy"] = proportion_interval(right, **draw)
    found.items["accuracy"] = {row.item: float(hit) for row, hit in zip(rows, right, strict=True)}
    found.counts["correct"] = sum(right)
    if unread is not None:
        found.scores["unparseable_rate"] = proportion_interval(unread, **draw)
        found.counts["unparseable"] = sum(unread)
        found.items["unparseable_rate"] = {row.item: float(each) for row, each in zip(rows, unread, strict=True)}
    if task == "qa":
        return
    for name in sorted(set(classes)):
        own = [at for at, each in enumerate(classes) if each == name]
        groups = [draw["groups"][at] for at in own]
        found.parts[name] = {"recall": proportion_interval([right[at] for at in own], **{**draw, "groups": groups})}


_Judged = tuple[list[bool], list[bool] | None, list[str]]  # right, unreadable, what it should have been


def _tagged(rows: Sequence[Row], protocol: ScoringRule, chosen: ScoringSettings) -> _Judged:
    labels = [row.texts("label")[0] for row in rows]
    if protocol == "compat":
        right = [tags.contains_label_compat(label, row.said) for label, row in zip(labels, rows, strict=True)]
        return right, None, labels
    several = next((row.item for row in rows if len(row.texts("label")) > 1), None)
    if several:
        raise DataError(f"{several}: has several labels, expected one; score the file as multitag")
    naming = tags.LabelMatcher([*labels, *chosen.synonyms], chosen.synonyms)
    named = [tags.single_label(row.said, naming) for row in rows]
    right = [found == tags.plain(label) for found, label in zip(named, labels, strict=True)]
    return right, [each is None for each in named], labels


def _gendered(rows: Sequence[Row], protocol: ScoringRule, chosen: ScoringSettings) -> _Judged:
    labels = [row.texts("label")[0] for row in rows]
    if protocol == "compat":
        named: list[str | None] = [tags.gender_of_compat(row.said) for row in rows]
        return [found == label for found, label in zip(named, labels, strict=True)], None, labels
    if unknown := sorted(set(map(tags.plain, labels)) - set(tags.GENDERS)):
        raise DataError(f"labels are {', '.join(map(repr, unknown[:5]))}, expected {' and '.join(tags.GENDERS)}")
    named = [tags.single_label(row.said, tags.gender_matcher()) for row in rows]
    right = [found == tags.plain(label) for found, label in zip(named, labels, strict=True)]
    return right, [each is None for each in named], labels


def _chosen(rows: Sequence[Row], protocol: ScoringRule, chosen: ScoringSettings) -> _Judged:
    answers = [row.texts("answer")[0] for row in rows]
    choices = [row.texts("choices") for row in rows]
    if protocol == "compat":
        pairs = zip(answers, rows, choices, strict=True)
        return [closed_qa.is_right_compat(answer, row.said, own) for answer, row, own in pairs], None, answers
    given = [at for at, own in enumerate(choices) if own]
    truth = dict(
        zip(given, closed_qa.right_choices([answers[at] for at in given], [choices[at] for at in given]), strict=True)
    )
    right, unread = [], []
    for at, row in enumerate(rows):
        number = closed_qa.choice_of(row.said, choices[at]) if choices[at] else None
        right.append(number == truth[at] if choices[at] else closed_qa.contains_answer(answers[at], row.said))
        unread.append(number is None if choices[at] else not tags.plain(row.said))
    return right, unread, answers


def _label_sets(
    found: _Found, rows: Sequence[Row], protocol: ScoringRule, chosen: ScoringSettings, draw: Mapping[str, Any]
) -> None:
    unknown: list[int] | None = None
    if protocol == "compat":
        references = [[label.lower() for label in row.texts("label")] for row in rows]
        answers: list[Any] = [tags.split_labels_compat(row.said, dataset=row.dataset, model=row.model) for row in rows]
    else:
        references = [[tags.plain(label) for label in row.texts("label")] for row in rows]
        naming = tags.LabelMatcher((label for row in rows for label in row.texts("label")), chosen.synonyms)
        split = [tags.split_labels(row.said, naming) for row in rows]
        answers, unknown = [each.known for each in split], [each.unknown for each in split]
    scored = multilabel.multilabel_scores(references, answers, unknown=unknown, **draw)
    found.scores = {"mAP": scored.mAP, "micro_f1": scored.micro_f1, "macro_f1": scored.macro_f1}
    found.counts = {
        "labels": len(scored.average_precision),
        "unknown_labels": scored.unknown,
        "empty_answers": sum(not tags.plain(row.said) for row in rows),
    }
    found.items["f1"] = {row.item: value for row, value in zip(rows, scored.f1, strict=True)}
    found.settings["average_precision"] = dict(scored.average_precision)


def _captions(
    found: _Found,
    rows: Sequence[Row],
    protocol: ScoringRule,
    encoder: SentenceEncoder,
    detector: ErrorDetector | None,
    draw: Mapping[str, Any],
) -> None:
    said = [row.said for row in rows]
    references = [_references(row, protocol) for row in rows]
    owners = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(own) for own in references]))
    vectors = encoder.encode([*said, *(text for own in references for text in own)])
    values: dict[str, list[float]] = {
        "sbert": mean_cosine_similarity(vectors[: len(rows)], vectors[len(rows) :], owners).tolist()
    }
    if protocol == "strict":  # an empty sentence has a vector too, which is near to some others
        values["sbert"] = [each if tags.plain(text) else 0.0 for each, text in zip(values["sbert"], said, strict=True)]
    if detector is not None:
        factors = error_penalties(detector.probabilities(said))
        values["fense"] = (np.array(values["sbert"]) * factors).tolist()
        found.counts["penalised"] = int((factors < 1).sum())
    for order, scores in enumerate(zip(*map(ngrams.sentence_bleu, said, references), strict=True), 1):
        values[f"bleu{order}_of_sentences"] = list(scores)
    found.scores = {name: bootstrap_mean(own, **draw) for name, own in values.items()}
    found.scores["bleu"] = ngrams.corpus_bleu(said, references, **draw)
    found.scores["chrf"] = ngrams.corpus_chrf(said, references, **draw)
    values["chrf"] = list(map(ngrams.sentence_chrf, said, references))
    found.items = {name: dict(zip((row.item for row in rows), own, strict=True)) for name, own in values.items()}
    found.counts["empty_answers"] = sum(not tags.plain(text) for text in said)
    found.settings = {
        "encoder": encoder.identity,
        "error_detector": None if detector is None else {**detector.identity, **PENALTY_RULE},
        "bleu": ngrams.BLEU_SIGNATURE,
        "chrf": ngrams.CHRF_SIGNATURE,
    }


def _references(row: Row, protocol: ScoringRule) -> tuple[str, ...]:
    texts = row.texts("text" if row.fields.get("text") is not None else "answer")
    question = row.fields.get("question")
    if protocol == "strict" and isinstance(question, str):
        # MusicQA's answers repeat the question, which every answer of a model would have to do too.
        return tuple(text.removeprefix(f"{question}:").strip() or text for text in texts)
    return texts
