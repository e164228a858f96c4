"""A model on a task: generate answers, write them, score them.

``OUT/MODEL/TASK/`` holds

=================  ===================================================================================================
run.json           the model, the task and its prompts, the clips that failed or were processed in part
answers.jsonl      see `auricle.evaluate.predictions`; ``synonyms.json`` beside it where the task has some
strict.json        its scores, `auricle.evaluate.scores.Scored`; ``compat.json`` by the published rules
=================  ===================================================================================================

No file holds a time: the same run gives the same bytes. Scores beside answers are always those of these answers.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, get_args

from auricle import __version__
from auricle.audio.decode import as_clip
from auricle.data.acoustic_fingerprint import acoustic_fingerprint
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError, DataError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.generate import AnswersQuestions, Reply, generate_answers
from auricle.evaluate.mecat import MecatPredictions
from auricle.evaluate.predictions import ANSWERS, REFERENCES, Predictions, RunPredictions, run_predictions, utf8
from auricle.evaluate.questions import Question
from auricle.evaluate.score_answers import score_predictions
from auricle.evaluate.scores import Scored, ScoringConfig, measure
from auricle.evaluate.sources import AudioFile
from auricle.evaluate.task import LanguageTask
from auricle.files import atomic_folder, locked, make_folder, safe_file_name, write_bytes
from auricle.metrics.paired import Measured
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.cards import TrainingClips

FORMAT = "auricle-run/1"
_NAMED = 5  # clips in a message


class Share(NamedTuple):
    """A part of all clips; the same ones on every machine."""

    number: int  # from 0
    of: int

    def split(self, parts: int) -> list["Share"]:
        """This share in ``parts`` shares."""
        return [Share(self.number + self.of * part, self.of * parts) for part in range(parts)]

    def has(self, clip: str) -> bool:
        """Whether a clip, by its name, is in it: all questions about a clip are in one share."""
        digest = sha256(clip.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number


WHOLE = Share(0, 1)


def read_share(text: str) -> Share:
    """The share called ``K/N``, counted from 0.

    Raises:
        ConfigError: no such share.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    share = Share(int(found[1]), int(found[2])) if found else None
    if share is None or share.number >= share.of:
        raise ConfigError(f"share is {text!r}, expected K/N with K from 0 to N-1, as 0/4")
    return share


class Evaluation(NamedTuple):
    """The answers to some questions and their scores."""

    replies: Sequence[Reply]
    items: Sequence[str]  # names of the questions in the scores; of MECAT nothing, where names are those of clips
    scored: Scored
    measured: Measured

    @property
    def failed(self) -> int:
        """Questions without an answer."""
        return sum(reply.error is not None for reply in self.replies)

    @property
    def partial(self) -> int:
        """Answers about clips that were processed in part."""
        return sum(reply.error is None and not reply.complete for reply in self.replies)


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A model on a task: how answers are generated and scored."""

    model: AnswersQuestions
    task: LanguageTask
    scoring: ScoringConfig = field(default_factory=ScoringConfig)  # groups and synonyms are those of the task
    cache: AnswerCache | None = None  # None: nothing is kept
    sampling: SamplingParams | None = None  # None: greedy, up to the task's number of tokens
    batch_size: int = 8  # questions in one batch
    on_reply: Callable[[Question, Reply], None] | None = None  # called for every question as its reply is known
    training: TrainingClips | None = None  # clips that the model was trained on; None: not known

    def evaluate(self, questions: Sequence[Question]) -> Evaluation:
        """Answers to questions and their scores; nothing is written but answers into the cache.

        Raises:
            DataError: an answer is missing and that is an error, or rows cannot be scored.
            ConfigError: captions without a sentence encoder.
        """
        replies = self.generate(questions)
        if self.scoring.missing == "error":
            _check_answered(questions, replies)
        parsed = self.predictions(questions, replies).parse(self.task.name)
        scored = self.score(parsed)
        items = [row.item for row in parsed.rows] if isinstance(parsed, Predictions) else []
        return Evaluation(replies, items, scored, measure(scored))

    def generate(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies in the order of the questions, see `generate_answers`."""
        return generate_answers(
            self.model,
            questions,
            cache=self.cache,
            sampling=self._sampling,
            batch_size=self.batch_size,
            on_reply=self.on_reply,
        )

    def predictions(self, questions: Sequence[Question], replies: Sequence[Reply]) -> RunPredictions:
        """Rows of files, with the name of the model."""
        return run_predictions(self.task, questions, replies, model_name=self.model.model)

    def score(self, predictions: Predictions | MecatPredictions, scoring_rule: ScoringRule | None = None) -> Scored:
        """Scores by the given rule, or by that of `scoring`."""
        config = replace(
            self.scoring,
            scoring_rule=scoring_rule or self.scoring.scoring_rule,
            group_by=self.task.group_by,
            synonyms=self.task.synonyms,
        )
        return score_predictions(predictions, config)

    def identity(self) -> dict[str, Any]:
        """Everything besides the questions that decides the numbers, as JSON holds it."""
        return {
            "model": self.model.model,
            "fingerprint": self.model.fingerprint,
            "task": self.task.name,
            "title": self.task.title,
            "protocol": self.scoring.scoring_rule,
            "missing": self.scoring.missing,
            "decoding": asdict(self._sampling),
            "group_by": self.task.group_by,
            "rounds": self.scoring.rounds,
            "seed": self.scoring.seed,
        }

    @property
    def _sampling(self) -> SamplingParams:
        return self.sampling or SamplingParams(max_new_tokens=self.task.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """The result of a task, or of a share of it."""

    folder: Path | None  # with the files; None for a share, which is not scored
    questions: Sequence[Question]
    replies: Sequence[Reply]
    scored: dict[ScoringRule, Scored] = field(default_factory=dict)
    contamination: Mapping[str, Any] = field(default_factory=dict)  # clips that the model was trained on

    @property
    def failed(self) -> dict[str, str]:
        """Why clips have no answer, by name."""
        return _failed(self.questions, self.replies)

    @property
    def partial(self) -> list[str]:
        """Names of clips that were processed in part."""
        pairs = zip(self.questions, self.replies, strict=True)
        return list(dict.fromkeys(q.audio.name for q, reply in pairs if reply.error is None and not reply.complete))


def run_task(
    evaluator: Evaluator,
    questions: Sequence[Question],
    out: str | Path,
    *,
    source: str = "",
    scoring_rules: Sequence[ScoringRule] = ("strict",),
    share: Share = WHOLE,
) -> TaskRun:
    """Generate the answers of a model to all questions of a task, or a share of them, and score them.

    Args:
        evaluator: the model and the task; where missing answers are an error and there are some, the answers are
            written and not scored.
        questions: all of them, in the order of the source.
        out: see above.
        source: of the questions, as the user named it.
        scoring_rules: by which the answers are scored.
        share: of the clips; less than all are not scored, a later run finds their answers in the cache.

    Raises:
        DataError: rows cannot be scored, or files cannot be written; generated answers are in the cache.
        ConfigError: a setting out of range.
        OutputError: another run is writing the folder of this model and task.
    """
    own = [question for question in questions if share.has(question.audio.name)]
    if share != WHOLE:
        return TaskRun(folder=None, questions=own, replies=evaluator.generate(own))
    folder = make_folder(run_folder(out, evaluator.model.model, evaluator.task))
    with locked(folder):
        contamination = _contamination(own, evaluator.training)
        run = TaskRun(folder=folder, questions=own, replies=evaluator.generate(own), contamination=contamination)
        predictions = evaluator.predictions(own, run.replies)
        try:
            if not run.failed or evaluator.scoring.missing != "error":
                parsed = predictions.parse(str(folder / ANSWERS))
                for scoring_rule in scoring_rules:
                    run.scored[scoring_rule] = evaluator.score(parsed, scoring_rule)
        finally:  # answers that cannot be scored are worth a look
            about = _about(evaluator, run, source, predictions.files[ANSWERS])
            _write(folder, run, {**predictions.files, **about}, scoring_rules)
    return run


def run_folder(out: str | Path, model_name: str, task: LanguageTask) -> Path:
    """The folder of a model and a task; two names of models never share one."""
    return Path(out) / safe_file_name(model_name) / task.name


def _write(folder: Path, run: TaskRun, files: Mapping[str, bytes], scoring_rules: Sequence[ScoringRule]) -> None:
    """Replace what the folder has, all or nothing; scores of other answers go before these answers come."""
    answers = [name for name in files if name == ANSWERS or name.startswith(f"{REFERENCES}/")]
    is_same = all((path := folder / name).is_file() and path.read_bytes() == files[name] for name in answers)
    scores = {f"{scoring_rule}.json": utf8(scored.to_json()) for scoring_rule, scored in run.scored.items()}
    stale = [] if is_same else [f"{REFERENCES}/*.jsonl"]
    with atomic_folder(folder, last="run.json", stale=stale) as aside:
        for name, content in {**files, **scores}.items():
            write_bytes(make_folder((aside / name).parent) / Path(name).name, content)
        for scoring_rule in get_args(ScoringRule):
            if not is_same or scoring_rule in scoring_rules:
                (folder / f"{scoring_rule}.json").unlink(missing_ok=True)


def _about(evaluator: Evaluator, run: TaskRun, source: str, answers: bytes) -> dict[str, bytes]:
    """``run.json``, and what is needed to score the answers again."""
    about = {"run.json": utf8(_run_json(evaluator, run, source, answers))}
    if synonyms := evaluator.task.synonyms:
        names = json.dumps({label: list(own) for label, own in synonyms.items()}, ensure_ascii=False, indent=1)
        about["synonyms.json"] = utf8(names + "\n")
    return about


def _run_json(evaluator: Evaluator, run: TaskRun, source: str, answers: bytes) -> str:
    task, identity = evaluator.task, evaluator.identity()
    rows = json.dumps([[each.field, dict(each.row)] for each in run.questions], sort_keys=True)
    content: dict[str, Any] = {
        "format": FORMAT,
        **{name: identity[name] for name in ("model", "fingerprint", "task", "title")},
        "suite": task.suite,
        "judge": task.kind,
        "source": source,
        "prompts": dict(task.prompts),
        "decoding": identity["decoding"],
        "counts": {
            "sounds": len({question.audio.name for question in run.questions}),
            "questions": len(run.questions),
            "answered": sum(reply.text is not None for reply in run.replies),
            "sounds_failed": len(run.failed),
            "sounds_heard_in_part": len(run.partial),
        },
        "failed": [{"audio": name, "error": error} for name, error in run.failed.items()],
        "heard_in_part": run.partial,
        "contamination": run.contamination,
        "questions_sha256": sha256(rows.encode()).hexdigest(),
        "answers_sha256": sha256(answers).hexdigest(),
        "version": __version__,
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _contamination(questions: Sequence[Question], training: TrainingClips | None) -> dict[str, Any]:
    """The clips that a model was trained on: a score on them is no held-out score. Read only where some are known."""
    clips = {question.audio.name: question.audio for question in questions}
    held: list[str] = []
    if training is not None:
        is_held = training.holds([_fingerprint(audio) for audio in clips.values()])
        held = [name for name, found in zip(clips, is_held, strict=True) if found]
    return {
        "known": training is not None,
        "sets": [] if training is None else list(training.sets),
        "sounds": len(held),
        "share": round(len(held) / max(1, len(clips)), 6),
        "items": held,
    }


def _fingerprint(audio: AudioFile) -> bytes | None:
    try:
        return acoustic_fingerprint(as_clip(audio.read()).waveform)
    except AuricleError:  # reported where the question is answered
        return None


def _failed(questions: Sequence[Question], replies: Sequence[Reply]) -> dict[str, str]:
    pairs = zip(questions, replies, strict=True)
    return {question.audio.name: reply.error for question, reply in pairs if reply.error is not None}


def _check_answered(questions: Sequence[Question], replies: Sequence[Reply]) -> None:
    if failed := _failed(questions, replies):
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        named = "; ".join(list(failed.values())[:_NAMED])
        raise DataError(
            f"{len(failed)} clips have no answer: {named}{more}; fix them or leave them out, or count them as wrong "
            "with missing answers taken as worst"
        )
