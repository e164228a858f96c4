"""One model, one task, and how answers are had and judged: what stays the same while sounds or prompts are changed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from auricle.engine.request import SamplingParams
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.generate import AsksEach, Reply, ask_questions
from auricle.evaluate.headline import measure
from auricle.evaluate.predictions import Missing
from auricle.evaluate.question import Question
from auricle.evaluate.run import score_questions
from auricle.evaluate.scores import Scored
from auricle.evaluate.task import LanguageTask
from auricle.metrics.intervals import ROUNDS
from auricle.metrics.paired import Measured
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder


class Examined(NamedTuple):
    """Answers to some questions and what they are worth."""

    scored: Scored
    measured: Measured
    replies: Sequence[Reply]

    @property
    def failed(self) -> int:
        """Questions without an answer."""
        return sum(reply.error is not None for reply in self.replies)

    @property
    def partial(self) -> int:
        """Answers to sounds that were heard in part."""
        return sum(reply.error is None and not reply.complete for reply in self.replies)


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Asks a model and scores its answers."""

    model: AsksEach
    task: LanguageTask
    protocol: ScoringRule = "strict"
    missing: Missing = "error"  # questions without an answer: no score at all, or count them as wrong
    cache: AnswerCache | None = None  # None: nothing is kept
    sampling: SamplingParams | None = None  # None: greedily, up to the task's number of tokens
    batch_size: int = 8
    encoder: Callable[[], SentenceEncoder] | None = None  # asked for captions only
    detector: ErrorDetector | None = None  # of errors in captions
    rounds: int = ROUNDS  # of the resampling
    seed: int = 0  # of the resampling
    on_answer: Callable[[Question, Reply], None] | None = None  # told of every question as its reply is known

    def examine(self, questions: Sequence[Question]) -> Examined:
        """Ask and score.

        Raises:
            DataError: answers are missing and that is an error, or rows cannot be scored.
        """
        replies = ask_questions(
            self.model,
            questions,
            cache=self.cache,
            sampling=self.sampling or SamplingParams(max_new_tokens=self.task.max_new_tokens),
            batch_size=self.batch_size,
            on_answer=self.on_answer,
        )
        scored = score_questions(
            self.task,
            questions,
            replies,
            model_name=self.model.model,
            protocol=self.protocol,
            missing=self.missing,
            encoder=self.encoder,
            detector=self.detector,
            seed=self.seed,
        )
        return Examined(scored, measure(scored), replies)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers besides the questions, as JSON holds it."""
        return {
            "model": self.model.model,
            "fingerprint": self.model.fingerprint,
            "task": self.task.name,
            "title": self.task.title,
            "protocol": self.protocol,
            "missing": self.missing,
            "decoding": asdict(self.sampling or SamplingParams(max_new_tokens=self.task.max_new_tokens)),
            "group_by": self.task.group_by,
            "rounds": self.rounds,
            "seed": self.seed,
        }
