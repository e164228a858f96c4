"""A task put to a model: ask, write the file of answers, score it.

``OUT/MODEL/TASK/`` holds

=================  ===================================================================================================
run.json           what was asked of whom, which clips failed or were heard in part
answers.jsonl      see `auricle.evaluate.answer_files`; ``synonyms.json`` beside it where the task has some
strict.json        its scores, `auricle.evaluate.scores.Scored`; ``compat.json`` by the published rules
=================  ===================================================================================================

No file tells when or how fast: the same run gives the same bytes. Scores that lie beside answers belong to them.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

from auricle import __version__
from auricle.engine.request import SamplingParams
from auricle.errors import ConfigError, DataError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.answer_files import ANSWERS, REFERENCES, answer_files, score_answers, utf8
from auricle.evaluate.generate import AsksEach, Reply, ask_questions
from auricle.evaluate.predictions import Missing
from auricle.evaluate.question import Question
from auricle.evaluate.scores import Scored
from auricle.evaluate.task import LanguageTask
from auricle.files import make_folder, safe_file_name, write_bytes
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

FORMAT = "auricle-run/1"
_NAMED = 5  # clips in a message


class Share(NamedTuple):
    """A part of all sounds; the same ones on every machine."""

    number: int  # from 0
    of: int

    def split(self, parts: int) -> list["Share"]:
        """This share in ``parts`` shares."""
        return [Share(self.number + self.of * part, self.of * parts) for part in range(parts)]

    def has(self, sound: str) -> bool:
        """Whether a sound, by its name, is in it: all questions about a sound are in one share."""
        digest = sha256(sound.encode("utf-8", "surrogatepass")).digest()
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


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """What became of a task, or of a share of it."""

    folder: Path | None  # with the files; None for a share, which is only asked
    questions: Sequence[Question]
    replies: Sequence[Reply]
    scored: dict[ScoringRule, Scored] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Why sounds have no answer, by name."""
        pairs = zip(self.questions, self.replies, strict=True)
        return {question.sound.name: reply.error for question, reply in pairs if reply.error is not None}

    @property
    def partial(self) -> list[str]:
        """Names of sounds that were heard in part."""
        pairs = zip(self.questions, self.replies, strict=True)
        return list(dict.fromkeys(q.sound.name for q, reply in pairs if reply.error is None and not reply.complete))


def run_task(
    model: AsksEach,
    task: LanguageTask,
    questions: Sequence[Question],
    out: str | Path,
    *,
    source: str = "",
    protocols: Sequence[ScoringRule] = ("strict",),
    missing: Missing = "error",
    share: Share = WHOLE,
    cache: AnswerCache | None = None,
    sampling: SamplingParams | None = None,
    batch_size: int = 8,
    encoder: Callable[[], SentenceEncoder] | None = None,
    detector: ErrorDetector | None = None,
    seed: int = 0,
    on_answer: Callable[[Question, Reply], None] | None = None,
) -> TaskRun:
    """Ask a model all questions of a task, or a share of them, and score its answers.

    Args:
        model: a listener.
        task: that the questions are of.
        questions: all of them, in the order of the source.
        out: see above.
        source: of the questions, as the user called it.
        protocols: by which the answers are scored.
        missing: questions without an answer: ``error``, answers are written and not scored; or ``worst``.
        share: of the sounds; less than all are only asked, for a later run that finds their answers in the cache.
        cache: of answers.
        sampling: how tokens are chosen; None: greedily, up to the task's number of tokens.
        batch_size: questions in one batch.
        encoder: gives that of sentences; asked for captions only.
        detector: of errors in captions.
        seed: of the resampling.
        on_answer: told of every question as soon as its reply is known.

    Raises:
        DataError: rows cannot be scored, or files cannot be written; answers that came are in the cache.
        ConfigError: a setting out of range.
    """
    chosen = sampling or SamplingParams(max_new_tokens=task.max_new_tokens)
    asked = [question for question in questions if share.has(question.sound.name)]
    replies = ask_questions(model, asked, cache=cache, sampling=chosen, batch_size=batch_size, on_answer=on_answer)
    folder = run_folder(out, model.model, task) if share == WHOLE else None
    run = TaskRun(folder=folder, questions=asked, replies=replies)
    if run.folder is None:
        return run
    _write_answers(run.folder, task, run, model, chosen, source, protocols)
    if run.failed and missing == "error":
        return run
    for protocol in protocols:
        scored = score_answers(
            run.folder, task, protocol=protocol, missing=missing, encoder=encoder, detector=detector, seed=seed
        )
        write_bytes(run.folder / f"{protocol}.json", utf8(scored.to_json()))
        run.scored[protocol] = scored
    return run


def score_questions(
    task: LanguageTask,
    questions: Sequence[Question],
    replies: Sequence[Reply],
    *,
    model_name: str,
    protocol: ScoringRule = "strict",
    missing: Missing = "error",
    encoder: Callable[[], SentenceEncoder] | None = None,
    detector: ErrorDetector | None = None,
    seed: int = 0,
) -> Scored:
    """The scores that `run_task` would write.

    Raises:
        DataError: questions without an answer where that is an error, or rows that cannot be scored.
        ConfigError: captions without an encoder.
    """
    if missing == "error":
        _check_answered(questions, replies)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for relative, content in answer_files(task, questions, replies, model_name=model_name).items():
            (folder / relative).parent.mkdir(exist_ok=True)
            (folder / relative).write_bytes(content)
        try:
            return score_answers(
                folder, task, protocol=protocol, missing=missing, encoder=encoder, detector=detector, seed=seed
            )
        except DataError as error:  # there will be no such file
            raise DataError(str(error).replace(f"{folder / ANSWERS}", task.name)) from None


def run_folder(out: str | Path, model_name: str, task: LanguageTask) -> Path:
    """Where the files of a model and a task lie; two names of models never share a folder."""
    return Path(out) / safe_file_name(model_name) / task.name


def _write_answers(
    folder: Path,
    task: LanguageTask,
    run: TaskRun,
    model: AsksEach,
    sampling: SamplingParams,
    source: str,
    protocols: Sequence[ScoringRule],
) -> None:
    files = answer_files(task, run.questions, run.replies, model_name=model.model)
    told = _told(task, run, model, sampling, source, files)
    stays = all(_holds(folder / name, content) for name, content in files.items())
    for protocol in get_args(ScoringRule):
        if not stays or protocol in protocols:
            (folder / f"{protocol}.json").unlink(missing_ok=True)
    if not stays:
        for stale in (folder / REFERENCES).glob("*.jsonl"):
            stale.unlink()
    if task.synonyms:  # for whoever scores the answers again
        names = json.dumps({label: list(own) for label, own in task.synonyms.items()}, ensure_ascii=False, indent=1)
        files = {**files, "synonyms.json": utf8(names + "\n")}
    for name, content in {**files, "run.json": utf8(told)}.items():
        make_folder((folder / name).parent)
        write_bytes(folder / name, content)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _told(
    task: LanguageTask,
    run: TaskRun,
    model: AsksEach,
    sampling: SamplingParams,
    source: str,
    files: dict[str, bytes],
) -> str:
    rows = json.dumps([[each.field, dict(each.row)] for each in run.questions], sort_keys=True)
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": model.model,
        "fingerprint": model.fingerprint,
        "task": task.name,
        "title": task.title,
        "suite": task.suite,
        "judge": task.judge,
        "source": source,
        "prompts": dict(task.prompts),
        "decoding": asdict(sampling),
        "counts": {
            "sounds": len({question.sound.name for question in run.questions}),
            "questions": len(run.questions),
            "answered": sum(reply.text is not None for reply in run.replies),
            "sounds_failed": len(run.failed),
            "sounds_heard_in_part": len(run.partial),
        },
        "failed": [{"audio": name, "error": error} for name, error in run.failed.items()],
        "heard_in_part": run.partial,
        "questions_sha256": sha256(rows.encode()).hexdigest(),
        "answers_sha256": sha256(files[ANSWERS]).hexdigest(),
        "version": __version__,
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _check_answered(questions: Sequence[Question], replies: Sequence[Reply]) -> None:
    failed = TaskRun(folder=None, questions=questions, replies=replies).failed
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        named = "; ".join(list(failed.values())[:_NAMED])
        raise DataError(
            f"{len(failed)} sounds have no answer: {named}{more}; mend or leave them out, or count them as wrong with "
            "missing answers taken as worst"
        )
