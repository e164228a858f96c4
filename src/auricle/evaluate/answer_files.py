"""Questions and replies → the file of answers that is scored, and its scores.

Of most tasks it is the file of `auricle.evaluate.predictions`, a question without a reply with ``model_output`` null;
of MECAT that of `auricle.evaluate.mecat.read_answers`, beside the references of what was asked.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from auricle.errors import ConfigError
from auricle.evaluate.generate import Reply
from auricle.evaluate.mecat_scores import score_mecat
from auricle.evaluate.predictions import Missing
from auricle.evaluate.question import Question
from auricle.evaluate.score_answers import ScoringSettings, score_predictions
from auricle.evaluate.scores import Scored
from auricle.evaluate.task import LanguageTask
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

ANSWERS, REFERENCES = "answers.jsonl", "references"


def answer_files(
    task: LanguageTask, questions: Sequence[Question], replies: Sequence[Reply], *, model_name: str
) -> dict[str, bytes]:
    """Contents by name, relative to the folder of a run: answers, and of MECAT the references.

    Args:
        task: that was asked.
        questions: of it.
        replies: in the order of the questions.
        model_name: stands in every row.
    """
    pairs = list(zip(questions, replies, strict=True))
    if task.judge != "mecat":
        return {ANSWERS: _lines(_row(question, reply, model_name) for question, reply in pairs)}
    answers: dict[str, Any] = {}
    domains: dict[str, dict[str, Any]] = {}
    for question, reply in pairs:
        row = question.row
        entry = domains.setdefault(row["domain"], {}).setdefault(row["id"], {"domain": row["domain"]})
        if question.field:
            entry[question.field] = row["text"]
            if reply.text is not None:
                answers.setdefault(row["id"], {})[question.field] = reply.text
        else:
            entry |= {name: row[name] for name in ("category", "difficulty", "question", "answer")}
            if reply.text is not None:
                answers[row["id"]] = reply.text
    return {
        ANSWERS: _lines({name: said} for name, said in answers.items()),
        **{
            f"{REFERENCES}/{domain}.jsonl": _lines({name: entry} for name, entry in own.items())
            for domain, own in domains.items()
        },
    }


def score_answers(
    folder: Path,
    task: LanguageTask,
    *,
    protocol: ScoringRule,
    missing: Missing = "error",
    encoder: Callable[[], SentenceEncoder] | None = None,
    detector: ErrorDetector | None = None,
    seed: int = 0,
) -> Scored:
    """Score the file of answers in a folder, as ``auricle evaluate score`` does.

    Args:
        folder: with what `answer_files` gives.
        task: that was asked.
        protocol: ``compat`` or ``strict``.
        missing: answers count as the worst, or are an error.
        encoder: gives that of sentences; asked for captions only.
        detector: of errors in captions; without it there is no FENSE.
        seed: of the resampling.

    Raises:
        DataError: answers are missing and that is an error, or a row cannot be scored.
        ConfigError: captions without an encoder.
    """
    path = folder / ANSWERS
    if task.judge == "mecat":
        if encoder is None:
            raise ConfigError("captions are scored by a sentence encoder; give one")
        return score_mecat(
            {"": path},
            folder / REFERENCES,
            encoder(),
            protocol=protocol,
            detector=detector,
            missing=missing,
            seed=seed,
        )
    settings = ScoringSettings(missing=missing, synonyms=task.synonyms, group_by=task.group_by, seed=seed)
    own_detector = detector if task.judge == "caption" else None
    return score_predictions(
        path, task.judge, protocol=protocol, settings=settings, encoder=encoder, detector=own_detector
    )


def utf8(text: str) -> bytes:
    """Bytes of a text with JSON in it; what UTF-8 cannot hold, as parts of odd file names, becomes JSON's escape."""
    return text.encode("utf-8", "backslashreplace")


def _lines(rows: Iterator[Mapping[str, Any]]) -> bytes:
    return utf8("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def _row(question: Question, reply: Reply, model_name: str) -> dict[str, Any]:
    first = ("dataset_name", "audio", "prompt")
    return {
        **{name: question.row[name] for name in first},
        "model_output": reply.text,
        "model_name": model_name,
        **{name: value for name, value in question.row.items() if name not in (*first, "model_output", "model_name")},
    }
